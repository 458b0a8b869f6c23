//! `GET /v1/models` and `GET /v1/models/{id}`.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};

use crate::openai::{ApiError, ModelList, ModelObject};
use crate::state::AppState;

/// All served names.
pub(crate) async fn list(State(state): State<AppState>) -> Json<ModelList> {
    let names = state.all_names();
    let objects = names.map(|(name, created)| ModelObject::new(name, created));
    Json(ModelList::new(objects.collect()))
}

/// One served name. SDKs percent-encode it, slashes included; plain slashes do as well.
pub(crate) async fn retrieve(
    State(state): State<AppState>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<ModelObject>, ApiError> {
    let Path(id) = id.map_err(|error| ApiError::bad_request(error.body_text()))?;
    state.check_model(&id)?;
    let created = state.all_names().find(|(name, _)| **name == id);
    let created = created.map_or(state.model.created, |(_, created)| created);
    Ok(Json(ModelObject::new(&id, created)))
}
