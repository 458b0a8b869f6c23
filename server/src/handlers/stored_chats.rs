//! Chat completions of earlier, stored by `store: true`: `GET /v1/chat/completions` and what lies
//! below it.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, RawQuery};
use serde_json::{Map, Value, json};

use super::pages::Query;
use super::{prepare, records};
use crate::admission::Call;
use crate::openai::{ApiError, Storing, metadata_of};
use crate::state::AppState;
use crate::store::{Key, Kind, Write};

/// What is stored of a chat: `completion` with its metadata, and the messages of its request.
pub(super) fn write(key: Key, completion: &str, storing: Storing) -> Write {
    let completion: Value = serde_json::from_str(completion).unwrap_or(Value::Null);
    let id = key.id.clone();
    let messages = (0..).zip(storing.messages);
    let messages = messages.map(|(i, message)| told(&id, i, message));
    let mut record = json!({
        "completion": completion, "messages": messages.collect::<Vec<Value>>(),
    });
    record["completion"]["metadata"] = Value::Object(storing.metadata);
    Write::put(key, record.to_string())
}

/// A message of a request in the form in which it is listed.
fn told(id: &str, i: usize, message: Value) -> Value {
    let mut fields = match message {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    let content = fields.shift_remove("content").unwrap_or(Value::Null);
    let (content, parts) = match content {
        Value::Array(parts) => (Value::Null, Value::Array(parts)),
        text => (text, Value::Null),
    };
    let mut told = Map::new();
    told.insert("id".to_owned(), json!(format!("{id}-{i}")));
    told.insert("content".to_owned(), content);
    told.insert("content_parts".to_owned(), parts);
    told.insert("refusal".to_owned(), Value::Null);
    fields.retain(|_, value| !value.is_null());
    told.extend(fields);
    Value::Object(told)
}

/// All of them, the oldest first; of a model, or with metadata, if that is asked for.
pub(crate) async fn list_all(
    Call(state): Call,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, ApiError> {
    let mut query = Query::parse(query.as_deref())?;
    let page = query.page(true)?;
    let model = query.take("model");
    let metadata = query.map("metadata");
    query.finish()?;
    let is_wanted = move |completion: &Value| {
        model
            .as_ref()
            .is_none_or(|model| completion["model"] == *model)
            && metadata
                .iter()
                .all(|(key, value)| completion["metadata"][key] == *value)
    };
    let told = move |mut record: Value| Some(record["completion"].take()).filter(&is_wanted);
    records::page_of(&state, Kind::ChatCompletion, page, told)
        .await
        .map(Json)
}

pub(crate) async fn retrieve(
    Call(state): Call,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let mut record = read(&state, &id).await?;
    Ok(Json(record["completion"].take()))
}

/// The messages of the request.
pub(crate) async fn messages(
    Call(state): Call,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, ApiError> {
    let mut query = Query::parse(query.as_deref())?;
    let page = query.page(true)?;
    query.finish()?;
    let mut record = read(&state, &id).await?;
    page.of_list(record["messages"].take()).map(Json)
}

/// Replaces the metadata.
pub(crate) async fn update(
    Call(state): Call,
    Path(id): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    let body = prepare::body(&state, body)?;
    let metadata = metadata_of(&body)?;
    records::change(&state, Kind::ChatCompletion, &id, move |record| {
        record["completion"]["metadata"] = Value::Object(metadata);
    })
    .await?;
    retrieve(Call(state), Path(id)).await
}

pub(crate) async fn delete(
    Call(state): Call,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    records::delete(&state, Kind::ChatCompletion, &[], &id).await?;
    Ok(Json(json!({
        "object": "chat.completion.deleted", "id": id, "deleted": true,
    })))
}

async fn read(state: &AppState, id: &str) -> Result<Value, ApiError> {
    records::read(state, Kind::ChatCompletion, id).await
}
