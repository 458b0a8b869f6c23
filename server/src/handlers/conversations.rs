//! `/v1/conversations`: items that responses go on from and add to.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, RawQuery};
use serde_json::{Map, Value, json};

use super::pages::{Query, list};
use super::response_context::identify;
use super::{prepare, records};
use crate::admission::Call;
use crate::identity::unix_seconds;
use crate::openai::{ApiError, ConversationBody};
use crate::state::AppState;
use crate::store::{Key, Kind, Write};

/// A conversation is one object of the store, so that it changes and ends as a whole.
fn record(id: &str, metadata: Map<String, Value>, items: Vec<Value>) -> Value {
    json!({
        "conversation": {
            "id": id, "object": "conversation", "created_at": unix_seconds(),
            "metadata": metadata,
        },
        "items": items,
    })
}

/// Adds items at the end of a conversation, if it is still there.
pub(super) fn append(key: Key, items: Vec<Value>) -> Write {
    records::edit(key, move |record| extend(record, items))
}

fn extend(record: &mut Value, items: Vec<Value>) {
    if let Some(all) = record["items"].as_array_mut() {
        all.extend(items);
    }
}

async fn read(state: &AppState, id: &str) -> Result<Value, ApiError> {
    records::read(state, Kind::Conversation, id).await
}

async fn change(
    state: &AppState,
    id: &str,
    change: impl FnOnce(&mut Value) + Send + 'static,
) -> Result<(), ApiError> {
    records::change(state, Kind::Conversation, id, change).await
}

pub(crate) async fn create(
    Call(state): Call,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    let body = prepare::body(&state, body)?;
    let ConversationBody { metadata, items } = ConversationBody::parse(&body)?;
    let id = state.ids().id("conv_");
    let items = identified(&state, items.unwrap_or_default())?;
    let mut record = record(&id, metadata.unwrap_or_default(), items);
    let put = Write::put(state.key(Kind::Conversation, id), record.to_string());
    state.store.write(vec![put]).await?;
    Ok(Json(record["conversation"].take()))
}

pub(crate) async fn retrieve(
    Call(state): Call,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let mut record = read(&state, &id).await?;
    Ok(Json(record["conversation"].take()))
}

/// Replaces the metadata.
pub(crate) async fn update(
    Call(state): Call,
    Path(id): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    let body = prepare::body(&state, body)?;
    let ConversationBody { metadata, items } = ConversationBody::parse(&body)?;
    if items.is_some() {
        return Err(ApiError::unknown_parameter("items"));
    }
    let metadata = metadata.ok_or_else(|| ApiError::missing("metadata"))?;
    change(&state, &id, move |record| {
        record["conversation"]["metadata"] = Value::Object(metadata);
    })
    .await?;
    retrieve(Call(state), Path(id)).await
}

/// Forgets a conversation and its items. Responses that belonged to it stay.
pub(crate) async fn delete(
    Call(state): Call,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    records::delete(&state, Kind::Conversation, &[], &id).await?;
    Ok(Json(json!({
        "id": id, "object": "conversation.deleted", "deleted": true,
    })))
}

pub(crate) async fn add_items(
    Call(state): Call,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    let mut query = Query::parse(query.as_deref())?;
    query.take_include()?;
    query.finish()?;
    let body = prepare::body(&state, body)?;
    let ConversationBody { metadata, items } = ConversationBody::parse(&body)?;
    if metadata.is_some() {
        return Err(ApiError::unknown_parameter("metadata"));
    }
    let items = items.ok_or_else(|| ApiError::missing("items"))?;
    let items = identified(&state, items)?;
    let added = items.clone();
    change(&state, &id, move |record| extend(record, added)).await?;
    Ok(Json(list(items, false)))
}

pub(crate) async fn list_items(
    Call(state): Call,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, ApiError> {
    let mut query = Query::parse(query.as_deref())?;
    let page = query.page(false)?;
    query.take_include()?;
    query.finish()?;
    page.of_list(read(&state, &id).await?["items"].take())
        .map(Json)
}

pub(crate) async fn retrieve_item(
    Call(state): Call,
    Path((id, item)): Path<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    let items = items(read(&state, &id).await?);
    let found = items.into_iter().find(|found| found["id"] == item);
    let found = found.ok_or_else(|| ApiError::stored_not_found("Item", &item))?;
    Ok(Json(found))
}

/// Takes an item out of a conversation.
pub(crate) async fn delete_item(
    Call(state): Call,
    Path((id, item)): Path<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    let before = items(read(&state, &id).await?);
    if !before.iter().any(|found| found["id"] == item) {
        return Err(ApiError::stored_not_found("Item", &item));
    }
    change(&state, &id, move |record| {
        if let Some(all) = record["items"].as_array_mut() {
            all.retain(|found| found["id"] != item);
        }
    })
    .await?;
    retrieve(Call(state), Path(id)).await
}

fn identified(state: &AppState, mut items: Vec<Value>) -> Result<Vec<Value>, ApiError> {
    for (i, item) in items.iter_mut().enumerate() {
        if item["type"] == "item_reference" {
            let param = format!("items[{i}].type");
            return Err(ApiError::unsupported_value(&param, "'item_reference'"));
        }
        identify(state, item);
    }
    Ok(items)
}

fn items(mut record: Value) -> Vec<Value> {
    records::array(record["items"].take())
}
