//! What adapters cost: decode steps of the runner with and without them, in turns, so that a
//! busy machine slows both alike.
//!
//! The adapters are synthetic, in bf16, beside the layers that PEFT takes by default (queries and
//! values) or beside all linear layers of every block. Weights that an adapter is merged into have
//! the shapes of the base, so the base's speed is theirs.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use models::{Adapter, AdapterStack, ModelConfig, ModelRunner};
use scheduler::{AdapterId, Batch, BatchRow, Executor};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::report::Report;
use crate::steps::{BLOCK_SIZE, Room, row, runner};
use crate::traffic::Rng;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Pairs of steps that are timed, for each line.
    #[arg(long, default_value_t = 40)]
    steps: usize,
    /// Tokens of each sequence before the step.
    #[arg(long, default_value_t = 128)]
    context: usize,
    #[arg(long)]
    threads: Option<usize>,
    /// Every line of the table, not only those that have a bound.
    #[arg(long)]
    all: bool,
}

/// (active adapters, rank, sequences).
const LINES: [(u32, usize, usize); 6] = [
    (8, 8, 16),
    (1, 8, 16),
    (1, 64, 16),
    (8, 64, 16),
    (64, 8, 64),
    (64, 64, 64),
];

/// Least share of the base's throughput, for the first line.
const BOUND: f64 = 0.85;

/// Layers that adapters are beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Targets {
    QueriesAndValues,
    AllLinear,
}

pub(crate) fn run(model: Option<&str>, options: &Options) -> Result<Report> {
    let mut bench = Bench::new(model, options)?;
    let mut report = Report::new("lora");
    let targets = [Targets::QueriesAndValues, Targets::AllLinear];
    let lines = targets
        .into_iter()
        .flat_map(|targets| LINES.map(|line| (targets, line)))
        .filter(|(_, line)| options.all || *line == LINES[0]);
    for (targets, line) in lines {
        let (n_adapters, rank, n_rows) = line;
        let ids = bench.adapters(n_adapters, rank, targets)?;
        let (base, own) = bench.compare(n_rows, &ids, options)?;
        #[expect(clippy::cast_precision_loss, reason = "a small count")]
        let rows = n_rows as f64;
        let beside = match targets {
            Targets::QueriesAndValues => "q, v",
            Targets::AllLinear => "all linear",
        };
        let what = format!("{beside}: {n_adapters} of rank {rank}, {n_rows} sequences");
        report.note(format!("{what}: base or merged"), rows / base, "tokens/s");
        report.note(format!("{what}: with adapters"), rows / own, "tokens/s");
        let share = base / own;
        if line == LINES[0] {
            report.at_least(&format!("{what}: share"), share, BOUND, "");
        } else {
            report.note(format!("{what}: share"), share, "");
        }
    }
    Ok(report)
}

struct Bench {
    runner: ModelRunner,
    dir: TempDir,
}

impl Bench {
    fn new(model: Option<&str>, options: &Options) -> Result<Self> {
        let room = Room {
            n_blocks: 64 * (options.context + 1).div_ceil(BLOCK_SIZE),
            max_batched_tokens: 64,
            max_model_len: options.context + 1,
        };
        let runner = runner(model, options.threads, room)?;
        let dir = tempfile::tempdir()?;
        Ok(Self { runner, dir })
    }

    /// Loads `n` adapters of a rank as ids from zero on.
    fn adapters(&self, n: u32, rank: usize, targets: Targets) -> Result<Vec<AdapterId>> {
        let target = self.runner.model().adapter_target();
        let one = |i: u32| {
            write_adapter(
                self.dir.path(),
                target.config(),
                rank,
                targets,
                u64::from(i) + 1,
            )?;
            let adapter = Adapter::load(self.dir.path(), target)?;
            let stack = AdapterStack::single(Arc::new(adapter));
            self.runner.adapters().insert(AdapterId(i), stack);
            Ok(AdapterId(i))
        };
        (0..n).map(one).collect()
    }

    /// Medians of a step's seconds, without and with adapters.
    fn compare(
        &mut self,
        n_rows: usize,
        ids: &[AdapterId],
        options: &Options,
    ) -> Result<(f64, f64)> {
        let per_sequence = (options.context + 1).div_ceil(BLOCK_SIZE);
        let batch = |with: bool| Batch {
            rows: (0..n_rows)
                .map(|i| {
                    let adapter = with.then(|| ids[i % ids.len()]);
                    let token = (100 + i) as u32;
                    let row = row(i, vec![token], options.context, per_sequence);
                    BatchRow { adapter, ..row }
                })
                .collect(),
        };
        let batches = [batch(false), batch(true)];
        let mut times = [Vec::new(), Vec::new()];
        for step in 0..options.steps + 3 {
            for (batch, times) in batches.iter().zip(&mut times) {
                let begin = Instant::now();
                let results = self.runner.execute(batch)?;
                let seconds = begin.elapsed().as_secs_f64();
                ensure!(results.iter().all(|result| result.failed.is_none()));
                // The first steps touch memory for the first time.
                if step >= 3 {
                    times.push(seconds);
                }
            }
        }
        let median = |times: &mut Vec<f64>| {
            times.sort_by(f64::total_cmp);
            times.get(times.len() / 2).copied().context("no steps")
        };
        let [base, own] = &mut times;
        Ok((median(base)?, median(own)?))
    }
}

const Q: &str = "self_attn.q_proj";
const V: &str = "self_attn.v_proj";

/// Writes an adapter with small random values beside all linear layers of a Llama.
pub(crate) fn write_adapter(
    dir: &Path,
    config: &ModelConfig,
    rank: usize,
    targets: Targets,
    seed: u64,
) -> Result<()> {
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    let q_width = config.n_heads * config.head_dim;
    let kv_width = config.n_kv_heads * config.head_dim;
    let modules = [
        (Q, q_width, hidden),
        ("self_attn.k_proj", kv_width, hidden),
        (V, kv_width, hidden),
        ("self_attn.o_proj", hidden, q_width),
        ("mlp.gate_proj", inner, hidden),
        ("mlp.up_proj", inner, hidden),
        ("mlp.down_proj", hidden, inner),
    ];
    let modules: Vec<_> = modules
        .into_iter()
        .filter(|(name, ..)| targets == Targets::AllLinear || matches!(*name, Q | V))
        .collect();
    let mut rng = Rng(seed);
    let (mut header, mut data) = (Map::new(), Vec::new());
    for layer in 0..config.n_layers {
        for &(module, n_out, n_in) in &modules {
            for (matrix, shape) in [("A", [rank, n_in]), ("B", [n_out, rank])] {
                let name =
                    format!("base_model.model.model.layers.{layer}.{module}.lora_{matrix}.weight");
                let first = data.len();
                for _ in 0..shape[0] * shape[1] {
                    // The upper half of an f32 of 2^-8 to 2^-7, of either sign.
                    let bits = rng.next();
                    let value = 0x3b80 | (bits & 0x7f) as u16 | ((bits >> 8) as u16 & 0x8000);
                    data.extend(value.to_le_bytes());
                }
                let info =
                    json!({"dtype": "BF16", "shape": shape, "data_offsets": [first, data.len()]});
                header.insert(name, info);
            }
        }
    }
    let header = Value::Object(header).to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    std::fs::write(dir.join("adapter_model.safetensors"), bytes)?;
    let names: Vec<&str> = modules
        .iter()
        .filter_map(|(name, ..)| name.split('.').next_back())
        .collect();
    let config = json!({
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": rank,
        "target_modules": names,
    });
    std::fs::write(dir.join("adapter_config.json"), config.to_string())?;
    Ok(())
}
