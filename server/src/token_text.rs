//! How tokens are shown in log-probabilities.

use scheduler::{TokenLogprob, TokenLogprobs};

use crate::generation::ScoredToken;
use crate::openai::{ChatLogprob, TopLogprob, TopTokens};
use crate::text::Tokenizer;

/// What stands for a probability too small to write (JSON has no infinity).
const MIN_LOGPROB: f32 = -9999.0;

/// Shows tokens in the way that one request asks for.
#[derive(Clone, Debug)]
pub(crate) struct TokenText {
    tokenizer: Tokenizer,
    /// `token_id:N` instead of text.
    as_ids: bool,
}

impl TokenText {
    pub(crate) fn new(tokenizer: Tokenizer, as_ids: bool) -> Self {
        Self { tokenizer, as_ids }
    }

    /// The exact bytes; a control token is shown as it is spelled.
    fn bytes(&self, token: u32) -> Option<Vec<u8>> {
        if self.tokenizer.is_special(token) {
            self.tokenizer.token_spelling(token).map(String::into_bytes)
        } else {
            self.tokenizer.token_bytes(token)
        }
    }

    /// An entry of a chat choice's `logprobs.content`.
    pub(crate) fn chat(&self, scored: &ScoredToken) -> ChatLogprob {
        ChatLogprob {
            chosen: self.chat_token(scored.logprobs.chosen),
            top_logprobs: scored
                .logprobs
                .top
                .iter()
                .map(|token| self.chat_token(*token))
                .collect(),
        }
    }

    fn chat_token(&self, token: TokenLogprob) -> TopLogprob {
        let bytes = self.bytes(token.token);
        let text = if self.as_ids {
            token_id(token.token)
        } else {
            let bytes = bytes.as_deref().unwrap_or_default();
            String::from_utf8_lossy(bytes).into_owned()
        };
        TopLogprob {
            token: text,
            logprob: clamp(token.logprob),
            bytes,
        }
    }

    /// A token in the arrays of a completion. Bytes that are not UTF-8 are spelled out.
    pub(crate) fn completion(&self, token: u32) -> String {
        if self.as_ids {
            return token_id(token);
        }
        match String::from_utf8(self.bytes(token).unwrap_or_default()) {
            Ok(text) => text,
            Err(error) => {
                let spelled = error.as_bytes().iter().map(|byte| format!("\\x{byte:02x}"));
                format!("bytes:{}", spelled.collect::<String>())
            }
        }
    }

    /// The best tokens of a completion's position, and the chosen one if it is not among them.
    pub(crate) fn completion_top(&self, logprobs: &TokenLogprobs) -> TopTokens {
        let mut top = TopTokens::default();
        for token in logprobs.top.iter().chain([&logprobs.chosen]) {
            top.push(self.completion(token.token), clamp(token.logprob));
        }
        top
    }
}

/// A log-probability that JSON can write.
pub(crate) fn clamp(logprob: f32) -> f32 {
    logprob.max(MIN_LOGPROB)
}

fn token_id(token: u32) -> String {
    format!("token_id:{token}")
}
