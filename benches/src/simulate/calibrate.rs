//! What steps cost on this machine: steps of the runner alone, then one load through the server,
//! whose other threads want the same cores.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use models::ModelRunner;
use scheduler::{Batch, BlockId, Executor};

use super::cost::Curves;
use crate::steps::{BLOCK_SIZE, Room, row, runner};
use crate::traffic::Rng;

/// Most tokens of a step: the server's default.
pub(crate) const STEP: usize = 512;
/// Positions before a chunk or a row, where keys are to count.
const FAR: usize = 1_024;
const NEAR: usize = 63;
const CHUNKS: [usize; 10] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512];
const ROWS: [usize; 6] = [1, 2, 4, 8, 16, 32];
const N_FAR_ROWS: usize = 16;
const FAR_CHUNK: usize = 256;
/// Time for each kind of step.
const TIME: Duration = Duration::from_millis(400);

/// Measures steps of the runner. Where the server does not run, nothing slows them down.
pub(crate) fn steps(model: Option<&str>, n_threads: Option<usize>) -> Result<Curves> {
    let per_row = (FAR + 1).div_ceil(BLOCK_SIZE);
    let room = Room {
        n_blocks: per_row * ROWS[ROWS.len() - 1],
        max_batched_tokens: STEP,
        max_model_len: FAR + STEP,
    };
    let mut runner = runner(model, n_threads, room)?;
    let mut chunk = |n, start| measure(&mut runner, &chunk_at(n, start));
    let times: Vec<f64> = CHUNKS.iter().map(|&n| chunk(n, 0)).collect::<Result<_>>()?;
    let at_start = times[CHUNKS.iter().position(|&n| n == FAR_CHUNK).unwrap_or(0)];
    let far = chunk(FAR_CHUNK, FAR)?;
    let per_pair = ((far - at_start) / count(FAR_CHUNK * FAR)).max(0.0);
    let mut rows = |n, context| measure(&mut runner, &rows_at(n, context, per_row, false));
    let near: Vec<f64> = ROWS.iter().map(|&n| rows(n, NEAR)).collect::<Result<_>>()?;
    let at = ROWS.iter().position(|&n| n == N_FAR_ROWS).unwrap_or(0);
    let far = rows(N_FAR_ROWS, FAR)?;
    // The same with keys that all rows share: what is less is memory.
    let shared = measure(&mut runner, &rows_at(N_FAR_ROWS, FAR, per_row, true))?;
    let n_keys = count(N_FAR_ROWS * (FAR - NEAR));
    let n_shared = count((N_FAR_ROWS - 1) * FAR);
    let per_distinct = ((far - shared) / n_shared).clamp(0.0, (far - near[at]).max(0.0) / n_keys);
    let per_key = ((far - near[at]) / n_keys - per_distinct).max(0.0);
    let linear = CHUNKS.iter().zip(&times).map(|(&n, seconds)| {
        let pairs = if n == 1 { 0.0 } else { count(n * (n + 1) / 2) };
        (count(n), (seconds - per_pair * pairs).max(0.0))
    });
    let linear: Vec<(f64, f64)> = linear.collect();
    let samples = ROWS.iter().zip(&near).map(|(&n, seconds)| {
        let keys = (per_key + per_distinct) * count(n * (NEAR + 1));
        let own = super::cost::at(&linear, count(n));
        (count(n), (seconds - own - keys).max(0.0))
    });
    Ok(Curves {
        samples: samples.collect(),
        linear,
        per_pair,
        per_key,
        per_distinct,
        slowdown: 1.0,
        between: 0.0,
    })
}

/// A chunk of a prompt, with nothing drawn after it.
fn chunk_at(n: usize, start: usize) -> Batch {
    #[expect(clippy::cast_possible_truncation, reason = "ids are small")]
    let tokens = Rng(1).tokens(n).iter().map(|&id| id as u32).collect();
    let mut row = row(0, tokens, start, (start + n).div_ceil(BLOCK_SIZE));
    row.sample = None;
    Batch { rows: vec![row] }
}

/// Rows of one token each, drawing the next; with blocks of their own, or all but the last shared.
fn rows_at(n: usize, context: usize, n_blocks: usize, is_shared: bool) -> Batch {
    let one = |i: usize| {
        let mut row = row(i, vec![1_000 + i as u32], context, n_blocks);
        row.blocks.truncate((context + 1).div_ceil(BLOCK_SIZE));
        if is_shared {
            let own = row.blocks.len() - 1;
            for (block, shared) in row.blocks[..own].iter_mut().zip(0..) {
                *block = BlockId(shared);
            }
        }
        row
    };
    Batch {
        rows: (0..n).map(one).collect(),
    }
}

/// The median of many steps; the first warms up.
fn measure(runner: &mut ModelRunner, batch: &Batch) -> Result<f64> {
    let mut times = Vec::new();
    let begin = Instant::now();
    while times.len() < 6 || begin.elapsed() < TIME {
        let start = Instant::now();
        let results = runner.execute(batch)?;
        times.push(start.elapsed().as_secs_f64());
        let failed = results.iter().find_map(|result| result.failed.as_ref());
        ensure!(failed.is_none(), "{failed:?}");
    }
    times.remove(0);
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

fn count(n: usize) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let n = n as f64;
    n
}
