//! One handler an endpoint. All that generate go one way ([`flow`]): the body becomes jobs for the
//! engine and a fold, and the fold makes the answer, whole or as a stream. An endpoint of its own
//! dialect is its wire types and its fold.

pub(crate) mod adapters;
pub(crate) mod admin;
pub(crate) mod chat;
mod chat_fold;
mod completion_fold;
mod completion_parts;
pub(crate) mod completions;
mod continuation;
mod conversation;
pub(crate) mod conversations;
mod decision_labels;
pub(crate) mod decisions;
mod demands;
pub(crate) mod description;
pub(crate) mod elsewhere;
pub(crate) mod embeddings;
mod file_upload;
pub(crate) mod files;
mod flow;
pub(crate) mod health;
mod message;
pub(crate) mod messages;
mod messages_fold;
pub(crate) mod models;
mod pages;
mod prepare;
mod records;
mod response_context;
mod response_fold;
pub(crate) mod responses;
mod shadow;
pub(crate) mod stored_chats;
pub(crate) mod stored_responses;
pub(crate) mod tokens;
mod unknown;

pub(crate) use prepare::body;
pub use unknown::UnknownParams;
