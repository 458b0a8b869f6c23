//! What `POST /v1/messages` answers, whole and as events.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

/// `message`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct MessageObject {
    pub id: String,
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub role: &'static str,
    pub model: String,
    pub content: Vec<Block>,
    /// Null until it is known.
    pub stop_reason: Option<StopReason>,
    /// The stop sequence that ended the answer.
    pub stop_sequence: Option<String>,
    pub usage: MessageUsage,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    EndTurn,
    MaxTokens,
    StopSequence,
    ToolUse,
    /// `max_tokens` was more than the context has room for, and that was used up.
    ModelContextWindowExceeded,
}

/// A part of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Block {
    Text {
        text: String,
    },
    Thinking {
        thinking: String,
        /// Empty: thoughts are in the open and are not signed.
        signature: &'static str,
    },
    ToolUse {
        id: String,
        name: String,
        input: Value,
    },
}

/// Token counts. All of the prompt: `input_tokens` and `cache_read_input_tokens` together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct MessageUsage {
    pub input_tokens: u64,
    pub cache_creation_input_tokens: u64,
    pub cache_read_input_tokens: u64,
    pub output_tokens: u64,
}

/// One event of a stream; its type is the name of the server-sent event as well.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum MessageEvent<'a> {
    MessageStart {
        message: &'a MessageObject,
    },
    ContentBlockStart {
        index: usize,
        content_block: &'a Block,
    },
    ContentBlockDelta {
        index: usize,
        delta: BlockDelta<'a>,
    },
    ContentBlockStop {
        index: usize,
    },
    MessageDelta {
        delta: End<'a>,
        usage: MessageUsage,
    },
    MessageStop,
}

/// More of a block.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum BlockDelta<'a> {
    TextDelta { text: &'a str },
    ThinkingDelta { thinking: &'a str },
    SignatureDelta { signature: &'a str },
    InputJsonDelta { partial_json: &'a str },
}

/// How a message ended.
#[derive(Debug, Serialize, JsonSchema)]
pub struct End<'a> {
    pub stop_reason: Option<StopReason>,
    pub stop_sequence: Option<&'a str>,
}

impl MessageObject {
    /// A message that has only begun.
    pub fn new(id: String, model: String, n_prompt: u64) -> Self {
        Self {
            id,
            kind: "message",
            role: "assistant",
            model,
            content: Vec::new(),
            stop_reason: None,
            stop_sequence: None,
            usage: MessageUsage {
                input_tokens: n_prompt,
                ..MessageUsage::default()
            },
        }
    }

    /// How it ended.
    pub fn end(&self) -> End<'_> {
        End {
            stop_reason: self.stop_reason,
            stop_sequence: self.stop_sequence.as_deref(),
        }
    }
}

impl MessageEvent<'_> {
    /// The name of the server-sent event.
    pub fn name(&self) -> &'static str {
        match self {
            Self::MessageStart { .. } => "message_start",
            Self::ContentBlockStart { .. } => "content_block_start",
            Self::ContentBlockDelta { .. } => "content_block_delta",
            Self::ContentBlockStop { .. } => "content_block_stop",
            Self::MessageDelta { .. } => "message_delta",
            Self::MessageStop => "message_stop",
        }
    }
}
