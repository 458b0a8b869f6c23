//! Slopes of attention with linear biases (<https://arxiv.org/abs/2108.12409>).

/// A slope for each head, times `factor`. For a power of two, `2^(-8 i / n)` with `i` from one;
/// other numbers of heads add every second slope of twice the power of two below.
pub(crate) fn slopes(n_heads: usize, factor: f32) -> Vec<f32> {
    let power = 1 << n_heads.ilog2();
    let slope = |i: usize, n: usize| (-8.0 * i as f64 / n as f64).exp2();
    let whole = (1..=power).map(|i| slope(i, power));
    let between = (0..n_heads - power).map(|i| slope(2 * i + 1, 2 * power));
    let all = whole.chain(between);
    all.map(|slope| (slope * f64::from(factor)) as f32)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::slopes;

    #[test]
    fn slopes_of_any_number_of_heads() {
        assert_eq!(slopes(1, 1.0), [1.0 / 256.0]);
        assert_eq!(
            slopes(4, 0.5),
            [0.125, 0.031_25, 0.007_812_5, 0.001_953_125]
        );
        let six = slopes(6, 1.0);
        assert_eq!(six[..4], [0.25, 0.0625, 0.015_625, 0.003_906_25]);
        assert_eq!(six[4..], [0.5, 0.125]);
    }
}
