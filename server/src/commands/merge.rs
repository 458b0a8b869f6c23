//! `understudy merge`: a checkpoint out of several.

use std::fmt::Write;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use kernels::WeightType;
use models::{MergeMethod, MergeOptions, MergeSource, merge_checkpoints};

use super::convert::path_of;
use super::{CommandError, parse_weight_type};
use crate::plan::human_bytes;

/// Merge checkpoints of one architecture into a new one, with a model card that says how.
#[derive(Clone, Debug, Args)]
pub struct MergeArgs {
    /// Directories in Hugging Face layout, unquantized, each with a weight if it is not 1: ./a=0.3.
    #[arg(required = true, value_name = "MODEL[=WEIGHT]")]
    pub models: Vec<String>,
    /// The directory to write; it must not be there yet.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// How values of one tensor become one.
    #[arg(long, value_enum)]
    pub method: Method,
    /// What the models were trained from; all methods but linear and slerp merge differences from
    /// it.
    #[arg(long, value_name = "MODEL")]
    pub base: Option<String>,
    /// What merged differences are multiplied by. Default: 1.
    #[arg(long, value_name = "FACTOR", allow_negative_numbers = true)]
    pub scale: Option<f64>,
    /// Share of each difference that is kept by ties, dare and dare-ties. Default: 0.5.
    #[arg(long, value_name = "SHARE")]
    pub density: Option<f64>,
    /// Of the random draws of dare and dare-ties. Default: 0.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Type of the merged weights: f32, f16 or bf16. Default: as stored in the base, or in the
    /// first model.
    #[arg(long = "type", value_name = "TYPE", value_parser = parse_weight_type)]
    pub ty: Option<WeightType>,
    /// Largest file of weights.
    #[arg(long, value_name = "BYTES", default_value = "5GiB", value_parser = crate::settings::parse_bytes)]
    pub max_shard_size: u64,
}

/// See [`MergeMethod`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Method {
    /// The mean, by weight.
    Linear,
    /// Two models, along a great circle.
    Slerp,
    /// The weighted sum of the differences from the base.
    TaskArithmetic,
    /// Differences trimmed to their largest, signs elected, and the mean of those that agree.
    Ties,
    /// Differences dropped at random and the rest enlarged, then summed.
    Dare,
    /// Dropped at random, then merged as by ties.
    DareTies,
}

impl MergeArgs {
    /// Does it, and tells what was written.
    pub fn run(&self) -> Result<String, CommandError> {
        let sources = self.models.iter().map(|model| source(model));
        let options = MergeOptions {
            method: self.method()?,
            sources: sources.collect::<Result<_, _>>()?,
            base: self
                .base
                .as_deref()
                .map(|base| named(base, 1.0))
                .transpose()?,
            dense: self.ty,
            max_shard_bytes: self.max_shard_size,
        };
        let merged = merge_checkpoints(&options, &self.out)?;
        let mut text = format!(
            "{}: {} tensors, {} in {} {}\n",
            self.out.display(),
            merged.n_tensors,
            human_bytes(merged.n_bytes),
            merged.n_files,
            if merged.n_files == 1 { "file" } else { "files" },
        );
        for note in &merged.notes {
            // Writing to a string cannot fail.
            writeln!(text, "  note: {note}").ok();
        }
        Ok(text)
    }

    /// The method with its parameters; one that it has no use for is refused.
    fn method(&self) -> Result<MergeMethod, CommandError> {
        let (scales, thins, draws) = match self.method {
            Method::Linear | Method::Slerp => (false, false, false),
            Method::TaskArithmetic => (true, false, false),
            Method::Ties => (true, true, false),
            Method::Dare | Method::DareTies => (true, true, true),
        };
        for (flag, is_given, is_used) in [
            ("--scale", self.scale.is_some(), scales),
            ("--density", self.density.is_some(), thins),
            ("--seed", self.seed.is_some(), draws),
        ] {
            if is_given && !is_used {
                let method = self.method.to_possible_value();
                let method = method.map_or(String::new(), |value| value.get_name().to_string());
                return Err(CommandError::Flag {
                    flag,
                    message: format!("has no meaning for the method {method}"),
                });
            }
        }
        let scale = self.scale.unwrap_or(1.0);
        let density = self.density.unwrap_or(0.5);
        let seed = self.seed.unwrap_or(0);
        Ok(match self.method {
            Method::Linear => MergeMethod::Linear,
            Method::Slerp => MergeMethod::Slerp,
            Method::TaskArithmetic => MergeMethod::TaskArithmetic { scale },
            Method::Ties => MergeMethod::Ties { density, scale },
            Method::Dare => MergeMethod::Dare {
                density,
                scale,
                seed,
            },
            Method::DareTies => MergeMethod::DareTies {
                density,
                scale,
                seed,
            },
        })
    }
}

/// `MODEL[=WEIGHT]`.
fn source(text: &str) -> Result<MergeSource, CommandError> {
    let Some((model, weight)) = text.rsplit_once('=') else {
        return named(text, 1.0);
    };
    match weight.parse() {
        Ok(weight) => named(model, weight),
        Err(_) => Err(CommandError::Flag {
            flag: "MODEL[=WEIGHT]",
            message: format!("{text}: {weight:?} is no number"),
        }),
    }
}

fn named(model: &str, weight: f64) -> Result<MergeSource, CommandError> {
    Ok(MergeSource {
        name: model.to_string(),
        dir: path_of(model)?,
        weight,
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        merge: MergeArgs,
    }

    fn parse(words: &[&str]) -> MergeArgs {
        let line = [&["x", "--out", "o", "a", "--method"], words].concat();
        Line::try_parse_from(line).expect("it parses").merge
    }

    #[test]
    fn methods_take_their_own_parameters_only() {
        let method = parse(&["dare", "--density", "0.2", "--seed", "9"]).method();
        let expected = MergeMethod::Dare {
            density: 0.2,
            scale: 1.0,
            seed: 9,
        };
        assert_eq!(method.unwrap(), expected);
        for (words, flag) in [
            (["linear", "--scale", "2"], "--scale"),
            (["task-arithmetic", "--density", "0.1"], "--density"),
            (["ties", "--seed", "1"], "--seed"),
        ] {
            let error = parse(&words).method().unwrap_err().to_string();
            assert!(error.contains(flag) && error.contains(words[0]), "{error}");
        }
    }

    #[test]
    fn weights_are_numbers() {
        let error = source("model=heavy").unwrap_err().to_string();
        assert!(error.contains("heavy"), "{error}");
        let dir = env!("CARGO_MANIFEST_DIR");
        assert_eq!(source(&format!("{dir}=-0.5")).unwrap().weight, -0.5);
        assert_eq!(source(dir).unwrap().weight, 1.0);
    }
}
