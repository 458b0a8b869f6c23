//! `POST /v1/completions`.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::response::Response;

use super::completion_fold::{CompletionFold, Shape};
use super::completion_parts::{Echo, Opening};
use super::flow::{self, Job, Prepared};
use super::prepare::{self, Input, Lengths, Plan};
use crate::admission::Call;
use crate::answer::AnswerRules;
use crate::generation::TextRules;
use crate::openai::{ApiError, CompletionRequest, Prompt};
use crate::state::AppState;
use crate::text::StopSet;
use crate::token_text::TokenText;

/// Continues one or more prompts, whole or as a stream.
pub(crate) async fn create(
    Call(state): Call,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    flow::respond(&state, body, prepare).await
}

/// One job for each prompt.
fn prepare(state: &AppState, body: &[u8]) -> Result<Prepared<CompletionFold>, ApiError> {
    let model = &state.model;
    let (name, fields) = prepare::fields(state, body)?;
    let mut completion = CompletionRequest::parse(fields, model.vocab_size)?;
    let prompts = std::mem::take(&mut completion.prompts);
    let counted = if completion.best_of > completion.sampling.n {
        "best_of"
    } else {
        "n"
    };
    prepare::check_choices(state, prompts.len(), completion.best_of, counted)?;
    let seed = completion
        .sampling
        .seed
        .unwrap_or_else(|| state.draw_seed());
    let mut jobs = Vec::with_capacity(prompts.len());
    let mut openings = Vec::with_capacity(prompts.len());
    for prompt in prompts {
        let (job, opening) = prepare_prompt(state, &completion, prompt, seed)?;
        jobs.push(job);
        openings.push(opening);
    }
    let sampling = completion.sampling;
    let rules = TextRules {
        answer: AnswerRules::default(),
        stop: StopSet::new(&sampling.stop),
        stop_tokens: jobs[0].request.stop_tokens.clone(),
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
        jobs,
        rules,
        fold: CompletionFold::new(shape, openings),
    })
}

fn prepare_prompt(
    state: &AppState,
    completion: &CompletionRequest,
    prompt: Prompt,
    seed: u64,
) -> Result<(Job, Opening), ApiError> {
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
        scored_from: 0,
        seed,
    };
    let n_to_score = prompt_logprobs.map_or(0, |_| n_prompt - 1);
    let echo = completion
        .echo
        .then(|| Echo::new(tokenizer, tokens.clone(), text));
    let job = Job {
        request: prepare::request(state, tokens, &completion.sampling, plan)?,
        constraint: None,
        n_to_score,
    };
    let opening = Opening {
        n_prompt,
        n_to_score,
        echo,
        scored: Vec::new(),
    };
    Ok((job, opening))
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
