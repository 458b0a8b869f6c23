//! What stands before all routes: who asks, and whether they may.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::access::{Access, AccessTable};
use super::scope::Scope;
use super::{ApiKeys, headers};
use crate::openai::ApiError;
use crate::tenant::Tenant;

/// Where clients of other dialects put their key.
const OTHER_HEADER: HeaderName = HeaderName::from_static("x-api-key");

/// Keys, and what each route needs.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    keys: ApiKeys,
    table: Arc<AccessTable>,
}

/// A request that may not be made.
struct Refused {
    /// Whose it is, if that is known.
    tenant: Option<Tenant>,
    error: Box<ApiError>,
}

impl Guard {
    pub(crate) fn new(keys: ApiKeys, table: AccessTable) -> Self {
        Self {
            keys,
            table: Arc::new(table),
        }
    }

    /// What opens the route of this pattern; `None`: there is no such route. Should a route not
    /// have said what opens it, it is for admins.
    fn access(&self, pattern: Option<&str>) -> Option<Access> {
        let pattern = pattern?;
        let found = self.table.get(pattern).copied();
        Some(found.unwrap_or(Access::Needs(Scope::Admin)))
    }

    /// Whose the request is, if it may be made.
    fn check(&self, headers: &HeaderMap, access: Option<Access>) -> Result<Tenant, Refused> {
        if !self.keys.are_required() {
            return Ok(Tenant::default());
        }
        let nobody = |error| Refused {
            tenant: None,
            error: Box::new(error),
        };
        let tenant = self.tenant(headers).map_err(nobody)?;
        match access {
            Some(Access::Needs(scope)) if !tenant.grant().opens(scope) => {
                let name = scope.name();
                let error = ApiError::forbidden(format!(
                    "You have insufficient permissions for this operation. Missing scopes: {name}."
                ));
                Err(Refused {
                    tenant: Some(tenant),
                    error: Box::new(error),
                })
            }
            // What is not there, everybody who has a key may know.
            _ => Ok(tenant),
        }
    }

    fn tenant(&self, headers: &HeaderMap) -> Result<Tenant, ApiError> {
        let key = match (
            headers.get(header::AUTHORIZATION),
            headers.get(OTHER_HEADER),
        ) {
            (Some(value), _) => value.to_str().ok().and_then(bearer).ok_or_else(|| {
                ApiError::unauthorized(
                    "The Authorization header is malformed. Expected 'Authorization: Bearer \
                     YOUR_KEY'.",
                )
            })?,
            (None, Some(value)) => value
                .to_str()
                .map(str::trim)
                .map_err(|_| ApiError::unauthorized("The x-api-key header is malformed."))?,
            (None, None) => {
                return Err(ApiError::unauthorized(
                    "You didn't provide an API key. You need to provide your API key in an \
                     Authorization header using Bearer auth (i.e. Authorization: Bearer \
                     YOUR_KEY).",
                ));
            }
        };
        let tenant = self.keys.ring().find(key);
        tenant.ok_or_else(|| ApiError::unauthorized("Incorrect API key provided."))
    }
}

fn bearer(header: &str) -> Option<&str> {
    let (scheme, key) = header.split_once(' ')?;
    let key = key.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !key.is_empty()).then_some(key)
}

/// What was asked of the server itself.
struct Asked {
    method: Method,
    path: String,
}

impl Asked {
    /// Who did what to the server, or tried to, and whether it was done.
    fn audit(&self, key: &str, response: &Response) {
        let Self { method, path } = self;
        let status = response.status().as_u16();
        tracing::info!(
            target: "understudy::audit",
            key, %method, path, status, "admin request"
        );
    }
}

/// Lets through what is open, and everything else with a key that opens it. Tells handlers whose
/// it is, and the client what its key has left.
pub(crate) async fn require_key(
    State(guard): State<Guard>,
    mut request: Request,
    next: Next,
) -> Response {
    let pattern = request.extensions().get::<MatchedPath>().cloned();
    let access = guard.access(pattern.as_ref().map(MatchedPath::as_str));
    if access == Some(Access::Open) {
        return next.run(request).await;
    }
    let asked = (access == Some(Access::Needs(Scope::Admin))).then(|| Asked {
        method: request.method().clone(),
        path: request.uri().path().to_owned(),
    });
    let tenant = match guard.check(request.headers(), access) {
        Ok(tenant) => tenant,
        Err(Refused { tenant, error }) => {
            let mut response = (*error).into_response();
            if let Some(asked) = asked {
                asked.audit(tenant.as_ref().map_or("", Tenant::label), &response);
            }
            if let Some(tenant) = tenant {
                response.extensions_mut().insert(tenant);
            }
            return response;
        }
    };
    request.extensions_mut().insert(tenant.clone());
    let mut response = next.run(request).await;
    // For whoever tells of the request at its end.
    response.extensions_mut().insert(tenant.clone());
    if let Some(asked) = asked {
        asked.audit(tenant.label(), &response);
    }
    if let Some(meter) = tenant.meter() {
        headers::add(response.headers_mut(), meter);
    }
    response
}
