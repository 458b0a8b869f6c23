//! Ops on rows and values.

use kernels::cuda::{self, Copied, DevicePtr, KvScales, KvStorage, NormRows, Rope, TokensAt};
use kernels::{
    Activation, NormKind, RopeAngles, RopeStyle, WeightSource, WeightType, dequantize, reference,
};

use crate::common::{DENSE, QUANTIZED, Rng, assert_same, error};
use crate::gpu::{CAPABILITIES, Gpu};

#[test]
fn norms_with_and_without_the_residual() {
    for (i, (width, n_rows)) in [(1, 1), (8, 3), (160, 7), (576, 5), (4099, 2)]
        .into_iter()
        .cycle()
        .take(15)
        .enumerate()
    {
        let mut rng = Rng(i as u64);
        let kind = [NormKind::Rms, NormKind::Layer][i % 2];
        let (x, residual) = (rng.values(width * n_rows), rng.values(width * n_rows));
        let (weight, bias) = (rng.values(width), rng.values(width));
        let (with_residual, with_bias) = (i % 3 > 0, i % 4 > 1);
        let scale = 0.3;
        let sum: Vec<f32> = if with_residual {
            let pairs = x.iter().zip(&residual);
            pairs.map(|(x, r)| x.mul_add(scale, *r)).collect()
        } else {
            x.clone()
        };
        let given = with_bias.then_some(&bias[..]);
        let exact = reference::norm(kind, &sum, &weight, given, 1e-5);
        let size = exact.iter().fold(1.0_f64, |size, x| size.max(x.abs()));
        let mut gpu = Gpu::new();
        let op = NormRows {
            kind,
            x: gpu.upload(&x),
            residual: if with_residual {
                gpu.upload(&residual)
            } else {
                DevicePtr::NULL
            },
            scale,
            weight: gpu.upload(&weight),
            bias: if with_bias {
                gpu.upload(&bias)
            } else {
                DevicePtr::NULL
            },
            eps: 1e-5,
            width,
            out: gpu.alloc(x.len() * 4),
        };
        let counters = gpu.run(&cuda::norm_rows(&op, n_rows));
        let out: Vec<f32> = gpu.download(op.out, x.len());
        assert!(
            error(&out, &exact) <= 1e-6 * size,
            "{kind:?}, width {width}"
        );
        if with_residual {
            let summed: Vec<f32> = gpu.download(op.residual, x.len());
            assert_same(&summed, &sum, "residual");
        }
        if width % 8 == 0 && width > 100 {
            assert!(counters.sector_ratio() < 1.1, "{}", counters.sector_ratio());
        }
        // In place, and a row alone.
        let last = gpu.upload(&sum[(n_rows - 1) * width..]);
        let alone = NormRows {
            x: last,
            residual: DevicePtr::NULL,
            out: last,
            ..op
        };
        gpu.run(&cuda::norm_rows(&alone, 1));
        let alone: Vec<f32> = gpu.download(last, width);
        assert_same(
            &alone,
            &out[(n_rows - 1) * width..],
            "a row alone, in place",
        );
    }
}

#[test]
fn activations_alone_and_as_gates() {
    let all = [
        Activation::Silu,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::QuickGelu,
        Activation::Relu,
        Activation::ClampedSwish {
            alpha: 1.702,
            limit: 2.0,
        },
    ];
    let n = 3001;
    let mut rng = Rng(12);
    let x: Vec<f32> = rng.values(n).iter().map(|x| x * 5.0).collect();
    let up = rng.values(n);
    for activation in all {
        let mut gpu = Gpu::new();
        let (gate, up_at, out) = (gpu.upload(&x), gpu.upload(&up), gpu.alloc(n * 4));
        gpu.run(&cuda::activate(activation, gate, up_at, n, out));
        for (i, out) in gpu.download::<f32>(out, n).into_iter().enumerate() {
            let exact = reference::gate(activation, x[i], up[i]);
            let bound = 1e-5 * exact.abs() + 2e-7 * f64::from((x[i] * up[i]).abs()) + 1e-30;
            let error = (f64::from(out) - exact).abs();
            assert!(error <= bound, "{activation:?} of {}: {error:e}", x[i]);
        }
        if matches!(activation, Activation::ClampedSwish { .. }) {
            continue;
        }
        gpu.run(&cuda::activate(activation, gate, DevicePtr::NULL, n, gate));
        for (i, out) in gpu.download::<f32>(gate, n).into_iter().enumerate() {
            let exact = reference::activate(activation, x[i]);
            let bound = 1e-5 * exact.abs() + 2e-7 * f64::from(x[i].abs()) + 1e-30;
            assert!((f64::from(out) - exact).abs() <= bound, "{activation:?}");
        }
    }
}

#[test]
fn values_one_by_one() {
    let n = 1027;
    let (x, y) = (Rng(1).values(n), Rng(2).values(n));
    let mut gpu = Gpu::new();
    let (at, other) = (gpu.upload(&x), gpu.upload(&y));
    gpu.run(&cuda::add_scaled(at, other, 0.6, n));
    let sum: Vec<f32> = x.iter().zip(&y).map(|(x, y)| y.mul_add(0.6, *x)).collect();
    assert_same(&gpu.download::<f32>(at, n), &sum, "add_scaled");
    gpu.run(&cuda::clamp(at, 0.5, n));
    let clamped: Vec<f32> = sum.iter().map(|x| x.clamp(-0.5, 0.5)).collect();
    assert_same(&gpu.download::<f32>(at, n), &clamped, "clamp");
    gpu.run(&cuda::scale_softcap(at, 0.25, None, n));
    let scaled: Vec<f32> = clamped.iter().map(|x| x * 0.25).collect();
    assert_same(&gpu.download::<f32>(at, n), &scaled, "scale");
    gpu.run(&cuda::scale_softcap(other, 40.0, Some(30.0), n));
    let capped = y
        .iter()
        .map(|&y| 30.0 * (f64::from(y * 40.0) / 30.0).tanh());
    let capped: Vec<f64> = capped.collect();
    assert!(error(&gpu.download(other, n), &capped) < 3e-5);
    gpu.run(&cuda::fill(at, 2.0, n - 1));
    let filled: Vec<f32> = gpu.download(at, n);
    assert!(filled[..n - 1].iter().all(|&x| x == 2.0));
    assert_eq!(filled[n - 1], scaled[n - 1]);
}

#[test]
fn rows_go_where_they_belong() {
    let (n_rows, width) = (9, 333);
    let (x, out) = (Rng(1).values(n_rows * width), Rng(2).values(n_rows * width));
    let mut gpu = Gpu::new();
    let x_at = gpu.upload(&x);
    let rows = [3_u32, 3, 8, 0];
    let (rows_at, gathered) = (gpu.upload(&rows), gpu.alloc(4 * width * 4));
    gpu.run(&cuda::gather_rows(x_at, width, rows_at, 4, gathered));
    let found: Vec<f32> = gpu.download(gathered, 4 * width);
    for (found, row) in found.chunks(width).zip(rows) {
        assert_same(found, &x[row as usize * width..][..width], "gathered");
    }
    let rows = [1_u32, 4, 8];
    let weights = [0.5_f32, 2.0, -1.0];
    let (rows_at, weights_at, out_at) = (gpu.upload(&rows), gpu.upload(&weights), gpu.upload(&out));
    gpu.run(&cuda::scatter_add_rows(
        x_at, width, rows_at, weights_at, 3, out_at,
    ));
    let mut expected = out.clone();
    for (i, (&row, weight)) in rows.iter().zip(weights).enumerate() {
        for k in 0..width {
            let to = &mut expected[row as usize * width + k];
            *to = x[i * width + k].mul_add(weight, *to);
        }
    }
    assert_same(
        &gpu.download::<f32>(out_at, out.len()),
        &expected,
        "scattered",
    );
    let gate = Rng(5).values(n_rows);
    let (gate_at, out_at) = (gpu.upload(&gate), gpu.upload(&out));
    gpu.run(&cuda::add_gated_rows(x_at, gate_at, width, n_rows, out_at));
    let exact = (0..x.len()).map(|i| {
        let gate = 1.0 / (1.0 + (-f64::from(gate[i / width])).exp());
        f64::from(out[i]) + gate * f64::from(x[i])
    });
    let exact: Vec<f64> = exact.collect();
    assert!(error(&gpu.download(out_at, out.len()), &exact) < 2e-6);
}

#[test]
fn pieces_and_blocks_are_copied() {
    let mut gpu = Gpu::new();
    let shared: Vec<f32> = (0..6).map(|i| i as f32).collect();
    let to = gpu.upload(&[-1.0_f32; 36]);
    let from = Copied {
        at: gpu.upload(&shared),
        stride: 2,
        offset: 0,
    };
    gpu.run(&cuda::strided_copy(
        from,
        2,
        Copied {
            at: to,
            stride: 6,
            offset: 3,
        },
        6,
        2,
    ));
    for (i, piece) in gpu.download::<f32>(to, 36).chunks(6).enumerate() {
        let s = (i / 2 * 2) as f32;
        assert_eq!(piece, [-1.0, -1.0, -1.0, s, s + 1.0, -1.0]);
    }
    // Two layers of five blocks of 48 bytes.
    let cache: Vec<u8> = (0..480).map(|i| (i % 251) as u8).collect();
    let (at, pairs) = (gpu.upload(&cache), gpu.upload(&[1_u32, 4, 2, 0]));
    gpu.run(&cuda::copy_blocks(at, 2, 240, 48, pairs, 2));
    let mut expected = cache.clone();
    for layer in [0, 240] {
        for (from, to) in [(1, 4), (2, 0)] {
            expected.copy_within(layer + from * 48..layer + (from + 1) * 48, layer + to * 48);
        }
    }
    assert_eq!(gpu.download::<u8>(at, 480), expected);
}

#[test]
fn tables_of_every_format_give_their_rows_exactly() {
    for ty in DENSE.into_iter().chain(QUANTIZED) {
        let (n_out, n_in) = (37, 512);
        let source: WeightSource<'_> = Rng(3).weights(ty, n_out, n_in);
        let packed = cuda::pack(&source).expect("a weight of this shape");
        let mut all = vec![0.0; n_out * n_in];
        dequantize(ty, &source.bytes, &mut all);
        let tokens = [36_u32, 0, 17, 17];
        let mut gpu = Gpu::new();
        let (table, scales) = (gpu.upload(&packed.weight), gpu.upload(&packed.scales));
        let (tokens_at, out) = (gpu.upload(&tokens), gpu.alloc(4 * n_in * 4));
        let given = TokensAt::given(tokens_at);
        gpu.run(&cuda::embed(ty, table, scales, n_in, given, 4, out));
        let found: Vec<f32> = gpu.download(out, 4 * n_in);
        for (found, token) in found.chunks(n_in).zip(tokens) {
            let expected = &all[token as usize * n_in..][..n_in];
            assert_same(found, expected, &format!("{ty:?}"));
        }
    }
}

/// Tokens that were drawn by the step before and have not been to the host.
#[test]
fn tokens_come_from_answers_where_there_are_any() {
    let (n_out, n_in) = (37, 64);
    let source: WeightSource<'_> = Rng(5).weights(WeightType::F32, n_out, n_in);
    let packed = cuda::pack(&source).expect("a weight of this shape");
    let mut all = vec![0.0; n_out * n_in];
    dequantize(WeightType::F32, &source.bytes, &mut all);
    // Of three answers the second was left to the host.
    let answer = |is_done: u32, token: u32| {
        let mut words = vec![0xdead_beef_u32; cuda::ANSWER_BYTES / 4];
        (words[2], words[3]) = (is_done, token);
        words
    };
    let answers = [answer(1, 36), answer(0, 99_999), answer(1, 5)].concat();
    let mut gpu = Gpu::new();
    let (table, scales) = (gpu.upload(&packed.weight), gpu.upload(&packed.scales));
    let none = u32::MAX;
    let tokens = TokensAt {
        given: gpu.upload(&[7_u32, 0, 0, 0, 8]),
        drawn: gpu.upload(&[none, 2, 0, 1, none]),
        answers: gpu.upload(&answers),
    };
    let out = gpu.alloc(5 * n_in * 4);
    gpu.run(&cuda::embed(
        WeightType::F32,
        table,
        scales,
        n_in,
        tokens,
        5,
        out,
    ));
    let found: Vec<f32> = gpu.download(out, 5 * n_in);
    for (found, token) in found.chunks(n_in).zip([7, 5, 36, 0, 8]) {
        assert_same(found, &all[token * n_in..][..n_in], &format!("{token}"));
    }
}

/// What a cache of this type keeps of a value.
fn stored(storage: KvStorage, x: f64) -> f32 {
    match storage {
        KvStorage::Bf16 => half::bf16::from_f32(x as f32).to_f32(),
        _ => x as f32,
    }
}

/// Reads stored values.
pub(crate) fn load(gpu: &Gpu, storage: KvStorage, at: DevicePtr, n: usize) -> Vec<f32> {
    match storage {
        KvStorage::F32 => gpu.download(at, n),
        KvStorage::Bf16 => {
            let found: Vec<half::bf16> = gpu.download(at, n);
            found.iter().map(|x| x.to_f32()).collect()
        }
        KvStorage::Int8 | KvStorage::Fp8 => panic!("see kv.rs"),
    }
}

#[test]
fn rotation_writes_the_cache() {
    let cases = [
        (KvStorage::F32, RopeStyle::Half, 64, 64),
        (KvStorage::Bf16, RopeStyle::Interleaved, 64, 32),
        (KvStorage::F32, RopeStyle::Half, 80, 20),
        (KvStorage::Bf16, RopeStyle::Half, 8, 0),
    ];
    for capability in CAPABILITIES {
        for (storage, style, head_dim, rotary_dim) in cases {
            let (n_rows, n_heads, n_kv_heads, block_size, n_blocks) = (5, 4, 2, 16, 4);
            let mut rng = Rng(9);
            let q = rng.values(n_rows * n_heads * head_dim);
            let k = rng.values(n_rows * n_kv_heads * head_dim);
            let v: Vec<f32> = rng.values(k.len()).iter().map(|x| x * 300.0).collect();
            let angles = rng.values(n_rows * rotary_dim / 2);
            let cos: Vec<f32> = angles.iter().map(|x| x.cos()).collect();
            let sin: Vec<f32> = angles.iter().map(|x| x.sin()).collect();
            let slots = [63_u32, 0, 17, 16, 5];
            let mut gpu = Gpu::of(capability);
            let len = n_blocks * n_kv_heads * block_size * head_dim;
            // Zeros in every type.
            let cache = vec![0_u8; len * 4];
            let op = Rope {
                q: gpu.upload(&q),
                k: gpu.upload(&k),
                v: gpu.upload(&v),
                cos: gpu.upload(&cos),
                sin: gpu.upload(&sin),
                slots: gpu.upload(&slots),
                keys: gpu.upload(&cache),
                values: gpu.upload(&cache),
                scales: KvScales::default(),
                storage,
                style,
                n_heads,
                n_kv_heads,
                head_dim,
                rotary_dim,
                block_size,
            };
            gpu.run(&cuda::rope_write_kv(&op, n_rows));
            let angles = RopeAngles {
                cos: &cos,
                sin: &sin,
                rotary_dim,
                style,
            };
            let exact = reference::rope(&q, n_heads, head_dim, angles);
            assert!(error(&gpu.download(op.q, q.len()), &exact) < 1e-6);
            let exact = reference::rope(&k, n_kv_heads, head_dim, angles);
            check_cache(&gpu, &op, len, &slots, &exact, &v);
        }
    }
}

/// Rotated keys and plain values are where their slots are, and nowhere else.
fn check_cache(gpu: &Gpu, op: &Rope, len: usize, slots: &[u32], k: &[f64], v: &[f32]) {
    let keys = load(gpu, op.storage, op.keys, len);
    let values = load(gpu, op.storage, op.values, len);
    // A key that is rounded after another rounding may go the other way.
    let relative = match op.storage {
        KvStorage::Bf16 => 1.0 / 128.0,
        _ => 0.0,
    };
    let absolute = if relative == 0.0 { 1e-6 } else { 1.0 / 512.0 };
    let mut n_written = 0;
    for (row, &slot) in slots.iter().enumerate() {
        let (block, offset) = (slot as usize / op.block_size, slot as usize % op.block_size);
        for head in 0..op.n_kv_heads {
            let run = (block * op.n_kv_heads + head) * op.block_size + offset;
            for d in 0..op.head_dim {
                let from = (row * op.n_kv_heads + head) * op.head_dim + d;
                let at = run * op.head_dim + d;
                let key = stored(op.storage, k[from]);
                let error = (keys[at] - key).abs();
                assert!(
                    error <= relative * key.abs() + absolute,
                    "{} {key}",
                    keys[at]
                );
                assert_eq!(values[at], stored(op.storage, f64::from(v[from])));
                n_written += usize::from(values[at] != 0.0);
            }
        }
    }
    let n_all = values.iter().filter(|&&x| x != 0.0).count();
    assert_eq!(n_all, n_written);
}
