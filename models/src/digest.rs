//! Identity of weights by content.
//!
//! Keys of cached keys and values are made from it, and the fingerprint that promises equal
//! answers, so two different models must not share it: everything is hashed, to the last byte.
//! Tensors are cut into pieces of [`PIECE`] bytes that threads hash side by side; the digest is
//! that of the pieces' digests in order. The result does not depend on the number of threads,
//! nor on how tensors are spread over files.

use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};

use sha2::{Digest, Sha256};

use crate::Checkpoint;

const PIECE: usize = 4 << 20;

pub(crate) fn digest(checkpoint: &Checkpoint) -> u64 {
    let mut hash = Sha256::new();
    hash.update(format!("{:?}", checkpoint.config()));
    if let Some(quantization) = checkpoint.quantization() {
        hash.update(format!("{quantization:?}"));
    }
    let mut pieces = Vec::new();
    for name in checkpoint.tensor_names() {
        // A tensor of a type that is not supported fails when, and only when, it is used.
        let (ty, shape, bytes) = match (checkpoint.raw(name), checkpoint.tensor(name)) {
            (_, Ok(Some(tensor))) => (format!("{:?}", tensor.ty), tensor.shape, tensor.bytes),
            (Some(raw), _) => (format!("{:?}", raw.dtype), raw.shape, raw.bytes),
            _ => continue,
        };
        hash.update(format!("\0{name}\0{ty}{shape:?}\0"));
        pieces.extend(bytes.chunks(PIECE));
    }
    for piece in hash_all(&pieces) {
        hash.update(piece);
    }
    let bytes = hash.finalize();
    let first = bytes[..8].try_into().expect("SHA-256 has 32 bytes");
    u64::from_le_bytes(first)
}

/// The digest of each piece, by all cores.
fn hash_all(pieces: &[&[u8]]) -> Vec<[u8; 32]> {
    let n_threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some(piece) = pieces.get(i) else {
                return done;
            };
            done.push((i, Sha256::digest(piece).into()));
        }
    };
    let mut digests = vec![[0; 32]; pieces.len()];
    std::thread::scope(|scope| {
        let others = n_threads.min(pieces.len()).saturating_sub(1);
        let others: Vec<_> = (0..others).map(|_| scope.spawn(work)).collect();
        let own = work();
        let others = others.into_iter();
        let others = others.flat_map(|thread| thread.join().expect("hashing does not panic"));
        for (i, digest) in own.into_iter().chain(others) {
            digests[i] = digest;
        }
    });
    digests
}
