//! API keys: a bearer token, compared in constant time.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::openai::ApiError;

/// The keys that open the server, kept as digests. None at all leaves it open.
#[derive(Clone, Debug, Default)]
pub struct ApiKeys {
    digests: std::sync::Arc<[[u8; 32]]>,
}

impl ApiKeys {
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            digests: keys.into_iter().map(digest).collect(),
        }
    }

    /// Whether a key is needed.
    pub fn are_required(&self) -> bool {
        !self.digests.is_empty()
    }

    fn check(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        if !self.are_required() {
            return Ok(());
        }
        let header = headers.get(header::AUTHORIZATION).ok_or_else(|| {
            ApiError::unauthorized(
                "You didn't provide an API key. You need to provide your API key in an \
                 Authorization header using Bearer auth (i.e. Authorization: Bearer YOUR_KEY).",
            )
        })?;
        let key = header.to_str().ok().and_then(bearer).ok_or_else(|| {
            ApiError::unauthorized(
                "The Authorization header is malformed. Expected 'Authorization: Bearer YOUR_KEY'.",
            )
        })?;
        // Digests of equal length, and no early end: time tells nothing about the keys.
        let presented = digest(key);
        let known = self.digests.iter().fold(Choice::from(0), |known, digest| {
            known | digest.ct_eq(&presented)
        });
        if bool::from(known) {
            Ok(())
        } else {
            Err(ApiError::unauthorized("Incorrect API key provided."))
        }
    }
}

fn bearer(header: &str) -> Option<&str> {
    let (scheme, key) = header.split_once(' ')?;
    let key = key.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !key.is_empty()).then_some(key)
}

fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

/// Lets `/health` through, and everything else with a key.
pub async fn require_key(State(keys): State<ApiKeys>, request: Request, next: Next) -> Response {
    if request.uri().path() != "/health"
        && let Err(error) = keys.check(request.headers())
    {
        return error.into_response();
    }
    next.run(request).await
}
