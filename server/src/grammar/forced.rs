//! What must come next: text that a grammar leaves no choice about, as tokens.
//!
//! The library can find it, but walks on as long as there is no choice, through limits that end the
//! answer: `x{40000}` would hold up everybody. So we walk ourselves, on a copy, a bounded way at
//! a time. What lies beyond is found from where this ends.

use llguidance::derivre::NextByte;
use llguidance::earley::{BiasComputer, Parser, ParserRecognizer};
use scheduler::TokenId;
use toktrie::{Recognizer, SimpleVob, TokTrie, TokenizerEnv};

use super::environment::Environment;
use super::matcher::Matcher;

/// Bytes of one walk.
pub(super) const MAX_WALK_BYTES: usize = 256;
/// Steps that a lexer may take in one walk, a tenth of those of a set of tokens.
const MAX_WALK_FUEL: usize = 20_000;
/// Items that a parser may take in.
const MAX_WALK_ITEMS: usize = 5_000;

/// What it counts to see that there is a choice, and to compute a set of tokens.
const BYTES_OF_NONE: usize = 8;
const BYTES_OF_MASK: usize = 256;

/// Where a walk has come to.
struct Walk {
    parser: Parser,
    bytes: Vec<u8>,
}

/// Tokens that come next, whatever is drawn; not all of them if they are many, and none where
/// that would be more than a little work. Adds the bytes that it looked at to `n_walked`.
///
/// # Errors
/// No tokens spell what must come.
pub(super) fn forced(matcher: &mut Matcher, n_walked: &mut usize) -> Result<Vec<TokenId>, String> {
    *n_walked += BYTES_OF_NONE;
    let environment = matcher.environment.clone();
    if !environment.knows_its_way() {
        return Ok(Vec::new());
    }
    let trie = environment.trie();
    if matcher.is_at_end() {
        // There is a choice where several tokens end an answer.
        let end = trie.eos_tokens();
        return Ok(end.iter().copied().filter(|_| end.len() == 1).collect());
    }
    let last = matcher.last;
    let walked = matcher.with(|parser| {
        let spec = parser.parser.grammar().lexer_spec();
        // What is cut after a number of tokens cannot be walked byte by byte.
        if spec.no_forcing || !spec.can_rollback() {
            return Ok::<_, String>(None);
        }
        parser.parser.compute_bias(&Refuel(&environment), &[0]);
        let first = next_byte(&mut parser.parser);
        Ok(first.map(|first| walk(first, &parser.parser, &environment)))
    });
    match walked {
        // Why it failed, its next set of tokens will say.
        Err(_) | Ok(None) => Ok(Vec::new()),
        Ok(Some(walk)) if walk.bytes.is_empty() => {
            *n_walked += BYTES_OF_MASK;
            only_token(matcher)
        }
        Ok(Some(mut walk)) => {
            *n_walked += walk.bytes.len();
            matcher.with(|_| walk.tokens(last, &environment))
        }
    }
}

/// As far as there is one way, within limits.
fn walk(first: u8, from: &Parser, environment: &Environment) -> Walk {
    let mut walk = Walk {
        parser: from.clone(),
        bytes: Vec::new(),
    };
    let parser = &mut walk.parser;
    let before = parser.lexer_stats().total_fuel_spent;
    let n_items = parser.stats().all_items;
    let mut next = Some(first);
    // A control token is no text.
    while let Some(byte) = next.filter(|byte| *byte != TokTrie::SPECIAL_TOKEN_MARKER) {
        parser.compute_bias(&Refuel(environment), &[byte]);
        // The bytes are no token of their own.
        let is_pushed = parser.apply_token(&[byte], environment.trie().eos_token());
        if !matches!(is_pushed, Ok(0)) {
            break;
        }
        walk.bytes.push(byte);
        let is_far = walk.bytes.len() == MAX_WALK_BYTES
            || parser.lexer_stats().total_fuel_spent - before > MAX_WALK_FUEL
            || parser.stats().all_items - n_items > MAX_WALK_ITEMS;
        next = if is_far { None } else { next_byte(parser) };
    }
    walk
}

/// The only byte that may come next, if the answer cannot end here.
fn next_byte(parser: &mut Parser) -> Option<u8> {
    if parser.is_accepting() {
        return None;
    }
    parser.with_recognizer(|recognizer| {
        let state = recognizer.lexer_state();
        let hint = recognizer.lexer_mut().next_byte(state);
        if let NextByte::ForcedByte(byte) = hint {
            return Some(byte);
        }
        recognizer.trie_started("next byte");
        let only = only_byte(recognizer, hint);
        recognizer.trie_finished();
        only
    })
}

/// Tries all, those first that are likely to be two.
fn only_byte(recognizer: &mut ParserRecognizer<'_>, hint: NextByte) -> Option<u8> {
    let likely = match hint {
        NextByte::SomeBytes1(byte) => [byte, b' '],
        NextByte::SomeBytes2(bytes) => bytes,
        _ => [b' ', b'"'],
    };
    let others = (0..=u8::MAX).filter(|byte| !likely.contains(byte));
    let mut only = None;
    for byte in likely.into_iter().chain(others) {
        if recognizer.try_push_byte(byte) {
            recognizer.pop_bytes(1);
            if only.is_some_and(|one| one != byte) {
                return None;
            }
            only = Some(byte);
        }
    }
    only
}

impl Walk {
    /// The text in tokens, but for those at its end that what follows may change. The last token
    /// before it is looked at, as text is not tokenized alike after all others.
    fn tokens(
        &mut self,
        last: Option<TokenId>,
        environment: &Environment,
    ) -> Result<Vec<TokenId>, String> {
        let trie = environment.trie();
        let mut text = last.map_or_else(Vec::new, |last| trie.decode_raw(&[last]));
        text.extend_from_slice(&self.bytes);
        let (mut tokens, mut n_fixed) = environment.tokenize_bytes_marker(&text);
        if last.is_some() && tokens.first() == last.as_ref() {
            tokens.remove(0);
            n_fixed = n_fixed.saturating_sub(1);
        } else {
            (tokens, n_fixed) = environment.tokenize_bytes_marker(&self.bytes);
        }
        if trie.decode_raw(&tokens) != self.bytes {
            return Err("it asks for text that the vocabulary cannot write".to_owned());
        }
        self.parser.compute_bias(&Refuel(environment), &[0]);
        let chop = |r: &mut ParserRecognizer<'_>| trie.chop_tokens(r, &tokens[n_fixed..]);
        let (n_open, _) = self.parser.with_recognizer(chop);
        tokens.truncate(tokens.len() - n_open);
        Ok(tokens)
    }
}

/// A control token, if it is the only one that may come.
fn only_token(matcher: &mut Matcher) -> Result<Vec<TokenId>, String> {
    let mask = matcher.mask()?;
    let n_allowed: u32 = mask.iter().map(|word| word.count_ones()).sum();
    let ids = mask.iter().zip(0_u32..).filter(|(word, _)| **word != 0);
    let first = ids.map(|(word, i)| i * 32 + word.trailing_zeros());
    Ok(first.filter(|_| n_allowed == 1).collect())
}

/// Gives a lexer the steps of a set of tokens without computing one, which is the only way to
/// give it some. Without any it would fail for good.
struct Refuel<'a>(&'a Environment);

impl BiasComputer for Refuel<'_> {
    fn compute_bias(&self, _: &mut ParserRecognizer<'_>, _: &[u8]) -> SimpleVob {
        self.trie().alloc_token_set()
    }

    fn trie(&self) -> &TokTrie {
        self.0.trie()
    }
}
