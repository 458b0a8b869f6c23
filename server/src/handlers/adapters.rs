//! `POST /v1/load_lora_adapter` and `POST /v1/unload_lora_adapter`, with vLLM's fields and answers.

use std::path::PathBuf;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;

use super::prepare;
use crate::adapters::{AdapterError, LoadRequest};
use crate::openai::{ApiError, Fields};
use crate::state::AppState;

/// Loads an adapter, beside serving.
pub(crate) async fn load(
    State(state): State<AppState>,
    body: Result<Bytes, BytesRejection>,
) -> Result<String, ApiError> {
    let body = prepare::body(&state, body)?;
    let mut fields = Fields::from_body(&body)?;
    let name = fields.required_string("lora_name")?;
    let path = PathBuf::from(fields.required_string("lora_path")?);
    let if_generation = fields.integer("if_generation", 0, i64::MAX)?;
    let request = LoadRequest {
        replace: fields.bool("load_inplace")?.unwrap_or(false),
        if_generation: if_generation.map(i64::unsigned_abs),
        pinned: fields.bool("pinned")?.unwrap_or(false),
    };
    fields.finish()?;
    let loaded = state.adapters.load(&name, &path, request).await;
    loaded.map_err(|error| match error {
        AdapterError::Refused { .. } => ApiError::from(error).with_param("lora_path"),
        _ => error.into(),
    })?;
    tracing::info!(adapter = name, path = %path.display(), "adapter loaded by request");
    Ok(format!(
        "Success: LoRA adapter '{name}' added successfully."
    ))
}

/// Forgets an adapter. Requests that run keep it.
pub(crate) async fn unload(
    State(state): State<AppState>,
    body: Result<Bytes, BytesRejection>,
) -> Result<String, ApiError> {
    let body = prepare::body(&state, body)?;
    let mut fields = Fields::from_body(&body)?;
    let name = fields.required_string("lora_name")?;
    fields.integer("lora_int_id", 0, i64::MAX)?;
    fields.finish()?;
    if !state.adapters.can_load() {
        return Err(AdapterError::NoRoot.into());
    }
    state.adapters.unload(&name)?;
    tracing::info!(adapter = name, "adapter unloaded by request");
    Ok(format!(
        "Success: LoRA adapter '{name}' removed successfully."
    ))
}
