//! A batch made flat: the rows of one ragged forward.

use kernels::{AttentionRow, RopeAngles, RopeStyle};
use scheduler::{Batch, BatchRow, ExecutorError, Sampled};

use crate::Rope;

/// Sizes that a batch must keep within.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) n_blocks: usize,
    pub(crate) block_size: usize,
    pub(crate) max_batched_tokens: usize,
    pub(crate) max_model_len: usize,
    pub(crate) vocab_size: usize,
    /// See [`crate::ModelConfig::kv_window`].
    pub(crate) window: Option<usize>,
}

/// All tokens of a batch one after the other. Kept from step to step, so that the lists grow to
/// their largest size once.
#[derive(Debug, Default)]
pub(crate) struct Step {
    pub(crate) tokens: Vec<u32>,
    /// For each token the answer of the step before that it is, if it is not known yet; empty where
    /// all are.
    pub(crate) drawn: Vec<Option<u32>>,
    /// Row of each token in the table of learned positions.
    pub(crate) positions: Vec<u32>,
    /// Row of position zero.
    positions_offset: usize,
    pub(crate) slots: Vec<u32>,
    /// Of each of the model's rotary embeddings.
    angles: Vec<Angles>,
    /// Block tables of all rows one after the other.
    blocks: Vec<u32>,
    spans: Vec<Span>,
    pub(crate) wanted: Vec<Wanted>,
}

#[derive(Clone, Debug, Default)]
struct Angles {
    cos: Vec<f32>,
    sin: Vec<f32>,
    rotary_dim: usize,
}

/// Where one row of the batch lies in the step's lists.
#[derive(Clone, Copy, Debug)]
struct Span {
    first_row: usize,
    n_rows: usize,
    start: usize,
    /// Where its block table begins in the step's list.
    table: usize,
    n_blocks: usize,
    n_gone: usize,
}

/// Logits that are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Index into the step's tokens.
    pub(crate) row: u32,
    /// Index of the batch row.
    pub(crate) batch_row: usize,
    /// `Some(i)`: to score target `i`; `None`: to draw the next token.
    pub(crate) target: Option<usize>,
}

impl Step {
    /// `offset`: row of position zero in the table of learned positions.
    pub(crate) fn with_offset(offset: usize) -> Self {
        Self {
            positions_offset: offset,
            ..Self::default()
        }
    }

    /// Lays out a batch. Checks all that the ops rely on: a batch that breaks the contract is an
    /// error here, never a wrong read there. Rows that `results` says have failed are left out.
    /// `drawn`: for each row of the batch started before, its answer.
    pub(crate) fn fill(
        &mut self,
        batch: &Batch,
        results: &[Sampled],
        drawn: &[Option<u32>],
        ropes: &[Rope],
        limits: &Limits,
    ) -> Result<(), ExecutorError> {
        self.clear();
        self.angles.resize_with(ropes.len(), Angles::default);
        if batch.n_tokens() > limits.max_batched_tokens {
            return Err(ExecutorError(format!(
                "batch of {} tokens, planned for {}",
                batch.n_tokens(),
                limits.max_batched_tokens
            )));
        }
        let is_known = batch.rows.iter().all(|row| row.pending.is_none());
        for (index, (row, result)) in batch.rows.iter().zip(results).enumerate() {
            if result.failed.is_some() {
                continue;
            }
            check(row, limits)
                .map_err(|error| ExecutorError(format!("sequence {}: {error}", row.sequence)))?;
            self.push(index, row, ropes, limits.block_size);
            if !is_known {
                let pending = row.pending.and_then(|i| *drawn.get(i as usize)?);
                self.drawn.resize(self.tokens.len() - 1, None);
                self.drawn.push(pending);
            }
        }
        Ok(())
    }

    fn clear(&mut self) {
        self.tokens.clear();
        self.drawn.clear();
        self.positions.clear();
        self.slots.clear();
        for angles in &mut self.angles {
            angles.cos.clear();
            angles.sin.clear();
        }
        self.blocks.clear();
        self.spans.clear();
        self.wanted.clear();
    }

    fn push(&mut self, index: usize, row: &BatchRow, ropes: &[Rope], block_size: usize) {
        let first_row = self.tokens.len();
        let start = row.start as usize;
        self.spans.push(Span {
            first_row,
            n_rows: row.tokens.len(),
            start,
            table: self.blocks.len(),
            n_blocks: row.blocks.len(),
            n_gone: row.first_block as usize,
        });
        self.blocks.extend(row.blocks.iter().map(|block| block.0));
        self.tokens.extend_from_slice(&row.tokens);
        for position in start..start + row.tokens.len() {
            let block = row.blocks[position / block_size - row.first_block as usize].0;
            self.slots
                .push(block * block_size as u32 + (position % block_size) as u32);
            self.positions
                .push((position + self.positions_offset) as u32);
            for (rope, angles) in ropes.iter().zip(&mut self.angles) {
                angles.rotary_dim = 2 * rope.inv_freq().len();
                rope.extend_angles(position as u32, &mut angles.cos, &mut angles.sin);
            }
        }
        let flat = |token: usize| (first_row + token) as u32;
        if let Some(scoring) = &row.scoring {
            self.wanted
                .extend((0..scoring.targets.len()).map(|i| Wanted {
                    row: flat(scoring.first as usize + i),
                    batch_row: index,
                    target: Some(i),
                }));
        }
        if row.sample.is_some() {
            self.wanted.push(Wanted {
                row: flat(row.tokens.len() - 1),
                batch_row: index,
                target: None,
            });
        }
    }

    /// Angles of each rotary embedding.
    pub(crate) fn angles(&self, style: RopeStyle) -> Vec<RopeAngles<'_>> {
        self.angles
            .iter()
            .map(|angles| RopeAngles {
                cos: &angles.cos,
                sin: &angles.sin,
                rotary_dim: angles.rotary_dim,
                style,
            })
            .collect()
    }

    /// The rows as attention wants them.
    pub(crate) fn attention_rows(&self) -> Vec<AttentionRow<'_>> {
        self.spans
            .iter()
            .map(|span| AttentionRow {
                first_row: span.first_row,
                n_rows: span.n_rows,
                start: span.start,
                first_block: span.n_gone,
                blocks: &self.blocks[span.table..span.table + span.n_blocks],
            })
            .collect()
    }
}

fn check(row: &BatchRow, limits: &Limits) -> Result<(), String> {
    let n_positions = row.start as usize + row.tokens.len();
    if row.tokens.is_empty() {
        return Err("a row without tokens".to_string());
    }
    if row.pending.is_some() && row.tokens.len() > 1 {
        return Err("a token that is not known beside others".to_string());
    }
    if n_positions > limits.max_model_len {
        return Err(format!(
            "{n_positions} positions, planned for {}",
            limits.max_model_len
        ));
    }
    let n_gone = row.first_block as usize * limits.block_size;
    let n_unseen = limits
        .window
        .map_or(0, |window| (row.start as usize + 1).saturating_sub(window));
    if n_gone > n_unseen {
        return Err(format!(
            "the first {n_gone} positions are gone, but only {n_unseen} are behind the window"
        ));
    }
    if n_positions > n_gone + row.blocks.len() * limits.block_size {
        return Err(format!(
            "{n_positions} positions do not fit {} blocks of {}",
            row.first_block as usize + row.blocks.len(),
            limits.block_size
        ));
    }
    let is_known = |token: &&u32| (**token as usize) < limits.vocab_size;
    if let Some(token) = row.tokens.iter().find(|token| !is_known(token)) {
        return Err(format!("token {token} is not in the vocabulary"));
    }
    let too_far = |block: &&scheduler::BlockId| block.0 as usize >= limits.n_blocks;
    if let Some(block) = row.blocks.iter().find(too_far) {
        return Err(format!("block {block} does not exist"));
    }
    if let Some(scoring) = &row.scoring {
        if scoring.first as usize + scoring.targets.len() > row.tokens.len() {
            return Err("scoring reaches beyond the row".to_string());
        }
        if let Some(token) = scoring.targets.iter().find(|token| !is_known(token)) {
            return Err(format!("scored token {token} is not in the vocabulary"));
        }
    }
    Ok(())
}
