//! What can go wrong with one of several models.

use crate::load::StartError;
use crate::openai::ApiError;
use crate::plan::human_bytes;

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
    Start { name: String, error: StartError },
    #[error("model `{name}`: {message}")]
    Failed { name: String, message: String },
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
            FleetError::TooLarge { name, .. }
            | FleetError::Encoder { name }
            | FleetError::Start { name, .. }
            | FleetError::Failed { name, .. } => Self::not_loadable(&name),
            FleetError::Gpu => {
                Self::internal_for_good("Several models are served on the CPU only.")
            }
        }
    }
}
