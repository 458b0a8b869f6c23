//! Identities and seeds: numbers that differ from each other, drawn without any global state.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A source of well-mixed numbers.
#[derive(Debug)]
pub(crate) struct Numbers {
    base: u64,
    drawn: AtomicU64,
}

impl Numbers {
    /// The same numbers each time.
    pub(crate) fn from_seed(base: u64) -> Self {
        Self {
            base,
            drawn: AtomicU64::new(0),
        }
    }

    /// Numbers that no one can foresee from the clock alone.
    pub(crate) fn from_entropy() -> Self {
        // RandomState carries keys from the operating system.
        Self::from_seed(RandomState::new().hash_one(unix_seconds()))
    }

    /// The next number.
    pub(crate) fn next(&self) -> u64 {
        let n = self.drawn.fetch_add(1, Ordering::Relaxed);
        mix(self
            .base
            .wrapping_add(n.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
    }

    /// `prefix` and 24 letters and digits.
    pub(crate) fn id(&self, prefix: &str) -> String {
        let mut id = String::with_capacity(prefix.len() + 24);
        id.push_str(prefix);
        for _ in 0..3 {
            let mut bits = self.next();
            for _ in 0..8 {
                id.push(char::from(ALPHABET[(bits % 62) as usize]));
                bits /= 62;
            }
        }
        id
    }
}

/// The finalizer of splitmix64 (Steele, Lea, Flood 2014).
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Two hexadecimal digits a byte.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Now, in seconds of Unix time.
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_and_seeds_repeat() {
        let numbers = Numbers::from_entropy();
        let ids: std::collections::HashSet<String> = (0..1000).map(|_| numbers.id("x-")).collect();
        assert_eq!(ids.len(), 1000);
        assert!(ids.iter().all(|id| id.len() == 26));
        let (a, b) = (Numbers::from_seed(7), Numbers::from_seed(7));
        assert_eq!((a.next(), a.next()), (b.next(), b.next()));
    }
}
