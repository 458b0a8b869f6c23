//! Our tokenizer as llguidance sees it: the bytes of every token.

use toktrie::{TokRxInfo, TokTrie, TokenId, TokenizerEnv};

use super::canonical::{Way, spells};
use crate::text::Tokenizer;

pub(super) struct Environment {
    trie: TokTrie,
    tokenizer: Tokenizer,
    /// How forced text becomes tokens; `None`: the model draws them one by one.
    way: Option<Way>,
    /// A control token, which no text is. It stands for text that the vocabulary cannot write.
    unwritable: Option<TokenId>,
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
        let words: Vec<Vec<u8>> = (0..n_ids)
            .map(|id| bytes(tokenizer, id, known.contains(&id)))
            .collect();
        let trie = TokTrie::from(&TokRxInfo::new(n_ids, first), &words);
        let unwritable = (0..n_ids).find(|id| trie.is_special_token(*id));
        let way = Way::find(tokenizer, &trie).filter(|_| unwritable.is_some());
        tracing::debug!(?way, "tokens of text that grammars force");
        Some(Self {
            trie: trie.with_eos_tokens(&known),
            tokenizer: tokenizer.clone(),
            way,
            unwritable,
        })
    }

    /// Whether tokens of forced text are the model's own, so that they need no draw.
    pub(super) fn knows_its_way(&self) -> bool {
        self.way.is_some()
    }

    pub(super) fn trie(&self) -> &TokTrie {
        &self.trie
    }
}

/// Control tokens are no text, and those that end an answer neither, whatever the tokenizer says of
/// them: a mark that no text has sets them apart.
fn bytes(tokenizer: &Tokenizer, id: TokenId, is_end: bool) -> Vec<u8> {
    if !is_end && !tokenizer.is_special(id) {
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
        let tokenize = |text: &str| self.way?.tokenize(text, &self.tokenizer, &self.trie);
        let tokens = self.trie.tokenize_with_greedy_fallback(text, |text| {
            tokenize(text).unwrap_or_else(|| self.trie.greedy_tokenize(text.as_bytes()))
        });
        match self.unwritable {
            Some(mark) if !spells(&tokens, text, &self.trie) => vec![mark],
            _ => tokens,
        }
    }

    /// The library is to force nothing by itself: see `forced.rs`.
    fn tokenize_is_canonical(&self) -> bool {
        false
    }
}
