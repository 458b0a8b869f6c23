//! What can go wrong with one of several models.

use std::time::Duration;

use crate::load::StartError;
use crate::openai::ApiError;
use crate::plan::human_bytes;

/// When a request may come again that found too many waiting for loads.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// A model that cannot be had, now or at all.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    #[error(
        "model `{name}` needs about {}, and the first model {}, but --model-memory is {}",
        human_bytes(*needed), human_bytes(*first), human_bytes(*budget)
    )]
    TooLarge {
        name: String,
        needed: u64,
        first: u64,
        budget: u64,
    },
    #[error("model `{name}` is an encoder; encoders are given with --embedding-model")]
    Encoder { name: String },
    #[error(
        "several models are served on the CPU only: add --device cpu, or start one server each"
    )]
    Gpu,
    #[error("model `{name}`: {error}")]
    Start {
        name: String,
        error: Box<StartError>,
    },
    #[error("model `{name}`: {message}")]
    Failed { name: String, message: String },
    /// The load that a request waited for was another's. The message names the model.
    #[error("{message}")]
    FailedMeanwhile { name: String, message: String },
    #[error("{n_requests} requests are waiting for models already")]
    Overloaded { n_requests: usize },
    /// All other models are in use.
    #[error("there is no room for model `{name}` now")]
    NoRoom { name: String },
    #[error("the server is shutting down")]
    Closing,
}

impl From<FleetError> for ApiError {
    fn from(error: FleetError) -> Self {
        match error {
            FleetError::NoRoom { name } => Self::no_room(&name),
            FleetError::Closing => Self::shutting_down(),
            FleetError::Overloaded { n_requests } => Self::overloaded(
                format!(
                    "The server is at its limit: {n_requests} requests are waiting for models to \
                     be loaded. Please retry after {} seconds.",
                    RETRY_AFTER.as_secs()
                ),
                RETRY_AFTER,
            ),
            FleetError::TooLarge { name, .. }
            | FleetError::Encoder { name }
            | FleetError::Start { name, .. }
            | FleetError::Failed { name, .. }
            | FleetError::FailedMeanwhile { name, .. } => Self::not_loadable(&name),
            FleetError::Gpu => {
                Self::internal_for_good("Several models are served on the CPU only.")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_not_wait_is_told_to_come_again() {
        let error = ApiError::from(FleetError::Overloaded { n_requests: 3 });
        assert_eq!(error.status.as_u16(), 429);
        assert!(error.message.contains("3 requests"), "{}", error.message);
    }
}
