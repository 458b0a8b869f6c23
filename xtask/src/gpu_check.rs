//! `scripts/gpu-check` in its short mode, on a simulated GPU, so that the script is known to work
//! for whoever has a real one.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

pub(crate) fn run(root: &Path) -> Result<()> {
    // Built for the server's tests.
    let simulated = root.join("target/release/deps/libsimcuda.so");
    ensure!(
        simulated.exists(),
        "{} is not there: the tests come first",
        simulated.display()
    );
    let dir = root.join("target/gpu-check");
    let driver = dir.join("driver");
    std::fs::create_dir_all(&driver)?;
    // Under the name by which drivers are looked for.
    std::fs::copy(&simulated, driver.join("libcuda.so"))?;
    let report = dir.join("report.md");
    let status = Command::new(root.join("scripts/gpu-check"))
        .arg("--short")
        .arg(&report)
        .current_dir(root)
        .env("LD_LIBRARY_PATH", &driver)
        .env("SIMCUDA_MEMORY_MIB", "4096")
        .status()
        .context("cannot run scripts/gpu-check")?;
    let told = std::fs::read_to_string(&report).unwrap_or_default();
    ensure!(status.success(), "scripts/gpu-check failed:\n{told}");
    for part in ["kernels: ok", "sampling: ok", "serving: ok"] {
        ensure!(told.contains(part), "no line of {part:?} in:\n{told}");
    }
    Ok(())
}
