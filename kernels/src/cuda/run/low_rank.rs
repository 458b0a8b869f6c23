//! Low-rank parts of adapters on a GPU: all adapters of a step in a few launches.
//!
//! With [`Numerics::Native`] both matrices are held in bf16 and go through tensor cores: `A x`
//! of all groups of rows in one launch, `B` times it in one launch for each layer. What
//! multiplies single ranks or outputs is in `B` then. With [`Numerics::F32`] they are held in
//! f32, one launch for each matrix.

use super::driver::Allocation;
use super::gpu::Gpu;
use super::scratch::Kind;
use super::step::Step;
use crate::cuda::{self, DevicePtr, Ending, Group, LinearLaunch, Rows16};
use crate::{
    LinearDelta, LowRankError, LowRankSource, LowRankTarget, Numerics, PackError, RowGroups,
    WeightSource, WeightType, dequantize,
};

/// Inputs of a chunk.
const CHUNK: usize = 32;

/// The matrices of one adapter beside the linear layers of one input.
#[derive(Debug)]
pub(crate) struct CudaLowRank {
    pub(crate) n_in: usize,
    pub(crate) rank: usize,
    pub(crate) targets: Vec<Target>,
    form: Numerics,
    /// `[rank, n_in]` for all targets; nothing with [`Numerics::F32`].
    a: Allocation,
}

/// What goes to one layer.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) output: usize,
    pub(crate) n_out: usize,
    rank: usize,
    /// Multiplies what `b` gives.
    scale: f32,
    /// With [`Numerics::F32`] its own `A`, `[rank, n_in]`.
    a: Allocation,
    /// Native: `[n_out, 32 * n_chunks]`, of the chunks of ranks from `first_chunk` on.
    b: Allocation,
    first_chunk: usize,
    n_chunks: usize,
}

impl CudaLowRank {
    /// Packs a source whose sizes have been checked.
    pub(crate) fn pack(gpu: &Gpu, source: &LowRankSource<'_>) -> Result<Self, LowRankError> {
        let (n_in, rank, form) = (source.n_in, source.scales.len(), gpu.low_rank);
        let a = widen(source.ty, &source.a);
        gpu.prepare(match form {
            Numerics::Native => "linear_dense",
            Numerics::F32 => "linear_exact",
        })
        .map_err(|error| LowRankError::Device(error.to_string()))?;
        let targets = source.targets.iter();
        let targets = targets.map(|target| match form {
            Numerics::Native => native(gpu, source, target),
            Numerics::F32 => exact(gpu, source, target, &a),
        });
        Ok(Self {
            n_in,
            rank,
            targets: targets.collect::<Result<_, _>>()?,
            form,
            a: match form {
                Numerics::Native => upload(gpu, WeightType::BF16, [rank, n_in], &a)?,
                Numerics::F32 => gpu.upload(&[])?,
            },
        })
    }

    pub(crate) fn n_bytes(&self) -> usize {
        let targets = self.targets.iter();
        let targets: usize = targets.map(|t| t.a.n_bytes() + t.b.n_bytes()).sum();
        self.a.n_bytes() + targets
    }
}

fn widen(ty: WeightType, bytes: &[u8]) -> Vec<f32> {
    let mut values = vec![0.0; bytes.len() / ty.block_bytes()];
    dequantize(ty, bytes, &mut values);
    values
}

/// Packs values as a weight `[n_out, n_in]` of a dense type.
fn upload(
    gpu: &Gpu,
    ty: WeightType,
    [n_out, n_in]: [usize; 2],
    values: &[f32],
) -> Result<Allocation, LowRankError> {
    let bytes: Vec<u8> = match ty {
        WeightType::BF16 => values
            .iter()
            .flat_map(|&x| half::bf16::from_f32(x).to_le_bytes())
            .collect(),
        _ => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
    };
    let packed = cuda::pack(&WeightSource {
        ty,
        n_out,
        n_in,
        bytes: bytes.into(),
    });
    let packed = packed.map_err(|error| match error {
        PackError::OutOfMemory(refused) => LowRankError::OutOfMemory(refused),
        _ => LowRankError::Sizes,
    })?;
    Ok(gpu.upload(&packed.weight)?)
}

/// `B` of a target with what multiplies its ranks and outputs in it, and what is left to multiply
/// with: a scale that all ranks share stays out, so that nothing is rounded.
fn folded(source: &LowRankSource<'_>, target: &LowRankTarget<'_>) -> (Vec<f32>, f32) {
    let mut b = widen(source.ty, &target.b);
    let scales = &source.scales[target.first_rank..][..target.rank];
    let shared = scales.first().copied().unwrap_or(1.0);
    let is_shared = scales.iter().all(|scale| *scale == shared);
    for (i, row) in b.chunks_exact_mut(target.rank.max(1)).enumerate() {
        let column = target.column_scale.as_ref().map_or(1.0, |scale| scale[i]);
        for (value, scale) in row.iter_mut().zip(scales) {
            *value *= column * if is_shared { 1.0 } else { *scale };
        }
    }
    (b, if is_shared { shared } else { 1.0 })
}

fn native(
    gpu: &Gpu,
    source: &LowRankSource<'_>,
    target: &LowRankTarget<'_>,
) -> Result<Target, LowRankError> {
    let (values, scale) = folded(source, target);
    let &LowRankTarget {
        output,
        n_out,
        first_rank,
        rank,
        ..
    } = target;
    let first_chunk = first_rank / CHUNK;
    let n_chunks = (first_rank + rank).div_ceil(CHUNK) - first_chunk;
    let (width, before) = (n_chunks * CHUNK, first_rank % CHUNK);
    let mut b = vec![0.0; n_out * width];
    if rank > 0 {
        for (to, from) in b.chunks_exact_mut(width).zip(values.chunks_exact(rank)) {
            to[before..before + rank].copy_from_slice(from);
        }
    }
    Ok(Target {
        output,
        n_out,
        rank,
        scale,
        a: gpu.upload(&[])?,
        b: upload(gpu, WeightType::BF16, [n_out, width], &b)?,
        first_chunk,
        n_chunks,
    })
}

fn exact(
    gpu: &Gpu,
    source: &LowRankSource<'_>,
    target: &LowRankTarget<'_>,
    a: &[f32],
) -> Result<Target, LowRankError> {
    let (values, scale) = folded(source, target);
    let (rank, n_in) = (target.rank, source.n_in);
    let a = &a[target.first_rank * n_in..][..rank * n_in];
    Ok(Target {
        output: target.output,
        n_out: target.n_out,
        rank,
        scale,
        a: upload(gpu, WeightType::F32, [rank, n_in], a)?,
        b: upload(gpu, WeightType::F32, [target.n_out, rank], &values)?,
        first_chunk: 0,
        n_chunks: 0,
    })
}

/// Where one layer's output is, and how wide.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OutAt {
    pub(crate) at: DevicePtr,
    pub(crate) n_out: usize,
}

/// Rows of one group that an adapter changes.
#[derive(Clone, Copy, Debug)]
struct Part<'a> {
    rows: &'a [u32],
    matrices: &'a CudaLowRank,
    weight: f32,
}

impl Gpu {
    /// See [`crate::Device::add_deltas`]; `x` has rows of `n_in` values.
    pub(crate) fn add_deltas(
        &self,
        (x, n_in): (DevicePtr, usize),
        groups: &RowGroups,
        deltas: &[Option<&LinearDelta>],
        outs: &[OutAt],
    ) {
        let used = || {
            let deltas = deltas.iter().enumerate();
            deltas
                .filter_map(|(group, delta)| delta.map(|delta| (groups.rows(group), delta)))
                .filter(|(rows, _)| !rows.is_empty())
        };
        let address = |buffer: &Option<crate::Buffer>| {
            let buffer = buffer.as_ref();
            buffer.map_or(DevicePtr::NULL, crate::Buffer::device_ptr)
        };
        let adjusted = used().flat_map(|(rows, delta)| {
            let outputs = delta.outputs.iter();
            outputs.map(move |o| (rows, o.output, address(&o.scale), address(&o.shift)))
        });
        // Addresses are asked for before the step is taken: a missing one fails it.
        let adjusted: Vec<_> = adjusted.collect();
        let mut step = self.step();
        for (rows, output, scale, shift) in adjusted {
            let (out, n) = (outs[output], rows.len());
            let rows = step.put_u32(rows);
            step.push(cuda::adjust_rows(
                out.at,
                out.n_out,
                (rows, n),
                scale,
                shift,
            ));
        }
        let n_rounds = used()
            .map(|(_, delta)| delta.parts.len())
            .max()
            .unwrap_or(0);
        let mut x16 = None;
        for round in 0..n_rounds {
            let parts = used().filter_map(|(rows, delta)| {
                let (matrices, weight) = delta.parts.get(round)?;
                Some(Part {
                    rows,
                    matrices: matrices.on_cuda(),
                    weight: *weight,
                })
            });
            let (native, exact): (Vec<Part<'_>>, Vec<Part<'_>>) =
                parts.partition(|part| part.matrices.form == Numerics::Native);
            for part in exact {
                step.add_exact(part, (x, n_in), outs);
            }
            if !native.is_empty() {
                let x16 = *x16.get_or_insert_with(|| step.rows_bf16(x, n_in, groups.n_rows()));
                step.add_native(&native, (x16, n_in), outs);
            }
        }
    }
}

impl Step {
    fn rows_bf16(&mut self, x: DevicePtr, n_in: usize, n_rows: usize) -> DevicePtr {
        let x16 = self.scratch(Kind::Bf16, 2 * n_rows * n_in.next_multiple_of(CHUNK));
        self.push(cuda::convert_rows(Rows16::Bf16, x, n_in, n_rows, x16));
        x16
    }

    fn add_native(&mut self, parts: &[Part<'_>], (x, n_in): (DevicePtr, usize), outs: &[OutAt]) {
        let rows: Vec<u32> = parts.iter().flat_map(|part| part.rows).copied().collect();
        let most = |f: fn(&Part<'_>) -> usize| parts.iter().map(f).max().unwrap_or(0);
        let n_rows = most(|part| part.rows.len());
        let stride = most(|part| part.matrices.rank).next_multiple_of(CHUNK);
        let between = self.scratch(Kind::Between, 2 * rows.len() * stride);
        let rows_at = self.put_u32(&rows);
        let shrink = parts.iter().map(|part| Group {
            weight: DevicePtr(part.matrices.a.at()),
            n_out: part.matrices.rank,
            n_chunks: n_in.div_ceil(CHUNK),
            ..Group::default()
        });
        let shrink: Vec<Group> = shrink.collect();
        let op = LinearLaunch {
            ty: WeightType::BF16,
            x,
            meta: DevicePtr::NULL,
            x_chunks: n_in.div_ceil(CHUNK),
            ending: Ending::StoreBf16,
            rows_in: rows_at,
            rows_out: DevicePtr::NULL,
            out: between,
            out_stride: stride,
            n_rows,
            one: Group {
                n_out: stride,
                ..shrink[0]
            },
            groups: self.put_groups(&shrink),
            offsets: self.put_u32(&offsets(parts.iter().map(|part| part.rows.len()))),
            n_groups: parts.len(),
        };
        self.push(cuda::linear(&op));
        for (output, out) in outs.iter().enumerate() {
            let expand = LinearLaunch {
                x: between,
                x_chunks: stride / CHUNK,
                ending: Ending::AddScaled,
                rows_in: DevicePtr::NULL,
                rows_out: rows_at,
                out: out.at,
                out_stride: out.n_out,
                ..op
            };
            self.expand(parts, output, &expand);
        }
    }

    /// Adds to one layer's output, in one launch for all targets whose ranks begin alike, in the
    /// order of the targets of each part.
    fn expand(&mut self, parts: &[Part<'_>], output: usize, op: &LinearLaunch) {
        let targets = |part: &Part<'_>| -> Vec<usize> {
            let targets = part.matrices.targets.iter().enumerate();
            let own = targets.filter(|(_, target)| target.output == output && target.rank > 0);
            own.map(|(i, _)| i).collect()
        };
        let of_parts: Vec<Vec<usize>> = parts.iter().map(targets).collect();
        let n_rounds = of_parts.iter().map(Vec::len).max().unwrap_or(0);
        for round in 0..n_rounds {
            let target = |i: usize| {
                let own = of_parts[i].get(round)?;
                Some(&parts[i].matrices.targets[*own])
            };
            let all = || (0..parts.len()).filter_map(target);
            let mut firsts: Vec<usize> = all().map(|target| target.first_chunk).collect();
            firsts.sort_unstable();
            firsts.dedup();
            for first in firsts {
                // A group without such a target has no columns, and its blocks end at once.
                let group = |i: usize| match target(i).filter(|t| t.first_chunk == first) {
                    None => Group::default(),
                    Some(target) => Group {
                        weight: DevicePtr(target.b.at()),
                        n_out: target.n_out,
                        n_chunks: target.n_chunks,
                        scale: parts[i].weight * target.scale,
                        ..Group::default()
                    },
                };
                let groups: Vec<Group> = (0..parts.len()).map(group).collect();
                let expand = LinearLaunch {
                    x: op.x.offset(2 * CHUNK * first),
                    one: Group {
                        n_out: op.out_stride,
                        ..Group::default()
                    },
                    groups: self.put_groups(&groups),
                    ..*op
                };
                self.push(cuda::linear(&expand));
            }
        }
    }

    fn put_groups(&mut self, groups: &[Group]) -> DevicePtr {
        let fields = groups.iter().flat_map(|group| group.fields().padded(8));
        self.put(&fields.collect::<Vec<u8>>())
    }

    fn add_exact(&mut self, part: Part<'_>, (x, n_in): (DevicePtr, usize), outs: &[OutAt]) {
        let n_rows = part.rows.len();
        let rows = self.put_u32(part.rows);
        for target in part
            .matrices
            .targets
            .iter()
            .filter(|target| target.rank > 0)
        {
            let between = self.scratch(Kind::Between, 4 * n_rows * target.rank);
            let shrink = LinearLaunch {
                ty: WeightType::F32,
                x,
                meta: DevicePtr::NULL,
                x_chunks: 0,
                ending: Ending::Store,
                rows_in: rows,
                rows_out: DevicePtr::NULL,
                out: between,
                out_stride: target.rank,
                n_rows,
                one: Group {
                    weight: DevicePtr(target.a.at()),
                    n_out: target.rank,
                    ..Group::default()
                },
                groups: DevicePtr::NULL,
                offsets: DevicePtr::NULL,
                n_groups: 0,
            };
            self.push(cuda::linear_exact(&shrink, n_in));
            let expand = LinearLaunch {
                x: between,
                ending: Ending::AddScaled,
                rows_in: DevicePtr::NULL,
                rows_out: rows,
                out: outs[target.output].at,
                out_stride: target.n_out,
                one: Group {
                    weight: DevicePtr(target.b.at()),
                    n_out: target.n_out,
                    scale: part.weight * target.scale,
                    ..Group::default()
                },
                ..shrink
            };
            self.push(cuda::linear_exact(&expand, target.rank));
        }
    }
}

/// Where each group's rows begin, and where the last one's end.
fn offsets(lens: impl Iterator<Item = usize>) -> Vec<u32> {
    let mut offsets = vec![0];
    let mut end = 0;
    for len in lens {
        end += len;
        offsets.push(cuda::uint(end));
    }
    offsets
}
