//! What a response is an answer to: the items of its request, and those that the store has of
//! earlier ones.

use serde_json::{Value, json};

use super::records::{self, array};
use crate::openai::{ApiError, ResponseRequest};
use crate::state::AppState;
use crate::store::Kind;
use crate::tenant::Owner;

/// Most responses in a chain of `previous_response_id`.
const MAX_CHAIN: usize = 4096;

/// Whose the response is, and what its request has added.
pub(super) struct Context {
    pub(super) owner: Owner,
    /// Items of the request itself, all with ids.
    pub(super) input: Vec<Value>,
}

/// Items of the request, referenced ones in full, and before them what it goes on from.
pub(super) fn items(
    state: &AppState,
    request: &mut ResponseRequest,
) -> Result<(Context, Vec<Value>), ApiError> {
    let mut before = match (&request.previous_response_id, &request.conversation) {
        (Some(id), _) => chain(state, id)?,
        (None, Some(id)) => conversation(state, id)?,
        (None, None) => Vec::new(),
    };
    let mut input = std::mem::take(&mut request.input);
    for (i, item) in input.iter_mut().enumerate() {
        if item["type"] == "item_reference" {
            *item = referenced(state, item, &before, i)?;
        }
        identify(state, item);
    }
    before.extend(input.iter().cloned());
    let owner = state.owner;
    Ok((Context { owner, input }, before))
}

/// Gives an item an id if it has none.
pub(super) fn identify(state: &AppState, item: &mut Value) {
    if item["id"].is_string() {
        return;
    }
    let prefix = match item["type"].as_str() {
        Some("function_call") => "fc_",
        Some("function_call_output") => "fco_",
        Some("reasoning") => "rs_",
        _ => "msg_",
    };
    item["id"] = json!(state.ids().id(prefix));
}

/// Questions and answers of the responses up to `id`, in order.
fn chain(state: &AppState, id: &str) -> Result<Vec<Value>, ApiError> {
    let mut links = Vec::new();
    let mut next = Some(id.to_owned());
    while let Some(id) = next {
        let record = state.stored(Kind::Response, &id)?;
        let mut record = record.ok_or_else(|| ApiError::previous_response_not_found(&id))?;
        let status = record["response"]["status"].as_str().unwrap_or_default();
        if links.is_empty() && ["queued", "in_progress", "failed", "cancelled"].contains(&status) {
            let message = format!(
                "Previous response with id '{id}' cannot be continued: its status is '{status}'."
            );
            let code = "previous_response_not_complete";
            return Err(ApiError::invalid("previous_response_id", code, message));
        }
        next = record["response"]["previous_response_id"]
            .as_str()
            .map(str::to_owned);
        links.push((record["input"].take(), record["response"]["output"].take()));
        if links.len() > MAX_CHAIN {
            let message = format!("More than {MAX_CHAIN} responses follow each other.");
            return Err(ApiError::bad_request(message).with_param("previous_response_id"));
        }
    }
    let ordered = links
        .into_iter()
        .rev()
        .flat_map(|(input, output)| [input, output]);
    Ok(ordered.flat_map(array).collect())
}

fn conversation(state: &AppState, id: &str) -> Result<Vec<Value>, ApiError> {
    let record = state.stored(Kind::Conversation, id)?;
    let mut record = record.ok_or_else(|| records::not_found(Kind::Conversation, id))?;
    Ok(array(record["items"].take()))
}

/// The item that a reference names, out of what came before or out of the response that it
/// belongs to.
fn referenced(
    state: &AppState,
    reference: &Value,
    before: &[Value],
    i: usize,
) -> Result<Value, ApiError> {
    let id = reference["id"].as_str().unwrap_or_default();
    if let Some(item) = before.iter().find(|item| item["id"] == id) {
        return Ok(item.clone());
    }
    let response = state.store.get(&state.key(Kind::Item, id))?;
    let response = response.and_then(|id| String::from_utf8(id).ok());
    let record = match response {
        Some(response) => state.stored(Kind::Response, &response)?,
        None => None,
    };
    let mut record = record.unwrap_or(Value::Null);
    let items = [record["input"].take(), record["response"]["output"].take()];
    let found = items
        .into_iter()
        .flat_map(array)
        .find(|item| item["id"] == id);
    found.ok_or_else(|| {
        let message = format!("Item with id '{id}' not found.");
        ApiError::bad_request(message)
            .with_param(&format!("input[{i}].id"))
            .with_code("item_not_found")
    })
}
