//! What adapters need to know of a model.

use std::sync::Arc;

use crate::ModelConfig;

/// A model as adapters see it: names and shapes of its modules, and its weights where an adapter
/// depends on them. Clones share it; it may be used on any thread while the model runs.
#[derive(Clone, Debug)]
pub struct AdapterTarget {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: ModelConfig,
}

impl AdapterTarget {
    pub(crate) fn new(config: ModelConfig) -> Self {
        Self {
            shared: Arc::new(Shared { config }),
        }
    }

    /// The model's configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.shared.config
    }

    /// Whether both are of one model in memory.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}
