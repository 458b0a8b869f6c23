//! `cargo xtask clients`: the clients of others against the real binary with the demo model.
//!
//! They have an environment of their own, since they need another version of the SDK than its own
//! tests do. Both environments are installed at once.

use std::path::Path;
use std::thread;

use anyhow::{Result, anyhow};

use crate::ci::sh;

const VENV: &str = "target/clients-venv";

/// Installs the clients and runs their tests. The binary must be built, the demo model fetched.
pub(crate) fn run(root: &Path) -> Result<()> {
    let dir = root.join("tests/clients");
    let python = root.join(VENV).join("bin/python");
    let (packages, node) = thread::scope(|scope| {
        let node = scope.spawn(|| sh(&dir, "npm", &["ci", "--no-audit", "--no-fund"]));
        (python_packages(root, &dir, &python), node.join())
    });
    packages?;
    node.map_err(|_| anyhow!("installing the Node packages panicked"))??;
    sh(&dir, &python, &["-m", "pytest", "-q"])
}

/// The list is complete and was resolved once, so that nothing needs to be looked up.
fn python_packages(root: &Path, dir: &Path, python: &Path) -> Result<()> {
    if !python.exists() {
        sh(root, "python3", &["-m", "venv", VENV])?;
    }
    let install = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-compile",
    ];
    sh(
        dir,
        python,
        &[&install[..], &["--requirement", "requirements.txt"]].concat(),
    )
}
