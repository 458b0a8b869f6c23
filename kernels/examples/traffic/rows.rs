//! Ops on rows and values, and writing to the cache.

use kernels::cuda::{self, Copied, DevicePtr, KvScales, KvStorage, NormRows, Rope, Rows16};
use kernels::{Activation, NormKind, RopeStyle, WeightType};

use crate::{Counted, noise};

const N_ROWS: usize = 8;
const WIDTH: usize = 4096;
const SHAPE: &str = "8 rows of 4096";

pub(crate) fn count(on: &mut Counted) {
    let gpu = &mut on.gpu;
    let n = N_ROWS * WIDTH;
    let (x, out) = (gpu.upload(&noise(n)), gpu.upload(&noise(n)));
    let weights = gpu.upload(&noise(WIDTH));
    let rows = gpu.upload(&[5_u32, 0, 7, 2, 1, 3, 6, 4]);
    for launch in [
        cuda::fill(out, 0.5, n),
        cuda::add_scaled(out, x, 0.5, n),
        cuda::scale_softcap(out, 0.5, Some(30.0), n),
        cuda::clamp(out, 0.5, n),
        cuda::activate(Activation::Silu, x, out, n, out),
        cuda::gather_rows(x, WIDTH, rows, N_ROWS, out),
        cuda::scatter_rows(x, WIDTH, rows, N_ROWS, out),
        cuda::adjust_rows(out, WIDTH, (rows, N_ROWS), weights, weights),
        cuda::scatter_add_rows(x, WIDTH, rows, weights, N_ROWS, out),
        cuda::add_gated_rows(x, weights, WIDTH, N_ROWS, out),
        cuda::norm_rows(
            &NormRows {
                kind: NormKind::Rms,
                x,
                residual: out,
                scale: 1.0,
                weight: weights,
                bias: DevicePtr::NULL,
                eps: 1e-5,
                width: WIDTH,
                out: x,
            },
            N_ROWS,
        ),
    ] {
        on.count(SHAPE, &launch);
    }
    let (codes, meta) = (on.gpu.alloc(n * 2), on.gpu.alloc(n / 4));
    for launch in [
        cuda::convert_rows(Rows16::Bf16, x, WIDTH, N_ROWS, codes),
        cuda::convert_rows(Rows16::F16, x, WIDTH, N_ROWS, codes),
        cuda::quantize_rows(x, WIDTH, N_ROWS, codes, meta),
    ] {
        on.count(SHAPE, &launch);
    }
    copies(on);
    embed(on);
    for storage in [
        KvStorage::F32,
        KvStorage::Bf16,
        KvStorage::Int8,
        KvStorage::Fp8,
    ] {
        rope(on, storage);
    }
}

fn copies(on: &mut Counted) {
    // The shared part of latent keys, to all 16 heads.
    let side = |at, stride, offset| Copied { at, stride, offset };
    let from = side(on.gpu.upload(&noise(N_ROWS * 64)), 64, 0);
    let to = side(on.gpu.alloc(N_ROWS * 16 * 192 * 4), 192, 128);
    let launch = cuda::strided_copy(from, 16, to, N_ROWS * 16, 64);
    on.count("64 values to each of 8 x 16 heads", &launch);
    // Two layers of 8 blocks of 16 positions, 8 heads of 128 in bf16.
    let (n_layers, block) = (2, 16 * 8 * 128 * 2);
    let cache = on.gpu.upload(&vec![0_u8; n_layers * 8 * block]);
    let pairs = on.gpu.upload(&[1_u32, 4, 2, 0]);
    let launch = cuda::copy_blocks(cache, n_layers, 8 * block, block, pairs, 2);
    on.count("2 blocks of 32 KiB in 2 layers", &launch);
}

fn embed(on: &mut Counted) {
    let (n_out, n_in) = (64, 1024);
    let tokens = cuda::TokensAt::given(on.gpu.upload(&[5_u32, 0, 63, 17, 1, 30, 6, 4]));
    let out = on.gpu.alloc(N_ROWS * n_in * 4);
    for (ty, shape) in [
        (WeightType::BF16, "8 tokens of 1024 in bf16"),
        (WeightType::Q4_K, "8 tokens of 1024 in Q4_K"),
    ] {
        let packed = crate::linear::pack(ty, n_out, n_in);
        let (table, scales) = (on.gpu.upload(&packed.weight), on.gpu.upload(&packed.scales));
        let launch = cuda::embed(ty, table, scales, n_in, tokens, N_ROWS, out);
        on.count(shape, &launch);
    }
}

fn rope(on: &mut Counted, storage: KvStorage) {
    let (n_heads, n_kv_heads, head_dim, block_size) = (8, 2, 128, 16);
    let gpu = &mut on.gpu;
    let angles = noise(N_ROWS * head_dim / 2);
    let n_slots = 2 * n_kv_heads * block_size;
    let op = Rope {
        q: gpu.upload(&noise(N_ROWS * n_heads * head_dim)),
        k: gpu.upload(&noise(N_ROWS * n_kv_heads * head_dim)),
        v: gpu.upload(&noise(N_ROWS * n_kv_heads * head_dim)),
        cos: gpu.upload(&angles),
        sin: gpu.upload(&angles),
        slots: gpu.upload(&[9_u32, 10, 11, 12, 13, 14, 15, 16]),
        keys: gpu.alloc(n_slots * head_dim * 4),
        values: gpu.alloc(n_slots * head_dim * 4),
        scales: KvScales {
            keys: gpu.alloc(n_slots * 4),
            values: gpu.alloc(n_slots * 4),
        },
        storage,
        style: RopeStyle::Half,
        n_heads,
        n_kv_heads,
        head_dim,
        rotary_dim: head_dim,
        block_size,
    };
    let launch = cuda::rope_write_kv(&op, N_ROWS);
    on.count("8 rows, 8 heads of 128 over 2", &launch);
}
