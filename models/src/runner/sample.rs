//! From logits to tokens: on the device where it can, else on the host, row by row.

use kernels::{SampleLimits, SampledRow};
use scheduler::{Batch, ExecutorError, Sampled};

use super::ModelRunner;
use crate::Sampler;
use crate::sampler::ask;
use crate::step::Wanted;

impl ModelRunner {
    /// Computes the wanted logits in chunks (a scored prompt wants hundreds of rows, and a row
    /// is as long as the vocabulary) and makes of each what was asked for. What cannot be drawn
    /// from (say, logits that are not numbers) fails its own row only.
    pub(super) fn sample(&mut self, batch: &Batch, results: &mut [Sampled]) {
        let vocab = self.model.config().vocab_size;
        let mut rows = Vec::with_capacity(self.activations.logits_rows);
        for chunk in self.step.wanted.chunks(self.activations.logits_rows) {
            rows.clear();
            rows.extend(chunk.iter().map(|wanted| wanted.row));
            let adapters = self.step_adapters.rows();
            self.model.logits(&rows, adapters, &mut self.activations);
            let logits = &self.activations.logits;
            let Some(limits) = self.model.device().sample_limits(vocab) else {
                let all = logits.read(0..chunk.len() * vocab);
                for (wanted, logits) in chunk.iter().zip(all.chunks_exact(vocab)) {
                    let result = &mut results[wanted.batch_row];
                    answer(&mut self.sampler, batch, wanted, logits, result);
                }
                continue;
            };
            let found = self.on_device(batch, chunk, limits);
            for (i, (wanted, found)) in chunk.iter().zip(found).enumerate() {
                let result = &mut results[wanted.batch_row];
                match found {
                    _ if result.failed.is_some() => {}
                    Some(found) => take(wanted, found, result),
                    None => {
                        let logits = logits.read(i * vocab..(i + 1) * vocab);
                        answer(&mut self.sampler, batch, wanted, &logits, result);
                    }
                }
            }
        }
    }

    /// What the device makes of the rows of `logits`; `None` for rows that the host has to do.
    fn on_device(
        &self,
        batch: &Batch,
        chunk: &[Wanted],
        limits: SampleLimits,
    ) -> Vec<Option<SampledRow>> {
        let vocab = self.model.config().vocab_size;
        let asked: Vec<_> = chunk
            .iter()
            .map(|wanted| {
                let row = &batch.rows[wanted.batch_row];
                match (wanted.target, &row.scoring, &row.sample) {
                    (Some(target), Some(scoring), _) => ask::score(scoring, target, vocab, limits),
                    (None, _, Some(spec)) => ask::draw(spec, row.sequence.index, vocab, limits),
                    _ => unreachable!("logits are wanted only for what a row asks for"),
                }
            })
            .collect();
        let is_host: Vec<bool> = asked.iter().map(Result::is_err).collect();
        if is_host.iter().all(|is_host| *is_host) {
            return chunk.iter().map(|_| None).collect();
        }
        let rows: Vec<_> = asked
            .into_iter()
            .map(|row| row.unwrap_or_else(|_| ask::nothing(None)))
            .collect();
        let device = self.model.device();
        let found = device.sample_rows(&self.activations.logits, vocab, &rows);
        let each = found.into_iter().zip(is_host);
        each.map(|(found, is_host)| found.filter(|_| !is_host))
            .collect()
    }
}

/// Notes what the device found.
fn take(wanted: &Wanted, found: SampledRow, result: &mut Sampled) {
    if wanted.target.is_none() {
        result.token = Some(ask::drawn(found));
    } else if let Some(logprobs) = &found.logprobs {
        result.scored.push(ask::reported(found.token, logprobs));
    }
}

fn answer(
    sampler: &mut Sampler,
    batch: &Batch,
    wanted: &Wanted,
    logits: &[f32],
    result: &mut Sampled,
) {
    if result.failed.is_some() {
        return;
    }
    let row = &batch.rows[wanted.batch_row];
    match (wanted.target, &row.scoring, &row.sample) {
        (Some(target), Some(scoring), _) => {
            match sampler.score(logits, scoring.targets[target], scoring.n_top) {
                Ok(scored) => result.scored.push(scored),
                Err(error) => fail(result, &error),
            }
        }
        (None, _, Some(spec)) => match sampler.sample(logits, row.sequence.index, spec) {
            Ok(token) => result.token = Some(token),
            Err(error) => fail(result, &error),
        },
        _ => unreachable!("logits are wanted only for what a row asks for"),
    }
}

/// A failed row has neither token nor scores nor vector.
pub(super) fn fail(result: &mut Sampled, error: &ExecutorError) {
    result.token = None;
    result.scored.clear();
    result.pooled = None;
    result.failed = Some(error.to_string());
}
