//! Low-rank matrices of adapters, packed once at load: what one adapter adds to the linear
//! layers of one input.
//!
//! Nothing is padded to a common rank: `A` is kept by rows, `[rank, n_in]`, and `B` transposed,
//! `[rank, n_out]`, so that both passes read exactly the values there are.

use std::borrow::Cow;
use std::sync::Arc;

use crate::cpu::low_rank::PackedLowRank;
use crate::cuda::CudaLowRank;
use crate::memory::OutOfMemory;
use crate::{Buffer, Device, WeightType};

/// Low-rank matrices beside the linear layers of one input, as files store them.
#[derive(Clone, Debug)]
pub struct LowRankSource<'a> {
    /// Of all matrices: F32, F16 or BF16.
    pub ty: WeightType,
    pub n_in: usize,
    /// `[rank, n_in]`, those of all targets one below the other.
    pub a: Cow<'a, [u8]>,
    /// `[rank]`: what multiplies each row of `A x`.
    pub scales: Vec<f32>,
    pub targets: Vec<LowRankTarget<'a>>,
}

/// What goes to one of the layers.
#[derive(Clone, Debug)]
pub struct LowRankTarget<'a> {
    /// Index of the layer in the call.
    pub output: usize,
    pub n_out: usize,
    /// Rows of `A` that it takes. Targets may share them.
    pub first_rank: usize,
    pub rank: usize,
    /// `[n_out, rank]`.
    pub b: Cow<'a, [u8]>,
    /// `[n_out]`: multiplies what `B` gives.
    pub column_scale: Option<Vec<f32>>,
}

/// Packed low-rank matrices beside the linear layers of one input.
#[derive(Debug)]
pub struct LowRank {
    packed: Packed,
}

#[derive(Debug)]
enum Packed {
    Cpu(PackedLowRank),
    Cuda(CudaLowRank),
}

/// Matrices that cannot be packed.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum LowRankError {
    #[error("low-rank matrices are stored as F32, F16 or BF16, not as {0:?}")]
    Quantized(WeightType),
    #[error("sizes of low-rank matrices do not fit each other")]
    Sizes,
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
    #[error("{0}")]
    Device(String),
}

impl LowRank {
    /// Packs matrices in the form that this device computes with; on a CPU they take as many bytes
    /// as the sources, next to each other in their order: those of one adapter, in the order in
    /// which a step comes to them, are one stream of memory. Runs on the calling thread alone, so
    /// that a device at work is not held up.
    pub fn pack(device: &Device, sources: &[LowRankSource<'_>]) -> Result<Vec<Self>, LowRankError> {
        sources.iter().try_for_each(Self::check)?;
        if let Some(gpu) = device.as_cuda() {
            let pack = |source| CudaLowRank::pack(gpu, source).map(Packed::Cuda);
            let packed = sources.iter().map(pack);
            return packed.map(|packed| Ok(Self { packed: packed? })).collect();
        }
        let packed = PackedLowRank::pack(sources)?.into_iter();
        let packed = packed.map(Packed::Cpu);
        Ok(packed.map(|packed| Self { packed }).collect())
    }

    fn check(source: &LowRankSource<'_>) -> Result<(), LowRankError> {
        if source.ty.is_quantized() {
            return Err(LowRankError::Quantized(source.ty));
        }
        let rank = source.scales.len();
        let is_long = |bytes: &[u8], n: usize, m: usize| {
            let values = n.checked_mul(m);
            values.and_then(|n| n.checked_mul(source.ty.block_bytes())) == Some(bytes.len())
        };
        let fits = |target: &LowRankTarget<'_>| {
            let end = target.first_rank.checked_add(target.rank);
            let scale = target.column_scale.as_ref();
            end.is_some_and(|end| end <= rank)
                && scale.is_none_or(|scale| scale.len() == target.n_out)
                && is_long(&target.b, target.n_out, target.rank)
        };
        if !is_long(&source.a, rank, source.n_in) || !source.targets.iter().all(fits) {
            return Err(LowRankError::Sizes);
        }
        Ok(())
    }

    pub fn n_in(&self) -> usize {
        match &self.packed {
            Packed::Cpu(packed) => packed.n_in,
            Packed::Cuda(packed) => packed.n_in,
        }
    }

    /// Rows of `A`, over all targets.
    pub fn rank(&self) -> usize {
        match &self.packed {
            Packed::Cpu(packed) => packed.scales.len(),
            Packed::Cuda(packed) => packed.rank,
        }
    }

    /// Bytes of memory that the packed form takes.
    pub fn n_bytes(&self) -> usize {
        match &self.packed {
            Packed::Cpu(packed) => packed.n_bytes(),
            Packed::Cuda(packed) => packed.n_bytes(),
        }
    }

    /// Index of the layer and outputs of each target.
    pub(crate) fn outputs(&self) -> impl Iterator<Item = (usize, usize)> {
        let (host, there) = match &self.packed {
            Packed::Cpu(packed) => (&packed.targets[..], &[][..]),
            Packed::Cuda(packed) => (&[][..], &packed.targets[..]),
        };
        let host = host.iter().map(|target| (target.output, target.n_out));
        host.chain(there.iter().map(|target| (target.output, target.n_out)))
    }

    pub(crate) fn packed(&self) -> &PackedLowRank {
        match &self.packed {
            Packed::Cpu(packed) => packed,
            Packed::Cuda(_) => panic!("matrices of another device"),
        }
    }

    /// What the CPU will read of them; nothing of matrices elsewhere.
    pub(crate) fn host_bytes(&self) -> &[u8] {
        match &self.packed {
            Packed::Cpu(packed) => packed.bytes(),
            Packed::Cuda(_) => &[],
        }
    }

    pub(crate) fn on_cuda(&self) -> &CudaLowRank {
        match &self.packed {
            Packed::Cpu(_) => panic!("matrices of another device"),
            Packed::Cuda(packed) => packed,
        }
    }
}

/// What the rows of one group get beside linear layers of one input. See
/// [`crate::Device::add_deltas`].
#[derive(Debug, Default)]
pub struct LinearDelta {
    pub outputs: Vec<OutputDelta>,
    /// Added one after the other, each times its weight.
    pub parts: Vec<(Arc<LowRank>, f32)>,
}

/// What happens to one layer's output before low-rank parts are added.
#[derive(Debug)]
pub struct OutputDelta {
    /// Index of the layer in the call.
    pub output: usize,
    /// `[n_out]`: multiplies the output.
    pub scale: Option<Buffer>,
    /// `[n_out]`: is added to it then.
    pub shift: Option<Buffer>,
}

/// The rows of a step, dealt out to groups: each is in one group or in none. Kept from step to
/// step.
#[derive(Clone, Debug, Default)]
pub struct RowGroups {
    /// Rows of all groups one after the other, ascending within each.
    rows: Vec<u32>,
    /// For each group the end of its rows.
    ends: Vec<usize>,
    n_rows: usize,
}

impl RowGroups {
    /// Deals out rows anew: row `i` goes to the `i`-th of `groups`, each below `n_groups`.
    pub fn fill(&mut self, n_groups: usize, groups: impl Iterator<Item = Option<usize>> + Clone) {
        self.ends.clear();
        self.ends.resize(n_groups, 0);
        for group in groups.clone().flatten() {
            self.ends[group] += 1;
        }
        let mut end = 0;
        for count in &mut self.ends {
            end += *count;
            // For now where the group begins; it grows to its end as rows come.
            *count = end - *count;
        }
        self.rows.clear();
        self.rows.resize(end, 0);
        self.n_rows = 0;
        for group in groups {
            if let Some(group) = group {
                self.rows[self.ends[group]] = self.n_rows as u32;
                self.ends[group] += 1;
            }
            self.n_rows += 1;
        }
    }

    pub fn n_groups(&self) -> usize {
        self.ends.len()
    }

    /// Rows that were dealt out, those in no group among them.
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// The rows of a group, ascending.
    pub fn rows(&self, group: usize) -> &[u32] {
        let first = match group {
            0 => 0,
            group => self.ends[group - 1],
        };
        &self.rows[first..self.ends[group]]
    }
}
