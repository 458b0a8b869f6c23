//! `/health` and `/metrics`.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::fleet::Fleet;
use crate::state::AppState;

/// 200 while requests are taken, 503 from the beginning of a shutdown on. Needs no key.
pub(crate) async fn ready(State(state): State<AppState>) -> Response {
    if let Some(reason) = reason(&state) {
        stopped(&reason)
    } else if state.engine.is_serving() {
        answer(StatusCode::OK, "ok")
    } else {
        answer(StatusCode::SERVICE_UNAVAILABLE, "unavailable")
    }
}

/// 200 unless the engine has stopped, which only a restart helps against.
pub(crate) async fn live(State(state): State<AppState>) -> Response {
    if let Some(reason) = reason(&state) {
        stopped(&reason)
    } else if state.engine.has_stopped() || state.fleet.as_ref().is_some_and(Fleet::has_stopped) {
        answer(StatusCode::SERVICE_UNAVAILABLE, "stopped")
    } else {
        answer(StatusCode::OK, "ok")
    }
}

/// Why an engine gave up, if one did.
fn reason(state: &AppState) -> Option<String> {
    let first = state.engine.stop_reason().map(str::to_owned);
    first.or_else(|| state.fleet.as_ref().and_then(Fleet::stop_reason))
}

fn stopped(reason: &str) -> Response {
    let body = serde_json::json!({"status": "stopped", "reason": reason});
    (StatusCode::SERVICE_UNAVAILABLE, axum::Json(body)).into_response()
}

/// 200 once the model is loaded, which it is here.
pub(crate) async fn started() -> Response {
    answer(StatusCode::OK, "ok")
}

/// What a probe is told.
pub(crate) fn answer(status: StatusCode, word: &str) -> Response {
    (status, axum::Json(serde_json::json!({"status": word}))).into_response()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "figures are read with a few digits"
)]
fn as_gauge(n: u64) -> f64 {
    n as f64
}

/// Metrics in Prometheus' text format.
pub(crate) async fn metrics(State(state): State<AppState>) -> impl IntoResponse {
    let headers = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    if let Some(files) = &state.files {
        state.metrics.file_bytes.set(as_gauge(files.n_bytes()));
    }
    (headers, state.metrics.render_with(&state.adapters.in_use()))
}
