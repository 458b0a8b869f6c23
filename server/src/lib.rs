//! The binary's library: HTTP, OpenAI wire types, text, the engine thread, and where models
//! come from. The only room that knows JSON, clocks and sockets.

pub mod app;
pub mod auth;
pub mod engine;
pub mod generation;
mod handlers;
mod identity;
pub mod metrics;
pub mod openai;
pub mod source;
mod sse;
pub mod text;
mod token_text;
