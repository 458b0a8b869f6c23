//! What is generated for a response, as its items and as its events.

use std::sync::Arc;

use serde_json::{Value, json};

use super::flow::{Ending, Fold};
use super::message::{MessageReader, MessageRules, Part};
use super::response_context::Context;
use crate::generation::Update;
use crate::identity::{Numbers, unix_seconds};
use crate::openai::{
    ApiError, ChatLogprob, ChunkPart, ContentPart, EventBody, OutputItem, ResponseEvent,
    ResponseObject, ResponseStatus, TokenCounts,
};
use crate::sse::{Frame, to_json};
use crate::store::{Key, Kind, Write};

/// Folds the one choice of a response.
pub(super) struct ResponseFold {
    response: ResponseObject,
    reader: MessageReader,
    ids: Arc<Numbers>,
    counts: TokenCounts,
    /// Where the request comes from and its end goes to.
    context: Context,
    is_streamed: bool,
    n_events: u64,
    /// The last item of the output is still being written.
    is_open: bool,
    has_begun: bool,
}

impl ResponseFold {
    pub(super) fn new(
        response: ResponseObject,
        rules: &MessageRules,
        context: Context,
        n_prompt: usize,
        is_streamed: bool,
    ) -> Self {
        Self {
            response,
            reader: MessageReader::new(rules),
            ids: Arc::clone(&rules.ids),
            counts: TokenCounts {
                prompt: n_prompt as u64,
                ..TokenCounts::default()
            },
            context,
            is_streamed,
            n_events: 0,
            is_open: false,
            has_begun: false,
        }
    }

    pub(super) fn response(&self) -> &ResponseObject {
        &self.response
    }

    /// Whether anything has been generated.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Where the response lies in the store, and what is kept of it as it is now.
    pub(super) fn record(&self) -> (Key, Vec<u8>) {
        let record = json!({"response": self.response, "input": self.context.input});
        let key = Key::new(self.context.owner, Kind::Response, &self.response.id);
        (key, record.to_string().into_bytes())
    }

    /// The end of a response that nobody wants any more.
    pub(super) fn cancel(&mut self) -> Vec<Write> {
        self.abandon_open_item();
        self.response.status = ResponseStatus::Cancelled;
        self.writes()
    }

    fn event(&mut self, kind: &'static str, body: EventBody<'_>) -> Frame {
        let event = ResponseEvent {
            kind,
            sequence_number: self.n_events,
            body,
        };
        self.n_events += 1;
        Frame {
            name: Some(kind.into()),
            data: to_json(&event),
        }
    }

    fn response_event(&mut self, kind: &'static str) -> Frame {
        let response = self.response.clone();
        let response = &response;
        self.event(kind, EventBody::Response { response })
    }

    fn take(&mut self, parts: Vec<Part>) -> Vec<Frame> {
        let mut frames = Vec::new();
        for (part, logprobs) in parts {
            let logprobs = logprobs.unwrap_or_default();
            match part {
                ChunkPart::Nothing if logprobs.is_empty() => {}
                // Of tokens without text of their own, which belong to the text before.
                ChunkPart::Nothing => self.text(String::new(), logprobs, &mut frames),
                ChunkPart::Content(text) => self.text(text, logprobs, &mut frames),
                ChunkPart::Reasoning(text) => self.thoughts(&text, &mut frames),
                ChunkPart::Call { id, name, .. } => self.call(id, name, &mut frames),
                ChunkPart::Arguments { json, .. } => self.arguments(&json, &mut frames),
            }
        }
        frames
    }

    fn text(&mut self, delta: String, logprobs: Vec<ChatLogprob>, frames: &mut Vec<Frame>) {
        let is_text = matches!(
            self.response.output.last(),
            Some(OutputItem::Message { .. })
        );
        if !(self.is_open && is_text) {
            let id = self.ids.id("msg_");
            let item = OutputItem::Message {
                id,
                status: ResponseStatus::InProgress,
                role: "assistant",
                content: Vec::new(),
            };
            let part = ContentPart::OutputText {
                text: String::new(),
                annotations: [],
                logprobs: Vec::new(),
            };
            self.open(item, Some(part), frames);
        }
        let (output_index, item_id) = self.place();
        let body = EventBody::TextDelta {
            item_id: &item_id,
            output_index,
            content_index: 0,
            delta: &delta,
            logprobs: &logprobs,
        };
        if !delta.is_empty() || !logprobs.is_empty() {
            frames.push(self.event("response.output_text.delta", body));
        }
        if let Some(ContentPart::OutputText {
            text,
            logprobs: all,
            ..
        }) = self.open_part()
        {
            text.push_str(&delta);
            all.extend(logprobs);
        }
    }

    fn thoughts(&mut self, delta: &str, frames: &mut Vec<Frame>) {
        let is_thought = matches!(
            self.response.output.last(),
            Some(OutputItem::Reasoning { .. })
        );
        if !(self.is_open && is_thought) {
            let item = OutputItem::Reasoning {
                id: self.ids.id("rs_"),
                summary: [],
                content: Vec::new(),
                status: ResponseStatus::InProgress,
            };
            let text = String::new();
            self.open(item, Some(ContentPart::ReasoningText { text }), frames);
        }
        let (output_index, item_id) = self.place();
        let body = EventBody::ReasoningDelta {
            item_id: &item_id,
            output_index,
            content_index: 0,
            delta,
        };
        frames.push(self.event("response.reasoning_text.delta", body));
        if let Some(ContentPart::ReasoningText { text }) = self.open_part() {
            text.push_str(delta);
        }
    }

    fn call(&mut self, call_id: String, name: String, frames: &mut Vec<Frame>) {
        let item = OutputItem::FunctionCall {
            id: self.ids.id("fc_"),
            call_id,
            name,
            arguments: String::new(),
            status: ResponseStatus::InProgress,
        };
        self.open(item, None, frames);
    }

    fn arguments(&mut self, delta: &str, frames: &mut Vec<Frame>) {
        let (output_index, item_id) = self.place();
        let body = EventBody::ArgumentsDelta {
            item_id: &item_id,
            output_index,
            delta,
        };
        frames.push(self.event("response.function_call_arguments.delta", body));
        if let Some(OutputItem::FunctionCall { arguments, .. }) = self.response.output.last_mut() {
            arguments.push_str(delta);
        }
    }

    /// Number and id of the last item.
    fn place(&self) -> (usize, String) {
        let last = self.response.output.last();
        let id = last.map(|item| item.id().to_owned()).unwrap_or_default();
        (self.response.output.len().saturating_sub(1), id)
    }

    fn open_part(&mut self) -> Option<&mut ContentPart> {
        self.response.output.last_mut().and_then(OutputItem::part)
    }

    /// Begins an item and its part, after the item before is whole.
    fn open(&mut self, item: OutputItem, part: Option<ContentPart>, frames: &mut Vec<Frame>) {
        self.close(ResponseStatus::Completed, frames);
        let (output_index, item_id) = (self.response.output.len(), item.id().to_owned());
        let body = EventBody::Item {
            output_index,
            item: &item,
        };
        frames.push(self.event("response.output_item.added", body));
        self.response.output.push(item);
        self.is_open = true;
        let Some(part) = part else { return };
        let body = EventBody::Part {
            item_id: &item_id,
            output_index,
            content_index: 0,
            part: &part,
        };
        frames.push(self.event("response.content_part.added", body));
        if let Some(OutputItem::Message { content, .. } | OutputItem::Reasoning { content, .. }) =
            self.response.output.last_mut()
        {
            content.push(part);
        }
    }

    /// Ends the item that is open.
    fn close(&mut self, status: ResponseStatus, frames: &mut Vec<Frame>) {
        if !std::mem::take(&mut self.is_open) {
            return;
        }
        let (output_index, item_id) = self.place();
        let Some(mut item) = self.response.output.pop() else {
            return;
        };
        item.set_status(status);
        let at = (output_index, item_id.as_str());
        if let Some(part) = item.part() {
            frames.extend(self.part_done(at, part));
        }
        if let OutputItem::FunctionCall {
            name, arguments, ..
        } = &item
        {
            let body = EventBody::ArgumentsDone {
                item_id: &item_id,
                output_index,
                name,
                arguments,
            };
            frames.push(self.event("response.function_call_arguments.done", body));
        }
        let body = EventBody::Item {
            output_index,
            item: &item,
        };
        frames.push(self.event("response.output_item.done", body));
        self.response.output.push(item);
    }

    fn part_done(&mut self, at: (usize, &str), part: &ContentPart) -> [Frame; 2] {
        let (output_index, item_id) = at;
        let content_index = 0;
        let (kind, body) = match part {
            ContentPart::OutputText { text, logprobs, .. } => (
                "response.output_text.done",
                EventBody::TextDone {
                    item_id,
                    output_index,
                    content_index,
                    text,
                    logprobs,
                },
            ),
            ContentPart::ReasoningText { text } => (
                "response.reasoning_text.done",
                EventBody::ReasoningDone {
                    item_id,
                    output_index,
                    content_index,
                    text,
                },
            ),
        };
        let text_done = self.event(kind, body);
        let body = EventBody::Part {
            item_id,
            output_index,
            content_index,
            part,
        };
        [text_done, self.event("response.content_part.done", body)]
    }

    /// What has been said of an item that will not be whole.
    fn abandon_open_item(&mut self) {
        if std::mem::take(&mut self.is_open)
            && let Some(item) = self.response.output.last_mut()
        {
            item.set_status(ResponseStatus::Incomplete);
        }
    }

    /// What is kept of a response at its end.
    fn writes(&self) -> Vec<Write> {
        if !self.response.store {
            return Vec::new();
        }
        let (key, record) = self.record();
        let mut writes = vec![Write::put(key, record)];
        let owner = self.context.owner;
        let output = self.response.output.iter();
        let inputs = self.context.input.iter();
        let ids = inputs
            .filter_map(|item| item["id"].as_str())
            .chain(output.clone().map(OutputItem::id));
        writes.extend(ids.map(|id| {
            let key = Key::new(owner, Kind::Item, id);
            Write::put(key, self.response.id.as_bytes())
        }));
        writes
    }

    /// Questions and answers that go into the conversation.
    fn conversation_write(&self) -> Option<Write> {
        let id = &self.response.conversation.as_ref()?.id;
        let answers = self.response.output.iter();
        let answers = answers.map(|item| serde_json::to_value(item).unwrap_or(Value::Null));
        let items = self.context.input.iter().cloned().chain(answers);
        let key = Key::new(self.context.owner, Kind::Conversation, id);
        Some(super::conversations::append(key, items.collect()))
    }
}

impl Fold for ResponseFold {
    fn is_streamed(&self) -> bool {
        self.is_streamed
    }

    fn start(&mut self, i: usize) -> Option<Vec<Frame>> {
        let second = if self.response.background {
            "response.queued"
        } else {
            "response.in_progress"
        };
        (i == 0).then(|| {
            vec![
                self.response_event("response.created"),
                self.response_event(second),
            ]
        })
    }

    fn update(&mut self, _job: usize, update: Update) -> Vec<Frame> {
        let mut frames = Vec::new();
        if !std::mem::replace(&mut self.has_begun, true) && self.response.background {
            self.response.status = ResponseStatus::InProgress;
            frames.push(self.response_event("response.in_progress"));
        }
        match update {
            Update::PromptScored(_) => {}
            Update::Text { piece, .. } => {
                let parts = self.reader.push(piece);
                frames.extend(self.take(parts));
            }
            Update::Finished {
                piece,
                reason,
                totals,
                ..
            } => {
                let parts = self.reader.push(piece);
                frames.extend(self.take(parts));
                if self.response.output.is_empty() {
                    // An answer of no text is an answer.
                    self.text(String::new(), Vec::new(), &mut frames);
                }
                let status = if reason == "length" {
                    ResponseStatus::Incomplete
                } else {
                    ResponseStatus::Completed
                };
                self.close(status, &mut frames);
                self.counts.completion = totals.n_tokens;
                self.counts.cached = totals.n_cached;
                self.counts.reasoning = totals.n_reasoning;
                self.response.finish(reason, self.counts, unix_seconds());
            }
        }
        frames
    }

    fn end(&mut self) -> Ending {
        let mut writes = self.writes();
        writes.extend(self.conversation_write());
        let kind = if self.response.status == ResponseStatus::Incomplete {
            "response.incomplete"
        } else {
            "response.completed"
        };
        Ending {
            writes,
            frames: vec![self.response_event(kind)],
        }
    }

    fn fail(&mut self, error: &ApiError) -> Ending {
        self.abandon_open_item();
        self.response.fail(error);
        let writes = self.writes();
        Ending {
            writes,
            frames: vec![self.response_event("response.failed")],
        }
    }

    fn whole(&mut self) -> String {
        to_json(&self.response)
    }
}
