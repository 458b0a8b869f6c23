//! Linear layers of one weight.

use kernels::cuda::{self, DevicePtr, Ending, Group, LARGE_FROM, Launch, LinearLaunch, Rows16};
use kernels::{WeightSource, WeightType, reference};
use ptxsim::Counters;

use crate::common::{DENSE, QUANTIZED, Rng, assert_same, error};
use crate::gpu::Gpu;

/// Where a weight lies.
pub(crate) fn upload(gpu: &mut Gpu, source: &WeightSource<'_>) -> Group {
    let packed = cuda::pack(source).expect("a weight of this shape");
    Group {
        weight: gpu.upload(&packed.weight),
        scales: gpu.upload(&packed.scales),
        bias: DevicePtr::NULL,
        n_out: source.n_out,
        n_chunks: packed.n_chunks(),
        scale: 1.0,
    }
}

/// Activations as the weight's kernels take them: values, and scales and sums.
pub(crate) fn activations(
    gpu: &mut Gpu,
    ty: WeightType,
    x: &[f32],
    n_in: usize,
) -> (DevicePtr, DevicePtr) {
    let n_rows = x.len() / n_in;
    let at = gpu.upload(x);
    let n_chunks = n_in.div_ceil(32);
    let rows16 = match ty {
        WeightType::BF16 => Rows16::Bf16,
        WeightType::F16 => Rows16::F16,
        _ => {
            let codes = gpu.alloc(n_rows * n_chunks * 32);
            let meta = gpu.alloc(n_rows * n_chunks * 8);
            gpu.run(&cuda::quantize_rows(at, n_in, n_rows, codes, meta));
            return (codes, meta);
        }
    };
    let out = gpu.alloc(n_rows * n_chunks * 64);
    gpu.run(&cuda::convert_rows(rows16, at, n_in, n_rows, out));
    (out, DevicePtr::NULL)
}

pub(crate) fn launch(ty: WeightType, x: (DevicePtr, DevicePtr), one: Group) -> LinearLaunch {
    LinearLaunch {
        ty,
        x: x.0,
        meta: x.1,
        x_chunks: one.n_chunks,
        ending: Ending::Store,
        rows_in: DevicePtr::NULL,
        rows_out: DevicePtr::NULL,
        out: DevicePtr::NULL,
        out_stride: one.n_out,
        n_rows: 0,
        one,
        groups: DevicePtr::NULL,
        offsets: DevicePtr::NULL,
        n_groups: 0,
    }
}

/// What the layer gives for these rows, and what that took.
pub(crate) fn run(
    source: &WeightSource<'_>,
    x: &[f32],
    bias: Option<&[f32]>,
) -> (Vec<f32>, Counters) {
    run_by(Gpu::new(), cuda::linear, source, x, bias)
}

/// The same on this GPU, by these launches.
pub(crate) fn run_by(
    mut gpu: Gpu,
    linear: fn(&LinearLaunch) -> Launch,
    source: &WeightSource<'_>,
    x: &[f32],
    bias: Option<&[f32]>,
) -> (Vec<f32>, Counters) {
    let mut one = upload(&mut gpu, source);
    one.bias = bias.map_or(DevicePtr::NULL, |bias| gpu.upload(bias));
    let acts = activations(&mut gpu, source.ty, x, source.n_in);
    let n_rows = x.len() / source.n_in;
    let op = LinearLaunch {
        n_rows,
        out: gpu.alloc(n_rows * source.n_out * 4),
        ..launch(source.ty, acts, one)
    };
    let counters = gpu.run(&linear(&op));
    (gpu.download(op.out, n_rows * source.n_out), counters)
}

/// The exact sums of what tensor cores are given, and the bound of an f32 sum.
pub(crate) fn check(source: &WeightSource<'_>, x: &[f32], found: &[f32]) {
    let exact = match source.ty {
        WeightType::BF16 => {
            let x: Vec<f32> = x
                .iter()
                .map(|&x| half::bf16::from_f32(x).to_f32())
                .collect();
            reference::linear(source, &x, None)
        }
        WeightType::F16 => {
            let x: Vec<f32> = x.iter().map(|&x| half::f16::from_f32(x).to_f32()).collect();
            reference::linear(source, &x, None)
        }
        _ => reference::linear_native(source, x),
    };
    let size = exact.iter().fold(1.0_f64, |size, x| size.max(x.abs()));
    let worst = error(found, &exact);
    assert!(worst <= 3e-6 * size, "{:?}: {worst:e} of {size}", source.ty);
}

#[test]
fn every_format_matches_and_does_not_see_how_many_rows_there_are() {
    let tensor = QUANTIZED
        .into_iter()
        .chain([WeightType::BF16, WeightType::F16]);
    for (i, ty) in tensor.enumerate() {
        let n_in = if ty.block_elements() == 256 {
            768
        } else {
            [96, 416][i % 2]
        };
        let n_out = [40, 129, 16][i % 3];
        let mut rng = Rng(i as u64);
        let source = rng.weights(ty, n_out, n_in);
        let x = rng.values(67 * n_in);
        let (many, _) = run(&source, &x, None);
        check(&source, &x, &many);
        for n_rows in [1, 9, LARGE_FROM - 1] {
            let (few, _) = run(&source, &x[..n_rows * n_in], None);
            assert_same(
                &few,
                &many[..n_rows * n_out],
                &format!("{ty:?}, {n_rows} rows"),
            );
        }
    }
}

#[test]
fn odd_shapes_and_biases() {
    for (ty, n_out, n_in) in [
        (WeightType::BF16, 1, 1),
        (WeightType::BF16, 17, 33),
        (WeightType::F16, 15, 8),
        (WeightType::BF16, 48, 100),
        (WeightType::Q8_0, 1, 32),
        (WeightType::Q4_0, 33, 64),
    ] {
        let mut rng = Rng(n_in as u64);
        let source = rng.weights(ty, n_out, n_in);
        let (x, bias) = (rng.values(40 * n_in), rng.values(n_out));
        let (plain, _) = run(&source, &x, None);
        check(&source, &x, &plain);
        let (with_bias, _) = run(&source, &x, Some(&bias));
        for (i, (found, plain)) in with_bias.iter().zip(plain).enumerate() {
            assert_eq!(*found, plain + bias[i % n_out]);
        }
    }
}

#[test]
fn exact_sums_of_any_format() {
    for ty in DENSE.into_iter().chain(QUANTIZED) {
        let (n_out, n_in) = (19, 256);
        let mut rng = Rng(4);
        let source = rng.weights(ty, n_out, n_in);
        let x = rng.values(11 * n_in);
        let mut gpu = Gpu::new();
        let one = upload(&mut gpu, &source);
        let op = LinearLaunch {
            n_rows: 11,
            out: gpu.alloc(11 * n_out * 4),
            ..launch(ty, (gpu.upload(&x), DevicePtr::NULL), one)
        };
        gpu.run(&cuda::linear_exact(&op, n_in));
        let found: Vec<f32> = gpu.download(op.out, 11 * n_out);
        let exact = reference::linear(&source, &x, None);
        let size = exact.iter().fold(1.0_f64, |size, x| size.max(x.abs()));
        assert!(error(&found, &exact) <= 3e-6 * size, "{ty:?}");
    }
}

#[test]
fn a_value_that_is_not_a_number_taints_its_row_only() {
    for ty in [WeightType::Q4_K, WeightType::BF16] {
        let source = Rng(1).weights(ty, 16, 256);
        let mut x = Rng(2).values(3 * 256);
        let (clean, _) = run(&source, &x, None);
        x[256 + 7] = f32::NAN;
        let (found, _) = run(&source, &x, None);
        assert!(found[16..32].iter().all(|x| x.is_nan()));
        assert_same(&found[..16], &clean[..16], "before");
        assert_same(&found[32..], &clean[32..], "after");
    }
}

#[test]
fn memory_is_read_in_whole_sectors_and_banks_do_not_collide() {
    if !Gpu::new().is_simulated() {
        // A real device counts nothing.
        return;
    }
    for (ty, per_tile_chunk) in [
        (WeightType::BF16, 2),
        (WeightType::Q8_0, 1),
        (WeightType::Q4_K, 1),
    ] {
        let (n_out, n_in) = (128, 512);
        let source = Rng(1).weights(ty, n_out, n_in);
        let (_, few) = run(&source, &Rng(2).values(n_in), None);
        let (_, many) = run(&source, &Rng(2).values(64 * n_in), None);
        let n_products = (n_out / 16 * n_in / 32 * per_tile_chunk) as u64;
        // One tile of eight rows, then eight.
        assert_eq!(few.mma, n_products, "{ty:?}");
        assert_eq!(many.mma, 8 * n_products, "{ty:?}");
        // Everything is read in whole sectors; few rows of quantized weights share some.
        assert!(few.sector_ratio() <= 1.0, "{ty:?}: {}", few.sector_ratio());
        assert!(
            many.sector_ratio() <= 1.11,
            "{ty:?}: {}",
            many.sector_ratio()
        );
        assert_eq!(few.shared_wavefronts, few.shared_ideal, "{ty:?}");
        assert_eq!(many.shared_wavefronts, many.shared_ideal, "{ty:?}");
    }
}
