//! `POST /v1/decisions`: questions about an input, answered by how probable each answer is.
//!
//! Each answer has a label. With `L_i` the log-probability that the model's answer begins with
//! label `i` (the sum over the label's tokens, each given those before), the probability of answer
//! `i` is `exp(L_i) / sum_j exp(L_j)`. Nothing is generated.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use scheduler::{Event, FinishReason, Request};
use serde_json::{Value, json};

use super::conversation::{self, Thoughts};
use super::decision_labels::asked;
use super::prepare::{self, Input, Plan};
use crate::admission::Call;
use crate::engine::TokenStream;
use crate::generation::broken_off;
use crate::openai::{
    ApiError, ChatRequest, Decision, DecisionAnswer, DecisionRequest, Fields, Question, Sampling,
    TokenCounts, transcript_messages,
};
use crate::state::AppState;

/// Tokens of prompts that are submitted at a time. All but the last of a prompt come from the
/// prefix cache, but the queue counts them all.
const TOKENS_AT_A_TIME: usize = 32_768;

/// A question and how to answer it: one request for each label.
struct Asked {
    question: Question,
    /// Tokens of the prompt, without the label.
    n_prompt: usize,
    requests: Vec<Request>,
}

/// What a label's request has come to.
struct Scored {
    logprob: f64,
    n_cached: u64,
}

/// Answers all questions.
pub(crate) async fn create(
    Call(state): Call,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Decision>, ApiError> {
    let body = prepare::body(&state, body)?;
    let state = prepare::with_adapters(&state, &body).await?;
    let (model, all_asked) = prepare::reading(&state, body, prepare_all).await?;
    let mut counts = TokenCounts::default();
    let mut answers = Vec::with_capacity(all_asked.len());
    for asked in all_asked {
        counts.prompt += asked.n_prompt as u64;
        let scored = score(&state, asked.requests).await?;
        let n_cached = scored.first().map_or(0, |scored| scored.n_cached);
        counts.cached += n_cached.min(asked.n_prompt as u64);
        let logprobs: Vec<f64> = scored.iter().map(|scored| scored.logprob).collect();
        answers.push(DecisionAnswer::new(asked.question, &normalized(&logprobs)));
    }
    Ok(Json(Decision::new(model, answers, counts)))
}

fn prepare_all(state: &AppState, body: &[u8]) -> Result<(String, Vec<Asked>), ApiError> {
    let (name, fields) = prepare::fields(state, body)?;
    let decision = DecisionRequest::parse(fields)?;
    let sampling = Sampling {
        serving: decision.serving,
        ..Sampling::take(&mut Fields::from_value("", json!({}))?, 0)?
    };
    let messages = transcript_messages(&decision.input)?;
    let mut all_asked = Vec::with_capacity(decision.questions.len());
    let mut n_labels = 0;
    for question in decision.questions {
        let asked = prepare_one(state, &messages, question, &sampling)?;
        n_labels += asked.requests.len();
        if n_labels > state.max_choices as usize {
            let message = format!(
                "Invalid 'questions': they have more than {} answers together, which is the most \
                 that this server scores for one request.",
                state.max_choices
            );
            let code = "array_above_max_length";
            return Err(ApiError::invalid("questions", code, message));
        }
        all_asked.push(asked);
    }
    Ok((name, all_asked))
}

fn prepare_one(
    state: &AppState,
    messages: &[Value],
    question: Question,
    sampling: &Sampling,
) -> Result<Asked, ApiError> {
    let (text, labels) = asked(&question);
    let chat = ChatRequest::of_messages(with_question(messages, &text), sampling.clone());
    let prompt = conversation::prompt(state, &chat, Input::Items, Thoughts::Skipped)?.tokens;
    let n_prompt = prompt.len();
    let requests = labels.iter().map(|label| {
        let encoded = state.model.tokenizer.encode(label, false);
        let label = encoded.map_err(|error| ApiError::internal_for_good(error.to_string()))?;
        let tokens = [prompt.as_slice(), &label].concat();
        prepare::check_length(state, Input::Items, tokens.len())?;
        let plan = Plan {
            n: 1,
            max_new_tokens: 0,
            logprobs: None,
            prompt_logprobs: Some(0),
            scored_from: u32::try_from(n_prompt).unwrap_or(u32::MAX),
            seed: 0,
        };
        prepare::request(state, tokens, sampling, plan)
    });
    Ok(Asked {
        n_prompt,
        requests: requests.collect::<Result<_, ApiError>>()?,
        question,
    })
}

/// The question behind the messages. Templates want users and assistants to take turns, so it
/// goes into the user's last message if that is the last of all.
fn with_question(messages: &[Value], question: &str) -> Vec<Value> {
    let mut messages = messages.to_vec();
    match messages.last_mut() {
        Some(last) if last["role"] == "user" => {
            let before = last["content"].as_str().unwrap_or_default();
            last["content"] = json!(format!("{before}\n\n{question}"));
        }
        _ => messages.push(json!({"role": "user", "content": question})),
    }
    messages
}

/// Scores labels: the first computes the prompt, the others find it in the prefix cache.
async fn score(state: &AppState, requests: Vec<Request>) -> Result<Vec<Scored>, ApiError> {
    let n_tokens = requests.first().map_or(1, |request| request.prompt.len());
    let n_at_a_time = (TOKENS_AT_A_TIME / n_tokens).max(1);
    let mut scored = Vec::with_capacity(requests.len());
    let mut requests = requests.into_iter();
    loop {
        let n = if scored.is_empty() { 1 } else { n_at_a_time };
        let batch: Vec<_> = requests
            .by_ref()
            .take(n)
            .map(|mut request| {
                request.id = state.engine.next_request_id();
                (request, None)
            })
            .collect();
        if batch.is_empty() {
            return Ok(scored);
        }
        let streams = state.engine.submit_all(batch, state.lease.clone())?;
        for stream in streams {
            scored.push(of_stream(stream).await?);
        }
    }
}

/// The log-probability of one label.
async fn of_stream(mut stream: TokenStream) -> Result<Scored, ApiError> {
    let mut logprob = 0.0;
    let mut n_cached = 0;
    while let Some(event) = stream.next().await {
        match event? {
            Event::PromptScored { logprobs, .. } => {
                let sum: f64 = logprobs.iter().map(|l| f64::from(l.chosen.logprob)).sum();
                logprob += sum;
            }
            Event::Finished {
                reason,
                n_cached_tokens,
                failure,
                ..
            } => {
                if matches!(reason, FinishReason::Failed | FinishReason::Cancelled) {
                    return Err(broken_off(reason, failure.as_deref()));
                }
                n_cached = u64::from(n_cached_tokens);
            }
            Event::Pooled { .. } | Event::Token { .. } => {}
        }
    }
    Ok(Scored { logprob, n_cached })
}

/// Probabilities of labels among each other. Nothing underflows: the best is scaled to 1 first.
fn normalized(logprobs: &[f64]) -> Vec<f64> {
    let best = logprobs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if !best.is_finite() {
        #[expect(clippy::cast_precision_loss, reason = "at most 255 labels")]
        let n = logprobs.len() as f64;
        return vec![1.0 / n; logprobs.len()];
    }
    let weights: Vec<f64> = logprobs.iter().map(|l| (l - best).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_sum_to_one_however_small_they_are() {
        for (logprobs, expected) in [
            (vec![0.25_f64.ln(), 0.75_f64.ln()], vec![0.25, 0.75]),
            (vec![-5000.0, -5000.0], vec![0.5, 0.5]),
            (vec![-1.0, f64::NEG_INFINITY], vec![1.0, 0.0]),
            (vec![f64::NEG_INFINITY; 4], vec![0.25; 4]),
        ] {
            let found = normalized(&logprobs);
            for (found, expected) in found.iter().zip(&expected) {
                assert!((found - expected).abs() < 1e-12, "{logprobs:?}");
            }
        }
    }

    #[test]
    fn a_question_goes_into_the_turn_of_the_user() {
        let user = json!({"role": "user", "content": "Text."});
        let assistant = json!({"role": "assistant", "content": "Yes?"});
        let found = with_question(std::slice::from_ref(&user), "True?");
        assert_eq!(
            found,
            [json!({"role": "user", "content": "Text.\n\nTrue?"})]
        );
        let found = with_question(&[user, assistant], "True?");
        assert_eq!(found[2], json!({"role": "user", "content": "True?"}));
    }
}
