//! What sampling needs of logits.

use kernels::cuda::{self, Penalty};

use crate::common::{Rng, assert_same};
use crate::gpu::Gpu;

#[test]
fn rows_are_summed_up() {
    for n in [1, 31, 1000, 5003] {
        let n_rows = 4;
        let mut logits: Vec<f32> = Rng(n as u64)
            .values(n * n_rows)
            .iter()
            .map(|x| x * 9.0)
            .collect();
        // Of equals the lowest index wins; minus infinity is no trouble.
        logits[..n].fill(2.5);
        logits[n] = f32::NEG_INFINITY;
        if n == 1 {
            logits[1] = -3.0;
        }
        let mut gpu = Gpu::new();
        let at = gpu.upload(&logits);
        let (best, largest, log_sum) = (gpu.alloc(16), gpu.alloc(16), gpu.alloc(16));
        gpu.run(&cuda::summarize_logits(
            at, n, n_rows, best, largest, log_sum,
        ));
        let best: Vec<u32> = gpu.download(best, n_rows);
        let largest: Vec<f32> = gpu.download(largest, n_rows);
        let log_sum: Vec<f32> = gpu.download(log_sum, n_rows);
        for (i, row) in logits.chunks(n).enumerate() {
            let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let index = row.iter().position(|&x| x == max);
            assert_eq!((Some(best[i] as usize), largest[i]), (index, max));
            let sum: f64 = row.iter().map(|&x| f64::from(x - max).exp()).sum();
            let exact = f64::from(max) + sum.ln();
            assert!((f64::from(log_sum[i]) - exact).abs() < 1e-5 * (1.0 + exact.abs()));
        }
    }
}

#[test]
fn penalties_and_masks_change_their_tokens_only() {
    let (n, n_rows) = (70, 3);
    let logits = Rng(2).values(n * n_rows);
    let penalty = |row, token, count| Penalty {
        row,
        token,
        count,
        repetition: 1.3,
        presence: 0.2,
        frequency: 0.1,
    };
    let all = [penalty(0, 0, 1.0), penalty(2, 69, 4.0), penalty(2, 3, 2.0)];
    let mut gpu = Gpu::new();
    let at = gpu.upload(&logits);
    let bytes: Vec<u8> = all.iter().flat_map(|p| p.fields().padded(4)).collect();
    let penalties = gpu.upload(&bytes);
    gpu.run(&cuda::apply_penalties(at, n, penalties, all.len()));
    let mut expected = logits;
    for p in all {
        let logit = &mut expected[p.row as usize * n + p.token as usize];
        *logit = if *logit > 0.0 {
            *logit / 1.3
        } else {
            *logit * 1.3
        };
        *logit -= p.count.mul_add(0.1, 0.2);
    }
    for (found, expected) in gpu.download::<f32>(at, n * n_rows).iter().zip(&expected) {
        assert!((found - expected).abs() <= 1e-6, "{found}, {expected}");
    }
    let before: Vec<f32> = gpu.download(at, n * n_rows);
    let masks = gpu.upload(&[0x8000_0001_u32, 0, 0x20, !0, !0, !0]);
    let mask_of = gpu.upload(&[-1_i32, 0, 1]);
    gpu.run(&cuda::mask_logits(at, n, n_rows, masks, mask_of));
    let found: Vec<f32> = gpu.download(at, n * n_rows);
    assert_same(&found[..n], &before[..n], "no mask");
    assert_same(&found[2 * n..], &before[2 * n..], "all allowed");
    for token in 0..n {
        let allowed = [0, 31, 69].contains(&token);
        let expected = if allowed {
            before[n + token]
        } else {
            f32::NEG_INFINITY
        };
        assert_eq!(found[n + token], expected);
    }
}
