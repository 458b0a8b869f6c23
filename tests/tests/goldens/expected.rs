//! Expected values: what `transformers` computed in f32, one sequence at a time, without a cache.

use std::path::PathBuf;

use scheduler::{TokenLogprob, TokenLogprobs};
use serde_json::Value;

pub(crate) fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures")
}

pub(crate) fn read(path: &str) -> Value {
    let path = fixtures().join("goldens").join(path);
    let text = std::fs::read_to_string(&path).expect("a golden file");
    serde_json::from_str(&text).expect("JSON")
}

/// The ten best tokens after one position.
#[derive(Clone, Debug)]
pub(crate) struct Top {
    pub(crate) ids: Vec<u32>,
    pub(crate) logprobs: Vec<f64>,
}

/// A greedy continuation.
#[derive(Clone, Debug)]
pub(crate) struct Greedy {
    pub(crate) ids: Vec<u32>,
    pub(crate) logprobs: Vec<f64>,
    /// Best minus second-best logit at each step.
    pub(crate) margins: Vec<f64>,
}

/// One prompt of a micro model.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) ids: Vec<u32>,
    /// `top[i]` follows position `pos0 + i`.
    pub(crate) pos0: usize,
    pub(crate) top: Vec<Top>,
    pub(crate) greedy: Greedy,
    /// All logits after the last position, or empty.
    pub(crate) last_logits: Vec<f64>,
}

pub(crate) fn ids(value: &Value) -> Vec<u32> {
    let list = value.as_array().expect("a list of ids");
    list.iter()
        .map(|id| id.as_u64().expect("an id") as u32)
        .collect()
}

pub(crate) fn floats(value: &Value) -> Vec<f64> {
    let list = value.as_array().expect("a list of numbers");
    list.iter().map(|x| x.as_f64().expect("a number")).collect()
}

pub(crate) fn top(value: &Value) -> Top {
    Top {
        ids: ids(&value["ids"]),
        logprobs: floats(&value["logprobs"]),
    }
}

pub(crate) fn greedy(value: &Value) -> Greedy {
    Greedy {
        ids: ids(&value["ids"]),
        logprobs: floats(&value["logprobs"]),
        margins: floats(&value["margins"]),
    }
}

pub(crate) fn case(value: &Value) -> Case {
    let last_logits = match &value["last_logits"] {
        Value::Null => Vec::new(),
        logits => floats(logits),
    };
    let tops = value["top"].as_array().expect("a list of tops");
    Case {
        ids: ids(&value["ids"]),
        pos0: value["pos0"].as_u64().expect("a position") as usize,
        top: tops.iter().map(top).collect(),
        greedy: greedy(&value["greedy"]),
        last_logits,
    }
}

impl Top {
    /// How far each of the ten is from what was computed. A token that is not among the best
    /// that were reported is infinitely far.
    pub(crate) fn differences<'a>(
        &'a self,
        found: &'a TokenLogprobs,
    ) -> impl Iterator<Item = f64> + 'a {
        let expected = self.ids.iter().zip(&self.logprobs);
        expected.map(|(id, logprob)| {
            let entry = found.top.iter().find(|entry| entry.token == *id);
            entry.map_or(f64::INFINITY, |entry| away(entry, *logprob))
        })
    }
}

pub(crate) fn away(found: &TokenLogprob, expected: f64) -> f64 {
    (f64::from(found.logprob) - expected).abs()
}
