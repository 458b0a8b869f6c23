//! What kernels take on the GPU of this machine, for the shapes of the table in
//! kernels/README.md that says what they should take.
//!
//! `cargo run --release -p kernels --example measured [N]`: device N, or the first one. Means of
//! launches one after the other, so weights up to the size of the second-level cache come from
//! there.

#![expect(clippy::print_stdout, reason = "the table is its output")]

use kernels::cuda::{self, Attention, BareGpu, DevicePtr, Ending, Group, Launch, LinearLaunch};
use kernels::{WeightSource, WeightType};

/// Seconds that a table's line may take.
const SECONDS: f64 = 0.2;
const WIDTH: usize = 4096;
const DIM: usize = 128;

type Failure = String;

fn main() -> Result<(), Failure> {
    let ordinal = match std::env::args().nth(1) {
        Some(text) => text
            .parse()
            .map_err(|_| "expected the number of a device")?,
        None => 0,
    };
    let open = || BareGpu::open(ordinal).map_err(|error| error.to_string());
    let gpu = open()?;
    let (major, minor) = gpu.capability();
    println!("{}, compute capability {major}.{minor}\n", gpu.name());
    println!("| kernel | shape | us | GB/s | Tflop/s |");
    println!("|---|---|--:|--:|--:|");
    for n_rows in [1, 16, 512] {
        for ty in [
            WeightType::BF16,
            WeightType::Q8_0,
            WeightType::Q4_0,
            WeightType::Q4_K,
            WeightType::Q6_K,
        ] {
            linear(&mut open()?, ty, n_rows, cuda::linear)?;
        }
        if cuda::has_wgmma(gpu.capability()) {
            linear(&mut open()?, WeightType::BF16, n_rows, cuda::linear_wgmma)?;
        }
    }
    attention(&mut open()?, 1, 4095, 64)?;
    attention(&mut open()?, 512, 0, 8)
}

fn upload(gpu: &mut BareGpu, bytes: &[u8]) -> Result<DevicePtr, Failure> {
    let at = gpu.alloc(bytes.len())?;
    gpu.write(at, bytes)?;
    Ok(at)
}

fn line(
    gpu: &BareGpu,
    launch: &Launch,
    shape: &str,
    (n_bytes, n_operations): (f64, f64),
) -> Result<(), Failure> {
    let once = gpu.time(launch, 3)? / 3.0;
    let n = (SECONDS / once).clamp(3.0, 2000.0);
    let seconds = gpu.time(launch, n as usize)? / n.floor();
    println!(
        "| `{}` | {shape} | {:.1} | {:.0} | {:.1} |",
        launch.kernel,
        seconds * 1e6,
        n_bytes / seconds / 1e9,
        n_operations / seconds / 1e12
    );
    Ok(())
}

fn linear(
    gpu: &mut BareGpu,
    ty: WeightType,
    n_rows: usize,
    start: fn(&LinearLaunch) -> Launch,
) -> Result<(), Failure> {
    let n_bytes = WIDTH / ty.block_elements() * ty.block_bytes() * WIDTH;
    let source = WeightSource {
        ty,
        n_out: WIDTH,
        n_in: WIDTH,
        bytes: vec![0; n_bytes].into(),
    };
    let packed = cuda::pack(&source).map_err(|error| error.to_string())?;
    let per_value = if ty.is_quantized() { 1.25 } else { 2.0 };
    let launch = start(&LinearLaunch {
        ty,
        x: upload(gpu, &vec![0; n_rows * WIDTH * 2])?,
        meta: upload(gpu, &vec![0; n_rows * WIDTH / 4])?,
        x_chunks: packed.n_chunks(),
        ending: Ending::Store,
        rows_in: DevicePtr::NULL,
        rows_out: DevicePtr::NULL,
        out: gpu.alloc(n_rows * WIDTH * 4)?,
        out_stride: WIDTH,
        n_rows,
        one: Group {
            weight: upload(gpu, &packed.weight)?,
            scales: upload(gpu, &packed.scales)?,
            bias: DevicePtr::NULL,
            n_out: WIDTH,
            n_chunks: packed.n_chunks(),
            scale: 1.0,
        },
        groups: DevicePtr::NULL,
        offsets: DevicePtr::NULL,
        n_groups: 0,
    });
    let weight = (packed.weight.len() + packed.scales.len()) as f64;
    let bytes = weight + (n_rows * WIDTH) as f64 * (per_value + 4.0);
    let operations = 2.0 * (n_rows * WIDTH * WIDTH) as f64;
    let shape = format!("{n_rows} rows, {WIDTH} x {WIDTH}");
    line(gpu, &launch, &shape, (bytes, operations))
}

/// 32 heads over 8 kv heads, `n_rows` from `start`, for so many sequences.
fn attention(
    gpu: &mut BareGpu,
    n_rows: usize,
    start: usize,
    n_sequences: usize,
) -> Result<(), Failure> {
    let (n_heads, n_kv_heads, block_size, context) = (32, 8, 16, start + n_rows);
    let n_blocks = context.div_ceil(block_size);
    let rows = (0..n_sequences).map(|i| cuda::SequenceRows {
        first_row: (i * n_rows) as u32,
        n_rows: n_rows as u32,
        start: start as u32,
        table: (i * n_blocks) as i32,
    });
    let rows: Vec<cuda::SequenceRows> = rows.collect();
    let plan = cuda::plan(&rows, n_heads / n_kv_heads, None);
    let items = plan.item_bytes();
    let sequences: Vec<u8> = rows.iter().flat_map(|row| row.fields().padded(4)).collect();
    let tables = (0..(n_sequences * n_blocks) as u32).flat_map(u32::to_le_bytes);
    let tables: Vec<u8> = tables.collect();
    let cache = vec![0_u8; n_sequences * n_blocks * block_size * n_kv_heads * DIM * 2];
    let q = vec![0_u8; n_sequences * n_rows * n_heads * DIM * 4];
    let n_parts = plan.n_parts * n_kv_heads;
    let op = Attention {
        q: upload(gpu, &q)?,
        keys: upload(gpu, &cache)?,
        values: upload(gpu, &cache)?,
        sequences: upload(gpu, &sequences)?,
        tables: upload(gpu, &tables)?,
        items: upload(gpu, &items)?,
        out: gpu.alloc(q.len())?,
        part_max: gpu.alloc(n_parts * 4)?,
        part_sum: gpu.alloc(n_parts * 4)?,
        part_out: gpu.alloc(n_parts * DIM * 4)?,
        n_heads,
        n_kv_heads,
        head_dim: DIM,
        block_size,
        scoring: cuda::Scoring {
            scale: 0.1,
            ..cuda::Scoring::default()
        },
    };
    let seen: usize = (0..n_rows).map(|i| start + i + 1).sum();
    let bytes = (cache.len() * 2 + q.len() * 2) as f64;
    let operations = (n_sequences * 4 * seen * n_heads * DIM) as f64;
    let shape = format!("{n_sequences} sequences, {n_rows} rows each, context {context}");
    let launch = cuda::paged_attention(&op, plan.items.len());
    line(gpu, &launch, &shape, (bytes, operations))
}
