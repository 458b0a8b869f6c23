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
    /// Most sequences that run at a time, which is also the most rows in one batch. More than
    /// `max_batched_tokens` never run, so that each has a token in every batch.
    pub max_sequences: usize,
    /// Most tokens in one sequence, prompt and output together.
    pub max_model_len: usize,
    /// Positions that a query sees at most, itself among them, when that is so in every layer.
    pub window: Option<usize>,
    /// Whether requests reuse each other's blocks. When false, only the choices of one request
    /// share (the full blocks of) their common prompt.
    pub prefix_cache: bool,
    /// Whether flows of one class share the machine alike. When false, each class is served
    /// first come, first served.
    pub fairness: bool,
    /// Tokens by which a flow that comes may be served before those that were served meanwhile,
    /// so that whoever asks for little does not wait for its turns among them.
    pub head_start: usize,
    /// Steps after which the oldest sequence is served whatever its class and flow; also the
    /// least number of steps between two such. See [`Self::AGE_BOUND_STEPS`].
    pub age_bound_steps: usize,
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
    /// An age bound for general use: well beyond the steps of one answer, so that turns are
    /// rarely decided by it.
    pub const AGE_BOUND_STEPS: usize = 2_048;

    /// A head start for general use: a few prompts of usual length.
    pub const HEAD_START: usize = 512;

    /// Most sequences that run at a time: each of them has a token in every batch.
    pub(crate) fn max_rows(&self) -> usize {
        self.max_sequences.min(self.max_batched_tokens)
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        // Positions and block ids travel as u32; one value is kept free to mean "none".
        const MAX: usize = u32::MAX as usize - 1;
        let sizes = [
            ("block_size", self.block_size),
            ("n_blocks", self.n_blocks),
            ("max_batched_tokens", self.max_batched_tokens),
            ("max_sequences", self.max_sequences),
            ("max_model_len", self.max_model_len),
            ("age_bound_steps", self.age_bound_steps),
            ("window", self.window.unwrap_or(1)),
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
            window: None,
            prefix_cache: true,
            fairness: true,
            head_start: 0,
            age_bound_steps: 1,
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
