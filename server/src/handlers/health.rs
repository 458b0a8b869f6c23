//! `/health` and `/metrics`.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;

use crate::app::AppState;

/// 200 while requests are taken, 503 from the beginning of a shutdown on. Needs no key.
pub(crate) async fn health(State(state): State<AppState>) -> impl IntoResponse {
    if state.engine.is_serving() {
        (
            StatusCode::OK,
            axum::Json(serde_json::json!({"status": "ok"})),
        )
    } else {
        let body = axum::Json(serde_json::json!({"status": "unavailable"}));
        (StatusCode::SERVICE_UNAVAILABLE, body)
    }
}

/// Metrics in Prometheus' text format.
pub(crate) async fn metrics(State(state): State<AppState>) -> impl IntoResponse {
    let headers = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    (headers, state.metrics.render())
}
