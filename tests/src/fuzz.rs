//! Bounded fuzzing: inputs made from good ones by chance, as many as a time allows. Whatever a
//! parser is given, it must answer or refuse; a panic fails the run and names its input.
//!
//! `UNDERSTUDY_FUZZ_SECONDS` is the time of each target, `UNDERSTUDY_FUZZ_SEED` and
//! `UNDERSTUDY_FUZZ_INPUT` bring one input again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::rng::{Rng, mix};

/// How long a target is tried in a test run that says nothing else.
const USUAL_SECONDS: f64 = 3.0;
/// An input that takes longer than this, on however busy a machine, hangs.
const HANGS: Duration = Duration::from_secs(60);

/// What became of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It was good.
    Accepted,
    /// It was refused with an error.
    Refused,
}

/// What a run amounts to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tried {
    pub n: u64,
    pub n_accepted: u64,
    pub slowest: Duration,
}

fn variable<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

/// Tries inputs until the time is over. `scratch` is where the number of the input at work is
/// noted, for runs that end the process.
///
/// # Panics
/// When an input makes `attempt` panic or hang, with what brings the input again.
pub fn run(name: &str, scratch: &Path, mut attempt: impl FnMut(&mut Rng) -> Taken) -> Tried {
    let seconds = variable("UNDERSTUDY_FUZZ_SECONDS").unwrap_or(USUAL_SECONDS);
    let seed: u64 = variable("UNDERSTUDY_FUZZ_SEED").unwrap_or(1);
    let only: Option<u64> = variable("UNDERSTUDY_FUZZ_INPUT");
    let started = Instant::now();
    let mut tried = Tried::default();
    let note = scratch.join(format!("{name}.input"));
    for i in only.unwrap_or(0).. {
        let again = format!("UNDERSTUDY_FUZZ_SEED={seed} UNDERSTUDY_FUZZ_INPUT={i}");
        // Notes that cannot be written cost no more than the note.
        std::fs::write(&note, &again).ok();
        let mut rng = Rng::new(mix(seed) ^ i);
        let begun = Instant::now();
        let taken = catch_unwind(AssertUnwindSafe(|| attempt(&mut rng)));
        let took = begun.elapsed();
        let taken = taken.unwrap_or_else(|_| panic!("{name}: an input panics; {again}"));
        assert!(took < HANGS, "{name}: an input took {took:?}; {again}");
        tried.n += 1;
        tried.n_accepted += u64::from(taken == Taken::Accepted);
        tried.slowest = tried.slowest.max(took);
        if only.is_some() || started.elapsed().as_secs_f64() > seconds {
            break;
        }
    }
    tried
}

/// Numbers at which readers of lengths and offsets go wrong.
const EDGES: [u64; 14] = [
    0,
    1,
    2,
    7,
    0x7f,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    1 << 40,
    0x7fff_ffff_ffff_ffff,
    0xffff_ffff_ffff_fff0,
    u64::MAX,
];

/// Changes some bytes. What is within the first `n_head` bytes is changed more often: lengths,
/// counts and names are there.
pub fn mutate_bytes(rng: &mut Rng, bytes: &mut Vec<u8>, n_head: usize) {
    for _ in 0..rng.range(1, 6) {
        if bytes.is_empty() {
            bytes.extend((0..rng.range(1, 16)).map(|i| (i * 37) as u8));
        }
        let end = if rng.chance(850) {
            n_head.clamp(1, bytes.len())
        } else {
            bytes.len()
        };
        let at = rng.range(0, end - 1);
        match rng.range(0, 6) {
            0 => bytes[at] ^= 1 << rng.range(0, 7),
            1 => bytes[at] = rng.draw() as u8,
            2 => {
                let edge = rng.pick(&EDGES).to_le_bytes();
                let n = (*rng.pick(&[1, 2, 4, 8])).min(bytes.len() - at);
                bytes[at..at + n].copy_from_slice(&edge[..n]);
            }
            3 => {
                let until = (at + rng.range(1, 32)).min(bytes.len());
                bytes.drain(at..until);
            }
            4 => {
                let until = (at + rng.range(1, 64)).min(bytes.len());
                let piece = bytes[at..until].to_vec();
                bytes.splice(at..at, piece);
            }
            5 => {
                let n = rng.range(1, 8);
                let piece: Vec<u8> = (0..n).map(|_| rng.draw() as u8).collect();
                bytes.splice(at..at, piece);
            }
            _ => bytes.truncate(at.max(1)),
        }
    }
}

/// Changes some characters; `words` are pieces that the reader knows.
pub fn mutate_text(rng: &mut Rng, text: &mut String, words: &[&str]) {
    for _ in 0..rng.range(1, 6) {
        let mut chars: Vec<char> = text.chars().collect();
        let at = rng.range(0, chars.len());
        match rng.range(0, 4) {
            0 | 1 => {
                let word = rng.pick(words).chars();
                chars.splice(at..at, word);
            }
            2 => {
                let until = (at + rng.range(1, 20)).min(chars.len());
                chars.drain(at..until);
            }
            3 => {
                let until = (at + rng.range(1, 40)).min(chars.len());
                let piece = chars[at..until].to_vec();
                let times = *rng.pick(&[1, 2, 8, 64]);
                for _ in 0..times {
                    chars.splice(at..at, piece.iter().copied());
                }
            }
            _ => {
                let odd = [
                    '\0',
                    '"',
                    '\\',
                    '{',
                    '%',
                    '\u{202e}',
                    '\u{10ffff}',
                    '\n',
                    'é',
                    '😀',
                ];
                chars.insert(at, *rng.pick(&odd));
            }
        }
        *text = chars.into_iter().take(100_000).collect();
    }
}

/// Puts something else in the place of parts of a value, adds fields and takes some away.
pub fn mutate_json(rng: &mut Rng, value: &mut Value, names: &[&str]) {
    for _ in 0..rng.range(1, 4) {
        let node = descend(rng, value);
        match node {
            Value::Object(map) if rng.chance(500) => {
                let name = (*rng.pick(names)).to_owned();
                let odd = odd_value(rng);
                map.insert(name, odd);
            }
            Value::Object(map) if rng.chance(300) && !map.is_empty() => {
                let name = map.keys().nth(rng.range(0, map.len() - 1)).cloned();
                if let Some(name) = name {
                    map.remove(&name);
                }
            }
            Value::Array(items) if rng.chance(400) && !items.is_empty() => {
                let item = items[rng.range(0, items.len() - 1)].clone();
                items.extend(std::iter::repeat_n(item, rng.range(1, 5)));
            }
            node => *node = odd_value(rng),
        }
    }
}

fn descend<'a>(rng: &mut Rng, value: &'a mut Value) -> &'a mut Value {
    let mut node = value;
    loop {
        let n = match &*node {
            Value::Object(map) => map.len(),
            Value::Array(items) => items.len(),
            _ => 0,
        };
        if n == 0 || rng.chance(250) {
            return node;
        }
        let i = rng.range(0, n - 1);
        node = match node {
            Value::Object(map) => map.values_mut().nth(i).expect("it was counted"),
            Value::Array(items) => &mut items[i],
            _ => unreachable!("it has parts"),
        };
    }
}

fn odd_value(rng: &mut Rng) -> Value {
    match rng.range(0, 12) {
        0 => Value::Null,
        1 => json!(rng.chance(500)),
        2 => json!(*rng.pick(&EDGES)),
        3 => json!(*rng.pick(&[-1_i64, i64::MIN, -1_000_000, 3])),
        4 => json!(*rng.pick(&[0.5, -0.0, 1e308, 1e-308, 3.999])),
        5 => json!(""),
        6 => json!("x".repeat(*rng.pick(&[1, 100, 10_000]))),
        7 => json!("a\u{0}\u{202e}😀\u{fffd}\"\\"),
        8 => json!([]),
        9 => json!({}),
        10 => {
            let depth = *rng.pick(&[2, 50, 120]);
            (0..depth).fold(json!(1), |inner, _| json!([inner]))
        }
        11 => json!([{"type": "text", "text": "x"}, {"type": rng.range(0, 3)}]),
        _ => json!({"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}),
    }
}
