//! `understudy eval-quant`: what a model loses when it is quantized.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use kernels::{CpuOptions, Device, KvType, Numerics, WeightType};
use models::{Checkpoint, Divergence, Model, ModelRunner, Reference, RunnerOptions};

use super::convert::path_of;
use super::{CommandError, parse_weight_type, weight_type_name};
use crate::plan::human_bytes;
use crate::text::Tokenizer;

/// Of many kinds, so that no vocabulary is favoured; written for this purpose.
const TEXT: &str = include_str!("eval_text.txt");

/// Tokens of a cache block.
const BLOCK_SIZE: usize = 32;

/// Compare a model with itself in fewer bits: perplexity on a text, and the Kullback-Leibler
/// divergence from the unquantized model.
#[derive(Clone, Debug, Args)]
pub struct EvalQuantArgs {
    /// The unquantized model: a directory in Hugging Face layout or a GGUF file.
    pub model: String,
    /// Types to quantize it to on load, with commas between them.
    #[arg(long = "type", value_name = "TYPE", value_delimiter = ',', value_parser = parse_weight_type)]
    pub types: Vec<WeightType>,
    /// A quantized form of the same model to compare, such as a file of `quantize`; may be
    /// repeated.
    #[arg(long, value_name = "MODEL")]
    pub against: Vec<String>,
    /// The text. Default: some pages of English prose, code and letters.
    #[arg(long, value_name = "FILE")]
    pub text: Option<PathBuf>,
    /// Tokens that a prediction sees before it at most: the text is cut into windows of so many.
    /// Default: 512, or as many as the model was made for.
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(2..))]
    pub window: Option<u32>,
    /// Use this many tokens of the text at most. The reference takes 4 bytes of memory for each
    /// of them and each entry of the vocabulary.
    #[arg(long, value_name = "TOKENS", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(2..))]
    pub max_tokens: u32,
}

/// A line of the table.
#[derive(Debug)]
struct Line {
    name: String,
    n_bytes: usize,
    found: Divergence,
}

impl EvalQuantArgs {
    /// Does it, and gives a table.
    pub fn run(&self) -> Result<String, CommandError> {
        if self.types.is_empty() && self.against.is_empty() {
            return Err(CommandError::Flag {
                flag: "--type",
                message: "nothing to compare: name types, or models with --against".to_string(),
            });
        }
        let path = path_of(&self.model)?;
        let against = self.against.iter().map(|model| path_of(model));
        let against: Vec<PathBuf> = against.collect::<Result<_, _>>()?;
        let checkpoint = Checkpoint::open(&path)?;
        let tokenizer = Tokenizer::load(&checkpoint)?;
        let tokens = self.tokens(&tokenizer)?;
        let window = self.window(&checkpoint)?;
        let windows = windows(&tokens, &beginning(&tokenizer)?, window)?;
        let n_windows = windows.len();
        let mut exact = load(&path, window, Numerics::F32, None)?;
        let reference = Reference::new(&mut exact, windows)?;
        drop(exact);
        let line = |name: &str, path: &Path, dense| -> Result<Line, CommandError> {
            let mut runner = load(path, window, Numerics::Native, dense)?;
            Ok(Line {
                name: name.to_string(),
                n_bytes: runner.model().n_bytes(),
                found: reference.compare(&mut runner)?,
            })
        };
        let mut lines = vec![line("as stored", &path, None)?];
        for ty in &self.types {
            lines.push(line(weight_type_name(*ty), &path, Some(*ty))?);
        }
        for (model, path) in self.against.iter().zip(&against) {
            lines.push(line(model, path, None)?);
        }
        Ok(table(n_windows, &lines))
    }

    /// The tokens of the text.
    fn tokens(&self, tokenizer: &Tokenizer) -> Result<Vec<u32>, CommandError> {
        let text = match &self.text {
            None => TEXT.to_string(),
            Some(file) => std::fs::read_to_string(file).map_err(|error| CommandError::File {
                file: file.clone(),
                message: error.to_string(),
            })?,
        };
        let mut tokens = tokenizer.encode(&text, false)?;
        tokens.truncate(self.max_tokens as usize);
        Ok(tokens)
    }

    /// Tokens of a window.
    fn window(&self, checkpoint: &Checkpoint) -> Result<usize, CommandError> {
        let most = checkpoint.config().max_positions;
        match self.window.map(|window| window as usize) {
            None => Ok(most.min(512)),
            Some(window) if window <= most => Ok(window),
            Some(window) => Err(CommandError::Flag {
                flag: "--window",
                message: format!("{window} tokens, but the model was made for at most {most}"),
            }),
        }
    }
}

/// Runs of tokens that are sequences of their own, each after the tokens that every text begins
/// with; a rest of one token predicts nothing.
fn windows(
    tokens: &[u32],
    beginning: &[u32],
    window: usize,
) -> Result<Vec<Vec<u32>>, CommandError> {
    let refuse = |flag, message: &str| {
        let message = message.to_string();
        Err(CommandError::Flag { flag, message })
    };
    let n_own = match window.checked_sub(beginning.len()) {
        Some(n_own) if n_own > 1 => n_own,
        _ => return refuse("--window", "so few tokens leave no room for text"),
    };
    let windows: Vec<Vec<u32>> = tokens
        .chunks(n_own)
        .filter(|own| own.len() > 1)
        .map(|own| [beginning, own].concat())
        .collect();
    if windows.is_empty() {
        return refuse("--text", "a text of one token or none predicts nothing");
    }
    Ok(windows)
}

/// A model that computes one window at a time.
fn load(
    path: &Path,
    window: usize,
    numerics: Numerics,
    dense: Option<WeightType>,
) -> Result<ModelRunner, CommandError> {
    let checkpoint = Checkpoint::open(path)?;
    let device = Device::cpu(CpuOptions::default());
    let model = Model::load(&checkpoint, &device, numerics, dense)?;
    let options = RunnerOptions {
        n_blocks: window.div_ceil(BLOCK_SIZE),
        block_size: BLOCK_SIZE,
        kv_type: match numerics {
            Numerics::F32 => KvType::F32,
            Numerics::Native => KvType::Bf16,
        },
        max_batched_tokens: window,
        max_model_len: window,
    };
    Ok(ModelRunner::new(model, options)?)
}

/// The tokens that the model's tokenizer puts before every text.
fn beginning(tokenizer: &Tokenizer) -> Result<Vec<u32>, CommandError> {
    let (plain, whole) = (tokenizer.encode("a", false)?, tokenizer.encode("a", true)?);
    let n = whole
        .windows(plain.len().max(1))
        .position(|part| part == plain);
    Ok(whole[..n.unwrap_or(0)].to_vec())
}

/// A table in Markdown.
fn table(n_windows: usize, lines: &[Line]) -> String {
    let first = lines.first().map(|line| line.found).unwrap_or_default();
    let mut text = format!(
        "{} predictions in {n_windows} windows; perplexity of the weights as stored, in exact \
         arithmetic: {:.4}\n\n\
         | weights | size | perplexity | ratio | KL mean | KL largest | same best token |\n\
         |---|---|---|---|---|---|---|\n",
        first.n_predictions, first.reference_perplexity
    );
    for Line {
        name,
        n_bytes,
        found,
    } in lines
    {
        let ratio = found.perplexity / found.reference_perplexity;
        // Writing to a string cannot fail.
        writeln!(
            text,
            "| {name} | {} | {:.4} | {ratio:.4} | {:.6} | {:.4} | {:.2} % |",
            human_bytes(*n_bytes as u64),
            found.perplexity,
            found.kl_mean,
            found.kl_largest,
            100.0 * found.same_best
        )
        .ok();
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        eval: EvalQuantArgs,
    }

    fn run(words: &[&str]) -> Result<String, CommandError> {
        let model = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../tests/fixtures/models/llama31-gqa"
        );
        let line = [&["x", model], words].concat();
        Command::try_parse_from(line).expect("it parses").eval.run()
    }

    #[test]
    fn each_type_has_its_line() {
        let table = run(&[
            "--type",
            "q8_0,Q4_0",
            "--window",
            "64",
            "--max-tokens",
            "200",
        ])
        .unwrap();
        assert!(table.starts_with("200 predictions in 4 windows"), "{table}");
        let lines: Vec<&str> = table.lines().skip(4).collect();
        assert_eq!(lines.len(), 3, "{table}");
        let mut last = 0.0;
        for (line, name) in lines.iter().zip(["| as stored |", "| q8_0 |", "| q4_0 |"]) {
            assert!(line.starts_with(name), "{table}");
            let kl: f64 = line.split('|').nth(5).unwrap().trim().parse().unwrap();
            assert!(kl > last, "{table}");
            last = kl;
        }
    }

    #[test]
    fn what_says_nothing_is_refused() {
        for (words, part) in [
            (&[][..], "--against"),
            (&["--type", "q8_0", "--window", "512"], "at most 256"),
            (
                &["--type", "q8_0", "--text", "/nowhere/text"],
                "/nowhere/text",
            ),
            (&["--against", "/nowhere/model"], "/nowhere/model"),
        ] {
            let error = run(words).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
