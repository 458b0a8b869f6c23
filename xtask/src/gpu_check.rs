//! `scripts/gpu-check` in its short mode, on a simulated GPU, so that the script is known to work
//! for whoever has a real one.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

pub(crate) fn run(root: &Path) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // With all packages, as the tests before were built.
    let built = Command::new(cargo)
        .args(["build", "--release", "--workspace"])
        .current_dir(root)
        .status()
        .context("cannot run cargo")?;
    ensure!(built.success(), "the simulated driver was not built");
    let dir = root.join("target/gpu-check");
    let driver = dir.join("driver");
    std::fs::create_dir_all(&driver)?;
    // Under the name by which drivers are looked for.
    std::fs::copy(
        root.join("target/release/libsimcuda.so"),
        driver.join("libcuda.so"),
    )?;
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
