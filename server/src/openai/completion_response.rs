//! What `POST /v1/completions` answers; a chunk of a stream has the same form as a whole answer.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use super::{ChunkUsage, Head, Usage};

/// `text_completion`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Completion<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: Vec<CompletionChoice>,
    /// Left out of chunks without `include_usage`; with it null until the last, or what it is so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: ChunkUsage,
    system_fingerprint: &'a str,
}

/// One choice, or what a chunk adds to it.
#[derive(Debug, Serialize, JsonSchema)]
pub struct CompletionChoice {
    /// Choices that begin with the same prompt may share it.
    #[serde(serialize_with = "as_string")]
    pub text: Arc<str>,
    pub index: u32,
    pub logprobs: Option<CompletionLogprobs>,
    pub finish_reason: Option<&'static str>,
}

fn as_string<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

/// Log-probabilities as parallel arrays, one entry a token.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct CompletionLogprobs {
    pub tokens: Vec<String>,
    /// Null for the first token of an echoed prompt, which nothing precedes.
    pub token_logprobs: Vec<Option<f32>>,
    /// The best tokens and the chosen one; null where `token_logprobs` is.
    #[schemars(with = "Vec<Option<std::collections::BTreeMap<String, f32>>>")]
    pub top_logprobs: Vec<Option<TopTokens>>,
    /// Where the token begins in the choice's whole text, in characters.
    pub text_offset: Vec<usize>,
}

/// Token texts with their log-probabilities, a JSON object in the order given.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TopTokens(Vec<(String, f32)>);

impl TopTokens {
    /// Adds a token. Where another token of the same text is there already, the first stays.
    pub fn push(&mut self, token: String, logprob: f32) {
        if self.0.iter().all(|(text, _)| *text != token) {
            self.0.push((token, logprob));
        }
    }
}

impl Serialize for TopTokens {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(text, logprob)| (text, logprob)))
    }
}

impl<'a> Completion<'a> {
    /// A whole answer.
    pub fn whole(head: &'a Head, choices: Vec<CompletionChoice>, usage: Usage) -> Self {
        Self::new(head, choices, Some(Some(usage)))
    }

    /// One chunk of a stream.
    pub fn chunk(head: &'a Head, usage: ChunkUsage, choice: CompletionChoice) -> Self {
        Self::new(head, vec![choice], usage)
    }

    /// The last chunk of a stream that includes usage.
    pub fn usage(head: &'a Head, usage: Usage) -> Self {
        Self::new(head, Vec::new(), Some(Some(usage)))
    }

    fn new(head: &'a Head, choices: Vec<CompletionChoice>, usage: ChunkUsage) -> Self {
        Self {
            id: &head.id,
            object: "text_completion",
            created: head.created,
            model: &head.model,
            choices,
            usage,
            system_fingerprint: &head.system_fingerprint,
        }
    }
}

impl CompletionLogprobs {
    /// Appends one token.
    pub fn push(
        &mut self,
        token: String,
        logprob: Option<f32>,
        top: Option<TopTokens>,
        offset: usize,
    ) {
        self.tokens.push(token);
        self.token_logprobs.push(logprob);
        self.top_logprobs.push(top);
        self.text_offset.push(offset);
    }

    /// Appends tokens that come later in the same text.
    pub fn append(&mut self, later: Self) {
        self.tokens.extend(later.tokens);
        self.token_logprobs.extend(later.token_logprobs);
        self.top_logprobs.extend(later.top_logprobs);
        self.text_offset.extend(later.text_offset);
    }
}
