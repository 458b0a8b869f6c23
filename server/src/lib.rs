//! The binary's library: HTTP, OpenAI wire types, text, the engine thread, and where models
//! come from. The only room that knows JSON, clocks and sockets.

pub mod source;
pub mod text;
