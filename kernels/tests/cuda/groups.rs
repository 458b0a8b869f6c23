//! Linear layers of many weights in one launch: adapters of any ranks, and experts.

use kernels::cuda::{self, DevicePtr, Ending, Group, LinearLaunch};
use kernels::{WeightSource, WeightType, reference};

use crate::common::{Rng, assert_same, error};
use crate::gpu::Gpu;
use crate::linear::{activations, launch, upload};

fn table(gpu: &mut Gpu, groups: &[Group]) -> DevicePtr {
    let bytes: Vec<u8> = groups.iter().flat_map(|g| g.fields().padded(8)).collect();
    assert_eq!(bytes.len(), groups.len() * 40);
    gpu.upload(&bytes)
}

struct Adapter {
    a: WeightSource<'static>,
    b: WeightSource<'static>,
    scale: f32,
}

const N_IN: usize = 96;
const N_OUT: usize = 80;

/// `y += scale * B (A x)` for rows of several adapters: `rows[i]` are those of adapter `i`.
fn adapt(adapters: &[Adapter], rows: &[Vec<u32>], x: &[f32], y: &[f32]) -> Vec<f32> {
    let mut gpu = Gpu::new();
    let shrink: Vec<Group> = adapters.iter().map(|a| upload(&mut gpu, &a.a)).collect();
    let expand = |a: &Adapter| Group {
        scale: a.scale,
        ..upload(&mut gpu, &a.b)
    };
    let expand: Vec<Group> = adapters.iter().map(expand).collect();
    let order: Vec<u32> = rows.concat();
    let mut offsets = vec![0_u32];
    for rows in rows {
        offsets.push(offsets[offsets.len() - 1] + rows.len() as u32);
    }
    let rank = adapters
        .iter()
        .map(|a| a.a.n_out)
        .max()
        .unwrap_or(0)
        .next_multiple_of(32);
    let acts = activations(&mut gpu, WeightType::BF16, x, N_IN);
    let between = gpu.alloc(order.len() * rank * 2);
    let (rows_at, offsets_at) = (gpu.upload(&order), gpu.upload(&offsets));
    let largest = Group {
        n_out: rank,
        ..shrink[0]
    };
    let first = LinearLaunch {
        ending: Ending::StoreBf16,
        rows_in: rows_at,
        out: between,
        out_stride: rank,
        n_rows: rows.iter().map(Vec::len).max().unwrap_or(0),
        groups: table(&mut gpu, &shrink),
        offsets: offsets_at,
        n_groups: adapters.len(),
        ..launch(WeightType::BF16, acts, largest)
    };
    gpu.run(&cuda::linear(&first));
    let out = gpu.upload(y);
    let second = LinearLaunch {
        x: between,
        x_chunks: rank / 32,
        ending: Ending::AddScaled,
        rows_in: DevicePtr::NULL,
        rows_out: rows_at,
        out,
        out_stride: N_OUT,
        groups: table(&mut gpu, &expand),
        one: Group {
            n_out: N_OUT,
            ..expand[0]
        },
        ..first
    };
    gpu.run(&cuda::linear(&second));
    gpu.download(out, y.len())
}

#[test]
fn adapters_of_any_rank_in_one_batch() {
    let mut rng = Rng(3);
    let adapters: Vec<Adapter> = [4, 64, 1, 16, 24]
        .into_iter()
        .map(|rank| Adapter {
            a: rng.weights(WeightType::BF16, rank, N_IN),
            b: rng.weights(WeightType::BF16, N_OUT, rank),
            scale: 0.5 / rank as f32,
        })
        .collect();
    let n_rows = 60;
    let (x, y) = (rng.values(n_rows * N_IN), rng.values(n_rows * N_OUT));
    // Adapter 3 has no rows; rows 50.. have no adapter; adapter 1 has many.
    let rows: Vec<Vec<u32>> = vec![
        vec![0, 7, 8],
        (9..49).collect(),
        vec![2],
        vec![],
        vec![3, 1, 49],
    ];
    let found = adapt(&adapters, &rows, &x, &y);
    let round = |x: &[f32]| -> Vec<f32> {
        x.iter()
            .map(|&x| half::bf16::from_f32(x).to_f32())
            .collect()
    };
    for (adapter, rows) in adapters.iter().zip(&rows) {
        for &row in rows {
            let row = row as usize;
            let between = reference::linear(&adapter.a, &round(&x[row * N_IN..][..N_IN]), None);
            let between: Vec<f32> = between.iter().map(|&x| x as f32).collect();
            let delta = reference::linear(&adapter.b, &round(&between), None);
            let size = delta.iter().fold(1.0_f64, |size, x| size.max(x.abs()));
            let exact = delta.iter().zip(&y[row * N_OUT..]);
            let exact: Vec<f64> = exact
                .map(|(d, y)| f64::from(*y) + f64::from(adapter.scale) * d)
                .collect();
            // A value between the two that rounds the other way moves the sum by its last bit.
            let worst = error(&found[row * N_OUT..][..N_OUT], &exact);
            assert!(
                worst <= 4e-3 * size * f64::from(adapter.scale) + 1e-6,
                "row {row}: {worst}"
            );
        }
    }
    for row in (50..n_rows).chain([4, 5, 6]) {
        assert_same(
            &found[row * N_OUT..][..N_OUT],
            &y[row * N_OUT..][..N_OUT],
            "no adapter",
        );
    }
    // A row alone has the same bits.
    for (adapter, row) in [(1, 20), (4, 3)] {
        let only: Vec<Vec<u32>> = (0..5)
            .map(|i| if i == adapter { vec![row] } else { vec![] })
            .collect();
        let alone = adapt(&adapters, &only, &x, &y);
        let row = row as usize * N_OUT;
        assert_same(&alone[row..][..N_OUT], &found[row..][..N_OUT], "alone");
    }
}

#[test]
fn experts_share_a_launch() {
    for ty in [WeightType::BF16, WeightType::Q4_0, WeightType::Q6_K] {
        let (n_in, n_out, n_rows) = (256, 48, 41);
        let mut rng = Rng(8);
        let experts: Vec<WeightSource<'_>> = (0..4).map(|_| rng.weights(ty, n_out, n_in)).collect();
        let x = rng.values(n_rows * n_in);
        let rows: [Vec<u32>; 4] = [vec![5, 6, 40], vec![], (0..41).collect(), vec![5]];
        let mut gpu = Gpu::new();
        let groups: Vec<Group> = experts.iter().map(|e| upload(&mut gpu, e)).collect();
        let acts = activations(&mut gpu, ty, &x, n_in);
        let order = rows.concat();
        let op = LinearLaunch {
            rows_in: gpu.upload(&order),
            out: gpu.alloc(order.len() * n_out * 4),
            n_rows: 41,
            groups: table(&mut gpu, &groups),
            offsets: gpu.upload(&[0_u32, 3, 3, 44, 45]),
            n_groups: 4,
            ..launch(ty, acts, groups[0])
        };
        gpu.run(&cuda::linear(&op));
        let found: Vec<f32> = gpu.download(op.out, order.len() * n_out);
        let mut i = 0;
        for (expert, rows) in groups.iter().zip(&rows) {
            for &row in rows {
                // The row alone, with this expert's weight alone.
                let x = &x[row as usize * n_in..][..n_in];
                let acts = activations(&mut gpu, ty, x, n_in);
                let alone = LinearLaunch {
                    n_rows: 1,
                    out: gpu.alloc(n_out * 4),
                    ..launch(ty, acts, *expert)
                };
                gpu.run(&cuda::linear(&alone));
                let alone: Vec<f32> = gpu.download(alone.out, n_out);
                assert_same(&found[i * n_out..][..n_out], &alone, "alone");
                i += 1;
            }
        }
    }
}
