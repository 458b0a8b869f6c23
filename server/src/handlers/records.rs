//! Stored objects as handlers see them: JSON of one kind under an id.

use serde_json::Value;

use super::pages::{Page, after_not_found, list};
use super::prepare;
use crate::openai::ApiError;
use crate::state::AppState;
use crate::store::{Key, Kind, Write};

/// What an object of a kind is called where it is not found.
fn noun(kind: Kind) -> &'static str {
    match kind {
        Kind::Response | Kind::Events => "Response",
        Kind::Item => "Item",
        Kind::Conversation => "Conversation",
        Kind::ChatCompletion => "Chat completion",
        Kind::Answer => "Answer",
        Kind::File => "File",
    }
}

/// An object that is not there, or somebody else's.
pub(super) fn not_found(kind: Kind, id: &str) -> ApiError {
    ApiError::stored_not_found(noun(kind), id)
}

/// The values of an array; anything else has none.
pub(super) fn array(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items,
        _ => Vec::new(),
    }
}

/// The caller's object.
pub(super) async fn read(state: &AppState, kind: Kind, id: &str) -> Result<Value, ApiError> {
    let id = id.to_owned();
    prepare::off_async_threads(state, move |state| {
        let record = state.stored(kind, &id)?;
        record.ok_or_else(|| not_found(kind, &id))
    })
    .await
}

/// A page of the caller's objects of a kind: what `told` makes of each, and leaves out if that is
/// nothing.
pub(super) async fn page_of(
    state: &AppState,
    kind: Kind,
    page: Page,
    told: impl Fn(Value) -> Option<Value> + Send + 'static,
) -> Result<Value, ApiError> {
    prepare::off_async_threads(state, move |state| {
        let mut found = Vec::new();
        let mut visit = |_: &str, body: &[u8]| {
            found.extend(told(serde_json::from_slice(body).unwrap_or(Value::Null)));
            found.len() <= page.limit
        };
        let (owner, after) = (state.owner, page.after.as_deref());
        let is_there = state
            .store
            .scan(owner, kind, after, page.ascending, &mut visit)?;
        if !is_there {
            return Err(after_not_found(after.unwrap_or_default()));
        }
        let has_more = found.len() > page.limit;
        found.truncate(page.limit);
        Ok(list(found, has_more))
    })
    .await
}

/// A change of an object, if it is still there.
pub(super) fn edit(key: Key, change: impl FnOnce(&mut Value) + Send + 'static) -> Write {
    Write::Edit {
        key,
        edit: Box::new(move |body| {
            let mut record: Value = serde_json::from_slice(body).ok()?;
            change(&mut record);
            Some(record.to_string().into_bytes())
        }),
    }
}

/// Changes the caller's object.
pub(super) async fn change(
    state: &AppState,
    kind: Kind,
    id: &str,
    change: impl FnOnce(&mut Value) + Send + 'static,
) -> Result<(), ApiError> {
    write(state, kind, id, vec![edit(state.key(kind, id), change)]).await
}

/// Deletes the caller's object, and what else it has under its id.
pub(super) async fn delete(
    state: &AppState,
    kind: Kind,
    others: &[Kind],
    id: &str,
) -> Result<(), ApiError> {
    let kinds = std::iter::once(&kind).chain(others);
    let keys = kinds.map(|kind| state.key(*kind, id));
    let writes = keys.map(|key| Write::Delete { key }).collect();
    write(state, kind, id, writes).await
}

/// Writes; the first must find its object.
async fn write(state: &AppState, kind: Kind, id: &str, writes: Vec<Write>) -> Result<(), ApiError> {
    if state.store.write(writes).await?[0] {
        Ok(())
    } else {
        Err(not_found(kind, id))
    }
}
