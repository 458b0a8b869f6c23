//! The bodies of requests.

use clap::ValueEnum;
use serde_json::{Map, Value, json};

use crate::outcome::Outcome;
use crate::prompt::{self, Piece, TokensOfWords};
use crate::workload::Turn;

/// A route that is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Endpoint {
    Chat,
    Completions,
    Embeddings,
}

impl Endpoint {
    /// Behind the base URL.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::Chat => "/chat/completions",
            Self::Completions => "/completions",
            Self::Embeddings => "/embeddings",
        }
    }
}

/// How prompts are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PromptAs {
    /// Token ids: lengths are exact, and the server's count can be checked.
    Tokens,
    /// Words; how many tokens they make is measured first.
    Text,
}

/// What all requests have in common.
#[derive(Clone, Debug)]
pub struct Form {
    pub endpoint: Endpoint,
    pub prompt_as: PromptAs,
    pub is_stream: bool,
    /// Answers go on to their length.
    pub ignore_eos: bool,
    pub temperature: f64,
    /// Further members of every body.
    pub extra: Map<String, Value>,
    pub count: TokensOfWords,
}

/// What an answer must be like, as far as that is known before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    pub n_prompt: Option<u64>,
    /// Exactly; else at most.
    pub is_exact: bool,
    pub n_output: u64,
}

impl Form {
    /// The body of a turn after `before` (question and answer of each turn so far).
    pub(crate) fn body(
        &self,
        model: &str,
        turn: &Turn,
        before: &[(String, String)],
    ) -> (Value, Expected) {
        let mut body = json!({ "model": model });
        let mut expected = Expected {
            n_output: turn.n_output as u64,
            is_exact: self.ignore_eos && !turn.is_structured,
            n_prompt: None,
        };
        match self.endpoint {
            Endpoint::Chat => {
                let mut messages = Vec::new();
                for (question, answer) in before {
                    messages.push(json!({"role": "user", "content": question}));
                    messages.push(json!({"role": "assistant", "content": answer}));
                }
                messages.push(json!({"role": "user", "content": self.text(&turn.pieces)}));
                body["messages"] = messages.into();
            }
            Endpoint::Completions => body["prompt"] = self.prompt(&turn.pieces, &mut expected),
            Endpoint::Embeddings => {
                body["input"] = self.prompt(&turn.pieces, &mut expected);
                expected.n_output = 0;
            }
        }
        if self.endpoint != Endpoint::Embeddings {
            self.sampling(&mut body, turn);
        }
        for (name, value) in &self.extra {
            body[name] = value.clone();
        }
        (body, expected)
    }

    fn sampling(&self, body: &mut Value, turn: &Turn) {
        body["max_tokens"] = turn.n_output.into();
        body["temperature"] = self.temperature.into();
        if turn.is_structured {
            body["response_format"] = schema();
        } else if self.ignore_eos {
            body["ignore_eos"] = true.into();
        }
        if self.is_stream {
            body["stream"] = true.into();
            body["stream_options"] = json!({"include_usage": true});
        }
    }

    fn prompt(&self, pieces: &[Piece], expected: &mut Expected) -> Value {
        match self.prompt_as {
            PromptAs::Text => self.text(pieces).into(),
            PromptAs::Tokens => {
                let tokens = prompt::tokens(pieces);
                expected.n_prompt = Some(tokens.len() as u64);
                tokens.into()
            }
        }
    }

    pub(crate) fn text(&self, pieces: &[Piece]) -> String {
        prompt::text(pieces, self.count)
    }
}

/// An answer that takes its whole length and is checked token by token.
fn schema() -> Value {
    let person = json!({"type": "object", "additionalProperties": false,
        "required": ["name", "age", "tags", "kind"], "properties": {
            "name": {"type": "string"}, "age": {"type": "integer"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "kind": {"enum": ["customer", "supplier", "both"]}}});
    let people = json!({"type": "object", "additionalProperties": false, "required": ["people"],
        "properties": {"people": {"type": "array", "items": person}}});
    json!({"type": "json_schema", "json_schema": {"name": "people", "strict": true,
        "schema": people}})
}

impl Expected {
    /// What of an answer's usage cannot be, in words. `n_total` is the total it claims, if it
    /// has a usage at all.
    pub(crate) fn objection(&self, outcome: &Outcome, n_total: Option<u64>) -> Option<String> {
        let Some(n_total) = n_total else {
            return Some("the answer does not count its tokens".to_owned());
        };
        let usage = outcome.usage;
        if let Some(n_prompt) = self.n_prompt
            && n_prompt != usage.n_prompt
        {
            return Some(format!(
                "{n_prompt} tokens were sent, {} counted",
                usage.n_prompt
            ));
        }
        if usage.n_prompt == 0 || usage.n_cached > usage.n_prompt {
            return Some(format!("{} of {} cached", usage.n_cached, usage.n_prompt));
        }
        if n_total != usage.n_prompt + usage.n_output {
            let (n_prompt, n_output) = (usage.n_prompt, usage.n_output);
            return Some(format!("{n_prompt} + {n_output} = {n_total}"));
        }
        let is_right = if self.is_exact {
            usage.n_output == self.n_output
        } else {
            usage.n_output <= self.n_output
        };
        if !is_right && self.n_output > 0 {
            let (asked, n) = (self.n_output, usage.n_output);
            return Some(format!("{asked} tokens were asked for, {n} counted"));
        }
        // A token may be cut in two where thoughts end and text begins, and text may be held back
        // to the end; more events than that do not come of so few tokens.
        let n_events = outcome.tokens_at.len() as u64;
        if outcome.is_stream && n_events > usage.n_output + 2 {
            return Some(format!(
                "{n_events} events with text, {} tokens",
                usage.n_output
            ));
        }
        None
    }
}
