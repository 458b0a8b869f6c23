//! Identity of weights by content.
//!
//! Keys of cached keys and values are made from it, so two different models must not share it,
//! and it must not take long at start-up. Everything small is hashed whole (configuration,
//! names, types and shapes of tensors, and tensors up to [`WHOLE`] bytes); of a large tensor,
//! [`N_SAMPLES`] pieces of [`SAMPLE`] bytes at even distances from its first byte to its last.
//! Training moves a tensor's values everywhere, so that a fine-tune differs in the samples of
//! every tensor that it changed; an edit of a few single values by hand may escape.

use sha2::{Digest, Sha256};

use crate::{Checkpoint, LoadError};

const WHOLE: usize = 64 << 10;
const N_SAMPLES: usize = 16;
const SAMPLE: usize = 4 << 10;

pub(crate) fn digest(checkpoint: &Checkpoint) -> Result<u64, LoadError> {
    let mut hash = Sha256::new();
    hash.update(format!("{:?}", checkpoint.config()));
    for name in checkpoint.tensor_names() {
        // A tensor of a type that is not supported fails when, and only when, it is used.
        let Ok(Some(tensor)) = checkpoint.tensor(name) else {
            continue;
        };
        hash.update(format!("\0{name}\0{:?}{:?}\0", tensor.ty, tensor.shape));
        if tensor.bytes.len() <= WHOLE {
            hash.update(tensor.bytes);
            continue;
        }
        let last = tensor.bytes.len() - SAMPLE;
        for i in 0..N_SAMPLES {
            let start = last / (N_SAMPLES - 1) * i;
            // The division leaves a remainder; the last piece ends with the tensor.
            let start = if i == N_SAMPLES - 1 { last } else { start };
            hash.update(&tensor.bytes[start..start + SAMPLE]);
        }
    }
    let bytes = hash.finalize();
    let first = bytes[..8].try_into().expect("SHA-256 has 32 bytes");
    Ok(u64::from_le_bytes(first))
}
