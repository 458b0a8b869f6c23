//! Server-sent events, in the one form that all clients of the API read: `data:` lines only.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, BoxStream, StreamExt};

use crate::openai::ApiError;

/// Silence after which a comment is sent, so that no proxy closes the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Turns updates into the data of events.
pub(crate) trait Frames: Send + 'static {
    type Update: Send;

    /// The `i`th part of what is sent before any update; `None` after the last. Parts are asked
    /// for when the client has taken those before.
    fn start(&mut self, i: usize) -> Option<Vec<String>>;
    fn update(&mut self, update: Self::Update) -> Vec<String>;
    /// Sent after the last update, before `[DONE]`.
    fn end(&mut self) -> Vec<String>;
}

struct Driver<F: Frames> {
    frames: F,
    updates: BoxStream<'static, Result<F::Update, ApiError>>,
    queue: VecDeque<String>,
    /// Parts of the start that were asked for; `None` once there are no more.
    n_started: Option<usize>,
    is_ended: bool,
}

/// A streamed answer. An error in `updates` is sent as an error object, and nothing after it.
pub(crate) fn respond<F: Frames>(
    frames: F,
    updates: BoxStream<'static, Result<F::Update, ApiError>>,
) -> Response {
    let driver = Driver {
        frames,
        updates,
        queue: VecDeque::new(),
        n_started: Some(0),
        is_ended: false,
    };
    let events = stream::unfold(driver, |mut driver| async {
        let data = driver.next().await?;
        Some((Ok::<_, Infallible>(Event::default().data(data)), driver))
    });
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE).text("keep-alive");
    let mut response = Sse::new(events.boxed())
        .keep_alive(keep_alive)
        .into_response();
    // nginx would hold events back otherwise.
    response.headers_mut().insert(
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    );
    response
}

impl<F: Frames> Driver<F> {
    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(data) = self.queue.pop_front() {
                return Some(data);
            }
            if let Some(i) = self.n_started {
                let part = self.frames.start(i);
                self.n_started = part.is_some().then_some(i + 1);
                self.queue.extend(part.unwrap_or_default());
                continue;
            }
            if self.is_ended {
                return None;
            }
            match self.updates.next().await {
                Some(Ok(update)) => self.queue.extend(self.frames.update(update)),
                Some(Err(error)) => {
                    self.is_ended = true;
                    self.queue.push_back(error.to_json().to_string());
                }
                None => {
                    self.is_ended = true;
                    self.queue.extend(self.frames.end());
                    self.queue.push_back("[DONE]".to_owned());
                }
            }
        }
    }
}

/// The JSON of one event.
pub(crate) fn frame(value: &impl serde::Serialize) -> String {
    // Our own types: string keys, finite numbers.
    serde_json::to_string(value).expect("answers can be written as JSON")
}
