//! Wire behaviour of the HTTP server, with a scripted model on the strict fake executor.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod abuse;
mod admission;
mod answers;
mod bodies;
mod conversations;
mod conversing;
mod decisions;
mod engine;
mod errors;
mod files;
mod forced;
mod hostile;
mod idempotency;
mod keys;
mod model;
mod response_parameters;
mod responses;
mod sampling;
mod server;
mod shutdown;
mod stored_chats;
mod streams;
mod structured;
mod telemetry;
mod tokens;
