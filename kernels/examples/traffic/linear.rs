//! Linear layers: 1024 inputs, 128 columns.

use kernels::cuda::{self, DevicePtr, Ending, Group, LinearLaunch, PackedWeights, Rows16};
use kernels::{WeightSource, WeightType};

use crate::{Counted, noise};

const N_IN: usize = 1024;
const N_OUT: usize = 128;

pub(crate) fn pack(ty: WeightType, n_out: usize, n_in: usize) -> PackedWeights {
    let n_bytes = n_in / ty.block_elements() * ty.block_bytes() * n_out;
    let source = WeightSource {
        ty,
        n_out,
        n_in,
        bytes: vec![0; n_bytes].into(),
    };
    cuda::pack(&source).expect("a weight of this shape")
}

/// The layer of these rows, its activations converted.
fn launch(on: &mut Counted, ty: WeightType, n_rows: usize) -> LinearLaunch {
    let gpu = &mut on.gpu;
    let packed = pack(ty, N_OUT, N_IN);
    let x = gpu.upload(&noise(n_rows * N_IN));
    let (acts, meta) = (gpu.alloc(n_rows * N_IN * 2), gpu.alloc(n_rows * N_IN / 4));
    let prepared = match ty {
        WeightType::BF16 => Some(cuda::convert_rows(Rows16::Bf16, x, N_IN, n_rows, acts)),
        WeightType::F16 => Some(cuda::convert_rows(Rows16::F16, x, N_IN, n_rows, acts)),
        WeightType::F32 => None,
        _ => Some(cuda::quantize_rows(x, N_IN, n_rows, acts, meta)),
    };
    if let Some(prepare) = &prepared {
        gpu.run(prepare);
    }
    LinearLaunch {
        ty,
        x: if prepared.is_some() { acts } else { x },
        meta,
        x_chunks: packed.n_chunks(),
        ending: Ending::Store,
        rows_in: DevicePtr::NULL,
        rows_out: DevicePtr::NULL,
        out: gpu.alloc(n_rows * N_OUT * 4),
        out_stride: N_OUT,
        n_rows,
        one: Group {
            weight: gpu.upload(&packed.weight),
            scales: gpu.upload(&packed.scales),
            bias: DevicePtr::NULL,
            n_out: N_OUT,
            n_chunks: packed.n_chunks(),
            scale: 1.0,
        },
        groups: DevicePtr::NULL,
        offsets: DevicePtr::NULL,
        n_groups: 0,
    }
}

pub(crate) fn count(on: &mut Counted) {
    let exact = launch(on, WeightType::F32, 8);
    let shape = "8 rows, 1024 x 128";
    on.count(shape, &cuda::linear_exact(&exact, N_IN));
    if on.capability != (8, 0) {
        return;
    }
    let dense = [WeightType::BF16, WeightType::F16];
    for ty in dense.into_iter().chain(WeightType::QUANTIZED) {
        for (n_rows, shape) in [(8, shape), (64, "64 rows, 1024 x 128")] {
            let op = launch(on, ty, n_rows);
            on.count(shape, &cuda::linear(&op));
        }
    }
}

/// Products of warp groups.
pub(crate) fn count_wgmma(on: &mut Counted) {
    for ty in [WeightType::BF16, WeightType::F16] {
        for (n_rows, shape) in [(8, "8 rows, 1024 x 128"), (128, "128 rows, 1024 x 128")] {
            let op = launch(on, ty, n_rows);
            on.count(shape, &cuda::linear_wgmma(&op));
        }
    }
}
