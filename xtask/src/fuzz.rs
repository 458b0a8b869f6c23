//! `cargo xtask fuzz`: the targets of `tests/tests/fuzz`, for longer than a test run does.

use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use clap::Args as ClapArgs;

use crate::say;

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct Args {
    /// Minutes for all targets together.
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Seed of all inputs; without it, the clock.
    #[arg(long)]
    seed: Option<u64>,
    /// Only targets whose names contain this.
    #[arg(long)]
    target: Option<String>,
}

/// Targets, one after the other: each has the memory for itself.
const TARGETS: [&str; 8] = [
    "bodies::bodies",
    "bodies::uploads",
    "files::safetensors",
    "files::gguf",
    "files::adapters",
    "texts::templates",
    "texts::grammars",
    "texts::keys",
];

pub(crate) fn run(root: &Path, args: &Args) -> Result<()> {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH);
    let seed = args
        .seed
        .unwrap_or(clock.map_or(1, |since| since.as_secs()));
    let wanted = |name: &&&str| args.target.as_ref().is_none_or(|part| name.contains(part));
    let targets: Vec<&&str> = TARGETS.iter().filter(wanted).collect();
    ensure!(
        !targets.is_empty(),
        "no target is called so; there are {TARGETS:?}"
    );
    #[expect(clippy::cast_precision_loss, reason = "a handful")]
    let seconds = args.minutes * 60.0 / targets.len() as f64;
    for target in targets {
        say(&format!("== {target}: {seconds:.0} s, seed {seed}"));
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let status = Command::new(cargo)
            .args([
                "test",
                "--quiet",
                "--release",
                "--package",
                "tests",
                "--test",
                "fuzz",
                "--",
            ])
            .args(["--nocapture", "--exact", target])
            .env("UNDERSTUDY_FUZZ_SECONDS", seconds.to_string())
            .env("UNDERSTUDY_FUZZ_SEED", seed.to_string())
            .current_dir(root)
            .status()
            .context("cargo cannot be run")?;
        ensure!(
            status.success(),
            "{target} has found something, with seed {seed}"
        );
    }
    Ok(())
}
