//! The one place where anything that goes wrong becomes an OpenAI error object.

use std::borrow::Cow;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// Most names that are told to one who has named a model that is not there.
pub(crate) const MAX_TOLD_NAMES: usize = 10;

/// Whether the official SDKs may retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Retry {
    /// They follow the status code.
    ByStatus,
    /// After this time, in milliseconds.
    AfterMs(u64),
    /// Never: the same request would fail the same way.
    Never,
}

/// An answer that is an error, as the hosted API words it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    pub status: StatusCode,
    /// `type` on the wire.
    pub kind: &'static str,
    pub message: String,
    /// The parameter at fault, as a path: `messages[0].content`.
    pub param: Option<String>,
    pub code: Option<Cow<'static, str>>,
    retry: Retry,
}

const INVALID_REQUEST: &str = "invalid_request_error";
const SERVER_ERROR: &str = "server_error";
const UNAVAILABLE: &str = "service_unavailable_error";

impl ApiError {
    /// An error with nothing but a status, a type and a message.
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            kind,
            message: message.into(),
            param: None,
            code: None,
            retry: Retry::ByStatus,
        }
    }

    /// 400 without a parameter or code.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, INVALID_REQUEST, message)
    }

    /// 400 about the parameter at `param`.
    pub fn invalid(param: &str, code: &'static str, message: impl Into<String>) -> Self {
        Self::bad_request(message).with_param(param).with_code(code)
    }

    /// A required parameter that is not there.
    pub fn missing(param: &str) -> Self {
        let message = format!("Missing required parameter: '{param}'.");
        Self::invalid(param, "missing_required_parameter", message)
    }

    /// A value of the wrong JSON type. `expected` and `found` carry their articles.
    pub fn wrong_type(param: &str, expected: &str, found: &str) -> Self {
        let message =
            format!("Invalid type for '{param}': expected {expected}, but got {found} instead.");
        Self::invalid(param, "invalid_type", message)
    }

    /// A parameter that the API does not have.
    pub fn unknown_parameter(param: &str) -> Self {
        let message = format!("Unknown parameter: '{param}'.");
        Self::invalid(param, "unknown_parameter", message)
    }

    /// A parameter that the API has and this server does not offer.
    pub fn unsupported_parameter(param: &str) -> Self {
        let message = format!("Unsupported parameter: '{param}' is not supported by this server.");
        Self::invalid(param, "unsupported_parameter", message)
    }

    /// A value that the API has and this server does not offer.
    pub fn unsupported_value(param: &str, value: &str) -> Self {
        let message =
            format!("Unsupported value: '{param}' does not support {value} on this server.");
        Self::invalid(param, "unsupported_value", message)
    }

    /// A model that is not served here. The hosted API's sentence, and what would be right.
    /// `served`: what is told to be there instead; of many names, the first.
    pub fn model_not_found(model: &str, served: &[String]) -> Self {
        let names = served.iter().take(MAX_TOLD_NAMES);
        let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
        let mut message =
            format!("The model `{model}` does not exist or you do not have access to it.");
        if !names.is_empty() {
            let more = match served.len() > MAX_TOLD_NAMES {
                true => " and others",
                false => "",
            };
            message = format!("{message} This server serves: {}{more}.", names.join(", "));
        }
        Self::new(StatusCode::NOT_FOUND, INVALID_REQUEST, message).with_code("model_not_found")
    }

    /// The same error in the words of who asked for `asked`, which may be another name of what was
    /// not found.
    #[must_use]
    pub(crate) fn of_asked(self, asked: &str) -> Self {
        if self.code.as_deref() != Some("model_not_found") {
            return self;
        }
        let named = self
            .message
            .split_once('`')
            .zip(self.message.split_once("` "));
        let Some(((before, _), (_, after))) = named else {
            return self;
        };
        let message = format!("{before}`{asked}` {after}");
        Self { message, ..self }
    }

    /// A stored object that is not there, or somebody else's.
    pub fn stored_not_found(what: &str, id: &str) -> Self {
        let message = format!("{what} with id '{id}' not found.");
        Self::new(StatusCode::NOT_FOUND, INVALID_REQUEST, message)
    }

    /// A response that cannot be gone on from.
    pub fn previous_response_not_found(id: &str) -> Self {
        let message = format!("Previous response with id '{id}' not found.");
        Self::invalid(
            "previous_response_id",
            "previous_response_not_found",
            message,
        )
    }

    /// A grammar of the request that its answer cannot be matched by to the end: the same request
    /// would come to the same place again.
    pub fn grammar_failed(reason: &str) -> Self {
        let message = format!(
            "The answer cannot go on by the grammar, schema or pattern of this request: {reason}. \
             A simpler one may be matched."
        );
        Self {
            retry: Retry::Never,
            ..Self::bad_request(message)
        }
        .with_code("grammar_failed")
    }

    /// An idempotency key that was used for another request.
    pub fn idempotency_mismatch() -> Self {
        let message = "Keys for idempotent requests can only be used with the same endpoint and \
                       body that they were first used with.";
        Self {
            retry: Retry::Never,
            ..Self::new(StatusCode::CONFLICT, INVALID_REQUEST, message)
        }
        .with_code("idempotency_key_in_use")
    }

    /// A base model asked to chat.
    pub fn not_a_chat_model() -> Self {
        let message = "This is not a chat model (it has no chat template) and thus not supported \
                       in the v1/chat/completions endpoint. Did you mean to use v1/completions?";
        Self::new(StatusCode::NOT_FOUND, INVALID_REQUEST, message).with_param("model")
    }

    /// A model that generates text only, asked for vectors.
    pub fn not_an_embedding_model() -> Self {
        let message = "You are not allowed to generate embeddings from this model: it was not \
                       started with --embeddings.";
        Self::new(StatusCode::FORBIDDEN, INVALID_REQUEST, message).with_param("model")
    }

    /// A model that makes vectors only, asked for text.
    pub fn not_a_generating_model() -> Self {
        let message = "You are not allowed to sample from this model: it makes embeddings only. \
                       Did you mean to use v1/embeddings?";
        Self::new(StatusCode::FORBIDDEN, INVALID_REQUEST, message).with_param("model")
    }

    /// No route has this path.
    pub fn unknown_url(method: &str, path: &str) -> Self {
        let message = format!("Invalid URL ({method} {path})");
        Self::new(StatusCode::NOT_FOUND, INVALID_REQUEST, message)
    }

    /// A path of the hosted API that this server does not have, and why.
    pub fn unsupported_url(method: &str, path: &str, why: &str) -> Self {
        let message = format!(
            "Invalid URL ({method} {path}): this part of the API is not supported by this server; \
             {why}."
        );
        Self::new(StatusCode::NOT_FOUND, INVALID_REQUEST, message).with_code("unsupported_endpoint")
    }

    /// The path exists, the method does not.
    pub fn method_not_allowed(method: &str, path: &str) -> Self {
        let message = format!("Not allowed to {method} on {path}.");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, INVALID_REQUEST, message)
            .with_code("method_not_supported")
    }

    /// The body exceeds the server's limit.
    pub fn body_too_large(limit_bytes: usize) -> Self {
        let message = format!(
            "The request body is too large: this server accepts at most {limit_bytes} bytes."
        );
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, INVALID_REQUEST, message)
            .with_code("request_too_large")
    }

    /// A file that exceeds the server's limit.
    pub fn file_too_large(limit_bytes: u64) -> Self {
        let message = format!(
            "The file is too large: this server accepts files of at most {limit_bytes} bytes."
        );
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, INVALID_REQUEST, message)
            .with_param("file")
            .with_code("file_too_large")
    }

    /// There is no room for a file; nobody knows when there will be.
    pub fn no_room_for_file(message: impl Into<String>) -> Self {
        Self {
            retry: Retry::Never,
            ..Self::new(StatusCode::INSUFFICIENT_STORAGE, SERVER_ERROR, message)
        }
        .with_param("file")
        .with_code("insufficient_storage")
    }

    /// All bodies that are being received or worked on are too large together.
    pub fn bodies_too_large() -> Self {
        let message = "The server is receiving too much at a time. Please retry after a moment.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE, message)
            .with_code("server_overloaded")
            .after(Duration::from_secs(2))
    }

    /// The body did not come in time.
    pub fn body_too_slow() -> Self {
        let message = "The request body did not arrive in time.";
        Self::new(StatusCode::REQUEST_TIMEOUT, INVALID_REQUEST, message)
            .with_code("request_timeout")
    }

    /// A key that is missing or that the server does not know.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, INVALID_REQUEST, message).with_code("invalid_api_key")
    }

    /// A key that may not do this.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, INVALID_REQUEST, message)
            .with_code("insufficient_permissions")
    }

    /// Something that is not as the request assumes.
    pub fn conflict(param: &str, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            retry: Retry::Never,
            ..Self::new(StatusCode::CONFLICT, INVALID_REQUEST, message)
        }
        .with_param(param)
        .with_code(code)
    }

    /// Too much waits already.
    pub fn overloaded(message: String, retry_after: Duration) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "requests", message)
            .with_code("rate_limit_exceeded")
            .after(retry_after)
    }

    /// A key has used what it has of a minute. `kind` is what of: requests or tokens. Without a
    /// time, the request is larger than the limit and would never be taken.
    pub fn rate_limited(kind: &'static str, message: String, after: Option<Duration>) -> Self {
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, kind, message)
            .with_code("rate_limit_exceeded");
        match after {
            Some(time) => error.after(time),
            None => Self {
                retry: Retry::Never,
                ..error
            },
        }
    }

    /// A key has used what it has of a day: retrying is no use for now.
    pub fn quota_exceeded(message: String) -> Self {
        let kind = "insufficient_quota";
        Self {
            retry: Retry::Never,
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, kind, message)
        }
        .with_code(kind)
    }

    /// It waited too long for its first step.
    pub fn queue_timeout(message: String, retry_after: Duration) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE, message)
            .with_code("queue_timeout")
            .after(retry_after)
    }

    /// It took longer than it was given; it would again.
    pub fn deadline_exceeded(message: String) -> Self {
        Self {
            retry: Retry::Never,
            ..Self::new(StatusCode::GATEWAY_TIMEOUT, SERVER_ERROR, message)
        }
        .with_code("deadline_exceeded")
    }

    /// The model is not there yet.
    pub fn loading() -> Self {
        let message = "The model is still loading. Please retry after a moment.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE, message)
            .with_code("model_loading")
            .after(Duration::from_secs(2))
    }

    /// One of several models is not in memory, and others that are in use leave it no room.
    pub fn no_room(model: &str) -> Self {
        let message = format!(
            "The model `{model}` is not in memory, and the models that are in use leave no room \
             for it. Please retry after a moment."
        );
        Self::new(StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE, message)
            .with_code("model_not_loaded")
            .after(Duration::from_secs(5))
    }

    /// One of several models is not in memory and cannot be loaded; the log says why.
    pub fn not_loadable(model: &str) -> Self {
        let message = format!("The model `{model}` could not be loaded.");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE, message)
            .with_code("model_not_loaded")
            .after(Duration::from_secs(30))
    }

    /// An adapter that is known and cannot be loaded. It will not go better before the operator has
    /// changed its files.
    pub fn adapter_not_loadable(message: impl Into<String>) -> Self {
        Self {
            retry: Retry::Never,
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE, message)
        }
        .with_param("model")
        .with_code("adapter_not_loaded")
    }

    /// The server is going away.
    pub fn shutting_down() -> Self {
        let message = "The server is shutting down. Please retry after a moment.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE, message)
            .with_code("server_shutting_down")
            .after(Duration::from_secs(2))
    }

    /// The engine has stopped for good.
    pub fn engine_stopped() -> Self {
        let message = "The engine of this server has stopped; it must be restarted.";
        Self {
            retry: Retry::Never,
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE, message)
        }
    }

    /// A failure of ours that a retry may get around.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, SERVER_ERROR, message)
    }

    /// A failure of ours that the same request would meet again.
    pub fn internal_for_good(message: impl Into<String>) -> Self {
        Self {
            retry: Retry::Never,
            ..Self::internal(message)
        }
    }

    fn after(mut self, time: Duration) -> Self {
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.retry = Retry::AfterMs(ms);
        self
    }

    #[must_use]
    pub fn with_param(mut self, param: &str) -> Self {
        self.param = Some(param.to_owned());
        self
    }

    #[must_use]
    pub fn with_code(mut self, code: impl Into<Cow<'static, str>>) -> Self {
        self.code = Some(code.into());
        self
    }

    /// `{"error": {...}}`, the body of the answer and the data of a failed stream.
    pub fn to_json(&self) -> Value {
        json!({"error": {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.code,
        }})
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, axum::Json(self.to_json())).into_response();
        let headers = response.headers_mut();
        match self.retry {
            Retry::ByStatus => {}
            Retry::AfterMs(ms) => {
                headers.insert(HeaderName::from_static("retry-after-ms"), ms.into());
                headers.insert(header::RETRY_AFTER, ms.div_ceil(1000).into());
            }
            Retry::Never => {
                let name = HeaderName::from_static("x-should-retry");
                headers.insert(name, HeaderValue::from_static("false"));
            }
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
