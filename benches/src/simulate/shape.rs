//! What a batch asks of a machine, in counts.

use std::collections::HashSet;

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
    /// Keys that rows of one token see.
    pub(crate) n_keys: f64,
    /// Of these, different ones: what several rows share comes from memory once.
    pub(crate) n_distinct: f64,
}

impl Shape {
    pub(crate) fn of(batch: &Batch) -> Self {
        let mut shape = Self::default();
        let mut blocks = HashSet::new();
        for row in &batch.rows {
            #[expect(clippy::cast_precision_loss, reason = "a count of tokens")]
            let (n, start) = (row.tokens.len() as f64, f64::from(row.start));
            shape.n_tokens += n;
            if row.tokens.len() == 1 {
                let n_keys = start + 1.0;
                shape.n_keys += n_keys;
                let n_new = row
                    .blocks
                    .iter()
                    .filter(|block| blocks.insert(**block))
                    .count();
                #[expect(clippy::cast_precision_loss, reason = "counts of blocks")]
                let share = n_new as f64 / row.blocks.len().max(1) as f64;
                shape.n_distinct += n_keys * share;
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
        assert_eq!(shape.n_distinct, 101.0, "rows have blocks of their own");
        let mut shared = batch.clone();
        shared.rows[2] = shared.rows[1].clone();
        let shape = Shape::of(&shared);
        assert_eq!((shape.n_keys, shape.n_distinct), (200.0, 100.0));
    }
}
