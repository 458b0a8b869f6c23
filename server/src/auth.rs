//! API keys: a bearer token, compared in constant time. A key is a tenant.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use crate::identity::hex;
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
    /// Whether it may change what is served.
    is_admin: bool,
}

/// Routes that change what is served.
const ADMIN_PATHS: [&str; 2] = ["/v1/load_lora_adapter", "/v1/unload_lora_adapter"];

impl ApiKeys {
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a str>) -> Self {
        Self::with_admins(keys, [])
    }

    /// Keys, and keys that may do everything.
    pub fn with_admins<'a>(
        keys: impl IntoIterator<Item = &'a str>,
        admins: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        // A key that is in both is an admin's: the first of equal keys counts.
        let admins = admins.into_iter().map(|key| (key, true));
        let keys = admins.chain(keys.into_iter().map(|key| (key, false)));
        let keys = keys.zip(0_u32..).map(|((key, is_admin), index)| Key {
            digest: digest(key),
            tenant: Tenant::of_key(index, label(key), owner(key)),
            is_admin,
        });
        Self {
            keys: keys.collect(),
        }
    }

    /// Whether a key is needed.
    pub fn are_required(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Whose the request is, if it may be made.
    fn check(&self, headers: &HeaderMap, path: &str) -> Result<Tenant, ApiError> {
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
        let key = self
            .find(key)
            .ok_or_else(|| ApiError::unauthorized("Incorrect API key provided."))?;
        if ADMIN_PATHS.contains(&path) && !key.is_admin {
            let message = "This API key may not change what is served; use an --admin-key.";
            return Err(ApiError::forbidden(message));
        }
        Ok(key.tenant.clone())
    }

    /// Digests of equal length, and no early end: time tells nothing about the keys.
    fn find(&self, key: &str) -> Option<&Key> {
        let presented = digest(key);
        let mut found = u32::MAX;
        for (key, index) in self.keys.iter().zip(0_u32..) {
            let is_first: Choice = found.ct_eq(&u32::MAX);
            found.conditional_assign(&index, is_first & key.digest.ct_eq(&presented));
        }
        self.keys.get(found as usize)
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
    Arc::from(format!("key-{}", hex(&digest[..4])))
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
        match keys.check(request.headers(), path) {
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
        let one = &keys.find("one").unwrap().tenant;
        let two = &keys.find("two").unwrap().tenant;
        assert_ne!(one.flow(None), two.flow(None));
        assert_ne!(one.label(), two.label());
        assert!(!one.label().contains("one"));
        assert_eq!(one, &keys.keys[0].tenant, "the first of equal keys");
        assert!(keys.find("three").is_none());
        assert!(ApiKeys::default().find("one").is_none());
    }

    #[test]
    fn what_is_served_is_for_admins_to_change() {
        let keys = ApiKeys::with_admins(["one", "both"], ["boss", "both"]);
        let check = |key: &str, path: &str| {
            let mut headers = HeaderMap::new();
            let value = format!("Bearer {key}").parse().unwrap();
            headers.insert(header::AUTHORIZATION, value);
            let checked = keys.check(&headers, path);
            checked.map(|_| ()).map_err(|error| error.status.as_u16())
        };
        for path in ADMIN_PATHS {
            assert_eq!(check("one", path), Err(403), "{path}");
            assert_eq!(check("boss", path), Ok(()), "{path}");
            assert_eq!(check("both", path), Ok(()), "{path}");
            assert_eq!(check("none", path), Err(401), "{path}");
        }
        assert_eq!(check("one", "/v1/models"), Ok(()));
        assert_eq!(check("boss", "/v1/models"), Ok(()));
    }
}
