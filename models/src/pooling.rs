//! Vectors of prompts from the final states of a decoder.

use scheduler::{Pooling, PoolingSpec};

/// The row's answer to a pooling spec. `states`: `[row.tokens.len(), width]`, normed, of the
/// row. The sum grows position by position, so that it does not depend on where chunks begin.
///
/// # Errors
/// A state is not a number, or the model is no encoder.
pub(crate) fn pool(spec: &PoolingSpec, states: &[f32], width: usize) -> Result<Vec<f64>, String> {
    let vector = match spec.pooling {
        Pooling::Last => states[states.len() - width..]
            .iter()
            .copied()
            .map(f64::from)
            .collect(),
        Pooling::Mean => {
            let mut sum = match spec.sum.len() {
                0 => vec![0.0; width],
                n if n == width => spec.sum.to_vec(),
                n => return Err(format!("a sum of {n} values for states of {width}")),
            };
            for state in states.chunks_exact(width).skip(spec.first as usize) {
                for (sum, &x) in sum.iter_mut().zip(state) {
                    *sum += f64::from(x);
                }
            }
            sum
        }
        Pooling::Encoded => return Err("the model is a decoder, not an encoder".to_owned()),
    };
    if vector.iter().all(|x| x.is_finite()) {
        Ok(vector)
    } else {
        Err("the model's states are not numbers".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(pooling: Pooling, first: u32, sum: &[f64]) -> PoolingSpec {
        PoolingSpec {
            pooling,
            prompt: [].into(),
            first,
            sum: sum.into(),
        }
    }

    #[test]
    fn sums_go_on_where_they_stopped() {
        let states = [0.1_f32, 2.0, 0.3, -4.0, 0.7, 6.0];
        let whole = pool(&spec(Pooling::Mean, 0, &[]), &states, 2).unwrap();
        let half = pool(&spec(Pooling::Mean, 0, &[]), &states[..2], 2).unwrap();
        assert_eq!(
            pool(&spec(Pooling::Mean, 0, &half), &states[2..], 2).unwrap(),
            whole
        );
        assert_eq!(
            pool(&spec(Pooling::Mean, 1, &half), &states, 2).unwrap(),
            whole
        );
        assert_eq!(whole[1], 4.0);
    }

    #[test]
    fn what_cannot_be_pooled_is_an_error() {
        assert!(pool(&spec(Pooling::Last, 0, &[]), &[1.0, f32::NAN], 2).is_err());
        assert!(pool(&spec(Pooling::Encoded, 0, &[]), &[1.0, 1.0], 2).is_err());
        assert!(pool(&spec(Pooling::Mean, 0, &[1.0]), &[1.0, 1.0], 2).is_err());
    }
}
