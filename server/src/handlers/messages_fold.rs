//! What is generated for a message, as its blocks and as its events.

use serde_json::{Value, json};

use super::flow::{Ending, Fold};
use super::message::{MessageReader, MessageRules, Part};
use crate::anthropic::{
    Block, BlockDelta, MessageEvent, MessageObject, MessageUsage, StopReason, error_json,
};
use crate::generation::Update;
use crate::openai::{ApiError, ChunkPart};
use crate::sse::{Frame, to_json};

/// Folds the one choice of a message.
pub(super) struct MessageFold {
    message: MessageObject,
    reader: MessageReader,
    /// The answer had less room than was asked for.
    is_cut: bool,
    is_streamed: bool,
    /// The last block is still being written.
    is_open: bool,
    /// The input of the tool that is being called, as JSON text.
    input: String,
}

impl MessageFold {
    pub(super) fn new(
        message: MessageObject,
        rules: &MessageRules,
        is_cut: bool,
        is_streamed: bool,
    ) -> Self {
        Self {
            message,
            reader: MessageReader::new(rules),
            is_cut,
            is_streamed,
            is_open: false,
            input: String::new(),
        }
    }

    fn take(&mut self, parts: Vec<Part>) -> Vec<Frame> {
        let mut frames = Vec::new();
        for (part, _) in parts {
            match part {
                ChunkPart::Nothing => {}
                ChunkPart::Content(text) => self.text(&text, &mut frames),
                ChunkPart::Reasoning(text) => self.thoughts(&text, &mut frames),
                ChunkPart::Call { id, name, .. } => {
                    let id = id.replacen("call_", "toolu_", 1);
                    let input = json!({});
                    self.open(Block::ToolUse { id, name, input }, &mut frames);
                }
                ChunkPart::Arguments { json, .. } => {
                    self.input.push_str(&json);
                    let partial_json = &json;
                    frames.push(self.delta(BlockDelta::InputJsonDelta { partial_json }));
                }
            }
        }
        frames
    }

    fn text(&mut self, delta: &str, frames: &mut Vec<Frame>) {
        if !(self.is_open && matches!(self.message.content.last(), Some(Block::Text { .. }))) {
            let text = String::new();
            self.open(Block::Text { text }, frames);
        }
        frames.push(self.delta(BlockDelta::TextDelta { text: delta }));
        if let Some(Block::Text { text }) = self.message.content.last_mut() {
            text.push_str(delta);
        }
    }

    fn thoughts(&mut self, delta: &str, frames: &mut Vec<Frame>) {
        let last = self.message.content.last();
        if !(self.is_open && matches!(last, Some(Block::Thinking { .. }))) {
            let block = Block::Thinking {
                thinking: String::new(),
                signature: "",
            };
            self.open(block, frames);
        }
        frames.push(self.delta(BlockDelta::ThinkingDelta { thinking: delta }));
        if let Some(Block::Thinking { thinking, .. }) = self.message.content.last_mut() {
            thinking.push_str(delta);
        }
    }

    /// More of the last block.
    fn delta(&self, delta: BlockDelta<'_>) -> Frame {
        let index = self.message.content.len().saturating_sub(1);
        frame(&MessageEvent::ContentBlockDelta { index, delta })
    }

    /// Begins a block, after the one before is whole.
    fn open(&mut self, block: Block, frames: &mut Vec<Frame>) {
        self.close(frames);
        let start = MessageEvent::ContentBlockStart {
            index: self.message.content.len(),
            content_block: &block,
        };
        frames.push(frame(&start));
        self.message.content.push(block);
        self.is_open = true;
    }

    /// Ends the block that is open.
    fn close(&mut self, frames: &mut Vec<Frame>) {
        if !std::mem::take(&mut self.is_open) {
            return;
        }
        let index = self.message.content.len().saturating_sub(1);
        match self.message.content.last_mut() {
            Some(Block::ToolUse { input, .. }) => *input = object(&std::mem::take(&mut self.input)),
            Some(Block::Thinking { signature, .. }) => {
                let delta = BlockDelta::SignatureDelta { signature };
                frames.push(frame(&MessageEvent::ContentBlockDelta { index, delta }));
            }
            Some(Block::Text { .. }) | None => {}
        }
        frames.push(frame(&MessageEvent::ContentBlockStop { index }));
    }

    fn stop_reason(&self, reason: &str) -> StopReason {
        let has_calls = self
            .message
            .content
            .iter()
            .any(|block| matches!(block, Block::ToolUse { .. }));
        match reason {
            "length" if self.is_cut => StopReason::ModelContextWindowExceeded,
            "length" => StopReason::MaxTokens,
            _ if self.message.stop_sequence.is_some() => StopReason::StopSequence,
            _ if has_calls => StopReason::ToolUse,
            _ => StopReason::EndTurn,
        }
    }
}

fn frame(event: &MessageEvent<'_>) -> Frame {
    Frame {
        name: Some(event.name().into()),
        data: to_json(event),
    }
}

/// The input of a tool. Text of a model that is no JSON object cannot be told otherwise than by
/// its text.
fn object(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(object @ Value::Object(_)) => object,
        _ if text.trim().is_empty() => json!({}),
        _ => json!({"arguments": text}),
    }
}

impl Fold for MessageFold {
    fn is_streamed(&self) -> bool {
        self.is_streamed
    }

    fn start(&mut self, i: usize) -> Option<Vec<Frame>> {
        let message = &self.message;
        (i == 0).then(|| vec![frame(&MessageEvent::MessageStart { message })])
    }

    fn update(&mut self, _job: usize, update: Update) -> Vec<Frame> {
        match update {
            Update::PromptScored(_) => Vec::new(),
            Update::Text { piece, .. } => {
                let parts = self.reader.push(piece);
                self.take(parts)
            }
            Update::Finished {
                piece,
                reason,
                totals,
                stop_string,
                ..
            } => {
                let parts = self.reader.push(piece);
                let mut frames = self.take(parts);
                self.close(&mut frames);
                self.message.stop_sequence = stop_string;
                self.message.stop_reason = Some(self.stop_reason(reason));
                let prompt = self.message.usage.input_tokens;
                self.message.usage = MessageUsage {
                    input_tokens: prompt.saturating_sub(totals.n_cached),
                    cache_creation_input_tokens: 0,
                    cache_read_input_tokens: totals.n_cached,
                    output_tokens: totals.n_tokens,
                };
                frames
            }
        }
    }

    fn end(&mut self) -> Ending {
        let delta = MessageEvent::MessageDelta {
            delta: self.message.end(),
            usage: self.message.usage,
        };
        Ending::sent(vec![frame(&delta), frame(&MessageEvent::MessageStop)])
    }

    fn fail(&mut self, error: &ApiError) -> Ending {
        let error = error_json(error.status.as_u16(), &error.to_json()["error"]);
        Ending::sent(vec![Frame {
            name: Some("error".into()),
            data: error.to_string(),
        }])
    }

    fn whole(&mut self) -> String {
        to_json(&self.message)
    }
}
