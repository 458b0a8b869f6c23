//! What kernels should take on an H100, from counts of the simulator: a model, not a measurement.
//!
//! `cargo run --release -p kernels --example modelled` prints the table of kernels/README.md.

#![expect(clippy::print_stdout, reason = "the table is its output")]

#[path = "../tests/cuda/gpu.rs"]
#[allow(dead_code, reason = "tests use more of it")]
mod gpu;

use gpu::Gpu;
use kernels::cuda::{
    self, Attention, AttentionRows, DevicePtr, Ending, Group, KvScales, KvStorage, LinearLaunch,
    Rows16,
};
use kernels::{WeightSource, WeightType};
use ptxsim::Counters;

/// H100 SXM: bytes and dense operations a second, instructions of warps that its 132
/// multiprocessors issue, bytes from its second-level cache (an estimate).
const MEMORY: f64 = 3.35e12;
const BF16: f64 = 990e12;
const INT8: f64 = 1979e12;
const F32: f64 = 67e12;
const ISSUE: f64 = 132.0 * 4.0 * 1.755e9;
const CACHE: f64 = 5.5e12;
/// Part of the peak that `mma.sync` reaches on Hopper, which keeps the rest for `wgmma` (an
/// estimate).
const SYNC_SHARE: f64 = 0.62;
/// Part of the peak that `wgmma` reaches in libraries (an estimate).
const GROUP_SHARE: f64 = 0.8;
/// Passes over shared memory that the multiprocessors make in a second.
const SHARED: f64 = 132.0 * 1.755e9;

struct Work {
    name: String,
    shape: String,
    /// Bytes that must cross memory once.
    bytes: f64,
    operations: f64,
    peak: f64,
    counters: Counters,
    /// How many such launches the shape stands for.
    times: f64,
}

impl Work {
    fn print(&self) {
        let memory = self.bytes / MEMORY;
        let floor = memory.max(self.operations / self.peak);
        let groups = self.counters.wgmma > 0;
        let share = if groups { GROUP_SHARE } else { SYNC_SHARE };
        let product = self.operations / (self.peak * share);
        let shared = self.counters.shared_wavefronts as f64 * self.times / SHARED;
        let issue = self.counters.warp_instructions as f64 * self.times / ISSUE;
        let cache = self.counters.global_sectors as f64 * 32.0 * self.times / CACHE;
        let all = [
            ("memory", memory),
            (if groups { "wgmma" } else { "mma" }, product),
            ("shared", shared),
            ("issue", issue),
            ("L2", cache),
        ];
        let (limit, time) = all
            .into_iter()
            .fold(("", 0.0), |a, b| if b.1 > a.1 { b } else { a });
        println!(
            "| `{}` | {} | {:.2} | {:.2} | {:.1} | {:.1} | {limit} | {:.0}% |",
            self.name,
            self.shape,
            self.bytes / 1e6,
            self.operations / 1e9,
            floor * 1e6,
            time * 1e6,
            100.0 * floor / time
        );
    }
}

fn main() {
    println!("| kernel | shape | MB | Gop | floor, us | modelled, us | limit | of roofline |");
    println!("|---|---|--:|--:|--:|--:|---|--:|");
    let types = [
        WeightType::BF16,
        WeightType::Q8_0,
        WeightType::Q4_0,
        WeightType::Q4_K,
        WeightType::Q6_K,
    ];
    for n_rows in [1, 16, 512] {
        for ty in types {
            linear(ty, n_rows, cuda::linear).print();
        }
        linear(WeightType::BF16, n_rows, cuda::linear_wgmma).print();
    }
    attention(1, 4095, 64).print();
    attention(512, 0, 8).print();
    for storage in [KvStorage::Int8, KvStorage::Fp8] {
        decode(storage, 4096, 64).print();
    }
}

/// 4096 by 4096; a slice of the columns (and of many rows) is simulated.
fn linear(ty: WeightType, n_rows: usize, start: fn(&LinearLaunch) -> cuda::Launch) -> Work {
    const WIDTH: usize = 4096;
    let (n_out, n_sim) = (128, n_rows.min(128));
    let bytes = vec![0; WIDTH / ty.block_elements() * ty.block_bytes() * n_out];
    let source = WeightSource {
        ty,
        n_out,
        n_in: WIDTH,
        bytes: bytes.into(),
    };
    let packed = cuda::pack(&source).expect("a weight of this shape");
    let mut gpu = Gpu::of((9, 0));
    let x = gpu.upload(&vec![0.5_f32; n_sim * WIDTH]);
    let (acts, meta) = (gpu.alloc(n_sim * WIDTH * 2), gpu.alloc(n_sim * WIDTH / 4));
    let dense = !ty.is_quantized();
    let prepare = if dense {
        cuda::convert_rows(Rows16::Bf16, x, WIDTH, n_sim, acts)
    } else {
        cuda::quantize_rows(x, WIDTH, n_sim, acts, meta)
    };
    gpu.run(&prepare);
    let launch = start(&LinearLaunch {
        ty,
        x: acts,
        meta,
        x_chunks: packed.n_chunks(),
        ending: Ending::Store,
        rows_in: DevicePtr::NULL,
        rows_out: DevicePtr::NULL,
        out: gpu.alloc(n_sim * n_out * 4),
        out_stride: n_out,
        n_rows: n_sim,
        one: Group {
            weight: gpu.upload(&packed.weight),
            scales: gpu.upload(&packed.scales),
            bias: DevicePtr::NULL,
            n_out,
            n_chunks: packed.n_chunks(),
            scale: 1.0,
        },
        groups: DevicePtr::NULL,
        offsets: DevicePtr::NULL,
        n_groups: 0,
    });
    let of_columns = (WIDTH / n_out) as f64;
    let weight = (packed.weight.len() + packed.scales.len()) as f64 * of_columns;
    let of_row = if dense { 2.0 } else { 1.25 };
    Work {
        name: launch.kernel.to_owned(),
        shape: format!("{n_rows} rows, 4096 x 4096"),
        bytes: weight + (n_rows * WIDTH) as f64 * (of_row + 4.0),
        operations: 2.0 * (n_rows * WIDTH * WIDTH) as f64,
        peak: if dense { BF16 } else { INT8 },
        counters: gpu.run(&launch),
        times: of_columns * n_rows as f64 / n_sim as f64,
    }
}

/// 32 heads of 128 over 8 kv heads, `n_rows` from `start`, for so many sequences; one kv head of
/// one sequence is simulated.
fn attention(n_rows: usize, start: usize, n_sequences: usize) -> Work {
    const DIM: usize = 128;
    let (group, n_kv_heads, block_size, context) = (4, 8, 16, start + n_rows);
    let mut gpu = Gpu::of((9, 0));
    let rows = cuda::SequenceRows {
        first_row: 0,
        n_rows: n_rows as u32,
        start: start as u32,
        table: 0,
    };
    let plan = cuda::plan(&[rows], group, None);
    let items = plan.item_bytes();
    let table: Vec<u32> = (0..context.div_ceil(block_size) as u32).collect();
    let cache = vec![0_u8; table.len() * block_size * DIM * 2];
    let op = Attention {
        q: gpu.upload(&vec![0.5_f32; n_rows * group * DIM]),
        keys: gpu.upload(&cache),
        values: gpu.upload(&cache),
        sequences: gpu.upload(&rows.fields().padded(4)),
        tables: gpu.upload(&table),
        items: gpu.upload(&items),
        out: gpu.alloc(n_rows * group * DIM * 4),
        part_max: gpu.alloc(plan.n_parts * 4),
        part_sum: gpu.alloc(plan.n_parts * 4),
        part_out: gpu.alloc(plan.n_parts * DIM * 4),
        n_heads: group,
        n_kv_heads: 1,
        head_dim: DIM,
        block_size,
        scoring: cuda::Scoring {
            scale: 0.1,
            ..cuda::Scoring::default()
        },
    };
    let times = (n_kv_heads * n_sequences) as f64;
    let seen: usize = (0..n_rows).map(|i| start + i + 1).sum();
    Work {
        name: "attention_128".to_owned(),
        shape: format!("{n_sequences} sequences, {n_rows} rows each, context {context}"),
        bytes: times * (context * DIM * 4 + n_rows * group * DIM * 8) as f64,
        operations: times * (4 * seen * group * DIM) as f64,
        peak: BF16,
        counters: gpu.run(&cuda::paged_attention(&op, plan.items.len())),
        times,
    }
}

/// Decoding over a cache of 8 bits: 32 heads of 128 over 8 kv heads, one row for so many
/// sequences; one kv head of one sequence is simulated.
fn decode(storage: KvStorage, context: usize, n_sequences: usize) -> Work {
    const DIM: usize = 128;
    let (group, n_kv_heads, block_size) = (4, 8, 16);
    let mut gpu = Gpu::of((9, 0));
    let rows = cuda::SequenceRows {
        first_row: 0,
        n_rows: 1,
        start: context as u32 - 1,
        table: 0,
    };
    let table: Vec<u32> = (0..context.div_ceil(block_size) as u32).collect();
    let n_slots = table.len() * block_size;
    let cache = gpu.upload(&vec![0_u8; n_slots * DIM]);
    let scales = gpu.upload(&vec![1_f32; n_slots]);
    let op = AttentionRows {
        q: gpu.upload(&vec![0.5_f32; group * DIM]),
        keys: cache,
        values: cache,
        scales: KvScales {
            keys: scales,
            values: scales,
        },
        storage,
        sequences: gpu.upload(&rows.fields().padded(4)),
        sequence_of: gpu.upload(&[0_u32]),
        tables: gpu.upload(&table),
        out: gpu.alloc(group * DIM * 4),
        n_heads: group,
        n_kv_heads: 1,
        head_dim: DIM,
        block_size,
        scoring: cuda::Scoring {
            scale: 0.1,
            ..cuda::Scoring::default()
        },
    };
    let launch = cuda::row_attention(&op, 1);
    let times = (n_kv_heads * n_sequences) as f64;
    Work {
        name: launch.kernel.to_owned(),
        shape: format!("{n_sequences} sequences, 1 row each, context {context}"),
        bytes: times * (context * (DIM + 4) * 2 + group * DIM * 8) as f64,
        operations: times * (4 * context * group * DIM) as f64,
        peak: F32,
        counters: gpu.run(&launch),
        times,
    }
}
