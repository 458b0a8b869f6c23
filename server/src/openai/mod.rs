//! The OpenAI API on the wire: requests read by hand so that every error names its parameter,
//! answers as plain serde structs. Nothing else in the workspace knows these forms.

mod chat_request;
mod chat_response;
mod completion_request;
mod completion_response;
mod decision_request;
mod decision_response;
mod embedding_request;
mod embedding_response;
mod error;
mod fields;
mod files;
mod formats;
mod item_messages;
mod items;
mod json;
mod messages;
mod metadata;
mod models;
mod prompts;
mod response_events;
mod response_object;
mod response_request;
mod sampling;
mod serving;
mod stored;
mod token_answers;
mod token_requests;
mod tools;
mod usage;

pub(crate) use chat_request::UNSUPPORTED as REFUSED_IN_CHATS;
pub use chat_request::{ChatRequest, Storing};
pub use chat_response::{
    CalledFunction, ChatChoice, ChatChunk, ChatCompletion, ChatLogprob, ChunkPart, Head, Said,
    ToolCall, TopLogprob,
};
pub use completion_request::CompletionRequest;
pub use completion_response::{Completion, CompletionChoice, CompletionLogprobs, TopTokens};
pub use decision_request::{Choice, DecisionRequest, Level, Question, QuestionKind};
pub use decision_response::{Decision, DecisionAnswer};
pub use embedding_request::{EmbeddingRequest, EncodingFormat};
pub use embedding_response::EmbeddingList;
pub use error::ApiError;
pub(crate) use error::MAX_TOLD_NAMES;
pub use fields::Fields;
#[cfg(test)]
pub(crate) use fields::asked::asked_for;
pub(crate) use fields::{array_too_long, empty_array, invalid_value};
pub use files::{FileFields, FileObject, FileTerms};
pub(crate) use files::{check_filename, check_purpose, twice as file_field_twice};
pub use formats::Format;
pub(crate) use formats::check_name;
pub use item_messages::{item_messages, transcript_messages};
pub use models::{AdapterFields, MemberFields, ModelList, ModelObject};
pub use prompts::Prompt;
pub use response_events::{EventBody, ResponseEvent};
pub use response_object::{
    ContentPart, OutputItem, ResponseHead, ResponseObject, ResponseStatus, ResponseUsage,
};
pub use response_request::ResponseRequest;
pub(crate) use response_request::{INCLUDES, UNSUPPORTED as REFUSED_IN_RESPONSES};
pub use sampling::{Sampling, Streaming};
pub use serving::Serving;
pub use stored::{ConversationBody, metadata_of};
pub use token_answers::{PromptText, TokenList};
pub use token_requests::{TokenizeRequest, Tokenized, detokenized};
pub(crate) use tools::check_arguments;
pub use tools::{Tool, ToolChoice, Tools};
pub use usage::{ChunkUsage, TokenCounts, Usage};
