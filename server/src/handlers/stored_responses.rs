//! Responses of earlier: `GET`, `DELETE`, `cancel` and `input_items` of `/v1/responses/{id}`.

use axum::Json;
use axum::extract::{Path, RawQuery};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, StreamExt};
use serde_json::{Value, json};

use super::pages::Query;
use super::{prepare, records};
use crate::admission::Call;
use crate::openai::ApiError;
use crate::runs::Run;
use crate::sse::{self, Frame};
use crate::state::AppState;
use crate::store::Kind;

/// A stored response, or its events again.
pub(crate) async fn retrieve(
    Call(state): Call,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let mut query = Query::parse(query.as_deref())?;
    let is_streamed = query.flag("stream")?;
    let starting_after = query.number("starting_after")?;
    query.flag("include_obfuscation")?;
    query.take_include()?;
    query.finish()?;
    if is_streamed {
        // Events are counted from 0.
        let from = starting_after.map_or(0, |number| number.saturating_add(1));
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        return events(state, id, from).await;
    }
    if starting_after.is_some() {
        let message = "The 'starting_after' parameter is only allowed when 'stream' is true.";
        return Err(ApiError::bad_request(message).with_param("starting_after"));
    }
    let run = state.runs.get(state.owner, &id);
    let mut record = read(&state, id).await?;
    if run.is_some_and(|run| run.progress().has_begun) && record["response"]["status"] == "queued" {
        record["response"]["status"] = json!("in_progress");
    }
    Ok(Json(record["response"].take()).into_response())
}

async fn events(state: AppState, id: String, from: usize) -> Result<Response, ApiError> {
    if let Some(run) = state.runs.get(state.owner, &id)
        && run.is_streamed()
    {
        return Ok(sse::respond(run.follow(from)));
    }
    let kept = prepare::off_async_threads(&state, move |state| {
        if state.stored(Kind::Response, &id)?.is_none() {
            return Err(records::not_found(Kind::Response, &id));
        }
        state.stored(Kind::Events, &id)
    });
    let Some(Value::Array(events)) = kept.await? else {
        let message = "Only a response that was created with 'background' and 'stream' true can \
                       be streamed again.";
        return Err(ApiError::bad_request(message).with_param("stream"));
    };
    let frames = events.into_iter().skip(from).filter_map(|event| {
        Some(Frame {
            name: Some(event[0].as_str()?.to_owned().into()),
            data: event[1].as_str()?.to_owned(),
        })
    });
    Ok(sse::respond(
        stream::iter(frames.collect::<Vec<_>>()).boxed(),
    ))
}

/// Forgets a response. One that is being made is ended first.
pub(crate) async fn delete(
    Call(state): Call,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    if let Some(run) = state.runs.get(state.owner, &id) {
        end(&run).await;
    }
    records::delete(&state, Kind::Response, &[Kind::Events], &id).await?;
    Ok(Json(
        json!({"id": id, "object": "response", "deleted": true}),
    ))
}

/// Ends a response in the background; one that has ended stays what it is.
pub(crate) async fn cancel(
    Call(state): Call,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    if let Some(run) = state.runs.get(state.owner, &id) {
        end(&run).await;
    }
    let mut record = read(&state, id).await?;
    if record["response"]["background"] != true {
        return Err(ApiError::bad_request(
            "Cannot cancel a synchronous response.",
        ));
    }
    Ok(Json(record["response"].take()))
}

async fn end(run: &Run) {
    run.cancel();
    run.ended().await;
}

/// The items of a response's request.
pub(crate) async fn input_items(
    Call(state): Call,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, ApiError> {
    let mut query = Query::parse(query.as_deref())?;
    let page = query.page(false)?;
    query.take_include()?;
    query.finish()?;
    let mut record = read(&state, id).await?;
    page.of_list(record["input"].take()).map(Json)
}

/// Making a conversation shorter takes a model that was trained for it.
pub(crate) async fn compact() -> ApiError {
    let why = "it does not compact conversations: 'truncation': 'auto' leaves out the oldest turns \
               of what does not fit";
    ApiError::unsupported_url("POST", "/v1/responses/compact", why)
}

/// A stored response with its input.
async fn read(state: &AppState, id: String) -> Result<Value, ApiError> {
    // Before the record: what ends in between is then in the record.
    let is_running = state.runs.get(state.owner, &id).is_some();
    let mut record = records::read(state, Kind::Response, &id).await?;
    let response = &mut record["response"];
    let is_open = response["status"] == "queued" || response["status"] == "in_progress";
    if is_open && !is_running {
        // The process that made it has ended before it has.
        response["status"] = json!("failed");
        let message = "The server ended before the response was complete.";
        response["error"] = json!({"code": "server_error", "message": message});
    }
    Ok(record)
}
