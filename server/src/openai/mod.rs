//! The OpenAI API on the wire: requests read by hand so that every error names its parameter,
//! answers as plain serde structs. Nothing else in the workspace knows these forms.

mod chat_request;
mod chat_response;
mod completion_request;
mod completion_response;
mod error;
mod fields;
mod formats;
mod json;
mod messages;
mod models;
mod sampling;
mod serving;
mod tools;
mod usage;

pub use chat_request::ChatRequest;
pub use chat_response::{
    CalledFunction, ChatChoice, ChatChunk, ChatCompletion, ChatLogprob, ChunkPart, Head, Said,
    ToolCall, TopLogprob,
};
pub use completion_request::{CompletionRequest, Prompt};
pub use completion_response::{Completion, CompletionChoice, CompletionLogprobs, TopTokens};
pub use error::ApiError;
pub use fields::Fields;
pub use formats::Format;
pub use models::{ModelList, ModelObject};
pub use sampling::{Sampling, Streaming};
pub use serving::Serving;
pub use tools::{Tool, ToolChoice, Tools};
pub use usage::{TokenCounts, Usage};
