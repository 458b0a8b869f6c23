//! The events of one request.

use std::sync::Arc;

use scheduler::{Event, FinishReason, RequestId, SequenceId};
use tokio::sync::mpsc::UnboundedReceiver;

use super::{Command, EngineError, EngineHandle};
use crate::telemetry::Timeline;

/// What happens to one request, in order. Dropping it before the end cancels the request.
#[derive(Debug)]
pub struct TokenStream {
    engine: EngineHandle,
    request: RequestId,
    /// Sequences that have not finished.
    n_open: u32,
    /// The engine, not the client, has ended it.
    is_broken: bool,
    events: UnboundedReceiver<Result<Event, EngineError>>,
}

impl TokenStream {
    pub(super) fn new(
        engine: EngineHandle,
        request: RequestId,
        n: u32,
        events: UnboundedReceiver<Result<Event, EngineError>>,
    ) -> Self {
        Self {
            engine,
            request,
            n_open: n,
            is_broken: false,
            events,
        }
    }

    /// Where the phases of the request are noted.
    pub(crate) fn timeline(&self) -> Option<&Arc<Timeline>> {
        self.engine.timeline()
    }

    /// The next event; `None` after the last sequence has finished.
    pub async fn next(&mut self) -> Option<Result<Event, EngineError>> {
        if self.n_open == 0 {
            return None;
        }
        let next = self
            .events
            .recv()
            .await
            .unwrap_or(Err(EngineError::Stopped));
        match &next {
            Ok(Event::Finished { reason, .. }) => {
                self.n_open -= 1;
                self.is_broken |= *reason == FinishReason::Failed;
            }
            Ok(_) => {}
            Err(_) => {
                self.n_open = 0;
                self.is_broken = true;
            }
        }
        Some(next)
    }

    /// Ends choice `index` at the next step boundary; its `Finished` still comes.
    pub fn cancel_sequence(&self, index: u32) {
        let request = self.request;
        self.engine
            .tell(Command::CancelSequence(SequenceId { request, index }));
    }
}

impl Drop for TokenStream {
    fn drop(&mut self) {
        if self.n_open > 0 {
            self.engine.tell(Command::Cancel(self.request));
            if !self.is_broken {
                self.engine.count_disconnect();
            }
        }
    }
}
