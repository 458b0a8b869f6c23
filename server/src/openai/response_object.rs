//! A response, as it is answered, streamed and stored.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{ApiError, ChatLogprob, TokenCounts};

/// How far a response is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResponseStatus {
    Queued,
    InProgress,
    Completed,
    Incomplete,
    Failed,
    Cancelled,
}

/// `response`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ResponseObject {
    pub id: String,
    object: &'static str,
    pub created_at: u64,
    pub completed_at: Option<u64>,
    pub status: ResponseStatus,
    pub background: bool,
    error: Option<ResponseError>,
    incomplete_details: Option<IncompleteDetails>,
    pub model: String,
    pub output: Vec<OutputItem>,
    service_tier: &'static str,
    pub store: bool,
    pub conversation: Option<ConversationRef>,
    /// Left out until it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<ResponseUsage>,
    /// What is repeated of the request.
    #[serde(flatten)]
    echo: Map<String, Value>,
}

/// The conversation that a response belongs to.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ConversationRef {
    pub id: String,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
struct ResponseError {
    code: &'static str,
    message: String,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
struct IncompleteDetails {
    reason: &'static str,
}

/// Something that a response holds.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum OutputItem {
    Reasoning {
        id: String,
        /// Always empty: thoughts are not told in short.
        summary: [(); 0],
        content: Vec<ContentPart>,
        status: ResponseStatus,
    },
    Message {
        id: String,
        status: ResponseStatus,
        role: &'static str,
        content: Vec<ContentPart>,
    },
    FunctionCall {
        id: String,
        call_id: String,
        name: String,
        arguments: String,
        status: ResponseStatus,
    },
}

/// A part of a message or of thoughts.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ContentPart {
    OutputText {
        text: String,
        annotations: [(); 0],
        logprobs: Vec<ChatLogprob>,
    },
    ReasoningText {
        text: String,
    },
}

/// Token counts of a response.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub struct ResponseUsage {
    input_tokens: u64,
    input_tokens_details: InputTokensDetails,
    output_tokens: u64,
    output_tokens_details: OutputTokensDetails,
    total_tokens: u64,
}

#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
struct InputTokensDetails {
    cached_tokens: u64,
    cache_write_tokens: u64,
}

#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
struct OutputTokensDetails {
    reasoning_tokens: u64,
}

impl From<TokenCounts> for ResponseUsage {
    fn from(counts: TokenCounts) -> Self {
        Self {
            input_tokens: counts.prompt,
            input_tokens_details: InputTokensDetails {
                cached_tokens: counts.cached,
                cache_write_tokens: 0,
            },
            output_tokens: counts.completion,
            output_tokens_details: OutputTokensDetails {
                reasoning_tokens: counts.reasoning,
            },
            total_tokens: counts.prompt + counts.completion,
        }
    }
}

/// What a response begins with.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    pub id: String,
    pub created_at: u64,
    pub model: String,
    pub service_tier: &'static str,
    pub background: bool,
    pub store: bool,
    pub conversation: Option<String>,
    /// Fields of the request that are repeated, as far as they were given.
    pub echo: Map<String, Value>,
}

/// Fields that are there whether they were given or not. `user` is the only one that is not.
fn defaults() -> [(&'static str, Value); 11] {
    [
        ("instructions", Value::Null),
        ("max_output_tokens", Value::Null),
        ("max_tool_calls", Value::Null),
        ("metadata", json!({})),
        ("previous_response_id", Value::Null),
        ("prompt_cache_key", Value::Null),
        ("safety_identifier", Value::Null),
        ("temperature", json!(1.0)),
        ("tool_choice", json!("auto")),
        ("top_p", json!(1.0)),
        ("truncation", json!("disabled")),
    ]
}

impl ResponseObject {
    /// A response that has only begun.
    pub fn new(head: ResponseHead) -> Self {
        let mut echo = head.echo;
        for (name, value) in defaults() {
            echo.entry(name).or_insert(value);
        }
        Self {
            id: head.id,
            object: "response",
            created_at: head.created_at,
            completed_at: None,
            status: if head.background {
                ResponseStatus::Queued
            } else {
                ResponseStatus::InProgress
            },
            background: head.background,
            error: None,
            incomplete_details: None,
            model: head.model,
            output: Vec::new(),
            service_tier: head.service_tier,
            store: head.store,
            conversation: head.conversation.map(|id| ConversationRef { id }),
            usage: None,
            echo,
        }
    }

    /// The answer is whole, or as long as it may be.
    pub fn finish(&mut self, reason: &str, usage: TokenCounts, now: u64) {
        self.usage = Some(usage.into());
        if reason == "length" {
            self.status = ResponseStatus::Incomplete;
            let reason = "max_output_tokens";
            self.incomplete_details = Some(IncompleteDetails { reason });
        } else {
            self.status = ResponseStatus::Completed;
            self.completed_at = Some(now);
        }
    }

    /// The answer has failed.
    pub fn fail(&mut self, error: &ApiError) {
        let is_limit = error.status == axum::http::StatusCode::TOO_MANY_REQUESTS;
        self.status = ResponseStatus::Failed;
        self.error = Some(ResponseError {
            code: if is_limit {
                "rate_limit_exceeded"
            } else {
                "server_error"
            },
            message: error.message.clone(),
        });
    }
}

impl OutputItem {
    pub fn id(&self) -> &str {
        match self {
            Self::Reasoning { id, .. } | Self::Message { id, .. } => id,
            Self::FunctionCall { id, .. } => id,
        }
    }

    /// How far the item is.
    pub fn set_status(&mut self, to: ResponseStatus) {
        match self {
            Self::Reasoning { status, .. }
            | Self::Message { status, .. }
            | Self::FunctionCall { status, .. } => *status = to,
        }
    }

    /// The one part of a message or of thoughts.
    pub fn part(&mut self) -> Option<&mut ContentPart> {
        match self {
            Self::Reasoning { content, .. } | Self::Message { content, .. } => content.last_mut(),
            Self::FunctionCall { .. } => None,
        }
    }
}
