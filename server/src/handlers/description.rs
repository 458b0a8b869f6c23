//! `GET /openapi.json` and `GET /docs`: what this server does, for tools and for people.

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;

use crate::state::AppState;

/// The page reads the description and shows it; it needs nothing from elsewhere.
const PAGE: &str = include_str!("docs.html");

/// The description, as it was made when the server started.
pub(crate) async fn openapi(State(state): State<AppState>) -> impl IntoResponse {
    let headers = [(header::CONTENT_TYPE, "application/json")];
    (headers, state.description.to_string())
}

/// The description as a page.
pub(crate) async fn docs() -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; connect-src 'self'; script-src 'unsafe-inline'; \
             style-src 'unsafe-inline'",
        ),
    ];
    (headers, PAGE)
}
