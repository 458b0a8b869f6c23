//! One request, from its sending to its end.

use std::time::Instant;

use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Response};
use serde_json::Value;

use crate::body::{Endpoint, Expected};
use crate::connection::Connections;
use crate::outcome::{ErrorKind, Failure, Outcome, Usage};
use crate::reply::Reply;
use crate::sse::SseParser;

/// A clock that all requests of a run share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    pub(crate) began: Instant,
}

impl Clock {
    pub(crate) fn now(self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }
}

/// What is to be sent.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) session: usize,
    pub(crate) turn: usize,
    pub(crate) model: String,
    pub(crate) endpoint: Endpoint,
    pub(crate) is_stream: bool,
    pub(crate) body: Bytes,
    pub(crate) expected: Expected,
    pub(crate) intended: f64,
}

/// What an answer has told so far.
#[derive(Default)]
struct Heard {
    total: Option<u64>,
    has_finished: bool,
    is_done: bool,
}

impl Call {
    /// Sends it and reads the answer, within the time of the target.
    pub(crate) async fn run(self, connections: &Connections, clock: Clock) -> Outcome {
        let mut outcome = Outcome {
            session: self.session,
            turn: self.turn,
            model: self.model.clone(),
            intended: self.intended,
            sent: clock.now(),
            tokens_at: Vec::new(),
            finished: 0.0,
            ended: 0.0,
            is_stream: self.is_stream,
            usage: Usage::default(),
            failure: None,
            text: String::new(),
        };
        let timeout = connections.target().timeout;
        let asked = tokio::time::timeout(timeout, self.ask(connections, clock, &mut outcome));
        let result = match asked.await {
            Ok(result) => result,
            Err(_) => {
                let told = format!("not done after {timeout:?}");
                Err(Failure::new(ErrorKind::Timeout, told))
            }
        };
        outcome.ended = clock.now();
        match result {
            Err(failure) => outcome.failure = Some(failure),
            Ok(n_total) => {
                let objection = self.expected.objection(&outcome, n_total);
                outcome.failure =
                    objection.map(|detail| Failure::new(ErrorKind::WrongUsage, detail));
            }
        }
        outcome
    }

    async fn ask(
        &self,
        connections: &Connections,
        clock: Clock,
        outcome: &mut Outcome,
    ) -> Result<Option<u64>, Failure> {
        let answer = connections.send(Method::POST, self.endpoint.path(), self.body.clone());
        let (response, sender) = answer.await?.into_parts();
        if response.status() != 200 {
            let failure = refused(response).await;
            connections.keep(sender).await;
            return Err(failure);
        }
        let mut heard = Heard::default();
        if self.is_stream {
            stream(response, clock, outcome, &mut heard).await?;
        } else {
            whole(response, clock, outcome, &mut heard).await?;
        }
        connections.keep(sender).await;
        Ok(heard.total)
    }
}

/// Reads a stream to its end.
async fn stream(
    response: Response<Incoming>,
    clock: Clock,
    outcome: &mut Outcome,
    heard: &mut Heard,
) -> Result<(), Failure> {
    let mut body = response.into_body();
    let mut parser = SseParser::default();
    let mut failure = None;
    while let Some(frame) = body.frame().await {
        let now = clock.now();
        let frame = frame.map_err(broken)?;
        let Some(bytes) = frame.data_ref() else {
            continue;
        };
        parser.push(bytes, |data| {
            if failure.is_none() {
                failure = event(data, now, outcome, heard).err();
            }
        });
        if let Some(failure) = failure {
            return Err(failure);
        }
    }
    if !heard.is_done {
        return Err(Failure::new(ErrorKind::Truncated, "no [DONE]"));
    }
    if !heard.has_finished {
        return Err(Failure::new(ErrorKind::Truncated, "no finish_reason"));
    }
    Ok(())
}

/// One event of a stream, which came at `now`.
fn event(data: &[u8], now: f64, outcome: &mut Outcome, heard: &mut Heard) -> Result<(), Failure> {
    if data == b"[DONE]" {
        heard.is_done = true;
        return Ok(());
    }
    let reply = read(data)?;
    if let Some(error) = &reply.error {
        return Err(Failure::new(ErrorKind::StreamError, error.to_string()));
    }
    if reply.take_text(&mut outcome.text) {
        outcome.tokens_at.push(now);
    }
    if reply.has_finished() {
        heard.has_finished = true;
        outcome.finished = now;
        // All tokens were such as have no text.
        if outcome.tokens_at.is_empty() {
            outcome.tokens_at.push(now);
        }
    }
    note_usage(&reply, outcome, heard);
    Ok(())
}

/// Reads an answer that is no stream.
async fn whole(
    response: Response<Incoming>,
    clock: Clock,
    outcome: &mut Outcome,
    heard: &mut Heard,
) -> Result<(), Failure> {
    let bytes = response.into_body().collect().await.map_err(broken)?;
    let now = clock.now();
    let reply = read(&bytes.to_bytes())?;
    if !reply.is_answer() {
        return Err(Failure::new(ErrorKind::Malformed, "no choices and no data"));
    }
    reply.take_text(&mut outcome.text);
    outcome.tokens_at.push(now);
    outcome.finished = now;
    note_usage(&reply, outcome, heard);
    Ok(())
}

fn note_usage(reply: &Reply, outcome: &mut Outcome, heard: &mut Heard) {
    if let Some((usage, total)) = reply.usage() {
        outcome.usage = usage;
        heard.total = Some(total);
    }
}

fn read(data: &[u8]) -> Result<Reply, Failure> {
    serde_json::from_slice(data).map_err(|error| {
        let detail = format!("{error}: {}", String::from_utf8_lossy(data));
        Failure::new(ErrorKind::Malformed, detail)
    })
}

/// What a refusal says.
async fn refused(response: Response<Incoming>) -> Failure {
    let status = response.status().as_u16();
    let body = match response.into_body().collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return broken(error),
    };
    let told: Value = serde_json::from_slice(&body).unwrap_or_default();
    let code = told["error"]["code"].as_str().map(str::to_owned);
    let kind = ErrorKind::Status(status, code);
    Failure::new(kind, String::from_utf8_lossy(&body))
}

fn broken(error: hyper::Error) -> Failure {
    Failure::new(ErrorKind::Disconnected, error.to_string())
}
