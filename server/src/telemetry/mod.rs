//! What is told of single requests: their phases, slow ones in the log, and traces.

mod export;
mod otlp;
mod timeline;
mod trace;

pub use export::{TraceError, Traces};
pub(crate) use otlp::Call;
pub(crate) use timeline::{Phases, Timeline};
pub(crate) use trace::{TRACERESPONSE, TraceContext};
