//! Token counts of an answer.

use schemars::JsonSchema;
use serde::Serialize;

/// Counts over all choices (and prompts) of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenCounts {
    /// Each prompt once, however many choices continue it.
    pub prompt: u64,
    /// Of those, tokens that came from the prefix cache.
    pub cached: u64,
    /// All generated tokens, end tokens included.
    pub completion: u64,
    /// Of those, thoughts.
    pub reasoning: u64,
}

/// `usage` of a chunk: absent, null, or how much it is so far.
pub type ChunkUsage = Option<Option<Usage>>;

/// `usage` on the wire.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub struct Usage {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    prompt_tokens_details: PromptTokensDetails,
    completion_tokens_details: CompletionTokensDetails,
}

#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
struct PromptTokensDetails {
    cached_tokens: u64,
    audio_tokens: u64,
}

#[derive(Clone, Copy, Debug, Default, Serialize, JsonSchema)]
struct CompletionTokensDetails {
    reasoning_tokens: u64,
    audio_tokens: u64,
    accepted_prediction_tokens: u64,
    rejected_prediction_tokens: u64,
}

impl From<TokenCounts> for Usage {
    fn from(counts: TokenCounts) -> Self {
        Self {
            prompt_tokens: counts.prompt,
            completion_tokens: counts.completion,
            total_tokens: counts.prompt + counts.completion,
            prompt_tokens_details: PromptTokensDetails {
                cached_tokens: counts.cached,
                audio_tokens: 0,
            },
            completion_tokens_details: CompletionTokensDetails {
                reasoning_tokens: counts.reasoning,
                ..CompletionTokensDetails::default()
            },
        }
    }
}
