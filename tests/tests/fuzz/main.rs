//! Whatever comes from outside, made wrong by chance: bodies of requests, files of models and
//! adapters, chat templates, grammars, files of keys and settings. Nothing may panic, hang, or
//! take memory without bound; a handler may not fail with a status of our own fault.
//!
//! A few seconds a target in a test run; `cargo xtask fuzz --minutes N` for longer.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod bodies;
mod files;
mod texts;

#[path = "../http/model.rs"]
#[expect(dead_code, reason = "what the tests of the wire need")]
mod model;
#[path = "../http/server.rs"]
#[expect(dead_code, reason = "what the tests of the wire need")]
mod server;

use std::alloc::System;
use std::path::{Path, PathBuf};

use cap::Cap;
use tests::fuzz::{Taken, Tried};
use tests::rng::Rng;

/// Memory of all targets together; whoever asks for more ends the process. Inputs are below a
/// megabyte, and what they work on below 100.
const MAX_BYTES: usize = 1 << 30;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, MAX_BYTES);

/// Runs a target and tells what it amounts to.
fn run(name: &str, attempt: impl FnMut(&mut Rng) -> Taken) {
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let Tried {
        n,
        n_accepted,
        slowest,
    } = tests::fuzz::run(name, scratch, attempt);
    tell(&format!(
        "{name}: {n} inputs, {n_accepted} accepted, the slowest took {slowest:.2?}"
    ));
    assert!(n > 0);
}

#[expect(clippy::print_stdout, reason = "figures of a run by hand")]
fn tell(line: &str) {
    println!("{line}");
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}
