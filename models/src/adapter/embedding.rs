//! Adapters of the embedding.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use kernels::{Buffer, Device, Linear, LinearCall};

use super::rows::grow;
use super::{Adapter, AdapterTarget};

/// What one adapter does to the embedding.
#[derive(Debug, Default)]
pub(crate) struct AdapterEmbedding {
    /// `[vocab, hidden]`, in the place of the model's.
    pub(crate) replaced: Option<Arc<Linear>>,
    pub(crate) low_rank: Option<EmbeddingLowRank>,
    /// For single tokens what is added to the model's vectors.
    pub(crate) tokens: BTreeMap<u32, Vec<f32>>,
}

/// `scale * B A[:, token]`.
#[derive(Clone, Debug)]
pub(crate) struct EmbeddingLowRank {
    /// `[vocab, rank]`.
    pub(crate) a: Arc<Linear>,
    /// `[hidden, rank]`.
    pub(crate) b: Arc<Linear>,
    pub(crate) scale: f32,
}

impl AdapterEmbedding {
    pub(crate) fn is_empty(&self) -> bool {
        self.replaced.is_none() && self.low_rank.is_none() && self.tokens.is_empty()
    }

    pub(crate) fn n_bytes(&self) -> usize {
        let low_rank = self.low_rank.as_ref();
        let low_rank = low_rank.map_or(0, |own| own.a.n_bytes() + own.b.n_bytes());
        let tokens: usize = self.tokens.values().map(|values| 4 * values.len()).sum();
        self.replaced.as_ref().map_or(0, |own| own.n_bytes()) + low_rank + tokens
    }
}

/// What a stack does to the embedding.
#[derive(Debug)]
pub(crate) struct StackEmbedding {
    /// What multiplies the model's vectors.
    base_share: f32,
    replaced: Vec<(Arc<Linear>, f32)>,
    low_rank: Vec<(EmbeddingLowRank, f32)>,
    tokens: BTreeMap<u32, Vec<f32>>,
    /// `A[:, token]` of the rows at work.
    inner: Mutex<Buffer>,
}

impl StackEmbedding {
    pub(crate) fn new(target: &AdapterTarget, parts: &[(Arc<Adapter>, f32)]) -> Option<Self> {
        if parts
            .iter()
            .all(|(adapter, _)| adapter.embedding.is_empty())
        {
            return None;
        }
        let mut own = Self {
            base_share: 1.0,
            replaced: Vec::new(),
            low_rank: Vec::new(),
            tokens: BTreeMap::new(),
            inner: Mutex::new(Buffer::zeros(target.device(), 0)),
        };
        for (adapter, share) in parts {
            let embedding = &adapter.embedding;
            if let Some(replaced) = &embedding.replaced {
                own.base_share -= share;
                own.replaced.push((replaced.clone(), *share));
            }
            if let Some(low_rank) = &embedding.low_rank {
                own.low_rank.push((low_rank.clone(), *share));
            }
            for (token, values) in &embedding.tokens {
                let width = values.len();
                let sum = own.tokens.entry(*token).or_insert_with(|| vec![0.0; width]);
                for (sum, value) in sum.iter_mut().zip(values) {
                    *sum += share * value;
                }
            }
        }
        Some(own)
    }

    /// Changes the vectors `x` of `tokens`, `[tokens.len(), width]`. `scratch` is as large.
    pub(crate) fn adapt(
        &self,
        device: &Device,
        tokens: &[u32],
        width: usize,
        x: &mut Buffer,
        scratch: &mut Buffer,
    ) {
        let len = tokens.len() * width;
        match self.base_share {
            1.0 => {}
            // Not a product: nothing of the model's vectors is left.
            0.0 => device.fill(x, 0.0, len),
            share => device.scale_softcap(x, share, None, len),
        }
        for (table, share) in &self.replaced {
            device.embed_into(table, tokens, scratch);
            device.add_scaled(x, scratch, *share, len);
        }
        for (low_rank, share) in &self.low_rank {
            let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            grow(device, &mut inner, tokens.len() * low_rank.a.n_in());
            device.embed_into(&low_rank.a, tokens, &mut inner);
            let call = LinearCall {
                weight: &low_rank.b,
                bias: None,
                out: scratch,
            };
            device.linear_into(&inner, tokens.len(), &mut [call]);
            device.add_scaled(x, scratch, share * low_rank.scale, len);
        }
        if tokens.iter().any(|token| self.tokens.contains_key(token)) {
            let mut added = vec![0.0; len];
            for (token, added) in tokens.iter().zip(added.chunks_exact_mut(width)) {
                if let Some(values) = self.tokens.get(token) {
                    added.copy_from_slice(values);
                }
            }
            device.add_scaled(x, &Buffer::from_slice(device, &added), 1.0, len);
        }
    }
}
