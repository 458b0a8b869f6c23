//! API keys: a bearer token, compared in constant time. A key is a tenant.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use crate::openai::ApiError;
use crate::tenant::{Owner, Tenant};

/// The keys that open the server, kept as digests. None at all leaves it open.
#[derive(Clone, Debug, Default)]
pub struct ApiKeys {
    keys: Arc<[Key]>,
}

#[derive(Debug)]
struct Key {
    digest: [u8; 32],
    tenant: Tenant,
}

impl ApiKeys {
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a str>) -> Self {
        let keys = keys.into_iter().zip(0_u32..).map(|(key, index)| Key {
            digest: digest(key),
            tenant: Tenant::of_key(index, label(key), owner(key)),
        });
        Self {
            keys: keys.collect(),
        }
    }

    /// Whether a key is needed.
    pub fn are_required(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Whose the request is.
    fn check(&self, headers: &HeaderMap) -> Result<Tenant, ApiError> {
        if !self.are_required() {
            return Ok(Tenant::default());
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
        self.find(key)
            .cloned()
            .ok_or_else(|| ApiError::unauthorized("Incorrect API key provided."))
    }

    /// Digests of equal length, and no early end: time tells nothing about the keys.
    fn find(&self, key: &str) -> Option<&Tenant> {
        let presented = digest(key);
        let mut found = u32::MAX;
        for (key, index) in self.keys.iter().zip(0_u32..) {
            let is_first: Choice = found.ct_eq(&u32::MAX);
            found.conditional_assign(&index, is_first & key.digest.ct_eq(&presented));
        }
        self.keys.get(found as usize).map(|key| &key.tenant)
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

/// What figures call a key: 32 bits of a digest that is used for nothing else.
fn label(key: &str) -> Arc<str> {
    let digest = Sha256::digest(format!("understudy tenant {key}").as_bytes());
    let hex: String = digest[..4]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Arc::from(format!("key-{hex}"))
}

/// Whose stored objects are: another digest, which tells nothing about the key either.
fn owner(key: &str) -> Owner {
    let digest = Sha256::digest(format!("understudy owner {key}").as_bytes());
    Owner::of_number(u128::from_le_bytes(
        digest[..16].try_into().expect("sixteen bytes"),
    ))
}

/// Lets the probes through, and everything else with a key. Tells handlers whose it is.
pub async fn require_key(
    State(keys): State<ApiKeys>,
    mut request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    if path != "/health" && !path.starts_with("/health/") {
        match keys.check(request.headers()) {
            Ok(tenant) => {
                request.extensions_mut().insert(tenant);
            }
            Err(error) => return error.into_response(),
        }
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_is_a_tenant_of_its_own() {
        let keys = ApiKeys::new(["one", "two", "one"]);
        let one = keys.find("one").unwrap();
        let two = keys.find("two").unwrap();
        assert_ne!(one.flow(None), two.flow(None));
        assert_ne!(one.label(), two.label());
        assert!(!one.label().contains("one"));
        assert_eq!(one, &keys.keys[0].tenant, "the first of equal keys");
        assert_eq!(keys.find("three"), None);
        assert_eq!(ApiKeys::default().find("one"), None);
    }
}
