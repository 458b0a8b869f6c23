//! One handler an endpoint: read, prepare, submit, answer.

pub(crate) mod chat;
mod chat_choice;
mod chat_prepare;
mod chat_stream;
mod completion_choices;
mod completion_stream;
pub(crate) mod completions;
mod continuation;
pub(crate) mod health;
pub(crate) mod models;
mod prepare;
