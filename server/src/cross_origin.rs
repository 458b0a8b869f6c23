//! Web pages of other origins: which may read answers.

use axum::http::{HeaderName, HeaderValue};
use tower_http::cors::{AllowOrigin, Any, CorsLayer};

use crate::auth::LIMIT_HEADERS;

/// Headers of answers that scripts may read.
const EXPOSED: [&str; 5] = [
    "x-request-id",
    "openai-processing-ms",
    "retry-after",
    "retry-after-ms",
    "x-should-retry",
];

/// `None` without origins: browsers then keep other pages out, as they do by themselves.
pub(crate) fn cross_origin(origins: &[String]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let allowed = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        // They have been checked with the other arguments.
        AllowOrigin::list(origins.iter().filter_map(|o| HeaderValue::from_str(o).ok()))
    };
    let exposed = EXPOSED.into_iter().chain(LIMIT_HEADERS);
    let exposed: Vec<HeaderName> = exposed.map(HeaderName::from_static).collect();
    // Keys are sent by scripts, never by browsers of their own accord: no credentials.
    Some(
        CorsLayer::new()
            .allow_origin(allowed)
            .allow_methods(Any)
            .allow_headers(Any)
            .expose_headers(exposed),
    )
}
