//! Errors in Anthropic's words: `{"type": "error", "error": {"type", "message"}}`.

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::header;
use axum::middleware::Next;
use axum::response::Response;
use serde_json::{Value, json};

/// Routes of this dialect.
const PREFIX: &str = "/v1/messages";
/// More than the body of any error.
const MAX_ERROR_BYTES: usize = 1 << 20;

/// An error of an OpenAI object, in the other form. `param` and `code` are kept, since the types
/// tell less than they do.
pub(crate) fn to_json(status: u16, error: &Value) -> Value {
    json!({"type": "error", "error": {
        "type": kind(status), "message": error["message"],
        "param": error["param"], "code": error["code"],
    }})
}

fn kind(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 | 405 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        503 => "overloaded_error",
        504 => "timeout_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    }
}

/// Rewrites errors of this dialect's routes, wherever they come from.
pub(crate) async fn in_its_words(request: Request, next: Next) -> Response {
    let is_ours = request.uri().path().starts_with(PREFIX);
    let response = next.run(request).await;
    let status = response.status();
    if !is_ours || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let body = to_bytes(body, MAX_ERROR_BYTES).await.unwrap_or_default();
    let told: Value = serde_json::from_slice(&body).unwrap_or_default();
    parts.headers.remove(header::CONTENT_LENGTH);
    let body = to_json(status.as_u16(), &told["error"]).to_string();
    Response::from_parts(parts, Body::from(body))
}
