//! Server-sent events, in the one form that all clients of the API read: `data:` lines, with an
//! `event:` line only where the dialect names its events, and never an `id:`.

use std::borrow::Cow;
use std::convert::Infallible;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream::{BoxStream, StreamExt};

/// Silence after which a comment is sent, so that no proxy closes the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) name: Option<Cow<'static, str>>,
    pub(crate) data: String,
}

impl Frame {
    /// An event of no name.
    pub(crate) fn data(data: String) -> Self {
        Self { name: None, data }
    }

    /// An event of no name that holds JSON.
    pub(crate) fn json(value: &impl serde::Serialize) -> Self {
        Self::data(to_json(value))
    }

    /// What ends a stream of the older dialects.
    pub(crate) fn done() -> Self {
        Self::data("[DONE]".to_owned())
    }
}

/// A streamed answer.
pub(crate) fn respond(frames: BoxStream<'static, Frame>) -> Response {
    let events = frames.map(|frame| {
        let event = Event::default();
        let event = match frame.name {
            Some(name) => event.event(name),
            None => event,
        };
        Ok::<_, Infallible>(event.data(frame.data))
    });
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE).text("keep-alive");
    let mut response = Sse::new(events).keep_alive(keep_alive).into_response();
    // nginx would hold events back otherwise.
    response.headers_mut().insert(
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    );
    response
}

/// An answer of our own types as JSON text.
pub(crate) fn to_json(value: &impl serde::Serialize) -> String {
    // Our own types: string keys, finite numbers.
    serde_json::to_string(value).expect("answers can be written as JSON")
}
