//! The one way of every generating request: its body is prepared, jobs are submitted, and what
//! they generate is folded into the answer.
//!
//! A whole answer is the same fold as the stream; it only tells at the end what the stream tells
//! piece by piece.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, BoxStream, StreamExt, select_all};
use scheduler::Request;

use super::{prepare, shadow};
use crate::aliases::Meter;
use crate::generation::{Generation, TextRules, Update};
use crate::grammar::Constraint;
use crate::openai::ApiError;
use crate::sse::{self, Frame};
use crate::state::AppState;
use crate::store::{Store, Write};
use crate::telemetry::Timeline;

/// What the engine is to generate for one prompt.
#[derive(Clone, Debug)]
pub(super) struct Job {
    /// Still without its id.
    pub(super) request: Request,
    pub(super) constraint: Option<Constraint>,
    /// Prompt tokens that will be scored.
    pub(super) n_to_score: usize,
}

/// A request, ready for the engine.
#[derive(Debug)]
pub(super) struct Prepared<F> {
    pub(super) jobs: Vec<Job>,
    pub(super) rules: TextRules,
    pub(super) fold: F,
}

/// Makes an answer of what is generated. Jobs are counted from 0 in the order submitted.
pub(super) trait Fold: Send + 'static {
    /// Whether the client wants events rather than one answer.
    fn is_streamed(&self) -> bool;

    /// The `i`th part of what is sent before any update; `None` after the last. Parts are asked
    /// for when the client has taken those before.
    fn start(&mut self, i: usize) -> Option<Vec<Frame>>;

    /// Takes an update. What it returns is for streams.
    fn update(&mut self, job: usize, update: Update) -> Vec<Frame>;

    /// After the last update: what is kept, and with which frames the stream ends once it is.
    fn end(&mut self) -> Ending;

    /// The end of what has failed.
    fn fail(&mut self, error: &ApiError) -> Ending {
        Ending::sent(vec![Frame::data(error.to_json().to_string())])
    }

    /// The whole answer as JSON, after [`end`](Self::end).
    fn whole(&mut self) -> String;
}

/// The end of an answer.
#[derive(Debug, Default)]
pub(super) struct Ending {
    /// Done before the client is told of the end: what it is told is kept, is.
    pub(super) writes: Vec<Write>,
    /// For streams.
    pub(super) frames: Vec<Frame>,
}

impl Ending {
    /// Nothing is kept.
    pub(super) fn sent(frames: Vec<Frame>) -> Self {
        Self {
            writes: Vec::new(),
            frames,
        }
    }
}

/// Answers the request in `body`, whole or as a stream.
pub(super) async fn respond<F: Fold>(
    state: &AppState,
    body: Result<Bytes, BytesRejection>,
    prepare: impl Fn(&AppState, &[u8]) -> Result<Prepared<F>, ApiError> + Send + 'static,
) -> Result<Response, ApiError> {
    let body = prepare::body(state, body)?;
    let state = prepare::with_adapters(state, &body).await?;
    let prepared = prepare::reading(&state, body, prepare).await?;
    answer(&state, prepared).await
}

/// Answers a request that is ready, whole or as a stream.
pub(super) async fn answer<F: Fold>(
    state: &AppState,
    prepared: Prepared<F>,
) -> Result<Response, ApiError> {
    let is_streamed = prepared.fold.is_streamed();
    let folding = Folding::begin(state, prepared)?;
    if is_streamed {
        Ok(sse::respond(folding.into_frames()))
    } else {
        folding.into_whole().await
    }
}

/// A fold and the updates it is fed.
pub(super) struct Folding<F> {
    fold: F,
    store: Store,
    timeline: Option<Arc<Timeline>>,
    updates: BoxStream<'static, Result<(usize, Update), ApiError>>,
    queue: VecDeque<Frame>,
    /// Parts of the start that were asked for; `None` once there are no more.
    n_started: Option<usize>,
    is_ended: bool,
}

impl<F: Fold> Folding<F> {
    /// Submits the jobs. Dropping it cancels them.
    pub(super) fn begin(state: &AppState, prepared: Prepared<F>) -> Result<Self, ApiError> {
        let Prepared { jobs, rules, fold } = prepared;
        let copied = state
            .arm
            .as_ref()
            .is_some_and(|arm| !arm.shadows.is_empty());
        // Copied before they are given away, and sent after: nobody has a place before them.
        let copies: Vec<Job> = if copied { jobs.clone() } else { Vec::new() };
        let shapes: Vec<(u32, usize)> = jobs
            .iter()
            .map(|job| (job.request.n, job.n_to_score))
            .collect();
        let requests = jobs.into_iter().map(|mut job| {
            job.request.id = state.engine.next_request_id();
            (job.request, job.constraint)
        });
        let streams = state
            .engine
            .submit_all(requests.collect(), state.lease.clone())?;
        shadow::start(state, &copies, &rules);
        let metrics = &state.metrics;
        let arm = state.arm.as_ref();
        let mut meter = arm.map(|arm| Meter::begin(metrics, &arm.alias, &arm.target, false));
        let updates = (0..).zip(streams).zip(shapes);
        let updates = updates.map(|((job, events), (n, n_to_score))| {
            let tokenizer = &state.model.tokenizer;
            Generation::new(events, n, n_to_score, tokenizer, &rules)
                .into_updates()
                .map(move |update| update.map(|update| (job, update)))
                .boxed()
        });
        Ok(Self {
            fold,
            store: state.store.clone(),
            timeline: state.engine.timeline().cloned(),
            updates: select_all(updates)
                .inspect(move |update| {
                    if let Some(meter) = &mut meter {
                        meter.note(update.as_ref().map(|(_, update)| update));
                    }
                })
                .boxed(),
            queue: VecDeque::new(),
            n_started: Some(0),
            is_ended: false,
        })
    }

    pub(super) fn fold(&self) -> &F {
        &self.fold
    }

    /// Gives the generation up.
    pub(super) fn into_fold(self) -> F {
        self.fold
    }

    /// The answer at once.
    async fn into_whole(mut self) -> Result<Response, ApiError> {
        while let Some(update) = self.updates.next().await {
            match update {
                Ok((job, update)) => drop(self.fold.update(job, update)),
                Err(error) => {
                    let ending = self.fold.fail(&error);
                    self.store.write(ending.writes).await?;
                    return Err(error);
                }
            }
        }
        let ending = self.fold.end();
        self.store.write(ending.writes).await?;
        let json = HeaderValue::from_static("application/json");
        Ok(([(header::CONTENT_TYPE, json)], self.fold.whole()).into_response())
    }

    /// The answer as it comes. An error is the last that is sent.
    pub(super) fn into_frames(self) -> BoxStream<'static, Frame> {
        stream::unfold(self, |mut folding| async {
            let frame = folding.next().await?;
            Some((frame, folding))
        })
        .boxed()
    }

    /// The next frame; `None` after the last.
    pub(super) async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.queue.pop_front() {
                return Some(frame);
            }
            if let Some(i) = self.n_started {
                let part = self.fold.start(i);
                self.n_started = part.is_some().then_some(i + 1);
                self.queue.extend(part.unwrap_or_default());
                continue;
            }
            if self.is_ended {
                return None;
            }
            let frames = match self.updates.next().await {
                Some(Ok((job, update))) => self.fold.update(job, update),
                Some(Err(error)) => self.close(Err(error)).await,
                None => self.close(Ok(())).await,
            };
            self.queue.extend(frames);
        }
    }

    /// The last frames, when what is to be kept is.
    async fn close(&mut self, generated: Result<(), ApiError>) -> Vec<Frame> {
        self.is_ended = true;
        let ending = match &generated {
            Ok(()) => self.fold.end(),
            Err(error) => self.fail(error),
        };
        match self.store.write(ending.writes).await {
            Ok(_) => ending.frames,
            Err(error) => self.fail(&error.into()).frames,
        }
    }

    /// The end of a stream that has failed, which its status does not tell any more.
    fn fail(&mut self, error: &ApiError) -> Ending {
        if let Some(timeline) = &self.timeline {
            timeline.note_failed(error.code.as_deref().unwrap_or_default());
        }
        self.fold.fail(error)
    }
}
