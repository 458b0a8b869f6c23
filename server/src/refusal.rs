//! What the engine or the store refuses or gives up, as answers. The numbers are in the words.

use std::time::Duration;

use crate::adapters::AdapterError;
use crate::auth::{Exceeded, LimitKind};
use crate::engine::EngineError;
use crate::openai::ApiError;
use crate::store::StoreError;

impl From<AdapterError> for ApiError {
    fn from(error: AdapterError) -> Self {
        let message = format!("{error}.");
        match error {
            AdapterError::Unknown(name) => Self::model_not_found(&name, &[]),
            AdapterError::Refused { .. } => Self::invalid("model", "invalid_adapter", message),
            AdapterError::NotLoadable { .. } => Self::adapter_not_loadable(message),
            // Nothing is served with these.
            AdapterError::Directory { .. } | AdapterError::Pinned(_) => {
                Self::internal_for_good(message)
            }
            AdapterError::Exists(_) => Self::invalid("lora_name", "adapter_exists", message),
            AdapterError::Generation { .. } => {
                Self::conflict("if_generation", "generation_mismatch", message)
            }
            AdapterError::NoRoot => Self::forbidden(message),
            AdapterError::Journal(_) => {
                tracing::error!(%message, "an adapter was loaded, and will be forgotten");
                Self::internal_for_good(message)
            }
        }
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Overloaded {
                n_requests,
                n_tokens,
                retry_after,
            } => Self::overloaded(
                format!(
                    "The server is at its limit: {n_requests} requests with {n_tokens} tokens are \
                     waiting. Please retry after {} seconds.",
                    whole_seconds(retry_after)
                ),
                retry_after,
            ),
            EngineError::QueueTimeout {
                timeout,
                retry_after,
            } => Self::queue_timeout(
                format!(
                    "The request waited for {} seconds and was not begun. Please retry after {} \
                     seconds.",
                    timeout.as_secs_f64(),
                    whole_seconds(retry_after)
                ),
                retry_after,
            ),
            EngineError::DeadlineExceeded { timeout } => Self::deadline_exceeded(format!(
                "The request was not finished within its time of {} seconds.",
                timeout.as_secs_f64()
            )),
            EngineError::ShuttingDown => Self::shutting_down(),
            EngineError::Stopped => Self::engine_stopped(),
            EngineError::Limited(exceeded) => exceeded.into(),
            EngineError::Refused(message) => Self::bad_request(message),
        }
    }
}

impl From<Exceeded> for ApiError {
    fn from(exceeded: Exceeded) -> Self {
        let Exceeded {
            kind,
            limit,
            used,
            requested,
            retry_after,
        } = exceeded;
        let (what, short, kind) = match kind {
            LimitKind::Requests => ("requests per min", "RPM", "requests"),
            LimitKind::Tokens => ("tokens per min", "TPM", "tokens"),
            LimitKind::Day => {
                return Self::quota_exceeded(format!(
                    "You exceeded the quota of this API key: Limit {limit} tokens per day, Used \
                     {used}, Requested {requested}. A new day begins at 00:00 UTC."
                ));
            }
        };
        let numbers = format!("Limit {limit}, Used {used}, Requested {requested}");
        let message = match retry_after {
            Some(time) => format!(
                "Rate limit reached for this API key on {what} ({short}): {numbers}. Please try \
                 again in {:.1}s.",
                time.as_secs_f64()
            ),
            None => format!(
                "Request too large for this API key on {what} ({short}): {numbers}. The input or \
                 output tokens must be reduced in order to run successfully."
            ),
        };
        Self::rate_limited(kind, message, retry_after)
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "the store failed");
        match error {
            StoreError::TooLarge { .. } => Self::internal_for_good(format!(
                "The answer cannot be stored: {error}. With 'store' false it can be given."
            )),
            _ => Self::internal("The server could not read or write its store."),
        }
    }
}

fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}
