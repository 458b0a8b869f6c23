//! One door for chores: `cargo xtask <chore>`.

mod ci;
mod simulate;

use anyhow::Result;
use clap::Parser;

/// Chores of the project.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
enum Chore {
    /// Everything that must hold, from a fresh clone
    Ci,
    /// Simulate the scheduler: one seed step by step, or many
    Simulate(simulate::Args),
}

fn main() -> Result<()> {
    match Chore::parse() {
        Chore::Ci => ci::run(),
        Chore::Simulate(args) => simulate::run(&args),
    }
}
