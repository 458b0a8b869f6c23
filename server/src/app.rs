//! The routes, and what happens around them.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tower::util::option_layer;
use tower_http::catch_panic::CatchPanicLayer;

use crate::admission::{admit, bounded};
use crate::anthropic::in_its_words;
use crate::auth::{AccessTable, ApiKeys, Guard, Routes, Scope, require_key};
use crate::cross_origin::cross_origin;
use crate::handlers;
use crate::idempotency::answer_once;
use crate::metrics::Metrics;
use crate::observe::observe;
use crate::openai::ApiError;
use crate::state::AppState;

/// All routes, with everything that happens around them.
pub fn router(state: AppState, keys: ApiKeys) -> Router {
    let max_body_bytes = state.max_body_bytes;
    let metrics = Arc::clone(&state.metrics);
    let (routes, table) = routes(&state).into_parts();
    let guard = Guard::new(keys, table);
    routes
        .fallback(handlers::elsewhere::unknown_url)
        .method_not_allowed_fallback(handlers::elsewhere::method_not_allowed)
        .layer(DefaultBodyLimit::max(max_body_bytes))
        .layer(CatchPanicLayer::custom(move |panic| {
            panicked(&metrics, panic)
        }))
        .layer(from_fn_with_state(guard, require_key))
        .layer(from_fn(in_its_words))
        .layer(option_layer(cross_origin(&state.cors_origins)))
        .layer(from_fn_with_state(state.clone(), observe))
        .with_state(state)
}

/// The patterns of all routes, and what opens each.
pub fn access(state: &AppState) -> AccessTable {
    routes(state).into_parts().1
}

/// All routes, each with the scope that a key needs for it.
fn routes(state: &AppState) -> Routes {
    let bounded_routes = generating(state)
        .merge(embedding(state))
        .merge(stored())
        .merge(reading())
        .merge(about_models())
        .merge(administering())
        .merge(probes())
        .merge(describing())
        .merge(Routes::of(Scope::Metrics).route("/metrics", get(handlers::health::metrics)))
        .map(|router| router.layer(from_fn_with_state(state.clone(), bounded)));
    // Uploads have a bound of their own.
    bounded_routes.merge(uploaded())
}

/// What is served.
fn about_models() -> Routes {
    Routes::of(Scope::Inference)
        .route("/v1/models", get(handlers::models::list))
        .route("/v1/models/{*id}", get(handlers::models::retrieve))
}

/// What changes or shows the server itself.
fn administering() -> Routes {
    Routes::of(Scope::Admin)
        .route("/v1/load_lora_adapter", post(handlers::adapters::load))
        .route("/v1/unload_lora_adapter", post(handlers::adapters::unload))
        .route("/admin/state", get(handlers::admin::state))
}

/// What can be asked, which is the same for everybody.
fn describing() -> Routes {
    Routes::open()
        .route("/openapi.json", get(handlers::description::openapi))
        .route("/docs", get(handlers::description::docs))
}

/// How the server is.
fn probes() -> Routes {
    Routes::open()
        .route("/health", get(handlers::health::ready))
        .route("/health/ready", get(handlers::health::ready))
        .route("/health/live", get(handlers::health::live))
        .route("/health/startup", get(handlers::health::started))
}

/// What needs a place in the queue.
fn generating(state: &AppState) -> Routes {
    let routes = Routes::of(Scope::Inference)
        .route("/v1/chat/completions", post(handlers::chat::create))
        .route("/v1/completions", post(handlers::completions::create))
        .route("/v1/responses", post(handlers::responses::create))
        .route("/v1/messages", post(handlers::messages::create))
        .route("/v1/decisions", post(handlers::decisions::create))
        .route(
            "/v1/responses/input_tokens",
            post(handlers::responses::count_tokens),
        );
    admitted(routes, state)
}

/// Vectors, whose engine may be one of its own, with a queue of its own.
fn embedding(state: &AppState) -> Routes {
    let routes = Routes::of(Scope::Inference);
    let routes = routes.route("/v1/embeddings", post(handlers::embeddings::create));
    admitted(routes, &state.for_embeddings())
}

/// Layers see a request from the last to the first: it is admitted before its body is read.
fn admitted(routes: Routes, state: &AppState) -> Routes {
    routes.map(|router| {
        router
            .layer(from_fn_with_state(state.clone(), answer_once))
            .layer(from_fn_with_state(state.clone(), admit))
    })
}

/// What models read, without running them.
fn reading() -> Routes {
    use handlers::tokens::{apply_template, detokenize, tokenize};
    Routes::of(Scope::Inference)
        .route(
            "/v1/messages/count_tokens",
            post(handlers::messages::count_tokens),
        )
        .route("/tokenize", post(tokenize))
        .route("/v1/tokenize", post(tokenize))
        .route("/detokenize", post(detokenize))
        .route("/v1/detokenize", post(detokenize))
        .route("/apply-template", post(apply_template))
        .route("/v1/apply-template", post(apply_template))
}

/// What has been stored.
fn stored() -> Routes {
    use handlers::{conversations, stored_chats, stored_responses};
    Routes::of(Scope::Inference)
        .route("/v1/chat/completions", get(stored_chats::list_all))
        .route(
            "/v1/chat/completions/{id}",
            get(stored_chats::retrieve)
                .post(stored_chats::update)
                .delete(stored_chats::delete),
        )
        .route(
            "/v1/chat/completions/{id}/messages",
            get(stored_chats::messages),
        )
        .route("/v1/responses/compact", post(stored_responses::compact))
        .route(
            "/v1/responses/{id}",
            get(stored_responses::retrieve).delete(stored_responses::delete),
        )
        .route("/v1/responses/{id}/cancel", post(stored_responses::cancel))
        .route(
            "/v1/responses/{id}/input_items",
            get(stored_responses::input_items),
        )
        .route("/v1/conversations", post(conversations::create))
        .route(
            "/v1/conversations/{id}",
            get(conversations::retrieve)
                .post(conversations::update)
                .delete(conversations::delete),
        )
        .route(
            "/v1/conversations/{id}/items",
            get(conversations::list_items).post(conversations::add_items),
        )
        .route(
            "/v1/conversations/{id}/items/{item}",
            get(conversations::retrieve_item).delete(conversations::delete_item),
        )
}

/// Files, whose bodies are written down as they come.
fn uploaded() -> Routes {
    use handlers::files;
    Routes::of(Scope::Inference)
        .route("/v1/files", get(files::list_all).post(files::create))
        .route("/v1/files/{id}", get(files::retrieve).delete(files::delete))
        .route("/v1/files/{id}/content", get(files::content))
}

#[expect(clippy::needless_pass_by_value, reason = "the layer gives it away")]
fn panicked(metrics: &Metrics, panic: Box<dyn std::any::Any + Send>) -> Response {
    metrics.count_panic("handler");
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    tracing::error!(panic = text.unwrap_or("no message"), "a handler panicked");
    ApiError::internal_for_good("The server had an error while processing your request.")
        .into_response()
}
