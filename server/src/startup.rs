//! The time before the model is loaded: the socket listens already, and every request is
//! answered.

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tower::ServiceExt;

use crate::handlers::health::answer;
use crate::openai::ApiError;

/// Stands in for an application until it is there.
#[derive(Clone, Debug, Default)]
pub struct Front {
    app: Arc<OnceLock<Router>>,
}

impl Front {
    /// From now on, `app` answers. Only the first application counts.
    pub fn open(&self, app: Router) {
        if self.app.set(app).is_err() {
            tracing::error!("the application was there already");
        }
    }

    /// What the socket is given.
    pub fn router(&self) -> Router {
        Router::new().fallback(respond).with_state(self.clone())
    }
}

async fn respond(State(front): State<Front>, request: Request) -> Response {
    match front.app.get() {
        Some(app) => {
            let Ok(response) = app.clone().oneshot(request).await;
            response
        }
        None => loading(request.uri().path()),
    }
}

/// Alive, but neither started nor ready.
fn loading(path: &str) -> Response {
    match path {
        "/health/live" => answer(StatusCode::OK, "ok"),
        "/health" | "/health/ready" | "/health/startup" => {
            answer(StatusCode::SERVICE_UNAVAILABLE, "loading")
        }
        _ => ApiError::loading().into_response(),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    async fn get(router: &Router, path: &str) -> Response {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        router.clone().oneshot(request).await.unwrap()
    }

    #[tokio::test]
    async fn every_request_is_answered_before_the_model_is_there() {
        let front = Front::default();
        let router = front.router();
        assert_eq!(get(&router, "/health/live").await.status(), 200);
        for path in ["/health", "/health/ready", "/health/startup", "/v1/models"] {
            assert_eq!(get(&router, path).await.status(), 503, "{path}");
        }
        let refused = get(&router, "/v1/chat/completions").await;
        assert_eq!(refused.headers()["retry-after"], "2");
        front.open(Router::new().fallback(|| async { "the application" }));
        for path in ["/health", "/health/live", "/v1/models"] {
            assert_eq!(get(&router, path).await.status(), 200, "{path}");
        }
    }
}
