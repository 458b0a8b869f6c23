//! Reference of low-rank parts.

/// `y + weight * column_scale * (B (scales * (A x)))` for one row: `a` is `[rank, n_in]`, `b`
/// `[n_out, rank]`.
pub fn add_low_rank(
    y: &mut [f64],
    x: &[f32],
    (a, scales, b): (&[f32], &[f32], &[f32]),
    column_scale: Option<&[f32]>,
    weight: f32,
) {
    let rank = scales.len();
    let dot = |a: &[f32]| -> f64 {
        let products = a.iter().zip(x);
        products.map(|(&a, &x)| f64::from(a) * f64::from(x)).sum()
    };
    let inner = a.chunks_exact(x.len()).zip(scales);
    let inner: Vec<f64> = inner.map(|(a, &scale)| f64::from(scale) * dot(a)).collect();
    for (i, (y, b)) in y.iter_mut().zip(b.chunks_exact(rank)).enumerate() {
        let sum: f64 = b.iter().zip(&inner).map(|(&b, h)| f64::from(b) * h).sum();
        let scale = column_scale.map_or(1.0, |scale| f64::from(scale[i]));
        *y += f64::from(weight) * scale * sum;
    }
}
