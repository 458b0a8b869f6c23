//! `GET /v1/models` and `GET /v1/models/{id}`.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};

use crate::openai::{ApiError, ModelList, ModelObject};
use crate::state::AppState;

/// All served names.
pub(crate) async fn list(State(state): State<AppState>) -> Json<ModelList> {
    let model = &state.model;
    let objects = model
        .names
        .iter()
        .map(|name| ModelObject::new(name, model.created));
    Json(ModelList::new(objects.collect()))
}

/// One served name. SDKs percent-encode it, slashes included; plain slashes do as well.
pub(crate) async fn retrieve(
    State(state): State<AppState>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<ModelObject>, ApiError> {
    let Path(id) = id.map_err(|error| ApiError::bad_request(error.body_text()))?;
    state.check_model(&id)?;
    Ok(Json(ModelObject::new(&id, state.model.created)))
}
