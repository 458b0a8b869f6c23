//! API keys: a bearer token, compared in constant time. A key is a tenant, with rights and limits.
//!
//! Keys are given by flags and by a file, which can be read anew while the server runs.

mod access;
mod file;
mod guard;
mod headers;
mod limits;
mod ring;
mod scope;
mod usage;

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use sha2::{Digest, Sha256};

use crate::store::DayUsage;

use ring::{Numbering, Ring};

pub(crate) use access::Routes;
pub use access::{Access, AccessTable};
pub use file::KeysError;
pub(crate) use guard::{Guard, require_key};
pub(crate) use headers::NAMES as LIMIT_HEADERS;
pub use limits::{Exceeded, LimitKind, Limits, Meter, Moment, Remaining};
pub use scope::{Grant, Scope};
pub use usage::UsageLog;

/// SHA-256 of a key.
type Digest32 = [u8; 32];

fn digest(key: &str) -> Digest32 {
    Sha256::digest(key.as_bytes()).into()
}

/// The keys that open the server, kept as digests. None at all leaves it open. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct ApiKeys {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    ring: RwLock<Arc<Ring>>,
    /// What a key was numbered, and what it has used, lives on when the file is read anew.
    numbering: Numbering,
    /// Digests of keys that open inference and metrics, and of those that open everything.
    given: Vec<(String, bool)>,
    file: Option<PathBuf>,
}

impl ApiKeys {
    /// Keys for inference and metrics.
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a str>) -> Self {
        Self::with_admins(keys, [])
    }

    /// Keys, and keys that may do everything.
    pub fn with_admins<'a>(
        keys: impl IntoIterator<Item = &'a str>,
        admins: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        Self::open(keys, admins, None).expect("nothing is read without a file")
    }

    /// The same, and those of a file.
    pub fn open<'a>(
        keys: impl IntoIterator<Item = &'a str>,
        admins: impl IntoIterator<Item = &'a str>,
        file: Option<PathBuf>,
    ) -> Result<Self, KeysError> {
        // A key that is in both is an admin's: the first of equal keys counts.
        let admins = admins.into_iter().map(|key| (key.to_owned(), true));
        let keys = keys.into_iter().map(|key| (key.to_owned(), false));
        let keys = Self {
            shared: Arc::new(Shared {
                given: admins.chain(keys).collect(),
                file,
                ..Shared::default()
            }),
        };
        keys.reload()?;
        Ok(keys)
    }

    /// Reads the file anew. If it cannot be used, the keys stay as they are. Returns how many
    /// keys there are.
    pub fn reload(&self) -> Result<usize, KeysError> {
        let described = match &self.shared.file {
            Some(path) => file::read(path)?,
            None => Vec::new(),
        };
        let ring = Ring::new(
            &self.shared.given,
            described,
            self.shared.file.as_deref(),
            &self.shared.numbering,
        )?;
        let n = ring.len();
        let mut place = self
            .shared
            .ring
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *place = Arc::new(ring);
        Ok(n)
    }

    /// The file they are read from.
    pub fn file(&self) -> Option<&Path> {
        self.shared.file.as_deref()
    }

    /// Whether a key is needed. A file that has no keys locks the server; it does not open it.
    pub fn are_required(&self) -> bool {
        self.shared.file.is_some() || self.ring().len() > 0
    }

    /// Whether some key may do what admins do.
    pub fn has_admin(&self) -> bool {
        self.ring().has_admin()
    }

    /// Names and meters of the keys with limits or quotas.
    pub fn meters(&self) -> Vec<(Arc<str>, Arc<Meter>)> {
        self.ring().meters()
    }

    /// Goes on from what keys had used of the day before a restart.
    pub fn resume(&self, usages: impl IntoIterator<Item = (u128, DayUsage)>) {
        self.shared.numbering.resume(usages.into_iter().collect());
    }

    fn ring(&self) -> Arc<Ring> {
        let ring = self
            .shared
            .ring
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&ring)
    }
}
