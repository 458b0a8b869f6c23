//! Batches that run on the device beside the host: started here, and finished when somebody wants
//! their results. The next one may be started before, with tokens that are still on the device.

use scheduler::{Batch, BatchRow, ExecutorError, Sampled, Ticket};

use super::ModelRunner;
use super::sample::{note, take};
use crate::sampler::ask;
use crate::step::Wanted;

/// A batch on its way.
#[derive(Debug)]
pub(super) struct Noted {
    /// Of rows that had failed before they were computed.
    results: Vec<Sampled>,
    /// What was drawn, in the order of the device's answers, all of which it tries.
    wanted: Vec<Wanted>,
    /// Whether all logits are in the buffer until the next batch is started.
    keeps_logits: bool,
}

impl ModelRunner {
    /// Whether batches can run beside the host: it neither chooses experts nor sums parts, and
    /// the device draws.
    pub(super) fn runs_beside(&self) -> bool {
        let config = self.model.config();
        let draws = self.model.device().sample_limits(config.vocab_size);
        self.others.is_empty() && config.experts.is_none() && draws.is_some()
    }

    /// Whether nothing of a batch needs the host before its end. What is awaited in any case gains
    /// nothing.
    pub(super) fn can_run_beside(&self, batch: &Batch) -> bool {
        let vocab = self.model.config().vocab_size;
        let Some(limits) = self.model.device().sample_limits(vocab) else {
            return false;
        };
        let is_on_device = |row: &BatchRow| {
            let draws = row.sample.as_ref().is_none_or(|spec| {
                !spec.is_awaited && ask::draw(spec, row.sequence.index, vocab, limits).is_ok()
            });
            draws && row.scoring.is_none() && row.pooling.is_none()
        };
        self.runs_beside() && batch.rows.iter().all(is_on_device)
    }

    /// Starts a batch.
    pub(super) fn begin(&mut self, batch: &Batch) -> Result<Ticket, ExecutorError> {
        let stacks = self.look_up(batch);
        let results = self.run(batch, &stacks)?;
        let wanted = self.step.wanted.clone();
        self.note_draws(batch, &wanted);
        let departed = self.model.device().depart(wanted.len());
        departed.map_err(|error| ExecutorError(error.to_string()))?;
        self.drawn = vec![None; batch.rows.len()];
        for (number, wanted) in (0..).zip(&wanted) {
            self.drawn[wanted.batch_row] = Some(number);
        }
        // The vectors of tokens that such an adapter changes are looked up by the host.
        let is_plain = |row: &BatchRow| {
            let stack = row.adapter.and_then(|id| self.adapters.get(id));
            row.sample.is_none() || stack.is_none_or(|stack| stack.embedding().is_none())
        };
        let can_be_followed = batch.rows.iter().all(is_plain);
        self.noted.push_back(Noted {
            results,
            keeps_logits: wanted.len() <= self.activations.logits_rows,
            wanted,
        });
        Ok(Ticket::started(can_be_followed))
    }

    /// Notes the logits and the draws of all rows, in chunks as [`sample`](Self::sample) does.
    fn note_draws(&mut self, batch: &Batch, wanted: &[Wanted]) {
        let vocab = self.model.config().vocab_size;
        let n_rows = self.activations.logits_rows;
        let Some(limits) = self.model.device().sample_limits(vocab) else {
            return;
        };
        for (i, chunk) in wanted.chunks(n_rows).enumerate() {
            let rows: Vec<u32> = chunk.iter().map(|wanted| wanted.row).collect();
            let adapters = self.step_adapters.rows();
            self.model.logits(&rows, adapters, &mut self.activations);
            let asked = chunk.iter().map(|wanted| {
                let row = &batch.rows[wanted.batch_row];
                let spec = row.sample.as_ref();
                let asked = spec.map(|s| ask::draw(s, row.sequence.index, vocab, limits));
                asked
                    .and_then(Result::ok)
                    .unwrap_or_else(|| ask::nothing(None))
            });
            let asked: Vec<_> = asked.collect();
            let place = (i * n_rows, wanted.len());
            let logits = &self.activations.logits;
            self.model
                .device()
                .note_samples(logits, vocab, &asked, place);
        }
    }

    /// Waits for the oldest batch on its way. What the device could not draw the host draws, if the
    /// logits are still there; else the row is to be computed again.
    pub(super) fn end(&mut self, batch: &Batch) -> Result<Vec<Sampled>, ExecutorError> {
        let noted = self.noted.pop_front();
        let noted = noted.ok_or_else(|| ExecutorError("no batch was started".to_owned()))?;
        let reports = noted.wanted.iter().map(|wanted| {
            let spec = batch.rows[wanted.batch_row].sample.as_ref();
            spec.is_some_and(|spec| spec.params.logprobs.is_some())
        });
        let reports: Vec<bool> = reports.collect();
        let found = self.model.device().arrive(&reports);
        let found = found.map_err(|error| ExecutorError(error.to_string()))?;
        let has_logits = noted.keeps_logits && self.noted.is_empty();
        let vocab = self.model.config().vocab_size;
        let mut results = noted.results;
        for (i, (wanted, found)) in noted.wanted.iter().zip(found).enumerate() {
            let result = &mut results[wanted.batch_row];
            match found {
                _ if result.failed.is_some() => {}
                Some(found) => take(wanted, found, result),
                None if has_logits => {
                    let logits = &self.activations.logits;
                    let logits = logits.read(i * vocab..(i + 1) * vocab);
                    note(self.samplers.answer(batch, wanted, &logits), result);
                }
                None => result.postponed = true,
            }
        }
        Ok(results)
    }
}
