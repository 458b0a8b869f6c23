//! The binary's library: HTTP, OpenAI wire types, text, the engine thread, and where models
//! come from. The only room that knows the API's JSON, clocks and sockets.

pub mod adapters;
mod admission;
pub mod answer;
pub mod app;
pub mod args;
pub mod auth;
pub mod banner;
pub mod commands;
mod connections;
mod cross_origin;
pub mod dialect;
pub mod embedder;
pub mod engine;
pub mod generation;
pub mod grammar;
pub mod handlers;
pub mod healthcheck;
mod idempotency;
mod identity;
pub mod load;
pub mod metrics;
mod observe;
pub mod openai;
pub mod plan;
mod refusal;
mod runs;
pub mod settings;
pub mod shutdown;
pub mod source;
mod sse;
pub mod startup;
pub mod state;
pub mod store;
pub mod tenant;
pub mod text;
mod token_text;
