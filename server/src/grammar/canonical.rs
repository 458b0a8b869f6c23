//! Text in the middle of an answer as the tokenizer would write it.
//!
//! What a grammar forces is text, and a model has learned one way to write a text in tokens. Some
//! tokenizers put a blank before every text that they are given; others change it. So each way is
//! tried, and only tokens that spell exactly the text that was given are taken.

use toktrie::{TokTrie, TokenId};

use crate::text::Tokenizer;

/// How a text is given to the tokenizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// As it is.
    Plain,
    /// As something that follows a control token.
    Continued,
    /// After a line feed, whose tokens are taken away again.
    AfterLine,
}

/// What must come out as it went in.
const PROBES: [&str; 7] = [
    "name\": \"",
    "{\"a\": 1}",
    " true",
    ", \"b",
    "\n  ",
    "word",
    "\u{e9}",
];

impl Way {
    /// The first way that changes no text; `None` if all do.
    pub(super) fn find(tokenizer: &Tokenizer, trie: &TokTrie) -> Option<Self> {
        let ways = [Self::Plain, Self::Continued, Self::AfterLine];
        ways.into_iter().find(|way| {
            let probed = |text: &&str| way.tokenize(text, tokenizer, trie).is_some();
            PROBES.iter().all(probed)
        })
    }

    /// The tokens of `text` within a longer text; `None` if they would spell another one.
    pub(super) fn tokenize(
        self,
        text: &str,
        tokenizer: &Tokenizer,
        trie: &TokTrie,
    ) -> Option<Vec<TokenId>> {
        let tokens = match self {
            Self::Plain => tokenizer.encode(text, false),
            Self::Continued => tokenizer.encode_literally(text, true),
            Self::AfterLine => tokenizer.encode(&format!("\n{text}"), false),
        };
        let mut tokens = tokens.ok()?;
        if self == Self::AfterLine {
            let n_bytes: usize = tokens.iter().map(|id| trie.token(*id).len()).sum();
            let mut n_before = n_bytes.checked_sub(text.len())?;
            let n_tokens = tokens.iter().take_while(|id| {
                let is_before = n_before > 0;
                n_before = n_before.saturating_sub(trie.token(**id).len());
                is_before
            });
            tokens.drain(..n_tokens.count());
        }
        spells(&tokens, text.as_bytes(), trie).then_some(tokens)
    }
}

pub(super) fn spells(tokens: &[TokenId], text: &[u8], trie: &TokTrie) -> bool {
    let spelled = tokens.iter().flat_map(|id| trie.token(*id));
    spelled.eq(text)
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use serde_json::Value;
    use toktrie::TokenizerEnv;

    use super::super::environment::Environment;
    use super::super::{Grammar, GrammarCompiler};
    use super::*;

    const EOS: TokenId = 2;

    fn dir(name: &str) -> PathBuf {
        let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tokenizers");
        all.join(name)
    }

    #[test]
    fn text_within_an_answer_is_written_as_in_training() {
        for (name, expected) in [
            ("gpt2", Way::Plain),
            ("llama3", Way::Plain),
            ("spm", Way::AfterLine),
        ] {
            let tokenizer = Tokenizer::from_dir(&dir(name)).unwrap();
            let environment = Environment::new(&tokenizer, &[EOS]).unwrap();
            assert!(environment.knows_its_way(), "{name}");
            let trie = environment.tok_trie();
            assert_eq!(Way::find(&tokenizer, trie), Some(expected), "{name}");
            // In the middle of a text, its words are tokens as they are at its end.
            let whole = tokenizer.encode("so says the name", false).unwrap();
            let end = environment.tokenize_bytes(b" the name");
            assert!(whole.ends_with(&end), "{name}: {whole:?} {end:?}");
            assert!(spells(&end, b" the name", trie));
        }
    }

    #[test]
    fn what_the_vocabulary_cannot_write_fails() {
        let place = tempfile::tempdir().unwrap();
        let text = std::fs::read_to_string(dir("gpt2").join("tokenizer.json")).unwrap();
        let mut json: Value = serde_json::from_str(&text).unwrap();
        // The byte 1 is spelt so.
        let vocabulary = json["model"]["vocab"].as_object_mut().unwrap();
        vocabulary.remove("\u{101}").unwrap();
        std::fs::write(place.path().join("tokenizer.json"), json.to_string()).unwrap();
        let tokenizer = Tokenizer::from_dir(place.path()).unwrap();
        let compiler = GrammarCompiler::new(tokenizer.clone(), [EOS].into());
        for (regex, can_be) in [("(a|b)c\u{1}d", false), ("(a|b)cd", true)] {
            let mut constraint = compiler.compile(&Grammar::Regex(regex.into())).unwrap();
            let first = tokenizer.encode("a", false).unwrap()[0];
            constraint.accept(first).unwrap();
            let n_forced = constraint.forced().len();
            assert_eq!(constraint.allowed().is_ok(), can_be, "{regex}");
            assert_eq!(n_forced > 0, can_be, "{regex}");
        }
    }
}
