//! Several adapters at once.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use kernels::{Buffer, Linear, LinearDelta, OutputDelta};
use sha2::{Digest, Sha256};

use super::embedding::StackEmbedding;
use super::{Adapter, AdapterError, AdapterTarget};

/// Adapters and their weights: the model's weights become `W + sum_i weight_i * delta_i`, where
/// `delta_i` is what adapter `i` alone changes. Exact: weights are applied as they are, and no
/// products between adapters appear.
#[derive(Debug)]
pub struct AdapterStack {
    parts: Vec<(Arc<Adapter>, f32)>,
    digest: [u8; 32],
    /// By number.
    sites: BTreeMap<usize, StackSite>,
    norms: BTreeMap<usize, OwnNorm>,
    embedding: Option<StackEmbedding>,
    /// The same for the model's parts on other devices.
    others: Vec<Arc<AdapterStack>>,
}

/// What changes at one site.
#[derive(Debug, Default)]
pub(crate) struct StackSite {
    pub(crate) delta: LinearDelta,
    pub(crate) replacements: Vec<Replacement>,
}

/// A matrix in the place of a layer's, whose output the delta has scaled down accordingly.
#[derive(Debug)]
pub(crate) struct Replacement {
    pub(crate) output: usize,
    pub(crate) weight: Arc<Linear>,
    pub(crate) share: f32,
}

/// A norm with weights of its own; `None`: the model's.
#[derive(Debug, Default)]
pub(crate) struct OwnNorm {
    pub(crate) weight: Option<Buffer>,
    pub(crate) bias: Option<Buffer>,
}

impl AdapterStack {
    /// One adapter as it was trained.
    pub fn single(adapter: Arc<Adapter>) -> Self {
        let target = adapter.target.clone();
        Self::of_parts(&target, vec![(adapter, 1.0)])
    }

    /// # Errors
    /// No adapters, a weight that is not a finite number, or adapters of different models.
    pub fn new(parts: Vec<(Arc<Adapter>, f32)>) -> Result<Self, AdapterError> {
        let refused = |message: &str| AdapterError::refused(Path::new("adapter stack"), message);
        let Some((first, _)) = parts.first() else {
            return Err(refused("no adapters"));
        };
        let target = first.target.clone();
        if parts.iter().any(|(_, weight)| !weight.is_finite()) {
            return Err(refused("a weight is not a finite number"));
        }
        let of_target = |(adapter, _): &(Arc<Adapter>, f32)| adapter.target.is_same(&target);
        if !parts.iter().all(of_target) {
            return Err(refused("the adapters belong to different models"));
        }
        Ok(Self::of_parts(&target, parts))
    }

    fn of_parts(target: &AdapterTarget, parts: Vec<(Arc<Adapter>, f32)>) -> Self {
        let mut hash = Sha256::new();
        for (adapter, weight) in &parts {
            hash.update(adapter.digest());
            hash.update(weight.to_le_bytes());
        }
        let others = target.others().iter().enumerate().map(|(i, other)| {
            let own = parts.iter();
            let own = own.map(|(adapter, weight)| (adapter.others[i].clone(), *weight));
            Arc::new(Self::of_parts(other, own.collect()))
        });
        Self {
            others: others.collect(),
            digest: hash.finalize().into(),
            sites: stack_sites(target, &parts),
            norms: stack_norms(target, &parts),
            embedding: StackEmbedding::new(target, &parts),
            parts,
        }
    }

    /// Adapters and weights, in order.
    pub fn parts(&self) -> &[(Arc<Adapter>, f32)] {
        &self.parts
    }

    /// What it is for part `index` of the model.
    pub(crate) fn for_part(self: &Arc<Self>, index: usize) -> Arc<Self> {
        match index.checked_sub(1) {
            None => self.clone(),
            Some(other) => self.others[other].clone(),
        }
    }

    /// Identity by content: of the adapters, their weights and their order.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// The prefix root of requests that use this stack, where those of the base have `base`.
    pub fn kv_root(&self, base: u64) -> u64 {
        let mut hash = Sha256::new();
        hash.update(base.to_le_bytes());
        hash.update(self.digest);
        let bytes = hash.finalize();
        u64::from_le_bytes(bytes[..8].try_into().expect("SHA-256 has 32 bytes"))
    }

    /// The model that it is bound to.
    pub fn target(&self) -> &AdapterTarget {
        &self.parts[0].0.target
    }

    pub(crate) fn site(&self, site: usize) -> Option<&StackSite> {
        self.sites.get(&site)
    }

    pub(crate) fn norm(&self, id: usize) -> Option<&OwnNorm> {
        self.norms.get(&id)
    }

    pub(crate) fn embedding(&self) -> Option<&StackEmbedding> {
        self.embedding.as_ref()
    }
}

/// Scale and shift of one output, before they are put on the device.
#[derive(Default)]
struct Affine {
    scale: Option<Vec<f64>>,
    shift: Option<Vec<f64>>,
}

fn stack_sites(
    target: &AdapterTarget,
    parts: &[(Arc<Adapter>, f32)],
) -> BTreeMap<usize, StackSite> {
    let mut sites: BTreeMap<usize, StackSite> = BTreeMap::new();
    let mut affine: BTreeMap<(usize, usize), Affine> = BTreeMap::new();
    for (adapter, share) in parts {
        for (&number, changes) in &adapter.sites {
            let site = sites.entry(number).or_default();
            for low_rank in &changes.low_rank {
                site.delta.parts.push((low_rank.clone(), *share));
            }
            for change in &changes.outputs {
                let n_out = target.layers(number)[change.output].weight.n_out();
                let sum = affine.entry((number, change.output)).or_default();
                let weight = f64::from(*share);
                if let Some(own) = &change.scale {
                    let scale = sum.scale.get_or_insert_with(|| vec![1.0; n_out]);
                    for (scale, own) in scale.iter_mut().zip(own) {
                        *scale += weight * (f64::from(*own) - 1.0);
                    }
                }
                if let Some(own) = &change.replaced {
                    let scale = sum.scale.get_or_insert_with(|| vec![1.0; n_out]);
                    scale.iter_mut().for_each(|scale| *scale -= weight);
                    site.replacements.push(Replacement {
                        output: change.output,
                        weight: own.clone(),
                        share: *share,
                    });
                }
                if let Some(own) = &change.shift {
                    let shift = sum.shift.get_or_insert_with(|| vec![0.0; n_out]);
                    for (shift, own) in shift.iter_mut().zip(own) {
                        *shift += weight * own;
                    }
                }
            }
        }
    }
    let device = target.device();
    let buffer = |values: Vec<f64>| {
        let values: Vec<f32> = values.into_iter().map(|x| x as f32).collect();
        Buffer::from_slice(device, &values)
    };
    for ((site, output), sum) in affine {
        let outputs = &mut sites.entry(site).or_default().delta.outputs;
        outputs.push(OutputDelta {
            output,
            scale: sum.scale.map(buffer),
            shift: sum.shift.map(buffer),
        });
    }
    sites
}

fn stack_norms(target: &AdapterTarget, parts: &[(Arc<Adapter>, f32)]) -> BTreeMap<usize, OwnNorm> {
    let mut norms = BTreeMap::new();
    let ids = parts.iter().flat_map(|(adapter, _)| adapter.norms.keys());
    for &id in ids {
        let Some((weight, bias)) = target.norm(id) else {
            continue;
        };
        let sum = |base: &[f32], own: &dyn Fn(&super::SavedNorm) -> Option<&Vec<f32>>| {
            let mut sum: Vec<f64> = base.iter().map(|&x| f64::from(x)).collect();
            for (adapter, share) in parts {
                let Some(own) = adapter.norms.get(&id).and_then(own) else {
                    continue;
                };
                for ((sum, base), own) in sum.iter_mut().zip(base).zip(own) {
                    *sum += f64::from(*share) * (f64::from(*own) - f64::from(*base));
                }
            }
            let sum: Vec<f32> = sum.into_iter().map(|x| x as f32).collect();
            Buffer::from_slice(target.device(), &sum)
        };
        let own = OwnNorm {
            weight: Some(sum(weight, &|norm| norm.weight.as_ref())),
            bias: bias
                .as_ref()
                .map(|bias| sum(bias, &|norm| norm.bias.as_ref())),
        };
        norms.insert(id, own);
    }
    norms
}
