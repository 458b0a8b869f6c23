//! What a scheduler is told about its machine.

/// Sizes of the machine and limits of a step. Validated by [`crate::Scheduler::new`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchedulerConfig {
    /// Positions in one block of the KV cache.
    pub block_size: usize,
    /// Blocks in the KV cache.
    pub n_blocks: usize,
    /// Most tokens in one batch, over all rows.
    pub max_batched_tokens: usize,
    /// Most sequences that run at a time, which is also the most rows in one batch.
    pub max_sequences: usize,
    /// Most tokens in one sequence, prompt and output together.
    pub max_model_len: usize,
    /// Whether requests reuse each other's blocks. When false, only the choices of one request
    /// share (the full blocks of) their common prompt.
    pub prefix_cache: bool,
}

/// A configuration that no scheduler can work with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("{name} must be at least 1")]
    Zero { name: &'static str },
    #[error("{name} is {value}, but at most {max} is possible")]
    TooLarge {
        name: &'static str,
        value: usize,
        max: usize,
    },
}

impl SchedulerConfig {
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        // Positions and block ids travel as u32; one value is kept free to mean "none".
        const MAX: usize = u32::MAX as usize - 1;
        let sizes = [
            ("block_size", self.block_size),
            ("n_blocks", self.n_blocks),
            ("max_batched_tokens", self.max_batched_tokens),
            ("max_sequences", self.max_sequences),
            ("max_model_len", self.max_model_len),
        ];
        for (name, value) in sizes {
            if value == 0 {
                return Err(ConfigError::Zero { name });
            }
            if value > MAX {
                return Err(ConfigError::TooLarge {
                    name,
                    value,
                    max: MAX,
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_size_is_checked_by_name() {
        let good = SchedulerConfig {
            block_size: 16,
            n_blocks: 4,
            max_batched_tokens: 8,
            max_sequences: 2,
            max_model_len: 64,
            prefix_cache: true,
        };
        assert_eq!(good.validate(), Ok(()));
        let bad = SchedulerConfig {
            max_sequences: 0,
            ..good
        };
        let zero = ConfigError::Zero {
            name: "max_sequences",
        };
        assert_eq!(bad.validate(), Err(zero));
        let bad = SchedulerConfig {
            n_blocks: usize::MAX,
            ..good
        };
        assert!(matches!(
            bad.validate(),
            Err(ConfigError::TooLarge {
                name: "n_blocks",
                ..
            })
        ));
    }
}
