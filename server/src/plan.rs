//! The memory plan: how many KV blocks there are, and whether they are enough.

mod memory;

use kernels::{KvShape, KvType};
use models::{ModelConfig, ModelRunner};

use crate::settings::{FleetSettings, Settings};

pub use memory::{available_bytes, weight_file_bytes};

/// Tokens that a running sequence is expected to have, on average, where nobody says.
const EXPECTED_TOKENS: usize = 2048;

/// Sizes that the scheduler and the runner share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    pub n_blocks: usize,
    pub block_size: usize,
    pub bytes_per_block: u64,
    pub max_model_len: usize,
}

/// A model that cannot be served as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error(
        "--max-model-len is {asked}, but the model was made for at most {max} tokens \
         (max_position_embeddings)"
    )]
    BeyondModel { asked: usize, max: usize },
    #[error(
        "a sequence of {max_model_len} tokens needs {needed} of KV cache, but {source_of_limit} \
         is {given}; lower --max-model-len to {possible} or less, or give more memory with \
         --kv-cache-memory"
    )]
    TooLittle {
        max_model_len: usize,
        needed: String,
        source_of_limit: String,
        given: String,
        possible: usize,
    },
    #[error(
        "a sequence of {max_model_len} tokens needs {needed} of KV cache, but {source_of_limit} \
         is {given}, less than one block of {block_size} tokens takes ({block}); give more memory \
         with --kv-cache-memory"
    )]
    NoBlock {
        max_model_len: usize,
        needed: String,
        source_of_limit: String,
        given: String,
        block_size: usize,
        block: String,
    },
    #[error(
        "--max-num-batched-tokens is {asked}: a step of so many tokens works in {needed}, but \
         {free} are free"
    )]
    StepTooLarge {
        asked: usize,
        needed: String,
        free: String,
    },
}

/// What the plan is made from.
#[derive(Clone, Copy, Debug)]
pub struct Needs {
    /// Longest sequence of the model.
    pub max_positions: usize,
    /// As asked for, if it was.
    pub max_model_len: Option<usize>,
    /// Most tokens that one sequence holds in the cache at a time, where windows bound it.
    pub max_held: Option<usize>,
    pub max_sequences: usize,
    pub block_size: usize,
    pub bytes_per_block: u64,
    /// As asked for, if it was.
    pub kv_memory_bytes: Option<u64>,
    /// Most tokens of one step, and the memory that such a step works in.
    pub max_batched_tokens: usize,
    pub step_bytes: u64,
    /// Memory that is free once the weights are loaded.
    pub available_bytes: u64,
    /// Of that, what the KV cache may take, in percent.
    pub kv_percent: u64,
}

/// Memory that is free, and how much of it the KV cache may take unasked.
#[derive(Clone, Copy, Debug)]
pub struct FreeMemory {
    pub n_bytes: u64,
    pub kv_percent: u64,
}

impl FreeMemory {
    /// `own`: of a device that has its own. Nobody else wants that; the host's memory others do.
    pub fn of(own: Option<u64>) -> Self {
        match own {
            Some(n_bytes) => Self {
                n_bytes,
                kv_percent: 90,
            },
            None => Self {
                n_bytes: available_bytes(),
                kv_percent: 50,
            },
        }
    }
}

impl FreeMemory {
    /// The same for one of several models that share a budget: no more than its weights leave of
    /// that, of which all KV caches together take no larger a part than that of one alone.
    #[must_use]
    pub fn within(self, fleet: &FleetSettings, weight_bytes: u64) -> Self {
        if fleet.models.is_empty() {
            return self;
        }
        let left = fleet.budget_bytes.saturating_sub(weight_bytes);
        Self {
            n_bytes: self.n_bytes.min(left),
            kv_percent: self.kv_percent / (fleet.models.len() as u64 + 1),
        }
    }
}

impl Needs {
    pub fn new(settings: &Settings, config: &ModelConfig, memory: FreeMemory) -> Self {
        Self {
            max_positions: config.max_positions,
            max_model_len: settings.max_model_len,
            // What the first token of a step's chunk sees, the chunk, and a block begun at each end.
            max_held: config
                .kv_window()
                .map(|window| window + settings.max_batched_tokens + 2 * settings.block_size),
            max_sequences: settings.max_sequences,
            block_size: settings.block_size,
            bytes_per_block: bytes_per_block(
                config,
                settings.block_size,
                settings.precision.kv_type,
            ),
            kv_memory_bytes: settings.kv_memory_bytes,
            max_batched_tokens: settings.max_batched_tokens,
            step_bytes: ModelRunner::step_bytes(config, settings.max_batched_tokens),
            // Adapters may need theirs at any time.
            available_bytes: memory.n_bytes.saturating_sub(settings.adapter_bytes()),
            kv_percent: memory.kv_percent,
        }
    }
}

impl Needs {
    /// What is said where a sequence of `max_model_len` tokens, which needs `n_blocks`, does not
    /// fit into `limit_bytes`.
    fn too_little(&self, max_model_len: usize, n_blocks: usize, limit_bytes: u64) -> PlanError {
        let needed = human_bytes(n_blocks as u64 * self.bytes_per_block);
        let source_of_limit = match self.kv_memory_bytes {
            Some(_) => "--kv-cache-memory".to_owned(),
            None => format!("{}% of the free memory", self.kv_percent),
        };
        let given = human_bytes(limit_bytes);
        match usize::try_from(limit_bytes / self.bytes_per_block).unwrap_or(usize::MAX) {
            0 => PlanError::NoBlock {
                max_model_len,
                needed,
                source_of_limit,
                given,
                block_size: self.block_size,
                block: human_bytes(self.bytes_per_block),
            },
            n_affordable => PlanError::TooLittle {
                max_model_len,
                needed,
                source_of_limit,
                given,
                possible: n_affordable * self.block_size,
            },
        }
    }
}

fn bytes_per_block(config: &ModelConfig, block_size: usize, kv_type: KvType) -> u64 {
    let shape = KvShape {
        n_layers: config.n_layers,
        n_blocks: 1,
        block_size,
        n_kv_heads: config.n_kv_heads,
        head_dim: config.head_dim,
    };
    shape.bytes_per_block(kv_type) as u64
}

impl MemoryPlan {
    /// As much as the sequences that may run need on average, within a share of the memory that is
    /// free beside what a step works in,
    /// and never less than one sequence of full length: with less, requests that the server
    /// accepts could not be finished.
    pub fn new(needs: &Needs) -> Result<Self, PlanError> {
        let max_model_len = needs.max_model_len.unwrap_or(needs.max_positions);
        if max_model_len > needs.max_positions {
            return Err(PlanError::BeyondModel {
                asked: max_model_len,
                max: needs.max_positions,
            });
        }
        let max_held = needs.max_held.unwrap_or(usize::MAX);
        let n_blocks_for = |n_tokens: usize| n_tokens.min(max_held).div_ceil(needs.block_size);
        let Some(free_bytes) = needs.available_bytes.checked_sub(needs.step_bytes) else {
            return Err(PlanError::StepTooLarge {
                asked: needs.max_batched_tokens,
                needed: human_bytes(needs.step_bytes),
                free: human_bytes(needs.available_bytes),
            });
        };
        let limit_bytes = needs
            .kv_memory_bytes
            .unwrap_or(free_bytes * needs.kv_percent / 100);
        let n_affordable =
            usize::try_from(limit_bytes / needs.bytes_per_block).unwrap_or(usize::MAX);
        let n_one = n_blocks_for(max_model_len);
        if n_affordable < n_one {
            return Err(needs.too_little(max_model_len, n_one, limit_bytes));
        }
        let n_blocks = match needs.kv_memory_bytes {
            Some(_) => n_affordable,
            None => {
                let n_expected = n_blocks_for(max_model_len.min(EXPECTED_TOKENS));
                n_affordable.min(n_one.max(needs.max_sequences.saturating_mul(n_expected)))
            }
        };
        Ok(Self {
            n_blocks,
            block_size: needs.block_size,
            bytes_per_block: needs.bytes_per_block,
            max_model_len,
        })
    }

    /// Bytes of the whole KV cache.
    pub fn n_bytes(&self) -> u64 {
        self.n_blocks as u64 * self.bytes_per_block
    }

    /// Tokens that the KV cache holds.
    pub fn n_tokens(&self) -> usize {
        self.n_blocks * self.block_size
    }
}

/// `1.5 GiB`.
pub fn human_bytes(n_bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    let mut value = n_bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{n_bytes} B")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEEDS: Needs = Needs {
        max_positions: 4096,
        max_model_len: None,
        max_held: None,
        max_sequences: 8,
        block_size: 16,
        bytes_per_block: 1 << 20,
        kv_memory_bytes: None,
        max_batched_tokens: 512,
        step_bytes: 1 << 30,
        available_bytes: 65 << 30,
        kv_percent: 50,
    };

    #[test]
    fn need_and_free_memory_both_bound_the_default() {
        // 8 sequences of 2048 tokens are 1024 blocks.
        assert_eq!(MemoryPlan::new(&NEEDS).unwrap().n_blocks, 1024);
        let tight = Needs {
            available_bytes: 2 << 30,
            ..NEEDS
        };
        assert_eq!(MemoryPlan::new(&tight).unwrap().n_blocks, 512);
        let one = Needs {
            max_sequences: 1,
            ..NEEDS
        };
        assert_eq!(MemoryPlan::new(&one).unwrap().n_blocks, 256);
        let asked = Needs {
            kv_memory_bytes: Some(3 << 30),
            ..NEEDS
        };
        assert_eq!(MemoryPlan::new(&asked).unwrap().n_blocks, 3072);
    }

    #[test]
    fn a_window_needs_memory_for_itself_and_not_for_the_context() {
        let needs = Needs {
            max_held: Some(160),
            kv_memory_bytes: Some(10 << 20),
            ..NEEDS
        };
        assert_eq!(MemoryPlan::new(&needs).unwrap().n_blocks, 10);
        let needs = Needs {
            kv_memory_bytes: None,
            ..needs
        };
        assert_eq!(MemoryPlan::new(&needs).unwrap().n_blocks, 80);
    }

    #[test]
    fn a_step_that_does_not_fit_is_refused_with_numbers() {
        let needs = Needs {
            step_bytes: 3 << 30,
            available_bytes: 2 << 30,
            kv_memory_bytes: Some(1 << 30),
            ..NEEDS
        };
        let message = MemoryPlan::new(&needs).unwrap_err().to_string();
        for part in ["--max-num-batched-tokens is 512", "3.0 GiB", "2.0 GiB"] {
            assert!(message.contains(part), "{part} in {message}");
        }
    }

    #[test]
    fn less_than_one_sequence_is_refused_with_numbers() {
        let needs = Needs {
            kv_memory_bytes: Some(100 << 20),
            ..NEEDS
        };
        let message = MemoryPlan::new(&needs).unwrap_err().to_string();
        for part in ["4096 tokens", "256.0 MiB", "100.0 MiB", "to 1600 or less"] {
            assert!(message.contains(part), "{part} in {message}");
        }
        let nothing = Needs {
            kv_memory_bytes: Some(1),
            ..NEEDS
        };
        let message = MemoryPlan::new(&nothing).unwrap_err().to_string();
        for part in ["--kv-cache-memory is 1 B", "block of 16 tokens", "1.0 MiB"] {
            assert!(message.contains(part), "{part} in {message}");
        }
        assert!(!message.contains("max-model-len"), "{message}");
        let beyond = Needs {
            max_model_len: Some(5000),
            ..NEEDS
        };
        assert!(matches!(
            MemoryPlan::new(&beyond),
            Err(PlanError::BeyondModel { max: 4096, .. })
        ));
    }
}
