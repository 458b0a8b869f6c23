//! `GET /v1/models`.

use schemars::JsonSchema;
use serde::Serialize;

/// One served name.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ModelObject {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    adapter: Option<AdapterFields>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    member: Option<MemberFields>,
}

/// What is told of a model that comes and goes, beyond the API's own fields.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct MemberFields {
    /// `loaded`, `on_disk` or `failed`.
    pub state: &'static str,
    /// Weights, KV cache, and what a step works in; estimated of one that was never loaded.
    pub bytes: u64,
}

/// What is told of an adapter beyond the API's own fields. What is only known of those in memory
/// is `null` of others.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct AdapterFields {
    pub root: String,
    /// The model that it adapts.
    pub parent: String,
    /// `loaded`, `on_disk` or `failed`.
    pub state: &'static str,
    /// How many contents the name has had.
    pub generation: u64,
    pub pinned: bool,
    pub rank: Option<usize>,
    pub bytes: Option<usize>,
    /// SHA-256 of its content, in hexadecimal.
    pub digest: Option<String>,
    /// Modules that it changes.
    pub targets: Option<Vec<String>>,
    /// Why it could not be loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// All served names.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ModelList {
    object: &'static str,
    data: Vec<ModelObject>,
}

impl ModelObject {
    /// `created`: when the model was loaded, in seconds of Unix time.
    pub fn new(id: &str, created: u64) -> Self {
        Self {
            id: id.to_owned(),
            object: "model",
            created,
            owned_by: "understudy",
            adapter: None,
            member: None,
        }
    }

    /// The same name as an adapter's.
    #[must_use]
    pub fn of_adapter(mut self, fields: AdapterFields) -> Self {
        self.adapter = Some(fields);
        self
    }

    /// The same name as that of a model that comes and goes.
    #[must_use]
    pub fn of_member(mut self, fields: MemberFields) -> Self {
        self.member = Some(fields);
        self
    }

    pub fn id(&self) -> &str {
        &self.id
    }
}

impl ModelList {
    pub fn new(data: Vec<ModelObject>) -> Self {
        Self {
            object: "list",
            data,
        }
    }
}
