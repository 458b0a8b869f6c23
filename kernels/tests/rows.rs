//! Ops on rows and values.

mod common;

use common::{Rng, assert_same, devices, error};
use kernels::{Activation, Buffer, Norm, NormKind, StridedCopy, reference};

#[test]
fn no_rows_are_nothing_to_do() {
    for device in devices() {
        let weight = Buffer::from_slice(&device, &[1.0; 64]);
        let norm = Norm {
            kind: NormKind::Rms,
            weight: &weight,
            bias: None,
            eps: 1e-5,
        };
        let (x, mut out) = (Buffer::zeros(&device, 0), Buffer::zeros(&device, 64));
        device.norm_into(&x, norm, 0, &mut out);
        assert!(out.read(0..64).iter().all(|&x| x == 0.0));
    }
}

#[test]
fn norms_alone_in_place_and_with_the_residual() {
    for (i, (width, n_rows)) in [(1, 1), (8, 3), (64, 1), (160, 7), (576, 65), (4099, 9)]
        .into_iter()
        .cycle()
        .take(18)
        .enumerate()
    {
        let kind = if i < 6 {
            NormKind::Rms
        } else {
            NormKind::Layer
        };
        let mut rng = Rng(width as u64);
        let x = rng.values(width * n_rows);
        let residual = rng.values(width * n_rows);
        let (weight, bias) = (rng.values(width), rng.values(width));
        let scale = if i % 2 == 0 { 1.0 } else { 0.3 };
        let sum: Vec<f32> = x
            .iter()
            .zip(&residual)
            .map(|(x, r)| x.mul_add(scale, *r))
            .collect();
        let given = (i >= 12).then_some(&bias[..]);
        // A row of one value has no spread: its difference from its mean is rounding.
        let eps = 1e-5;
        let exact = reference::norm(kind, &sum, &weight, given, eps);
        let size = exact.iter().fold(1.0_f64, |size, x| size.max(x.abs()));
        let mut first: Option<Vec<f32>> = None;
        for device in devices() {
            let buffer = |values: &[f32]| Buffer::from_slice(&device, values);
            let (weight, bias) = (buffer(&weight), buffer(&bias));
            let norm = Norm {
                kind,
                weight: &weight,
                bias: given.map(|_| &bias),
                eps,
            };
            let mut summed = buffer(&residual);
            let mut out = Buffer::zeros(&device, x.len() + 3);
            device.add_norm_into(&mut summed, &buffer(&x), scale, norm, n_rows, &mut out);
            assert_same(&summed.read(0..x.len()), &sum, "residual");
            let out = out.read(0..x.len()).into_owned();
            assert!(
                error(&out, &exact) <= 6e-7 * size,
                "{kind:?}, width {width}"
            );
            assert_same(&out, first.get_or_insert_with(|| out.clone()), "norm");

            let mut alone = Buffer::zeros(&device, width);
            let last = buffer(&sum[(n_rows - 1) * width..]);
            device.norm_into(&last, norm, 1, &mut alone);
            let expected = &out[(n_rows - 1) * width..];
            assert_same(&alone.read(0..width), expected, "a row alone");
            let mut in_place = buffer(&sum);
            device.norm_in_place(&mut in_place, norm, n_rows);
            assert_same(&in_place.read(0..x.len()), &out, "in place");
        }
    }
}

/// Each with the error that it may have relative to its value and, for those that go through
/// approximations with an absolute error, relative to its argument.
const ACTIVATIONS: [(Activation, f64, f64); 5] = [
    (Activation::Silu, 5e-7, 0.0),
    (Activation::Gelu, 5e-7, 2e-7),
    (Activation::GeluTanh, 2e-5, 0.0),
    (Activation::QuickGelu, 4e-6, 0.0),
    (Activation::Relu, 1e-7, 0.0),
];

#[test]
fn activations_match_and_ignore_how_much_there_is() {
    let mut rng = Rng(12);
    let n = 60_003;
    let x: Vec<f32> = rng.values(n).iter().map(|x| x * 5.0).collect();
    let up = rng.values(n);
    let clamped = Activation::ClampedSwish {
        alpha: 1.702,
        limit: 2.0,
    };
    for (activation, relative, absolute) in ACTIVATIONS.into_iter().chain([(clamped, 4e-6, 0.0)]) {
        let mut first: Option<Vec<f32>> = None;
        for device in devices() {
            let gate = Buffer::from_slice(&device, &x);
            let up_buffer = Buffer::from_slice(&device, &up);
            let mut out = Buffer::zeros(&device, n);
            device.gate_into(activation, &gate, &up_buffer, n, &mut out);
            let out = out.read(0..n).into_owned();
            for i in 0..n {
                let exact = reference::gate(activation, x[i], up[i]);
                let bound = relative * exact.abs() + absolute * f64::from((x[i] * up[i]).abs());
                let error = (f64::from(out[i]) - exact).abs();
                assert!(
                    error <= bound + 1e-30,
                    "{activation:?} of {}: {error:e}",
                    x[i]
                );
            }
            assert_same(&out, first.get_or_insert_with(|| out.clone()), "activation");
            for len in [0, 1, 17, 1000] {
                let mut part = Buffer::zeros(&device, n);
                device.gate_into(activation, &gate, &up_buffer, len, &mut part);
                assert_same(&part.read(0..len), &out[..len], "a part");
                assert!(part.read(len..n).iter().all(|&x| x == 0.0));
            }
            if activation == clamped {
                continue;
            }
            // Alone it is the gate of ones, bit for bit.
            let ones = Buffer::from_slice(&device, &vec![1.0; n]);
            let (mut gated, mut alone) = (Buffer::zeros(&device, n), gate);
            device.gate_into(activation, &alone, &ones, n, &mut gated);
            device.activate(activation, &mut alone, n);
            assert_same(&alone.read(0..n), &gated.read(0..n), "alone");
        }
    }
}

#[test]
fn activations_of_extremes() {
    for device in devices() {
        for (activation, ..) in ACTIVATIONS {
            let gate = [0.0, -0.0, 1e4, -1e4, f32::INFINITY];
            let mut x = Buffer::from_slice(&device, &gate);
            device.activate(activation, &mut x, gate.len());
            let out = x.read(0..gate.len());
            assert_eq!(out[..3], [0.0, 0.0, 1e4], "{activation:?}");
            assert!(out[3].abs() < 1e-30, "{activation:?}: {}", out[3]);
            assert_eq!(out[4], f32::INFINITY, "{activation:?}");
        }
        let mut x = Buffer::from_slice(&device, &[f32::NAN]);
        device.activate(Activation::Silu, &mut x, 1);
        assert!(x.read(0..1)[0].is_nan());
    }
}

#[test]
fn scaling_capping_limiting_and_adding() {
    let n = 40_007;
    let x: Vec<f32> = Rng(7).values(n).iter().map(|x| x * 40.0).collect();
    let other = Rng(8).values(n);
    for device in devices() {
        let buffer = |values: &[f32]| Buffer::from_slice(&device, values);
        let check = |found: &Buffer, exact: &dyn Fn(usize) -> f64, bound: f64| {
            let exact: Vec<f64> = (0..n).map(exact).collect();
            assert!(error(&found.read(0..n), &exact) <= bound);
        };
        let wide = |i: usize| f64::from(x[i]);
        let mut found = buffer(&x);
        device.scale_softcap(&mut found, 0.25, None, n);
        check(&found, &|i| wide(i) * 0.25, 0.0);
        let mut found = buffer(&x);
        device.scale_softcap(&mut found, 0.5, Some(30.0), n);
        check(
            &found,
            &|i| 30.0 * (wide(i) * 0.5 / 30.0).tanh(),
            30.0 * 3e-7,
        );
        let mut found = buffer(&x);
        device.clamp(&mut found, 8.0, n);
        check(&found, &|i| wide(i).clamp(-8.0, 8.0), 0.0);
        let mut found = buffer(&x);
        device.add_scaled(&mut found, &buffer(&other), 0.6, n);
        check(
            &found,
            &|i| wide(i) + f64::from(0.6_f32) * f64::from(other[i]),
            8e-6,
        );
        device.fill(&mut found, 2.0, n - 1);
        assert_eq!(found.read(n - 2..n)[0], 2.0);
        let kept = found.read(n - 1..n)[0];
        device.copy(&buffer(&x), n - 1, &mut found);
        assert_same(&found.read(0..n - 1), &x[..n - 1], "copy");
        assert_eq!(found.read(n - 1..n)[0], kept);
    }
}

#[test]
fn gated_rows_add_up() {
    let (n_rows, width) = (13, 333);
    let (x, out) = (Rng(3).values(n_rows * width), Rng(4).values(n_rows * width));
    let gate = Rng(5).values(n_rows);
    let exact: Vec<f64> = (0..x.len())
        .map(|i| {
            let gate = 1.0 / (1.0 + (-f64::from(gate[i / width])).exp());
            f64::from(out[i]) + gate * f64::from(x[i])
        })
        .collect();
    let mut first: Option<Vec<f32>> = None;
    for device in devices() {
        let buffer = |values: &[f32]| Buffer::from_slice(&device, values);
        let mut found = buffer(&out);
        device.add_gated_rows(&buffer(&x), &buffer(&gate), width, n_rows, &mut found);
        let found = found.read(0..x.len()).into_owned();
        assert!(error(&found, &exact) <= 2e-6);
        assert_same(&found, first.get_or_insert_with(|| found.clone()), "gated");
    }
}

#[test]
fn pieces_go_where_they_belong() {
    // Three rows of two heads: a part that both share, then a part of each head's own.
    let (n_rows, n_heads) = (3, 2);
    for device in devices() {
        let shared: Vec<f32> = (0..n_rows * 2).map(|i| i as f32).collect();
        let own: Vec<f32> = (0..n_rows * n_heads * 3)
            .map(|i| 100.0 + i as f32)
            .collect();
        let mut to = Buffer::from_slice(&device, &[-1.0; 36]);
        for (from, len, repeat, to_offset) in [(&shared, 2, n_heads, 0), (&own, 3, 1, 2)] {
            device.strided_copy(StridedCopy {
                from: &Buffer::from_slice(&device, from),
                from_stride: len,
                from_offset: 0,
                repeat,
                to: &mut to,
                to_stride: 6,
                to_offset,
                n: n_rows * n_heads,
                len,
            });
        }
        for (i, head) in to.read(0..36).chunks(6).enumerate() {
            let (s, o) = ((i / 2 * 2) as f32, 100.0 + (i * 3) as f32);
            assert_eq!(head, [s, s + 1.0, o, o + 1.0, o + 2.0, -1.0]);
        }
    }
}

#[test]
fn gathering_copies_rows() {
    let (n_rows, width) = (50, 333);
    let x = Rng(2).values(n_rows * width);
    for rows in [vec![], vec![49], vec![3, 3, 0], (0..50).rev().collect()] {
        for device in devices() {
            let mut out = Buffer::zeros(&device, rows.len() * width);
            device.gather_rows_into(&Buffer::from_slice(&device, &x), width, &rows, &mut out);
            for (i, &row) in rows.iter().enumerate() {
                let expected = &x[row as usize * width..][..width];
                assert_same(&out.read(i * width..(i + 1) * width), expected, "row");
            }
        }
    }
}
