//! What `POST /v1/chat/completions` answers, whole and in chunks.

use schemars::JsonSchema;
use serde::Serialize;

use super::{ChunkUsage, Usage};

/// What all answers to one request begin with.
#[derive(Clone, Debug)]
pub struct Head {
    pub id: String,
    /// Seconds of Unix time; one value for all chunks.
    pub created: u64,
    /// The class that the request was served in, which only chats are told.
    pub service_tier: &'static str,
    pub model: String,
    pub system_fingerprint: String,
}

/// `chat.completion`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ChatCompletion {
    id: String,
    object: &'static str,
    created: u64,
    model: String,
    choices: Vec<ChatChoice>,
    usage: Usage,
    service_tier: &'static str,
    system_fingerprint: String,
}

/// One choice of a whole answer.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ChatChoice {
    index: u32,
    message: Message,
    logprobs: Option<ChatLogprobs>,
    finish_reason: &'static str,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Message {
    role: &'static str,
    /// Null where there is nothing but calls.
    content: Option<String>,
    refusal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    tool_calls: Vec<ToolCall>,
    annotations: [(); 0],
}

/// What an answer says and calls.
#[derive(Clone, Debug, Default)]
pub struct Said {
    pub reasoning: String,
    pub content: String,
    pub calls: Vec<ToolCall>,
    /// It had to be calls: if it has no text, none was to be.
    pub must_call: bool,
}

/// One call of a function.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct ToolCall {
    pub id: String,
    #[serde(rename = "type")]
    kind: &'static str,
    pub function: CalledFunction,
}

/// A function's name and the JSON text of its arguments, as the model wrote it.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct CalledFunction {
    pub name: String,
    pub arguments: String,
}

impl ToolCall {
    pub fn new(id: String, name: String, arguments: String) -> Self {
        Self {
            id,
            kind: "function",
            function: CalledFunction { name, arguments },
        }
    }
}

/// `logprobs` of a choice.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ChatLogprobs {
    content: Vec<ChatLogprob>,
    refusal: Option<Vec<ChatLogprob>>,
}

/// One token's log-probability.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ChatLogprob {
    #[serde(flatten)]
    pub chosen: TopLogprob,
    pub top_logprobs: Vec<TopLogprob>,
}

/// A token that was or could have been drawn.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct TopLogprob {
    /// Bytes that are not UTF-8 show as U+FFFD; `bytes` has them exactly.
    pub token: String,
    pub logprob: f32,
    pub bytes: Option<Vec<u8>>,
}

impl ChatCompletion {
    pub fn new(head: Head, choices: Vec<ChatChoice>, usage: Usage) -> Self {
        Self {
            id: head.id,
            object: "chat.completion",
            created: head.created,
            model: head.model,
            choices,
            usage,
            service_tier: head.service_tier,
            system_fingerprint: head.system_fingerprint,
        }
    }
}

impl ChatChoice {
    pub fn new(
        index: u32,
        said: Said,
        logprobs: Option<Vec<ChatLogprob>>,
        finish_reason: &'static str,
    ) -> Self {
        let is_silent = said.content.is_empty() && (said.must_call || !said.calls.is_empty());
        let has_thought = !said.reasoning.is_empty();
        Self {
            index,
            message: Message {
                role: "assistant",
                content: (!is_silent).then_some(said.content),
                refusal: None,
                reasoning_content: has_thought.then_some(said.reasoning),
                tool_calls: said.calls,
                annotations: [],
            },
            logprobs: logprobs.map(ChatLogprobs::new),
            finish_reason,
        }
    }
}

impl ChatLogprobs {
    pub(super) fn new(content: Vec<ChatLogprob>) -> Self {
        Self {
            content,
            refusal: None,
        }
    }
}

/// `chat.completion.chunk`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ChatChunk<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    service_tier: &'static str,
    system_fingerprint: &'a str,
    choices: Vec<ChunkChoice>,
    /// Left out without `include_usage`; with it null until the last chunk, or what it is so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: ChunkUsage,
}

#[derive(Debug, Serialize, JsonSchema)]
struct ChunkChoice {
    index: u32,
    delta: Delta,
    logprobs: Option<ChatLogprobs>,
    finish_reason: Option<&'static str>,
}

/// What a chunk adds to a message. An empty one is `{}`.
#[derive(Debug, Default, Serialize, JsonSchema)]
struct Delta {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    /// Null, and present in the first chunk only.
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<[CallDelta; 1]>,
}

/// The beginning of a call, which has all but its arguments, or more of its arguments.
#[derive(Debug, Serialize, JsonSchema)]
struct CallDelta {
    index: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    function: FunctionDelta,
}

#[derive(Debug, Serialize, JsonSchema)]
struct FunctionDelta {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    arguments: String,
}

/// What a chunk has to say.
#[derive(Clone, Debug)]
pub enum ChunkPart {
    Nothing,
    Content(String),
    Reasoning(String),
    Call {
        index: u32,
        id: String,
        name: String,
    },
    Arguments {
        index: u32,
        json: String,
    },
}

impl From<ChunkPart> for Delta {
    fn from(part: ChunkPart) -> Self {
        match part {
            ChunkPart::Nothing => Self::default(),
            ChunkPart::Content(text) => Self {
                content: Some(text),
                ..Self::default()
            },
            ChunkPart::Reasoning(text) => Self {
                reasoning_content: Some(text),
                ..Self::default()
            },
            ChunkPart::Call { index, id, name } => {
                Self::call(index, Some((id, name)), String::new())
            }
            ChunkPart::Arguments { index, json } => Self::call(index, None, json),
        }
    }
}

impl Delta {
    fn call(index: u32, begun: Option<(String, String)>, arguments: String) -> Self {
        let kind = begun.as_ref().map(|_| "function");
        let (id, name) = begun.unzip();
        let call = CallDelta {
            index,
            id,
            kind,
            function: FunctionDelta { name, arguments },
        };
        Self {
            tool_calls: Some([call]),
            ..Self::default()
        }
    }
}

impl<'a> ChatChunk<'a> {
    fn new(head: &'a Head, usage: ChunkUsage, choices: Vec<ChunkChoice>) -> Self {
        Self {
            id: &head.id,
            object: "chat.completion.chunk",
            created: head.created,
            model: &head.model,
            service_tier: head.service_tier,
            system_fingerprint: &head.system_fingerprint,
            choices,
            usage,
        }
    }

    /// The first chunk of a choice: its role, and nothing else anywhere again.
    pub fn role(head: &'a Head, usage: ChunkUsage, index: u32) -> Self {
        let delta = Delta {
            role: Some("assistant"),
            content: Some(String::new()),
            refusal: Some(None),
            ..Delta::default()
        };
        Self::choice(head, usage, index, delta, None, None)
    }

    /// More of a choice.
    pub fn part(
        head: &'a Head,
        usage: ChunkUsage,
        index: u32,
        part: ChunkPart,
        logprobs: Option<Vec<ChatLogprob>>,
    ) -> Self {
        let delta = part.into();
        let logprobs = logprobs.map(ChatLogprobs::new);
        Self::choice(head, usage, index, delta, logprobs, None)
    }

    /// The last chunk of a choice.
    pub fn finish(head: &'a Head, usage: ChunkUsage, index: u32, reason: &'static str) -> Self {
        Self::choice(head, usage, index, Delta::default(), None, Some(reason))
    }

    /// The last chunk of a stream that includes usage.
    pub fn usage(head: &'a Head, usage: Usage) -> Self {
        Self::new(head, Some(Some(usage)), Vec::new())
    }

    fn choice(
        head: &'a Head,
        usage: ChunkUsage,
        index: u32,
        delta: Delta,
        logprobs: Option<ChatLogprobs>,
        finish_reason: Option<&'static str>,
    ) -> Self {
        let choice = ChunkChoice {
            index,
            delta,
            logprobs,
            finish_reason,
        };
        Self::new(head, usage, vec![choice])
    }
}
