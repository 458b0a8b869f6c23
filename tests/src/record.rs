//! What the clients of a simulation have seen, event by event, and whether it was right.

use std::collections::BTreeMap;
use std::sync::Arc;

use scheduler::{
    Event, FinishReason, Pooling, Request, RequestId, SampledToken, SchedulerConfig, SequenceId,
    TokenId, TokenLogprobs,
};

use crate::forcing::Forcing;
use crate::oracle::{Machine, alone};

macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(format!($($message)+));
        }
    };
}
pub(crate) use ensure;

/// One choice as its client saw it.
#[derive(Debug, Default)]
struct Choice {
    tokens: Vec<SampledToken>,
    finished: Option<FinishReason>,
    cancelled: bool,
    /// It was in a batch that failed, or its row failed alone.
    failed: bool,
    /// Its row failed alone.
    row_failed: bool,
}

#[derive(Debug)]
struct Record {
    request: Request,
    choices: Vec<Choice>,
    scores: Vec<TokenLogprobs>,
    vector: Option<Arc<[f64]>>,
    n_cached: Option<u32>,
}

/// All requests of a simulation.
#[derive(Debug, Default)]
pub(crate) struct Records {
    by_id: BTreeMap<RequestId, Record>,
}

impl Records {
    pub(crate) fn open(&mut self, request: Request) {
        let choices = (0..request.n).map(|_| Choice::default()).collect();
        let record = Record {
            choices,
            scores: Vec::new(),
            vector: None,
            n_cached: None,
            request,
        };
        self.by_id.insert(record.request.id, record);
    }

    /// Choices that have not ended.
    pub(crate) fn unfinished(&self) -> Vec<SequenceId> {
        self.by_id.values().flat_map(Record::unfinished).collect()
    }

    /// What the client of an unfinished choice has asked for.
    pub(crate) fn note_cancelled(&mut self, id: SequenceId) {
        if let Some(choice) = self.choice(id) {
            choice.cancelled = true;
        }
    }

    pub(crate) fn note_failed(&mut self, id: SequenceId) {
        if let Some(choice) = self.choice(id) {
            choice.failed = true;
        }
    }

    pub(crate) fn note_row_failed(&mut self, id: SequenceId) {
        self.note_failed(id);
        if let Some(choice) = self.choice(id) {
            choice.row_failed = true;
        }
    }

    /// Tokens of a choice so far, and the most it can come to.
    pub(crate) fn n_tokens(&self, id: SequenceId) -> usize {
        let record = &self.by_id[&id.request];
        record.request.prompt.len() + record.choices[id.index as usize].tokens.len()
    }

    /// Tokens at which a choice ends.
    pub(crate) fn n_most_tokens(&self, id: SequenceId, config: &SchedulerConfig) -> usize {
        let request = &self.by_id[&id.request].request;
        let n_most = request.prompt.len() + request.max_new_tokens as usize;
        n_most.min(config.max_model_len)
    }

    pub(crate) fn is_cancelled(&self, id: SequenceId) -> bool {
        self.by_id[&id.request].choices[id.index as usize].cancelled
    }

    pub(crate) fn request(&self, id: RequestId) -> &Request {
        &self.by_id[&id].request
    }

    /// Every cancelled or failed choice has been told its end.
    pub(crate) fn check_ended(&self) -> Result<(), String> {
        for id in self.unfinished() {
            let choice = &self.by_id[&id.request].choices[id.index as usize];
            ensure!(!choice.cancelled, "{id} was cancelled and did not end");
            ensure!(!choice.failed, "{id} failed and did not end");
        }
        Ok(())
    }

    pub(crate) fn apply(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::PromptScored { request, logprobs } => {
                let record = self.by_id.get_mut(&request).ok_or("an unknown request")?;
                ensure!(!logprobs.is_empty(), "{request}: no scores in an event");
                record.scores.extend(logprobs);
            }
            Event::Pooled { request, vector } => {
                let record = self.by_id.get_mut(&request).ok_or("an unknown request")?;
                ensure!(record.vector.is_none(), "{request}: a second vector");
                record.vector = Some(vector);
            }
            Event::Token { sequence, token } => {
                let choice = self.choice(sequence).ok_or("an unknown sequence")?;
                ensure!(
                    choice.finished.is_none(),
                    "{sequence}: a token after its end"
                );
                ensure!(
                    !choice.cancelled,
                    "{sequence}: a token after its cancellation"
                );
                choice.tokens.push(token);
            }
            Event::Finished {
                sequence,
                reason,
                n_cached_tokens,
                failure,
            } => {
                let choice = self.choice(sequence).ok_or("an unknown sequence")?;
                ensure!(choice.finished.is_none(), "{sequence} ended twice");
                choice.finished = Some(reason);
                let tells = failure.is_some();
                let expected = reason == FinishReason::Failed && choice.row_failed;
                ensure!(
                    tells == expected,
                    "{sequence}: it tells {failure:?} as {reason:?}"
                );
                let record = self.by_id.get_mut(&sequence.request);
                let record = record.ok_or("an unknown request")?;
                // A choice that ends before anyone has run tells of no hits.
                if record.n_cached.unwrap_or(0) == 0 {
                    record.n_cached = Some(n_cached_tokens);
                }
                ensure!(
                    record.n_cached == Some(n_cached_tokens),
                    "{sequence}: choices tell of different numbers of cached tokens"
                );
            }
        }
        Ok(())
    }

    /// Compares everything with what each request gives alone.
    pub(crate) fn check_all(
        &self,
        config: &SchedulerConfig,
        forcing: Forcing,
    ) -> Result<(), String> {
        for record in self.by_id.values() {
            record.check(config, forcing)?;
            self.check_cached(record, config)?;
        }
        Ok(())
    }

    /// A request can have found only what others computed under its own root.
    fn check_cached(&self, record: &Record, config: &SchedulerConfig) -> Result<(), String> {
        let id = record.request.id;
        let n_cached = record.n_cached.unwrap_or(0) as usize;
        if n_cached == 0 {
            return Ok(());
        }
        ensure!(config.prefix_cache, "{id}: a hit though the cache is off");
        ensure!(
            record.request.prompt_logprobs.is_none() || n_cached < first_scored(&record.request),
            "{id}: a hit though it is scored"
        );
        ensure!(
            record.request.pooling != Some(Pooling::Mean),
            "{id}: a hit though all is summed"
        );
        ensure!(
            n_cached.is_multiple_of(config.block_size) && n_cached < record.request.prompt.len(),
            "{id}: {n_cached} cached tokens of {}",
            record.request.prompt.len()
        );
        let others = self.by_id.values().filter(|other| other.request.id != id);
        let mut contexts = others
            .filter(|other| other.request.kv_root == record.request.kv_root)
            .flat_map(Record::contexts);
        let beginning = &record.request.prompt[..n_cached];
        ensure!(
            contexts.any(|context| context.starts_with(beginning)),
            "{id}: {n_cached} cached tokens that nobody with its root has had"
        );
        Ok(())
    }

    fn choice(&mut self, id: SequenceId) -> Option<&mut Choice> {
        let record = self.by_id.get_mut(&id.request)?;
        record.choices.get_mut(id.index as usize)
    }
}

impl Record {
    fn unfinished(&self) -> impl Iterator<Item = SequenceId> {
        let request = self.request.id;
        let choices = (0..).zip(&self.choices);
        choices
            .filter(|(_, choice)| choice.finished.is_none())
            .map(move |(index, _)| SequenceId { request, index })
    }

    /// The tokens of all its choices.
    fn contexts(&self) -> impl Iterator<Item = Vec<TokenId>> {
        self.choices.iter().map(|choice| {
            let drawn = choice.tokens.iter().map(|token| token.token);
            self.request.prompt.iter().copied().chain(drawn).collect()
        })
    }

    fn check(&self, config: &SchedulerConfig, forcing: Forcing) -> Result<(), String> {
        let mut complete = false;
        for (index, choice) in (0..).zip(&self.choices) {
            let id = SequenceId {
                request: self.request.id,
                index,
            };
            let machine = Machine {
                n_vocab: forcing.n_vocab,
                max_model_len: config.max_model_len,
                window: config.window,
                forcing,
            };
            let alone = alone(&self.request, index, machine);
            let whole = match choice.finished {
                Some(FinishReason::Cancelled) => {
                    ensure!(choice.cancelled, "{id} ended as cancelled by nobody");
                    false
                }
                Some(FinishReason::Failed) => {
                    ensure!(choice.failed, "{id} ended as failed in no failed step");
                    false
                }
                Some(reason) => {
                    ensure!(
                        reason == alone.reason,
                        "{id}: {reason:?}, alone {:?}",
                        alone.reason
                    );
                    true
                }
                None => return Err(format!("{id} never ended")),
            };
            let n = choice.tokens.len();
            ensure!(
                alone.tokens.starts_with(&choice.tokens) && (!whole || n == alone.tokens.len()),
                "{id}: drew {:?}, alone {:?}",
                choice.tokens,
                alone.tokens
            );
            complete |= whole;
            if index == 0 {
                let scores = &self.scores;
                ensure!(
                    alone.scores.starts_with(scores),
                    "{id}: wrong prompt scores"
                );
                let vector = self.vector.as_deref();
                ensure!(
                    vector.is_none() || vector == alone.vector.as_deref(),
                    "{id}: the vector is {vector:?}, alone {:?}",
                    alone.vector
                );
            }
            let all_scored =
                self.scores.len() == self.request.prompt.len() - first_scored(&self.request);
            let wants_scores = complete && self.request.prompt_logprobs.is_some();
            ensure!(
                !wants_scores || all_scored,
                "{id}: prompt scores are missing"
            );
            let wants_vector = complete && self.request.pooling.is_some();
            ensure!(
                !wants_vector || self.vector.is_some(),
                "{id}: the vector of the prompt is missing"
            );
        }
        Ok(())
    }
}

/// The first prompt token that has a score.
pub(crate) fn first_scored(request: &Request) -> usize {
    (request.scored_from as usize).clamp(1, request.prompt.len())
}
