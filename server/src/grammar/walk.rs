//! For tests: answers as a model without an idea would draw them.

use std::path::Path;

use super::{Constraint, GrammarCompiler};
use crate::text::Tokenizer;

/// `<|im_end|>` of the tokenizer used here.
const EOS: u32 = 2;

pub(crate) fn compiler() -> (GrammarCompiler, Tokenizer) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tokenizers/gpt2");
    let tokenizer = Tokenizer::from_dir(&dir).unwrap();
    let compiler = GrammarCompiler::new(tokenizer.clone(), [EOS].into());
    (compiler, tokenizer)
}

/// A walk through the grammar that ends when it may and draws evenly until then. `None`: it did
/// not end within its length.
pub(crate) fn walk(constraint: &Constraint, tokenizer: &Tokenizer, seed: u64) -> Option<String> {
    let mut constraint = constraint.clone();
    let mut state = seed;
    let mut tokens = Vec::new();
    for _ in 0..400 {
        let allowed = constraint.allowed().unwrap();
        let is_allowed = |id: &u32| allowed[(*id / 32) as usize] >> (*id % 32) & 1 == 1;
        let ids: Vec<u32> = (0..512).filter(is_allowed).collect();
        if ids.contains(&EOS) {
            return Some(spelled(tokenizer, &tokens));
        }
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695);
        let token = ids[usize::try_from(state >> 33).unwrap() % ids.len()];
        constraint.accept(token).unwrap();
        tokens.push(token);
    }
    None
}

/// Control tokens are spelled out, as parsers of answers see them.
fn spelled(tokenizer: &Tokenizer, tokens: &[u32]) -> String {
    let mut bytes = Vec::new();
    for token in tokens {
        let spelling = tokenizer.token_spelling(*token);
        match spelling.filter(|_| tokenizer.is_special(*token)) {
            Some(spelling) => bytes.extend_from_slice(spelling.as_bytes()),
            None => bytes.extend(tokenizer.token_bytes(*token).unwrap_or_default()),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
