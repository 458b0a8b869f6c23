//! What a batch asks of a machine, in counts.

use scheduler::Batch;

/// Counts of one batch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Shape {
    /// Rows of the linear layers.
    pub(crate) n_tokens: f64,
    /// Rows of the output layer.
    pub(crate) n_samples: f64,
    /// Pairs of a query and a key that it sees, in chunks of prompts.
    pub(crate) n_pairs: f64,
    /// Keys that rows of one token see: each is read for that row alone.
    pub(crate) n_keys: f64,
}

impl Shape {
    pub(crate) fn of(batch: &Batch) -> Self {
        let mut shape = Self::default();
        for row in &batch.rows {
            #[expect(clippy::cast_precision_loss, reason = "a count of tokens")]
            let (n, start) = (row.tokens.len() as f64, f64::from(row.start));
            shape.n_tokens += n;
            if row.tokens.len() == 1 {
                shape.n_keys += start + 1.0;
            } else {
                shape.n_pairs += n * start + n * (n + 1.0) / 2.0;
            }
            if row.sample.is_some() {
                shape.n_samples += 1.0;
            }
        }
        shape
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steps::row;

    #[test]
    fn chunks_and_single_rows_are_counted_apart() {
        let mut chunk = row(0, vec![1; 4], 10, 1);
        chunk.sample = None;
        let batch = Batch {
            rows: vec![chunk, row(1, vec![1], 99, 7), row(2, vec![1], 0, 1)],
        };
        let shape = Shape::of(&batch);
        assert_eq!((shape.n_tokens, shape.n_samples), (6.0, 2.0));
        // The four see 11, 12, 13 and 14 keys.
        assert_eq!((shape.n_pairs, shape.n_keys), (50.0, 101.0));
    }
}
