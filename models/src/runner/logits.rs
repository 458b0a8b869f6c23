//! Logits of every position, for comparing models. Requests never see them whole.

use scheduler::{
    Batch, BatchRow, BlockId, ExecutorError, PromptScoring, RequestId, SequenceId, TokenId,
};

use super::ModelRunner;

impl ModelRunner {
    /// Computes `tokens` as one sequence in one step, whatever was in the cache before, and calls
    /// `then` with the logits after each position but the last, in order.
    ///
    /// # Errors
    /// There are more tokens than a step or the cache holds, or one is not in the vocabulary.
    pub fn each_logits(
        &mut self,
        tokens: &[TokenId],
        mut then: impl FnMut(usize, &[f32]),
    ) -> Result<(), ExecutorError> {
        let n_blocks = tokens.len().div_ceil(self.limits.block_size) as u32;
        let row = BatchRow {
            sequence: SequenceId {
                request: RequestId(0),
                index: 0,
            },
            tokens: tokens.to_vec(),
            pending: None,
            start: 0,
            first_block: 0,
            blocks: (0..n_blocks).map(BlockId).collect(),
            adapter: None,
            sample: None,
            scoring: Some(PromptScoring {
                first: 0,
                targets: tokens.iter().skip(1).copied().collect(),
                n_top: 0,
            }),
            pooling: None,
        };
        self.step_adapters.clear();
        let batch = Batch { rows: vec![row] };
        let results = [self.open(&batch.rows[0], None)];
        self.step_adapters.finish();
        self.step
            .fill(&batch, &results, &[], &self.ropes, &self.limits)?;
        self.forward();
        let vocab = self.model.config().vocab_size;
        let rows: Vec<u32> = self.step.wanted.iter().map(|wanted| wanted.row).collect();
        let mut position = 0;
        for rows in rows.chunks(self.activations.logits_rows) {
            let adapters = self.step_adapters.rows();
            self.model.logits(rows, adapters, &mut self.activations);
            let logits = self.activations.logits.read(0..rows.len() * vocab);
            for logits in logits.chunks_exact(vocab) {
                then(position, logits);
                position += 1;
            }
        }
        Ok(())
    }
}
