//! Dense linear layers by products of warp groups, as a device of 9.0 runs them.

use kernels::cuda::{self, Ending, LinearLaunch, WGMMA_LARGE_FROM};
use kernels::{WeightSource, WeightType};
use ptxsim::Counters;

use crate::common::{Rng, assert_same};
use crate::gpu::Gpu;
use crate::linear::{activations, check, launch, run_by, upload};

/// None on a real device of another kind.
fn hopper() -> Option<Gpu> {
    let gpu = Gpu::of((9, 0));
    cuda::has_wgmma(gpu.capability()).then_some(gpu)
}

/// What the layer gives for these rows, and what that took.
fn run(source: &WeightSource<'_>, x: &[f32], bias: Option<&[f32]>) -> (Vec<f32>, Counters) {
    let gpu = hopper().expect("asked before");
    run_by(gpu, cuda::linear_wgmma, source, x, bias)
}

#[test]
fn both_types_match_and_do_not_see_how_many_rows_there_are() {
    if hopper().is_none() {
        return;
    }
    for (ty, n_out, n_in) in [
        (WeightType::BF16, 129, 416),
        (WeightType::F16, 40, 96),
        // Runs of no chunk; rows of inputs that end within one.
        (WeightType::BF16, 1, 1),
        (WeightType::F16, 17, 100),
        // More chunks than stages, an odd number in each run.
        (WeightType::BF16, 33, 32 * 37),
    ] {
        let mut rng = Rng(n_in as u64);
        let source = rng.weights(ty, n_out, n_in);
        let x = rng.values((WGMMA_LARGE_FROM + 70) * n_in);
        let (many, _) = run(&source, &x, None);
        check(&source, &x, &many);
        for n_rows in [1, 9, WGMMA_LARGE_FROM - 1, WGMMA_LARGE_FROM, 128] {
            let (few, _) = run(&source, &x[..n_rows * n_in], None);
            let what = format!("{ty:?}, {n_rows} rows of {n_in}");
            assert_same(&few, &many[..n_rows * n_out], &what);
        }
    }
}

#[test]
fn biases_chosen_rows_and_all_endings() {
    let Some(mut gpu) = hopper() else { return };
    let (n_out, n_in, n_rows) = (20, 64, 70);
    let mut rng = Rng(3);
    let source = rng.weights(WeightType::BF16, n_out, n_in);
    let (x, bias) = (rng.values(n_rows * n_in), rng.values(n_out));
    let (plain, _) = run(&source, &x, None);
    let (with_bias, _) = run(&source, &x, Some(&bias));
    for (i, (found, plain)) in with_bias.iter().zip(&plain).enumerate() {
        assert_eq!(*found, plain + bias[i % n_out]);
    }
    let mut one = upload(&mut gpu, &source);
    one.scale = 0.5;
    let acts = activations(&mut gpu, source.ty, &x, n_in);
    // Row 69 - i of the input to row 69 - i of the output, for the first 66 of these.
    let chosen: Vec<u32> = (0..66).map(|i| 69 - i).collect();
    let rows = gpu.upload(&chosen);
    let op = LinearLaunch {
        n_rows: chosen.len(),
        rows_in: rows,
        rows_out: rows,
        ending: Ending::AddScaled,
        out: gpu.upload(&vec![1.0_f32; n_rows * n_out]),
        ..launch(source.ty, acts, one)
    };
    gpu.run(&cuda::linear_wgmma(&op));
    let found: Vec<f32> = gpu.download(op.out, n_rows * n_out);
    for (i, (found, plain)) in found.iter().zip(&plain).enumerate() {
        let untouched = i / n_out < 4;
        let expected = if untouched {
            1.0
        } else {
            0.5_f32.mul_add(*plain, 1.0)
        };
        assert_eq!(*found, expected, "{i}");
    }
    // Rounded, in whole chunks; columns that are not there are zero.
    for n_rows in [3, 70] {
        let op = LinearLaunch {
            n_rows,
            ending: Ending::StoreBf16,
            out: gpu.alloc(n_rows * 32 * 2),
            out_stride: 32,
            ..launch(source.ty, acts, one)
        };
        gpu.run(&cuda::linear_wgmma(&op));
        let found: Vec<half::bf16> = gpu.download(op.out, n_rows * 32);
        for (i, found) in found.iter().enumerate() {
            let (row, column) = (i / 32, i % 32);
            let expected = plain.get(row * n_out + column).filter(|_| column < n_out);
            let expected = expected.map_or(half::bf16::ZERO, |x| half::bf16::from_f32(*x));
            assert_eq!(*found, expected, "{row}, {column}");
        }
    }
}

#[test]
fn groups_of_rows_have_their_own_weights() {
    let Some(mut gpu) = hopper() else { return };
    let (n_in, offsets) = (96, [0_u32, 3, 3, 80]);
    let mut rng = Rng(8);
    let sources = [16, 8, 40].map(|n_out| rng.weights(WeightType::F16, n_out, n_in));
    let x = rng.values(80 * n_in);
    let acts = activations(&mut gpu, WeightType::F16, &x, n_in);
    let groups = sources.each_ref().map(|source| upload(&mut gpu, source));
    let table: Vec<u8> = groups.iter().flat_map(|g| g.fields().padded(8)).collect();
    let op = LinearLaunch {
        n_rows: 77,
        groups: gpu.upload(&table),
        offsets: gpu.upload(&offsets),
        n_groups: 3,
        out: gpu.upload(&vec![0.0_f32; 80 * 40]),
        ..launch(WeightType::F16, acts, groups[2])
    };
    gpu.run(&cuda::linear_wgmma(&op));
    let found: Vec<f32> = gpu.download(op.out, 80 * 40);
    for (i, source) in sources.iter().enumerate() {
        let (begin, end) = (offsets[i] as usize, offsets[i + 1] as usize);
        if begin == end {
            continue;
        }
        let (alone, _) = run(source, &x[begin * n_in..end * n_in], None);
        for (row, alone) in alone.chunks(source.n_out).enumerate() {
            let at = (begin + row) * 40;
            assert_same(&found[at..at + source.n_out], alone, "a group");
        }
    }
}

#[test]
fn memory_is_read_in_whole_sectors_and_banks_do_not_collide() {
    if hopper().is_none_or(|gpu| !gpu.is_simulated()) {
        return;
    }
    let (n_out, n_in) = (128, 512);
    let source = Rng(1).weights(WeightType::BF16, n_out, n_in);
    for (n_rows, columns) in [(16, 32), (128, 128)] {
        let (_, counters) = run(&source, &Rng(2).values(n_rows * n_in), None);
        let (n_blocks, n_groups) = (n_out / columns, n_rows.div_ceil(64));
        assert_eq!(counters.wgmma, (n_blocks * n_groups * 4 * n_in / 16) as u64);
        assert_eq!(counters.mma, 0);
        // Each tile of 16 columns comes once.
        assert_eq!(counters.bulk_copies, (n_out / 16 * n_in / 32) as u64);
        // All but the results are read and written in whole sectors; these by halves.
        let halves = (n_rows * n_out * 4 / 32) as f64;
        let whole = (counters.global_bytes / 32) as f64 + halves;
        assert!(
            counters.global_sectors as f64 <= 1.01 * whole,
            "{counters:?}"
        );
        assert_eq!(counters.shared_wavefronts, counters.shared_ideal);
    }
}

/// The simulator adds up products of warps and of warp groups differently, as devices may: so the
/// tests above would see a layer that changes from one to the other with the number of rows.
#[test]
fn a_layer_that_mixed_instructions_would_be_seen() {
    if hopper().is_none_or(|gpu| !gpu.is_simulated()) {
        return;
    }
    let source = Rng(1).weights(WeightType::BF16, 64, 1024);
    let x = Rng(2).values(4 * 1024);
    let (groups, _) = run(&source, &x, None);
    let (warps, _) = crate::linear::run(&source, &x, None);
    assert_ne!(groups, warps);
}
