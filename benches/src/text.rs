//! What text costs on both sides of the model: token ids of prompts, text of tokens, and masks of
//! grammars. All with the vocabulary of the model that is served.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use models::Checkpoint;
use serde_json::json;
use understudy::grammar::{Constraint, Grammar, GrammarCompiler};
use understudy::source::{self, SourceSettings};
use understudy::text::{Detokenizer, Tokenizer};

use crate::report::Report;
use crate::traffic::Rng;

/// Prose that does not change with every edit of a document.
const PROSE: &str = include_str!("../../server/src/commands/eval_text.txt");

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Seconds for each figure.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Tokens of each answer of a grammar.
    #[arg(long, default_value_t = 200)]
    answer: usize,
}

/// The vocabulary of a model, and what ends its answers.
pub(crate) fn tokenizer(model: Option<&str>) -> Result<(Tokenizer, Arc<[u32]>)> {
    let found = source::resolve(model, &SourceSettings::from_env()?)?;
    let checkpoint = Checkpoint::open(&found.path)?;
    let tokenizer = Tokenizer::load(&checkpoint)?;
    let eos = ["<|im_end|>", "<|endoftext|>", "</s>", "<|eot_id|>"]
        .iter()
        .find_map(|name| tokenizer.token_id(name));
    let eos = eos.context("the vocabulary has no end token that this benchmark knows")?;
    Ok((tokenizer, [eos].into()))
}

pub(crate) fn run(model: Option<&str>, options: &Options) -> Result<Report> {
    let (tokenizer, eos) = tokenizer(model)?;
    let mut report = Report::new("text");
    for n_bytes in [512, 8_192] {
        let text: String = PROSE.chars().cycle().take(n_bytes).collect();
        let n_tokens = tokenizer.encode(&text, false)?.len();
        let seconds = each(options.seconds, || encode_once(&tokenizer, &text));
        #[expect(clippy::cast_precision_loss, reason = "a small count")]
        let rate = n_tokens as f64 / seconds / 1e6;
        let what = format!("encode {n_bytes} bytes, {n_tokens} tokens");
        report.note(format!("{what}: speed"), rate, "Mtokens/s");
        report.note(format!("{what}: time"), seconds * 1e6, "us");
    }
    let tokens = tokenizer.encode(PROSE, false)?;
    let seconds = each(options.seconds, || detokenize_once(&tokenizer, &tokens));
    #[expect(clippy::cast_precision_loss, reason = "a small count")]
    let n = tokens.len() as f64;
    report.note(
        "detokenize, one token at a time",
        seconds / n * 1e9,
        "ns a token",
    );
    masks(&mut report, tokenizer, eos, options)?;
    Ok(report)
}

pub(crate) fn encode_once(tokenizer: &Tokenizer, text: &str) -> usize {
    tokenizer
        .encode(text, false)
        .map_or(0, |tokens| tokens.len())
}

pub(crate) fn detokenize_once(tokenizer: &Tokenizer, tokens: &[u32]) -> usize {
    let mut detokenizer = Detokenizer::new(tokenizer.clone());
    let pushed: usize = tokens
        .iter()
        .map(|&token| detokenizer.push(token).len())
        .sum();
    pushed + detokenizer.finish().len()
}

/// A list of people that no answer can end before its length.
fn schema() -> Grammar {
    Grammar::JsonSchema(json!({"type": "array", "minItems": 500, "items": {
        "type": "object", "required": ["name", "age", "tags"], "properties": {
            "name": {"type": "string"}, "age": {"type": "integer"},
            "tags": {"type": "array", "items": {"type": "string"}}}}}))
}

fn masks(
    report: &mut Report,
    tokenizer: Tokenizer,
    eos: Arc<[u32]>,
    options: &Options,
) -> Result<()> {
    let compiler = GrammarCompiler::new(tokenizer, eos);
    let regex = Grammar::Regex("([a-z]+ ){500}".to_owned());
    let begin = Instant::now();
    compiler.compile(&regex)?;
    let first = begin.elapsed().as_secs_f64();
    report.note(
        "first grammar, tables of the vocabulary included",
        first * 1e3,
        "ms",
    );
    for (name, grammar) in [("regular expression", regex), ("schema", schema())] {
        let fresh = GrammarCompiler::compile(&compiler, &grammar)?;
        let mut times = Vec::new();
        let begin = Instant::now();
        let mut seed = 0;
        while begin.elapsed().as_secs_f64() < options.seconds || seed == 0 {
            seed += 1;
            walk(fresh.clone(), options.answer, seed, &mut times)?;
        }
        times.sort_by(f64::total_cmp);
        let at = |q: usize| times[(times.len() * q / 100).min(times.len() - 1)] * 1e6;
        report.note(format!("mask of a {name}, p50"), at(50), "us");
        report.note(format!("mask of a {name}, p99"), at(99), "us");
    }
    Ok(())
}

/// An answer of allowed tokens by chance; the time of each mask and each step on.
fn walk(mut state: Constraint, n: usize, seed: u64, times: &mut Vec<f64>) -> Result<()> {
    let mut rng = Rng(seed);
    for _ in 0..n {
        let begin = Instant::now();
        let allowed = state.allowed().map_err(anyhow::Error::msg)?;
        let took = begin.elapsed();
        let token = any_of(&allowed, &mut rng).context("the mask is empty")?;
        let begin = Instant::now();
        state.accept(token).map_err(anyhow::Error::msg)?;
        times.push((took + begin.elapsed()).as_secs_f64());
    }
    Ok(())
}

/// Some id whose bit is set.
fn any_of(allowed: &[u32], rng: &mut Rng) -> Option<u32> {
    let n_ids = u32::try_from(allowed.len()).ok()? * 32;
    let start = (rng.next() % u64::from(n_ids)) as u32;
    let is_allowed = |id: &u32| allowed[(id / 32) as usize] >> (id % 32) & 1 == 1;
    (start..n_ids).chain(0..start).find(is_allowed)
}

/// Seconds of one call, from as many as fit a time.
fn each(seconds: f64, mut call: impl FnMut() -> usize) -> f64 {
    std::hint::black_box(call());
    let begin = Instant::now();
    let mut n = 0.0;
    while begin.elapsed().as_secs_f64() < seconds {
        std::hint::black_box(call());
        n += 1.0;
    }
    begin.elapsed().as_secs_f64() / n
}
