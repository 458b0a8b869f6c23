//! Addresses that lead nowhere: those of the hosted API that this server does not offer are told
//! apart from those that nobody has.

use axum::extract::Request;

use crate::openai::ApiError;

/// What the hosted API has below `/v1/`, and why it is not here.
const UNSUPPORTED: [(&str, &str); 21] = [
    ("moderations", "no classifier model is configured"),
    ("audio", "it serves text models"),
    ("images", "it serves text models"),
    ("videos", "it serves text models"),
    ("realtime", "it serves text models"),
    ("live", "it serves text models"),
    ("uploads", "files come whole: use /v1/files"),
    (
        "batches",
        "it makes no batches: send the requests with service_tier 'flex'",
    ),
    ("vector_stores", "it does not search files"),
    ("containers", "it runs no code"),
    ("fine_tuning", "it serves models and does not train them"),
    ("evals", "it serves models and does not evaluate them"),
    ("graders", "it serves models and does not evaluate them"),
    ("assistants", "use /v1/responses and /v1/conversations"),
    ("threads", "use /v1/responses and /v1/conversations"),
    ("chatkit", "use /v1/responses and /v1/conversations"),
    ("agents", "use /v1/responses and /v1/conversations"),
    ("skills", "use /v1/responses and /v1/conversations"),
    ("organization", "keys are arguments of the server"),
    ("safety", "it belongs to the hosted service"),
    (
        "content_provenance_checks",
        "it belongs to the hosted service",
    ),
];

/// Nothing is served here.
pub(crate) async fn unknown_url(request: Request) -> ApiError {
    let (method, path) = (request.method().as_str(), request.uri().path());
    let family = path
        .strip_prefix("/v1/")
        .and_then(|rest| rest.split('/').next());
    let why = UNSUPPORTED
        .iter()
        .find(|(name, _)| Some(*name) == family)
        .map(|(_, why)| *why);
    match why {
        Some(why) => ApiError::unsupported_url(method, path, why),
        None => ApiError::unknown_url(method, path),
    }
}

/// The address is served, but not by this method.
pub(crate) async fn method_not_allowed(request: Request) -> ApiError {
    ApiError::method_not_allowed(request.method().as_str(), request.uri().path())
}
