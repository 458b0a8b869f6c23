//! Our tokenizer as llguidance sees it: the bytes of every token.

use toktrie::{TokRxInfo, TokTrie, TokenId, TokenizerEnv};

use crate::text::Tokenizer;

pub(super) struct Environment {
    trie: TokTrie,
}

impl Environment {
    /// `eos_tokens` end an answer; they are allowed where a grammar may end, and nowhere else.
    /// `None` if there are none or if the vocabulary lacks them.
    pub(super) fn new(tokenizer: &Tokenizer, eos_tokens: &[TokenId]) -> Option<Self> {
        let n_ids = u32::try_from(tokenizer.vocab_size()).ok()?;
        let known: Vec<TokenId> = eos_tokens
            .iter()
            .copied()
            .filter(|id| *id < n_ids)
            .collect();
        let first = *known.first()?;
        let words: Vec<Vec<u8>> = (0..n_ids).map(|id| bytes(tokenizer, id)).collect();
        let trie = TokTrie::from(&TokRxInfo::new(n_ids, first), &words);
        Some(Self {
            trie: trie.with_eos_tokens(&known),
        })
    }
}

/// Control tokens are no text: a mark that no text has sets them apart.
fn bytes(tokenizer: &Tokenizer, id: TokenId) -> Vec<u8> {
    if !tokenizer.is_special(id) {
        return tokenizer.token_bytes(id).unwrap_or_default();
    }
    let spelling = tokenizer.token_spelling(id).unwrap_or_default();
    let mut bytes = vec![TokTrie::SPECIAL_TOKEN_MARKER];
    bytes.extend_from_slice(spelling.as_bytes());
    bytes
}

impl TokenizerEnv for Environment {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, text: &[u8]) -> Vec<TokenId> {
        self.trie.greedy_tokenize(text)
    }

    fn tokenize_is_canonical(&self) -> bool {
        false
    }
}
