//! `POST /v1/completions`.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::response::{IntoResponse, Response};
use scheduler::Request;

use super::completion_choices::{Echo, Opening, push_tokens};
use super::completion_stream;
use super::prepare::{self, Input, Lengths, Plan};
use crate::admission::Call;
use crate::app::AppState;
use crate::generation::{ChoiceTotals, Generation, TextRules, Update};
use crate::openai::{
    ApiError, Completion, CompletionChoice, CompletionLogprobs, CompletionRequest, Head, Prompt,
    Streaming, TokenCounts,
};
use crate::text::StopSet;
use crate::token_text::TokenText;

/// A completion request, ready for the engine: one engine request for each prompt.
struct Prepared {
    requests: Vec<Request>,
    openings: Vec<Opening>,
    rules: TextRules,
    shape: Shape,
}

/// What the answer looks like.
pub(super) struct Shape {
    pub(super) head: Head,
    pub(super) streaming: Streaming,
    /// Choices returned for each prompt, and candidates generated.
    pub(super) n: u32,
    pub(super) best_of: u32,
    pub(super) with_logprobs: bool,
    pub(super) token_text: TokenText,
}

impl Shape {
    /// Choices are numbered prompt by prompt.
    pub(super) fn choice_index(&self, prompt: usize, index: u32) -> u32 {
        u32::try_from(prompt).expect("at most 2048 prompts") * self.n + index
    }
}

/// Continues one or more prompts, whole or as a stream.
pub(crate) async fn create(
    Call(state): Call,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let body = prepare::body(&state, body)?;
    let prepared = prepare::off_async_threads(&state, move |state| prepare(state, &body)).await?;
    let Prepared {
        mut requests,
        openings,
        rules,
        shape,
    } = prepared;
    for request in &mut requests {
        request.id = state.engine.next_request_id();
    }
    let streams = state.engine.submit_all(requests)?;
    let tokenizer = &state.model.tokenizer;
    let generations = streams.into_iter().zip(&openings).map(|(events, opening)| {
        Generation::new(events, shape.best_of, opening.n_to_score, tokenizer, &rules)
    });
    let generations = generations.collect();
    if shape.streaming.enabled {
        Ok(completion_stream::respond(shape, openings, generations))
    } else {
        whole(shape, openings, generations).await
    }
}

fn prepare(state: &AppState, body: &[u8]) -> Result<Prepared, ApiError> {
    let model = &state.model;
    let (name, fields) = prepare::fields(state, body)?;
    let mut completion = CompletionRequest::parse(fields, model.vocab_size)?;
    let prompts = std::mem::take(&mut completion.prompts);
    let seed = completion
        .sampling
        .seed
        .unwrap_or_else(|| state.draw_seed());
    let mut requests = Vec::with_capacity(prompts.len());
    let mut openings = Vec::with_capacity(prompts.len());
    for prompt in prompts {
        let (request, opening) = prepare_prompt(state, &completion, prompt, seed)?;
        requests.push(request);
        openings.push(opening);
    }
    let sampling = completion.sampling;
    let rules = TextRules {
        stop: StopSet::new(&sampling.stop),
        stop_tokens: requests[0].stop_tokens.clone(),
        min_tokens: sampling.min_tokens,
        spelled: [].into(),
        continues_prompt: true,
    };
    let shape = Shape {
        head: state.head("cmpl-", name),
        streaming: completion.streaming,
        n: sampling.n,
        best_of: completion.best_of,
        with_logprobs: completion.logprobs.is_some(),
        token_text: TokenText::new(model.tokenizer.clone(), sampling.return_tokens_as_token_ids),
    };
    Ok(Prepared {
        requests,
        openings,
        rules,
        shape,
    })
}

fn prepare_prompt(
    state: &AppState,
    completion: &CompletionRequest,
    prompt: Prompt,
    seed: u64,
) -> Result<(Request, Opening), ApiError> {
    let tokenizer = &state.model.tokenizer;
    let (tokens, text) = match prompt {
        Prompt::Tokens(tokens) => (tokens, None),
        Prompt::Text(text) => {
            prepare::check_text(state, Input::Prompt, &text)?;
            let tokens = tokenizer
                .encode(&text, true)
                .map_err(|error| ApiError::internal_for_good(error.to_string()))?;
            (tokens, Some(text))
        }
    };
    if tokens.is_empty() {
        let message = "Invalid 'prompt': a prompt must have at least one token.";
        return Err(ApiError::invalid("prompt", "invalid_value", message));
    }
    let n_prompt = tokens.len();
    let prompt_logprobs = completion.logprobs.filter(|_| completion.echo);
    let plan = Plan {
        n: completion.best_of,
        max_new_tokens: max_new_tokens(state, completion, n_prompt)?,
        // Candidates are ranked by their log-probabilities.
        logprobs: completion
            .logprobs
            .or((completion.best_of > completion.sampling.n).then_some(0)),
        prompt_logprobs,
        seed,
    };
    let opening = Opening {
        n_prompt,
        n_to_score: prompt_logprobs.map_or(0, |_| n_prompt - 1),
        echo: completion
            .echo
            .then(|| Echo::new(tokenizer, tokens.clone(), text)),
    };
    let request = prepare::request(state, tokens, &completion.sampling, plan)?;
    Ok((request, opening))
}

fn max_new_tokens(
    state: &AppState,
    completion: &CompletionRequest,
    n_prompt: usize,
) -> Result<u32, ApiError> {
    let is_explicit = completion.max_tokens_is_explicit;
    let lengths = Lengths {
        n_prompt,
        max_tokens: is_explicit.then_some(completion.max_tokens),
        n_needed: 1,
    };
    let max_new_tokens = prepare::max_new_tokens(state, Input::Prompt, lengths)?;
    Ok(max_new_tokens.min(completion.max_tokens))
}

/// One candidate.
#[derive(Default)]
struct Collected {
    text: String,
    logprobs: CompletionLogprobs,
    finish_reason: &'static str,
    totals: Option<ChoiceTotals>,
}

impl Collected {
    /// Mean log-probability of its tokens; nothing generated is as good as certain.
    fn score(&self) -> f64 {
        let totals = self.totals.filter(|totals| totals.n_tokens > 0);
        #[expect(clippy::cast_precision_loss, reason = "a count of tokens")]
        totals.map_or(0.0, |totals| totals.sum_logprob / totals.n_tokens as f64)
    }
}

async fn whole(
    shape: Shape,
    openings: Vec<Opening>,
    generations: Vec<Generation>,
) -> Result<Response, ApiError> {
    let mut counts = TokenCounts::default();
    let mut choices = Vec::new();
    for (prompt, (opening, generation)) in openings.iter().zip(generations).enumerate() {
        let mut candidates = collect(&shape, opening, generation).await?;
        counts.prompt += opening.n_prompt as u64;
        let totals = candidates.iter().filter_map(|candidate| candidate.totals);
        counts.completion += totals.clone().map(|totals| totals.n_tokens).sum::<u64>();
        counts.cached += totals.map(|totals| totals.n_cached).max().unwrap_or(0);
        if shape.best_of > shape.n {
            candidates.sort_by(|a, b| b.score().total_cmp(&a.score()));
        }
        candidates.truncate(shape.n as usize);
        for (index, candidate) in (0..).zip(candidates) {
            choices.push(CompletionChoice {
                text: candidate.text.into(),
                index: shape.choice_index(prompt, index),
                logprobs: shape.with_logprobs.then_some(candidate.logprobs),
                finish_reason: Some(candidate.finish_reason),
            });
        }
    }
    let answer = Completion::whole(&shape.head, choices, counts.into());
    Ok(Json(answer).into_response())
}

/// All candidates of one prompt.
async fn collect(
    shape: &Shape,
    opening: &Opening,
    mut generation: Generation,
) -> Result<Vec<Collected>, ApiError> {
    let mut candidates: Vec<Collected> = (0..shape.best_of).map(|_| Collected::default()).collect();
    let mut scored = Vec::new();
    let mut base = 0;
    if let Some(echo) = &opening.echo {
        base = echo.n_characters;
        for candidate in &mut candidates {
            candidate.text.push_str(&echo.text);
        }
    }
    while let Some(update) = generation.next().await {
        let (index, piece) = match update? {
            Update::PromptScored(scores) => {
                scored = scores;
                continue;
            }
            Update::Text { index, piece } => (index, piece),
            Update::Finished {
                index,
                piece,
                reason,
                totals,
            } => {
                candidates[index as usize].finish_reason = reason;
                candidates[index as usize].totals = Some(totals);
                (index, piece)
            }
        };
        let candidate = &mut candidates[index as usize];
        candidate.text.push_str(&piece.text);
        push_tokens(&mut candidate.logprobs, &shape.token_text, &piece, base);
    }
    if let Some(echo) = opening.echo.as_ref().filter(|_| shape.with_logprobs) {
        for candidate in &mut candidates {
            let mut logprobs = echo.logprobs(&shape.token_text, &scored);
            logprobs.append(std::mem::take(&mut candidate.logprobs));
            candidate.logprobs = logprobs;
        }
    }
    Ok(candidates)
}
