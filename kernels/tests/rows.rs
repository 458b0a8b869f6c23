//! Ops on rows and values.

mod common;

use common::{Rng, assert_same, devices, error};
use kernels::{Buffer, reference};

#[test]
fn rms_norm_alone_and_with_the_residual() {
    for (width, n_rows) in [(1, 1), (8, 3), (64, 1), (160, 7), (576, 65), (4099, 9)] {
        let mut rng = Rng(width as u64);
        let x = rng.values(width * n_rows);
        let residual = rng.values(width * n_rows);
        let weight = rng.values(width);
        let sum: Vec<f32> = x.iter().zip(&residual).map(|(x, r)| r + x).collect();
        let exact = reference::rms_norm(&sum, &weight, 1e-5);
        let size = exact.iter().fold(0.0_f64, |size, x| size.max(x.abs()));
        let mut first: Option<Vec<f32>> = None;
        for device in devices() {
            let buffer = |values: &[f32]| Buffer::from_slice(&device, values);
            let weight = buffer(&weight);
            let mut summed = buffer(&residual);
            let mut out = Buffer::zeros(&device, x.len() + 3);
            device.add_rms_norm_into(&mut summed, &buffer(&x), &weight, 1e-5, n_rows, &mut out);
            assert_same(&summed.read(0..x.len()), &sum, "residual");
            let out = out.read(0..x.len()).into_owned();
            assert!(error(&out, &exact) <= 4e-7 * size, "width {width}");
            assert_same(&out, first.get_or_insert_with(|| out.clone()), "rms norm");

            let mut alone = Buffer::zeros(&device, width);
            let last = buffer(&sum[(n_rows - 1) * width..]);
            device.rms_norm_into(&last, &weight, 1e-5, 1, &mut alone);
            let expected = &out[(n_rows - 1) * width..];
            assert_same(&alone.read(0..width), expected, "a row alone");
        }
    }
}

#[test]
fn silu_mul_matches_and_ignores_how_much_there_is() {
    let mut rng = Rng(12);
    let n = 60_003;
    let gate: Vec<f32> = rng.values(n).iter().map(|x| x * 30.0).collect();
    let up = rng.values(n);
    let exact = reference::silu_mul(&gate, &up);
    let mut first: Option<Vec<f32>> = None;
    for device in devices() {
        let (gate, up) = (
            Buffer::from_slice(&device, &gate),
            Buffer::from_slice(&device, &up),
        );
        let mut out = Buffer::zeros(&device, n);
        device.silu_mul_into(&gate, &up, n, &mut out);
        let out = out.read(0..n).into_owned();
        for (i, (&out, exact)) in out.iter().zip(&exact).enumerate() {
            let error = (f64::from(out) - exact).abs();
            assert!(
                error <= 5e-7 * exact.abs() + 1e-35,
                "value {i}: {out}, {exact}"
            );
        }
        assert_same(&out, first.get_or_insert_with(|| out.clone()), "silu");
        for len in [0, 1, 17, 1000] {
            let mut part = Buffer::zeros(&device, n);
            device.silu_mul_into(&gate, &up, len, &mut part);
            assert_same(&part.read(0..len), &out[..len], "a part");
            assert!(part.read(len..n).iter().all(|&x| x == 0.0));
        }
    }
}

#[test]
fn silu_of_extremes() {
    for device in devices() {
        let gate = [0.0, -0.0, 1e4, -1e4, f32::INFINITY, f32::NAN];
        let mut out = Buffer::zeros(&device, gate.len());
        let up = Buffer::from_slice(&device, &[2.0; 6]);
        let gate = Buffer::from_slice(&device, &gate);
        device.silu_mul_into(&gate, &up, 6, &mut out);
        let out = out.read(0..6);
        assert_eq!(out[..3], [0.0, 0.0, 2e4]);
        assert!(out[3].abs() < 1e-30);
        assert_eq!(out[4], f32::INFINITY);
        assert!(out[5].is_nan());
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
