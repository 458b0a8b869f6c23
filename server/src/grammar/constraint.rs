//! Where one answer stands in its grammar.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use scheduler::TokenId;

use super::forced::forced;
use super::matcher::Matcher;

/// The state of one sequence. A clone is independent and begins where the original stands.
#[derive(Clone)]
pub struct Constraint {
    matcher: Matcher,
    /// What is allowed now, or why nothing is, if it was asked for already.
    allowed: Option<Result<Arc<[u32]>, String>>,
    /// Tokens that are to come before there is a choice again, or before the next are looked for,
    /// if that was asked for already. They are found once and then stay what they are, however
    /// they come.
    forced: Option<VecDeque<TokenId>>,
    n_walked: usize,
}

impl fmt::Debug for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Constraint")
            .field("is_at_end", &self.matcher.is_at_end())
            .finish_non_exhaustive()
    }
}

impl Constraint {
    pub(super) fn new(matcher: Matcher) -> Self {
        Self {
            matcher,
            allowed: None,
            forced: None,
            n_walked: 0,
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
            Some(token) => Ok(only(token, matcher)),
            None => matcher.mask(),
        };
        self.allowed.get_or_insert_with(find).clone()
    }

    /// Tokens that come next, one after another, whatever is drawn: the grammar leaves no choice.
    /// Where they are many, these are the first of them. Each is still to be
    /// [accepted](Self::accept).
    pub fn forced(&mut self) -> &VecDeque<TokenId> {
        let (matcher, allowed) = (&mut self.matcher, &mut self.allowed);
        let n_walked = &mut self.n_walked;
        self.forced
            .get_or_insert_with(|| match forced(matcher, n_walked) {
                Ok(tokens) => tokens.into(),
                Err(error) => {
                    *allowed = Some(Err(error));
                    VecDeque::new()
                }
            })
    }

    /// Bytes for which what must come next was looked for so far. To see that there are several
    /// counts as some.
    pub(crate) fn n_walked(&self) -> usize {
        self.n_walked
    }

    #[cfg(test)]
    pub(crate) fn panic_from_now_on(&mut self) {
        self.matcher.panic_from_now_on();
        (self.allowed, self.forced) = (None, None);
    }

    /// Whether what must come next has been looked for here.
    #[cfg(test)]
    pub(crate) fn has_looked_ahead(&self) -> bool {
        self.forced.is_some()
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
        self.matcher.accept(token)
    }
}

/// Allows one token.
fn only(token: TokenId, matcher: &Matcher) -> Arc<[u32]> {
    let mask = matcher.environment.trie().singleton_token_set(token);
    mask.as_slice().into()
}
