//! Where one answer stands in its grammar.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use llguidance::Matcher;
use scheduler::TokenId;

/// The state of one sequence. A clone is independent and begins where the original stands.
pub struct Constraint {
    matcher: Matcher,
    /// What is allowed now, or why nothing is, if it was asked for already.
    allowed: Option<Result<Arc<[u32]>, String>>,
    /// Tokens that are to come before there is a choice again, if that was asked for already. They
    /// are found once and then stay what they are, however they come.
    forced: Option<VecDeque<TokenId>>,
}

impl fmt::Debug for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Constraint")
            .field("is_stopped", &self.matcher.is_stopped())
            .finish_non_exhaustive()
    }
}

impl Clone for Constraint {
    fn clone(&self) -> Self {
        Self {
            matcher: self.matcher.deep_clone(),
            allowed: self.allowed.clone(),
            forced: self.forced.clone(),
        }
    }
}

impl Constraint {
    pub(super) fn new(matcher: Matcher) -> Self {
        Self {
            matcher,
            allowed: None,
            forced: None,
        }
    }

    /// The tokens that may come next, bit `id % 32` of word `id / 32`; ids beyond are forbidden.
    ///
    /// # Errors
    /// The grammar allows none, or matching it has become too expensive.
    pub fn allowed(&mut self) -> Result<Arc<[u32]>, String> {
        let forced = self.forced().front().copied();
        let matcher = &mut self.matcher;
        let find = || match forced {
            Some(token) => only(token, matcher),
            None => mask_of(matcher),
        };
        self.allowed.get_or_insert_with(find).clone()
    }

    /// The tokens that come next, one after another, whatever is drawn: the grammar leaves no
    /// choice. Each is still to be [accepted](Self::accept).
    pub fn forced(&mut self) -> &VecDeque<TokenId> {
        let (matcher, allowed) = (&mut self.matcher, &mut self.allowed);
        self.forced.get_or_insert_with(|| {
            let forced = forced_by(matcher);
            forced.unwrap_or_else(|error| {
                *allowed = Some(Err(error));
                VecDeque::new()
            })
        })
    }

    /// Goes on by a token that was drawn, or forced.
    ///
    /// # Errors
    /// The token was not allowed.
    pub fn accept(&mut self, token: TokenId) -> Result<(), String> {
        self.allowed = None;
        if let Some(forced) = &mut self.forced {
            // Another token may spell the same text; that is for the grammar to say.
            if forced.pop_front() != Some(token) || forced.is_empty() {
                self.forced = None;
            }
        }
        // At the end of the grammar only end tokens are allowed, and they change nothing.
        if self.matcher.is_stopped() && !self.matcher.is_error() {
            return Ok(());
        }
        let accepted = self.matcher.consume_token(token);
        accepted.map_err(|error| first_line(&error.to_string()))
    }
}

fn forced_by(matcher: &mut Matcher) -> Result<VecDeque<TokenId>, String> {
    let Ok(environment) = matcher.tok_env() else {
        return Ok(VecDeque::new()); // It has failed already.
    };
    let trie = environment.tok_trie();
    if matcher.is_stopped() {
        // The end: there is a choice where several tokens end an answer.
        let end = trie.eos_tokens();
        return Ok(end.iter().copied().filter(|_| end.len() == 1).collect());
    }
    let tokens = matcher.compute_ff_tokens();
    // A control token is what the grammar asks for, or the mark of text that no tokens are.
    let has_mark = tokens.iter().any(|token| trie.is_special_token(*token));
    if has_mark
        && !matcher
            .compute_ff_bytes()
            .starts_with(&trie.decode_raw(&tokens))
    {
        return Err("it asks for text that the vocabulary cannot write".to_owned());
    }
    Ok(tokens.into())
}

/// Allows one token.
fn only(token: TokenId, matcher: &Matcher) -> Result<Arc<[u32]>, String> {
    let environment = matcher.tok_env();
    let environment = environment.map_err(|error| first_line(&error.to_string()))?;
    let mask = environment.tok_trie().singleton_token_set(token);
    Ok(mask.as_slice().into())
}

pub(super) fn mask_of(matcher: &mut Matcher) -> Result<Arc<[u32]>, String> {
    let mask = matcher.compute_mask_or_eos();
    let mask = mask.map_err(|error| first_line(&error.to_string()))?;
    if mask.is_zero() {
        return Err("it allows no token".to_owned());
    }
    Ok(mask.as_slice().into())
}

/// Errors of the library go on with a dump of its state, or with a picture of what is wrong and
/// the reason below it; and they may repeat all of a grammar.
pub(super) fn first_line(message: &str) -> String {
    let mut lines = message
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    if first.contains("NoExtensionBias") {
        return "nothing can match it".to_owned();
    }
    let reason = lines.find_map(|line| line.strip_prefix("error: "));
    let cut = |line: &str| match line.char_indices().nth(MAX_LINE) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line.to_owned(),
    };
    match reason.filter(|_| first.ends_with(':')) {
        Some(reason) => format!("{} {}", cut(first), cut(reason)),
        None => cut(first),
    }
}

/// Characters of a line that are told.
const MAX_LINE: usize = 500;
