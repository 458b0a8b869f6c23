//! From logits to tokens: on the device where it can, else on the host, row by row.

use std::sync::{Mutex, OnceLock, PoisonError};

use kernels::{SampleLimits, SampledRow};
use rayon::prelude::*;
use scheduler::{Allowed, Batch, ExecutorError, Sampled, SampledToken, TokenLogprobs};

use super::ModelRunner;
use crate::Sampler;
use crate::sampler::ask;
use crate::step::Wanted;

/// Those that are not at work. As many as threads that draw, and each keeps its memory.
#[derive(Debug, Default)]
pub(super) struct Samplers(Mutex<Vec<Sampler>>);

/// What a row of logits gave.
#[derive(Debug)]
pub(super) enum Answer {
    Token(SampledToken),
    Score(TokenLogprobs),
}

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
                self.on_host(batch, chunk, results);
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
                        let found = self.samplers.answer(batch, wanted, &logits);
                        note(found, result);
                    }
                }
            }
        }
    }

    /// Draws from the rows of `logits` on all threads: what a row may draw may still have to be
    /// found, which takes longer than the draw.
    fn on_host(&self, batch: &Batch, chunk: &[Wanted], results: &mut [Sampled]) {
        let vocab = self.model.config().vocab_size;
        let all = self.activations.logits.read(0..chunk.len() * vocab);
        let samplers = &self.samplers;
        let found: Vec<_> = chunk.iter().map(|_| OnceLock::new()).collect();
        let is_open: Vec<bool> = chunk
            .iter()
            .map(|wanted| results[wanted.batch_row].failed.is_none())
            .collect();
        self.model.device().for_each_row(chunk.len(), &|i| {
            if is_open[i] {
                let logits = &all[i * vocab..(i + 1) * vocab];
                found[i].get_or_init(|| samplers.answer(batch, &chunk[i], logits));
            }
        });
        for (wanted, found) in chunk.iter().zip(found) {
            let result = &mut results[wanted.batch_row];
            if let Some(found) = found.into_inner().filter(|_| result.failed.is_none()) {
                note(found, result);
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
        let rows = chunk.iter().map(|wanted| &batch.rows[wanted.batch_row]);
        let masks = rows.filter_map(|row| row.sample.as_ref()?.allowed.as_ref());
        let masks: Vec<&Allowed> = masks.collect();
        if masks.len() > 1 {
            masks.par_iter().for_each(|allowed| allowed.find());
        }
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
pub(super) fn take(wanted: &Wanted, found: SampledRow, result: &mut Sampled) {
    if wanted.target.is_none() {
        result.token = Some(ask::drawn(found));
    } else if let Some(logprobs) = &found.logprobs {
        result.scored.push(ask::reported(found.token, logprobs));
    }
}

/// Notes what the host found.
pub(super) fn note(found: Result<Answer, ExecutorError>, result: &mut Sampled) {
    match found {
        Ok(Answer::Token(token)) => result.token = Some(token),
        Ok(Answer::Score(score)) => result.scored.push(score),
        Err(error) => fail(result, &error),
    }
}

impl Samplers {
    pub(super) fn answer(
        &self,
        batch: &Batch,
        wanted: &Wanted,
        logits: &[f32],
    ) -> Result<Answer, ExecutorError> {
        let free = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sampler = free().pop().unwrap_or_default();
        let row = &batch.rows[wanted.batch_row];
        let found = match (wanted.target, &row.scoring, &row.sample) {
            (Some(target), Some(scoring), _) => sampler
                .score(logits, scoring.targets[target], scoring.n_top)
                .map(Answer::Score),
            (None, _, Some(spec)) => sampler
                .sample(logits, row.sequence.index, spec)
                .map(Answer::Token),
            _ => unreachable!("logits are wanted only for what a row asks for"),
        };
        free().push(sampler);
        found
    }
}

/// A failed row has neither token nor scores nor vector.
pub(super) fn fail(result: &mut Sampled, error: &ExecutorError) {
    result.token = None;
    result.scored.clear();
    result.pooled = None;
    result.failed = Some(error.to_string());
}
