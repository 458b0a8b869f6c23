//! Uploaded files: `/v1/files` and what lies below it.

use axum::Json;
use axum::body::{Body, BodyDataStream};
use axum::extract::{Path, RawQuery, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::file_upload::{FileForm, ReadForm};
use super::pages::Query;
use super::records;
use crate::admission::{Call, content_length, read_rest};
use crate::connections::Streamed;
use crate::files::{Files, PREFIX};
use crate::identity::unix_seconds;
use crate::multipart::Multipart;
use crate::openai::{ApiError, FileObject, check_purpose};
use crate::state::AppState;
use crate::store::Kind;

/// Bytes of a form beside its file, at most.
const FORM_BYTES: u64 = 64 << 10;
/// Files on a page, as hosted.
const MAX_LISTED: usize = 10_000;

/// The files, if there is somewhere to keep them.
fn files_of<'s>(state: &'s AppState, request: (&str, &str)) -> Result<&'s Files, ApiError> {
    let (method, path) = request;
    let why = "it keeps files only with --store-dir";
    let files = state.files.as_ref();
    files.ok_or_else(|| ApiError::unsupported_url(method, path, why))
}

/// Keeps a file. When this is answered, it is on the disk.
pub(crate) async fn create(
    Call(state): Call,
    request: Request,
) -> Result<Json<FileObject>, ApiError> {
    if let Some(streamed) = request.extensions().get::<Streamed>() {
        streamed.set();
    }
    let (parts, body) = request.into_parts();
    let mut body = body.into_data_stream();
    let kept = receive(&state, &parts.headers, &mut body).await;
    if kept.is_err() {
        read_rest(&mut body, state.max_body_bytes).await;
    }
    kept.map(Json)
}

async fn receive(
    state: &AppState,
    headers: &HeaderMap,
    body: &mut BodyDataStream,
) -> Result<FileObject, ApiError> {
    let files = files_of(state, ("POST", "/v1/files"))?;
    let max_file_bytes = files.options().max_file_bytes;
    if content_length(headers) as u64 > max_file_bytes.saturating_add(FORM_BYTES) {
        return Err(ApiError::file_too_large(max_file_bytes));
    }
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|value| value.to_str().ok());
    let multipart = Multipart::new(kind.unwrap_or_default())?;
    let id = state.ids().id(PREFIX);
    let ReadForm {
        terms,
        filename,
        upload,
    } = FileForm::new(state, files, &id)
        .read(multipart, body)
        .await?;
    let created_at = unix_seconds();
    let ttl = terms.expires_after.or(state.store.options().ttl);
    let file = FileObject {
        id: id.clone(),
        object: "file".to_owned(),
        bytes: upload.n_bytes(),
        created_at,
        expires_at: ttl.map(|ttl| created_at.saturating_add(ttl.as_secs())),
        filename,
        purpose: terms.purpose,
        status: "processed".to_owned(),
    };
    let row = serde_json::to_vec(&file).map_err(|error| ApiError::internal(error.to_string()))?;
    upload.keep(state.key(Kind::File, id), row, ttl).await?;
    Ok(file)
}

/// All of them, the newest first; of a purpose, if that is asked for.
pub(crate) async fn list_all(
    Call(state): Call,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, ApiError> {
    files_of(&state, ("GET", "/v1/files"))?;
    let mut query = Query::parse(query.as_deref())?;
    let page = query.page_of(false, MAX_LISTED, MAX_LISTED)?;
    let purpose = query.take("purpose");
    query.finish()?;
    if let Some(purpose) = &purpose {
        check_purpose(purpose)?;
    }
    let is_wanted = move |file: &Value| match &purpose {
        None => true,
        Some(purpose) => file["purpose"] == *purpose,
    };
    let told = move |file| Some(file).filter(&is_wanted);
    records::page_of(&state, Kind::File, page, told)
        .await
        .map(Json)
}

pub(crate) async fn retrieve(
    Call(state): Call,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    files_of(&state, ("GET", "/v1/files/{id}"))?;
    records::read(&state, Kind::File, &id).await.map(Json)
}

/// The bytes, as they came.
pub(crate) async fn content(
    Call(state): Call,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let files = files_of(&state, ("GET", "/v1/files/{id}/content"))?;
    let file = records::read(&state, Kind::File, &id).await?;
    let content = files.content(&id).await?;
    if json!(content.n_bytes()) != file["bytes"] {
        tracing::error!(id, "the bytes of a file are not those that were kept");
        return Err(ApiError::internal_for_good("The file cannot be read."));
    }
    let name = file["filename"].as_str().unwrap_or_default();
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        ),
        (header::CONTENT_LENGTH, content.n_bytes().into()),
        (header::CONTENT_DISPOSITION, attachment(name)),
        // Whatever it holds, it is no page of this server's.
        (
            HeaderName::from_static("x-content-type-options"),
            HeaderValue::from_static("nosniff"),
        ),
    ];
    Ok((headers, Body::from_stream(content.into_stream())).into_response())
}

/// The name of a file as a header can have it.
fn attachment(name: &str) -> HeaderValue {
    let plain: String = name
        .chars()
        .map(|c| match c {
            '"' | '\\' | '/' => '_',
            ' '..='~' => c,
            _ => '_',
        })
        .collect();
    let value = HeaderValue::try_from(format!("attachment; filename=\"{plain}\""));
    value.unwrap_or(HeaderValue::from_static("attachment"))
}

pub(crate) async fn delete(
    Call(state): Call,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let files = files_of(&state, ("DELETE", "/v1/files/{id}"))?;
    // Only what the caller owns has a name that may be looked for on the disk.
    records::read(&state, Kind::File, &id).await?;
    if !files.delete(state.key(Kind::File, id.clone())).await? {
        return Err(records::not_found(Kind::File, &id));
    }
    Ok(Json(json!({"id": id, "object": "file", "deleted": true})))
}
