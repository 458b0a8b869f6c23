//! The events of a streamed response.

use schemars::JsonSchema;
use serde::Serialize;

use super::{ChatLogprob, ContentPart, OutputItem, ResponseObject};

/// One event. Its type is the name of the server-sent event as well.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ResponseEvent<'a> {
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Counts from 0.
    pub sequence_number: u64,
    #[serde(flatten)]
    pub body: EventBody<'a>,
}

/// What an event tells.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum EventBody<'a> {
    /// The response as it is now.
    Response { response: &'a ResponseObject },
    /// An item begins, or is whole.
    Item {
        output_index: usize,
        item: &'a OutputItem,
    },
    /// A part of an item begins, or is whole.
    Part {
        item_id: &'a str,
        output_index: usize,
        content_index: usize,
        part: &'a ContentPart,
    },
    /// More text.
    TextDelta {
        item_id: &'a str,
        output_index: usize,
        content_index: usize,
        delta: &'a str,
        logprobs: &'a [ChatLogprob],
    },
    /// All text of a part.
    TextDone {
        item_id: &'a str,
        output_index: usize,
        content_index: usize,
        text: &'a str,
        logprobs: &'a [ChatLogprob],
    },
    /// More thoughts.
    ReasoningDelta {
        item_id: &'a str,
        output_index: usize,
        content_index: usize,
        delta: &'a str,
    },
    /// All thoughts of a part.
    ReasoningDone {
        item_id: &'a str,
        output_index: usize,
        content_index: usize,
        text: &'a str,
    },
    /// More of a call's arguments.
    ArgumentsDelta {
        item_id: &'a str,
        output_index: usize,
        delta: &'a str,
    },
    /// All arguments of a call.
    ArgumentsDone {
        item_id: &'a str,
        output_index: usize,
        name: &'a str,
        arguments: &'a str,
    },
}
