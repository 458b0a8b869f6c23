//! Linear layers: right, and the same bits for a row whatever surrounds it.

mod common;

use std::collections::HashMap;

use common::{DENSE, QUANTIZED, Rng, assert_same, devices, error};
use half::bf16;
use kernels::{
    Buffer, Device, Linear, LinearCall, Numerics, PackError, WeightSource, WeightType, dequantize,
    reference,
};

fn run(device: &Device, weight: &Linear, x: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    let n_rows = x.len() / weight.n_in();
    let bias = bias.map(|bias| Buffer::from_slice(device, bias));
    let mut out = Buffer::zeros(device, n_rows * weight.n_out());
    device.linear_into(
        &Buffer::from_slice(device, x),
        n_rows,
        &mut [LinearCall {
            weight,
            bias: bias.as_ref(),
            out: &mut out,
        }],
    );
    out.read(0..out.len()).into_owned()
}

/// The same sums in plain f32: what rounding alone costs.
fn naive_error(source: &WeightSource<'_>, x: &[f32], exact: &[f64]) -> f64 {
    let mut weights = vec![0.0; source.n_out * source.n_in];
    dequantize(source.ty, &source.bytes, &mut weights);
    let mut out = Vec::new();
    for x in x.chunks_exact(source.n_in) {
        for weights in weights.chunks_exact(source.n_in) {
            let products = x.iter().zip(weights).map(|(x, w)| x * w);
            out.push(products.sum::<f32>());
        }
    }
    error(&out, exact)
}

fn check_f32(ty: WeightType, n_out: usize, n_in: usize, n_rows: usize) {
    let mut rng = Rng(n_out as u64 * 31 + n_in as u64);
    let source = rng.weights(ty, n_out, n_in);
    let x = rng.values(n_rows * n_in);
    check(&source, Numerics::F32, &x, &x);
}

/// As near to the sums over `seen`, which is what the layer makes of `x`, as plain f32 comes, and
/// the same bits on every device of one arithmetic.
fn check(source: &WeightSource<'_>, numerics: Numerics, x: &[f32], seen: &[f32]) {
    let exact = reference::linear(source, seen, None);
    let bound = 2.0 * naive_error(source, seen, &exact) + 1e-6;
    let mut first: HashMap<String, Vec<f32>> = HashMap::new();
    for device in devices() {
        let (ty, n_out, n_in) = (source.ty, source.n_out, source.n_in);
        let n_rows = x.len() / n_in;
        let what = format!("{ty:?} {n_rows}x{n_in}x{n_out} on {}", device.describe());
        let weight = Linear::pack(&device, source, numerics).expect("a sound source");
        let out = run(&device, &weight, x, None);
        let worst = error(&out, &exact);
        assert!(worst <= bound, "{what}: error {worst}, bound {bound}");
        // Tiles add up bf16 in an order of their own.
        let arithmetic = match numerics {
            Numerics::Native => device.arithmetic(),
            Numerics::F32 => String::new(),
        };
        let first = first.entry(arithmetic).or_insert_with(|| out.clone());
        assert_same(&out, first, &what);
    }
}

#[test]
fn dense_layers_match_the_reference_at_any_shape() {
    for ty in DENSE {
        for (n_out, n_in) in [
            (1, 1),
            (16, 8),
            (17, 33),
            (64, 64),
            (160, 64),
            (65, 160),
            (528, 7),
        ] {
            for n_rows in [1, 2, 5, 13] {
                check_f32(ty, n_out, n_in, n_rows);
            }
        }
    }
}

fn rounded_to_bf16(x: &[f32]) -> Vec<f32> {
    x.iter().map(|&x| bf16::from_f32(x).to_f32()).collect()
}

#[test]
fn bf16_layers_meet_rounded_activations_with_the_same_bits() {
    for (n_out, n_in, n_rows) in [
        (1, 1, 1),
        (17, 33, 2),
        (64, 64, 3),
        (160, 1500, 5),
        (65, 2050, 13),
    ] {
        let mut rng = Rng(n_in as u64);
        let source = rng.weights(WeightType::BF16, n_out, n_in);
        let x = rng.values(n_rows * n_in);
        check(&source, Numerics::Native, &x, &rounded_to_bf16(&x));
    }
}

#[test]
fn widened_quantized_layers_match_the_reference() {
    for ty in QUANTIZED {
        let step = ty.block_elements();
        for (n_out, blocks) in [(1, 1), (33, 2), (80, 3)] {
            for n_rows in [1, 6] {
                check_f32(ty, n_out, blocks * step, n_rows);
            }
        }
    }
}

#[test]
fn native_layers_match_the_integer_model() {
    for ty in QUANTIZED {
        let step = ty.block_elements();
        for (n_out, blocks, n_rows) in [(1, 1, 1), (33, 2, 3), (80, 3, 9), (100, 5, 2)] {
            let n_in = blocks * step;
            let mut rng = Rng(n_out as u64);
            let source = rng.weights(ty, n_out, n_in);
            let mut x = rng.values(n_rows * n_in);
            // One group of nothing, one of extremes.
            x[..32].fill(0.0);
            for (i, x) in x[n_in - 32..n_in].iter_mut().enumerate() {
                *x = if i % 2 == 0 { 127.0 } else { -127.0 };
            }
            let exact = reference::linear_native(&source, &x);
            let size = exact.iter().fold(0.0_f64, |size, x| size.max(x.abs()));
            let mut first: Option<Vec<f32>> = None;
            for device in devices() {
                let what = format!("{ty:?} {n_rows}x{n_in}x{n_out} on {}", device.describe());
                let weight = Linear::pack(&device, &source, Numerics::Native).unwrap();
                let out = run(&device, &weight, &x, None);
                let worst = error(&out, &exact);
                assert!(worst <= 2e-6 * size, "{what}: error {worst} of {size}");
                assert_same(&out, first.get_or_insert_with(|| out.clone()), &what);
            }
        }
    }
}

#[test]
fn a_row_has_the_same_bits_in_any_company() {
    for ty in DENSE.into_iter().chain(QUANTIZED) {
        for numerics in [Numerics::Native, Numerics::F32] {
            let (n_out, n_in, n_rows) = (150, 512, 11);
            let mut rng = Rng(5);
            let source = rng.weights(ty, n_out, n_in);
            let x = rng.values(n_rows * n_in);
            for device in devices() {
                let what = format!("{ty:?} {numerics:?} on {}", device.describe());
                let weight = Linear::pack(&device, &source, numerics).unwrap();
                let all = run(&device, &weight, &x, None);
                for row in [0, 3, 10] {
                    let alone = run(&device, &weight, &x[row * n_in..][..n_in], None);
                    assert_same(&alone, &all[row * n_out..][..n_out], &what);
                }
                let some = run(&device, &weight, &x[2 * n_in..9 * n_in], None);
                assert_same(&some, &all[2 * n_out..9 * n_out], &what);
            }
        }
    }
}

#[test]
fn several_layers_in_one_region_with_biases() {
    let mut rng = Rng(9);
    let (n_in, n_rows) = (64, 3);
    let types = [WeightType::Q4_1, WeightType::BF16, WeightType::Q8_0];
    let sources = types.map(|ty| rng.weights(ty, 24 + 40 * (ty as usize % 2), n_in));
    let x = rng.values(n_rows * n_in);
    for device in devices() {
        let layers = sources
            .each_ref()
            .map(|source| Linear::pack(&device, source, Numerics::Native).unwrap());
        let bias = rng.values(layers[1].n_out());
        let bias_buffer = Buffer::from_slice(&device, &bias);
        let mut outs = layers
            .each_ref()
            .map(|layer| Buffer::zeros(&device, n_rows * layer.n_out() + 5));
        let mut calls: Vec<LinearCall<'_>> = layers
            .iter()
            .zip(&mut outs)
            .map(|(weight, out)| LinearCall {
                weight,
                bias: None,
                out,
            })
            .collect();
        calls[1].bias = Some(&bias_buffer);
        device.linear_into(&Buffer::from_slice(&device, &x), n_rows, &mut calls);
        for (i, (layer, out)) in layers.iter().zip(&outs).enumerate() {
            let bias = (i == 1).then_some(&bias[..]);
            let alone = run(&device, layer, &x, bias);
            assert_same(&out.read(0..alone.len()), &alone, "beside other layers");
            assert!(out.read(alone.len()..out.len()).iter().all(|&x| x == 0.0));
        }
        let exact = reference::linear(&sources[1], &rounded_to_bf16(&x), Some(&bias));
        let out = outs[1].read(0..exact.len());
        assert!(error(&out, &exact) < 1e-4);
    }
}

#[test]
fn what_is_not_a_number_is_not_hidden() {
    let mut rng = Rng(3);
    let sources = [WeightType::Q4_0, WeightType::BF16].map(|ty| rng.weights(ty, 20, 64));
    for (device, source) in (devices().iter()).flat_map(|d| sources.iter().map(move |s| (d, s))) {
        let weight = Linear::pack(device, source, Numerics::Native).unwrap();
        // The last would become a number if it were rounded like one.
        for poison in [f32::NAN, f32::INFINITY, f32::from_bits(0x7fff_ffff)] {
            let mut x = rng.values(2 * 64);
            x[70] = poison;
            let out = run(device, &weight, &x, None);
            assert!(out[..20].iter().all(|x| x.is_finite()), "the other row");
            assert!(out[20..].iter().all(|x| x.is_nan()), "{poison} was hidden");
        }
    }
}

#[test]
fn packed_layers_take_about_the_bytes_of_the_file() {
    let device = devices().remove(0);
    let mut rng = Rng(4);
    for ty in DENSE.into_iter().chain(QUANTIZED) {
        let source = rng.weights(ty, 64, 512);
        let packed = Linear::pack(&device, &source, Numerics::Native).unwrap();
        let ratio = packed.n_bytes() as f64 / source.bytes.len() as f64;
        assert!((1.0..1.05).contains(&ratio), "{ty:?}: {ratio}");
        assert_eq!((packed.n_out(), packed.n_in()), (64, 512));
    }
}

#[test]
fn weights_of_wrong_sizes_are_errors() {
    let device = devices().remove(0);
    let mut source = Rng(1).weights(WeightType::Q4_K, 3, 512);
    source.n_in = 384;
    let error = Linear::pack(&device, &source, Numerics::Native).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Q4_K needs rows of a multiple of 256 values, found 384"
    );
    source.n_in = 256;
    let error = Linear::pack(&device, &source, Numerics::Native).unwrap_err();
    assert!(matches!(
        error,
        PackError::ByteLength {
            expected: 432,
            found: 864,
            ..
        }
    ));
}

#[test]
fn many_rows_and_many_callers_change_nothing() {
    // Enough groups that quantizing activations is shared between threads too.
    let (n_out, n_in, n_rows) = (100, 512, 70);
    let mut rng = Rng(6);
    let source = rng.weights(WeightType::Q4_1, n_out, n_in);
    let x = rng.values(n_rows * n_in);
    for device in devices() {
        let weight = Linear::pack(&device, &source, Numerics::Native).unwrap();
        let all = run(&device, &weight, &x, None);
        let row = |row: usize| {
            let alone = run(&device, &weight, &x[row * n_in..][..n_in], None);
            assert_same(&alone, &all[row * n_out..][..n_out], "a row alone");
        };
        std::thread::scope(|scope| {
            scope.spawn(|| (0..n_rows).for_each(row));
            scope.spawn(|| (0..n_rows).rev().for_each(row));
            let again = run(&device, &weight, &x, None);
            assert_same(&again, &all, "beside other callers");
        });
    }
}
