//! Sampling: two rows of 32000 logits, one with limits, one with log-probabilities.

use kernels::cuda;
use kernels::{Ask, Draw, SampleRow};

use crate::{Counted, noise};

const N_LOGITS: usize = 32_000;

pub(crate) fn count(on: &mut Counted) {
    let row = |n_top| SampleRow {
        ask: Ask::Draw(Draw {
            u: 0.4,
            scale: 10.0,
            top_k: 50,
            top_p: 0.9,
            depth: f32::NEG_INFINITY,
        }),
        changes: Vec::new(),
        repetition: 1.0,
        allowed: None,
        n_top,
    };
    let rows = [row(None), row(Some(5))];
    let (bytes, _) = cuda::pack_rows(&rows);
    let logits = on.gpu.upload(&noise(rows.len() * N_LOGITS));
    let (rows_at, saved) = (on.gpu.upload(&bytes), on.gpu.alloc(4));
    let answers = on.gpu.alloc(rows.len() * cuda::ANSWER_BYTES);
    let launch = cuda::sample_rows(logits, N_LOGITS, rows.len(), rows_at, saved, answers);
    on.count("2 rows of 32000, top 50 and 0.9", &launch);
}
