//! Where one answer stands in its grammar.

use std::fmt;
use std::sync::Arc;

use llguidance::Matcher;
use scheduler::TokenId;

/// The state of one sequence. A clone is independent and begins where the original stands.
pub struct Constraint {
    matcher: Matcher,
    /// What is allowed now, or why nothing is, if it was asked for already.
    allowed: Option<Result<Arc<[u32]>, String>>,
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
        }
    }
}

impl Constraint {
    pub(super) fn new(matcher: Matcher) -> Self {
        Self {
            matcher,
            allowed: None,
        }
    }

    /// The tokens that may come next, bit `id % 32` of word `id / 32`; ids beyond are forbidden.
    ///
    /// # Errors
    /// The grammar allows none, or matching it has become too expensive.
    pub fn allowed(&mut self) -> Result<Arc<[u32]>, String> {
        let matcher = &mut self.matcher;
        self.allowed.get_or_insert_with(|| mask_of(matcher)).clone()
    }

    /// Goes on by a token that was drawn.
    ///
    /// # Errors
    /// The token was not allowed.
    pub fn accept(&mut self, token: TokenId) -> Result<(), String> {
        self.allowed = None;
        // At the end of the grammar only end tokens are allowed, and they change nothing.
        if self.matcher.is_stopped() && !self.matcher.is_error() {
            return Ok(());
        }
        let accepted = self.matcher.consume_token(token);
        accepted.map_err(|error| first_line(&error.to_string()))
    }
}

fn mask_of(matcher: &mut Matcher) -> Result<Arc<[u32]>, String> {
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
