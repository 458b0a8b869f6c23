//! The routes, and what happens around them.

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tower_http::catch_panic::CatchPanicLayer;

use crate::admission::admit;
use crate::auth::{ApiKeys, require_key};
use crate::handlers;
use crate::observe::observe;
use crate::openai::ApiError;
use crate::state::AppState;

/// All routes, with everything that happens around them.
pub fn router(state: AppState, keys: ApiKeys) -> Router {
    let max_body_bytes = state.max_body_bytes;
    // What needs a place in the queue.
    let generating = Router::new()
        .route("/v1/chat/completions", post(handlers::chat::create))
        .route("/v1/completions", post(handlers::completions::create))
        .layer(from_fn_with_state(state.clone(), admit));
    Router::new()
        .merge(generating)
        .route("/v1/models", get(handlers::models::list))
        .route("/v1/models/{*id}", get(handlers::models::retrieve))
        .route("/health", get(handlers::health::ready))
        .route("/health/ready", get(handlers::health::ready))
        .route("/health/live", get(handlers::health::live))
        .route("/health/startup", get(handlers::health::started))
        .route("/metrics", get(handlers::health::metrics))
        .fallback(unknown_url)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(max_body_bytes))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(keys, require_key))
        .layer(from_fn_with_state(state.clone(), observe))
        .with_state(state)
}

async fn unknown_url(request: Request) -> ApiError {
    ApiError::unknown_url(request.method().as_str(), request.uri().path())
}

async fn method_not_allowed(request: Request) -> ApiError {
    ApiError::method_not_allowed(request.method().as_str(), request.uri().path())
}

fn panicked(panic: Box<dyn std::any::Any + Send>) -> Response {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    tracing::error!(panic = text.unwrap_or("no message"), "a handler panicked");
    ApiError::internal_for_good("The server had an error while processing your request.")
        .into_response()
}
