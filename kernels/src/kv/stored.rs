//! What a cache holds, to be compared with another's.

use super::{KvCache, Memory, head_offset, scale_offset};

/// A key and a value of one head in one slot, as they are stored.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredKv {
    /// `head_dim` elements in the bytes of the cache's type.
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    /// Of key and value, where the type has scales.
    pub scales: Option<(f32, f32)>,
}

impl KvCache {
    /// What is stored for a head in a slot of a layer; `None` for a cache on a GPU.
    ///
    /// # Panics
    /// When there is no such layer, slot or head.
    pub fn stored(&self, layer: usize, slot: usize, head: usize) -> Option<StoredKv> {
        let Memory::Host(host) = &self.memory else {
            return None;
        };
        let (shape, n) = (self.shape, self.ty.n_bytes());
        let (block, offset) = (slot / shape.block_size, slot % shape.block_size);
        let first = layer * shape.layer_len() + head_offset(shape, block, head);
        let (keys, values) = (host.keys.as_slice::<u8>(), host.values.as_slice::<u8>());
        let element = |all: &[u8], at: usize| all[(first + at) * n..][..n].to_vec();
        let dims = 0..shape.head_dim;
        let scales = self.ty.has_scales().then(|| {
            let at = layer * shape.layer_scales() + scale_offset(shape, block, head) + offset;
            (
                host.key_scales.as_slice::<f32>()[at],
                host.value_scales.as_slice::<f32>()[at],
            )
        });
        Some(StoredKv {
            key: dims
                .clone()
                .flat_map(|d| element(keys, d * shape.block_size + offset))
                .collect(),
            value: dims
                .flat_map(|d| element(values, offset * shape.head_dim + d))
                .collect(),
            scales,
        })
    }
}
