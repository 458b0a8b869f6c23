//! Batches that the fake has been given and has not computed yet.

use std::collections::BTreeSet;

use scheduler::{Batch, BatchRow, BlockId, Sampled, SequenceId, TokenId};

#[derive(Debug)]
pub(crate) struct Flying {
    pub(crate) batch: Batch,
    /// Sequences whose rows follow one that gave no token: what these compute is of no use.
    pub(crate) spoilt: BTreeSet<SequenceId>,
}

impl Flying {
    pub(crate) fn new(batch: &Batch) -> Self {
        Self {
            batch: batch.clone(),
            spoilt: BTreeSet::new(),
        }
    }

    /// A row takes its token from the row of its own sequence, which draws one.
    pub(crate) fn assert_pending(before: Option<&Self>, row: &BatchRow) {
        let id = row.sequence;
        // What is of no use is computed again.
        let before = before.filter(|before| !before.spoilt.contains(&id));
        let same = before.and_then(|before| {
            let rows = before.batch.rows.iter();
            rows.clone().position(|other| other.sequence == id)
        });
        let drawing = same.filter(|&i| before.is_some_and(|b| b.batch.rows[i].sample.is_some()));
        let expected = drawing.map(|i| i as u32);
        assert!(
            row.pending == expected,
            "{id}: its token is of row {:?}, not {expected:?}",
            row.pending
        );
        let is_alone = row.pending.is_none() || row.tokens == [0];
        assert!(is_alone, "{id}: a token that is not known beside others");
        if let Some((before, i)) = before.zip(same) {
            let last = &before.batch.rows[i];
            let end = last.start as usize + last.tokens.len();
            assert!(row.start as usize == end, "{id}: it goes on elsewhere");
        }
    }

    /// Nothing is written where this batch reads or writes, but by the same sequence further on:
    /// the blocks of its rows are taken until it is done.
    pub(crate) fn assert_undisturbed(
        &self,
        next: &Batch,
        written: impl Fn(&BatchRow) -> BTreeSet<BlockId>,
    ) {
        for row in &next.rows {
            let blocks = written(row);
            let others = self
                .batch
                .rows
                .iter()
                .filter(|o| o.sequence != row.sequence);
            for other in others {
                let hit = other.blocks.iter().find(|block| blocks.contains(block));
                assert!(
                    hit.is_none(),
                    "{} writes into {hit:?}, which {} holds in flight",
                    row.sequence,
                    other.sequence
                );
            }
        }
    }

    /// Notes what came of the batch before.
    pub(crate) fn spoil(&mut self, results: &[Sampled]) {
        let lost = results.iter().filter(|r| r.failed.is_some() || r.postponed);
        self.spoilt.extend(lost.map(|result| result.sequence));
    }
}

/// Tokens that a batch has drawn, by row.
#[derive(Debug, Default)]
pub(crate) struct Drawn(Vec<Option<TokenId>>);

impl Drawn {
    pub(crate) fn of(results: &[Sampled]) -> Self {
        let token = |result: &Sampled| result.token.as_ref().map(|token| token.token);
        Self(results.iter().map(token).collect())
    }

    /// The row with the token that it waits for. Where none was drawn, it is spoilt.
    pub(crate) fn resolve(&self, row: &BatchRow) -> BatchRow {
        let mut row = row.clone();
        if let Some(i) = row.pending.take()
            && let Some(token) = self.0.get(i as usize).copied().flatten()
        {
            row.tokens = vec![token];
        }
        row
    }
}
