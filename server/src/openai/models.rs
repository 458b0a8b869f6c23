//! `GET /v1/models`.

use serde::Serialize;

/// One served name.
#[derive(Clone, Debug, Serialize)]
pub struct ModelObject {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
}

/// All served names.
#[derive(Clone, Debug, Serialize)]
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
        }
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
