//! Anthropic's Messages API on the wire: a second dialect over the same core. Requests become
//! chats ([`ChatRequest`](crate::openai::ChatRequest)); answers are told in blocks.

mod blocks;
mod content;
mod error;
mod request;
mod tools;

pub use blocks::{Block, BlockDelta, End, MessageEvent, MessageObject, MessageUsage, StopReason};
pub(crate) use error::{in_its_words, to_json as error_json};
pub use request::MessageRequest;
pub(crate) use request::UNSUPPORTED;
