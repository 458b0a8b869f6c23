//! One door for chores: `cargo xtask <chore>`.

mod ci;
mod clients;
mod fuzz;
mod gpu_check;
mod kernels;
mod simulate;

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Parser;

/// Chores of the project.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
enum Chore {
    /// Everything that must hold, from a fresh clone
    Ci,
    /// Run the clients of others against the release binary: LangChain, LiteLLM and more
    Clients,
    /// Compile the CUDA kernels to PTX, or check what is committed
    Kernels(kernels::Args),
    /// Try wrong inputs of every kind for a time
    Fuzz(fuzz::Args),
    /// Simulate the scheduler: one seed step by step, or many
    Simulate(simulate::Args),
}

fn main() -> Result<()> {
    match Chore::parse() {
        Chore::Ci => ci::run(),
        Chore::Clients => clients::run(&root()),
        Chore::Kernels(args) => kernels::run(&root(), &args),
        Chore::Fuzz(args) => fuzz::run(&root(), &args),
        Chore::Simulate(args) => simulate::run(&args),
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the workspace")
        .to_path_buf()
}

#[expect(clippy::print_stdout, reason = "the progress of a chore is its output")]
fn say(line: &str) {
    println!("{line}");
}
