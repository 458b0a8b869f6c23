//! What a sequence may draw. A mask takes a good part of a millisecond, and only the draw at the end
//! of the step needs it: it is computed there, by the threads that draw.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use scheduler::{Allowed, TokenId};

use crate::grammar::Constraint;

/// Where one sequence stands, which is read and moved on by one thread at a time.
#[derive(Clone, Debug)]
pub(super) struct State(Arc<Mutex<Progress>>);

#[derive(Debug)]
pub(super) struct Progress {
    pub(super) constraint: Constraint,
    /// Why it cannot go on.
    pub(super) failed: Option<String>,
}

impl State {
    pub(super) fn new(constraint: Constraint) -> Self {
        Self(Arc::new(Mutex::new(Progress {
            constraint,
            failed: None,
        })))
    }

    /// A panic while it was locked has failed it.
    pub(super) fn lock(&self) -> MutexGuard<'_, Progress> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with where it stands, if it has not failed. A panic is a failure of this
    /// state alone, and not of whoever asks.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Progress) -> T) -> Option<T> {
        let mut progress = self.lock();
        if progress.failed.is_some() {
            return None;
        }
        let done = catch_unwind(AssertUnwindSafe(|| work(&mut progress)));
        done.inspect_err(|_| {
            tracing::error!("following a grammar panicked");
            progress.failed = Some("it cannot be matched".to_owned());
        })
        .ok()
    }

    /// What may be drawn, but for what is banned: found by whoever looks first. Nothing, if this
    /// has failed by then.
    pub(super) fn look_up(&self, banned: &Arc<[TokenId]>) -> Allowed {
        let (state, banned) = (self.clone(), Arc::clone(banned));
        Allowed::found_by(move || state.allowed(&banned))
    }

    fn allowed(&self, banned: &[TokenId]) -> Arc<[u32]> {
        let allowed = self.with(|progress| progress.allowed(banned));
        allowed.flatten().unwrap_or_default()
    }

    /// Goes on by a token.
    pub(super) fn accept(&self, token: TokenId) {
        self.with(|progress| progress.failed = progress.constraint.accept(token).err());
    }
}

impl Progress {
    fn allowed(&mut self, banned: &[TokenId]) -> Option<Arc<[u32]>> {
        match self.constraint.allowed() {
            Ok(allowed) if is_any_left(&allowed, banned) => return Some(allowed),
            Ok(_) => {
                let message = "it is at its end before 'min_tokens'";
                self.failed = Some(message.to_owned());
            }
            Err(message) => self.failed = Some(message),
        }
        None
    }
}

/// Whether anything is allowed that is not banned.
fn is_any_left(allowed: &[u32], banned: &[TokenId]) -> bool {
    if banned.is_empty() {
        return true;
    }
    allowed.iter().zip(0_u32..).any(|(word, i)| {
        let lost = banned.iter().filter(|id| **id / 32 == i);
        word & !lost.fold(0, |bits, id| bits | 1 << (id % 32)) != 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bans_may_leave_nothing() {
        assert!(is_any_left(&[0], &[]));
        assert!(!is_any_left(&[0b100, 0], &[2]));
        assert!(is_any_left(&[0b110, 0], &[2]));
        assert!(is_any_left(&[0b100, 1], &[2]));
        assert!(!is_any_left(&[0b100, 1], &[32, 2]));
    }
}
