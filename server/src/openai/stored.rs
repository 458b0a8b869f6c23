//! Bodies of requests about stored objects.

use serde_json::{Map, Value};

use super::{ApiError, Fields, items, metadata};

/// Most items that a conversation is given at a time.
const MAX_ITEMS: usize = 20;

/// What conversations are made of, and changed by.
#[derive(Clone, Debug)]
pub struct ConversationBody {
    pub metadata: Option<Map<String, Value>>,
    pub items: Option<Vec<Value>>,
}

impl ConversationBody {
    /// Reads a body; none at all is an empty one.
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let body: &[u8] = if body.is_empty() { b"{}" } else { body };
        let mut fields = Fields::from_body(body)?;
        let read = Self {
            metadata: metadata::take(&mut fields)?,
            items: items::take_items(&mut fields, MAX_ITEMS)?,
        };
        fields.finish()?;
        Ok(read)
    }
}

/// The one field of an update.
pub fn metadata_of(body: &[u8]) -> Result<Map<String, Value>, ApiError> {
    let mut fields = Fields::from_body(body)?;
    let metadata = metadata::take(&mut fields)?;
    fields.finish()?;
    metadata.ok_or_else(|| ApiError::missing("metadata"))
}
