//! Tokens that a row may draw, which need not be known before its logits are.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, LazyLock};

type Find = Box<dyn FnOnce() -> Arc<[u32]> + Send>;

/// A set of tokens: bit `id % 32` of word `id / 32` of what it derefs to. Ids beyond the last word
/// are not in it.
///
/// Whoever looks first finds it, and others who look meanwhile wait. So rows that are drawn on
/// several threads find their sets on several threads. Clones are the same set.
#[derive(Clone)]
pub struct Allowed(Arc<LazyLock<Arc<[u32]>, Find>>);

impl Allowed {
    /// What `find` will say. If it panics, so does everybody who looks.
    pub fn found_by(find: impl FnOnce() -> Arc<[u32]> + Send + 'static) -> Self {
        Self(Arc::new(LazyLock::new(Box::new(find))))
    }

    /// Finds it now, unless somebody has.
    pub fn find(&self) {
        LazyLock::force(&self.0);
    }
}

impl From<Arc<[u32]>> for Allowed {
    fn from(words: Arc<[u32]>) -> Self {
        Self::found_by(|| words)
    }
}

impl From<Vec<u32>> for Allowed {
    fn from(words: Vec<u32>) -> Self {
        Self::from(Arc::from(words))
    }
}

impl Deref for Allowed {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        &self.0
    }
}

impl PartialEq for Allowed {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl fmt::Debug for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Allowed").finish_non_exhaustive()
    }
}
