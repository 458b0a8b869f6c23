//! Launches of sampling, and how its rows and answers lie on the device.

use super::int;
use super::launch::{DevicePtr, Fields, Launch, Params};
use crate::sample::{Ask, Draw, LogitChange, RowLogprobs, SampleRow, SampledRow};

/// Best tokens that [`sample_rows`] reports at most.
pub const MOST_TOP: usize = 20;
/// The largest `top_k` that it takes.
pub const MOST_TOP_K: u32 = 1024;
/// The largest vocabulary that it takes: sums of 256 logits each are kept in shared memory.
pub const MOST_LOGITS: usize = 1 << 19;
/// Bytes of one answer.
pub const ANSWER_BYTES: usize = 32 + 8 * MOST_TOP;

/// Bytes of one row; lists of changes and words follow all rows.
const ROW_BYTES: usize = 64;

/// Rows as one piece of bytes, and how many changes they hold.
///
/// # Panics
/// A row asks for more than the kernel takes.
pub fn pack_rows(rows: &[SampleRow<'_>]) -> (Vec<u8>, usize) {
    let (mut heads, mut lists) = (Vec::new(), Vec::new());
    let mut n_changes = 0;
    for row in rows {
        let at = |lists: &Vec<u8>| int(rows.len() * ROW_BYTES + lists.len());
        let changes = at(&lists);
        for change in &row.changes {
            lists.extend(change_fields(change).padded(4));
        }
        let words = at(&lists);
        for word in row.allowed.unwrap_or_default() {
            lists.extend(word.to_le_bytes());
        }
        heads.extend(row_fields(row, n_changes, changes, words).padded(8));
        n_changes += row.changes.len();
    }
    debug_assert_eq!(heads.len(), rows.len() * ROW_BYTES);
    heads.extend(lists);
    (heads, n_changes)
}

fn change_fields(change: &LogitChange) -> Fields {
    Fields::new()
        .uint(change.token)
        .float(change.bias)
        .float(change.cost)
        .int(i32::from(change.is_repeated))
        .int(i32::from(change.is_banned))
}

fn row_fields(row: &SampleRow<'_>, first_saved: usize, changes: i32, words: i32) -> Fields {
    let none = Draw {
        u: 0.0,
        scale: 1.0,
        top_k: 0,
        top_p: 1.0,
        depth: f32::NEG_INFINITY,
    };
    let (kind, target, draw) = match row.ask {
        Ask::Score { token } => (0, token, none),
        Ask::Greedy => (1, 0, none),
        Ask::Draw(draw) => (2, 0, draw),
    };
    let n_top = row.n_top.map_or(-1, int);
    assert!(n_top <= int(MOST_TOP) && draw.top_k <= MOST_TOP_K);
    Fields::new()
        .double(draw.u)
        .float(draw.scale)
        .float(draw.top_p)
        .float(draw.depth)
        .float(row.repetition)
        .int(kind)
        .uint(draw.top_k)
        .uint(target)
        .int(n_top)
        .int(int(row.changes.len()))
        .int(changes)
        .int(int(first_saved))
        .int(row.allowed.map_or(-1, |words| int(words.len())))
        .int(words)
        .int(0)
}

/// Draws from rows of `n` logits. `rows`: of [`pack_rows`]; `saved`: an f32 for each change;
/// `answers`: [`ANSWER_BYTES`] for each row. Logits are as before when it ends.
///
/// # Panics
/// For more logits than [`MOST_LOGITS`].
pub fn sample_rows(
    logits: DevicePtr,
    n: usize,
    n_rows: usize,
    rows: DevicePtr,
    saved: DevicePtr,
    answers: DevicePtr,
) -> Launch {
    assert!(n <= MOST_LOGITS, "sums of a row are kept in shared memory");
    let params = Params::new()
        .ptr(logits)
        .int(int(n))
        .ptr(rows)
        .ptr(saved)
        .ptr(answers);
    Launch::new("sample", "sample_rows", params)
        .threads(512)
        .grid([n_rows, 1, 1])
        .shared(n.div_ceil(256) * 8)
}

/// Reads what came of a row from its words, with log-probabilities if it reports them; `None`: the
/// host has to do it.
pub fn unpack_answer(words: &[u32], reports: bool) -> Option<SampledRow> {
    let float = |at: usize| f32::from_bits(words[at]);
    if words[2] != 1 {
        return None;
    }
    let logprobs = reports.then(|| RowLogprobs {
        chosen: float(4),
        greatest: float(5),
        total: f64::from_bits(u64::from(words[1]) << 32 | u64::from(words[0])),
        top: (0..words[6] as usize)
            .map(|i| (words[8 + 2 * i], float(9 + 2 * i)))
            .collect(),
    });
    Some(SampledRow {
        token: words[3],
        logprobs,
    })
}
