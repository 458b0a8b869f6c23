//! The pinned compiler, from PyPI into `target/cuda`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

pub(super) struct Toolchain {
    /// Where `bin/nvcc` lies.
    home: PathBuf,
    /// The assembler of an older release.
    pub(super) old_ptxas: PathBuf,
    /// Where intermediate files go.
    pub(super) scratch: PathBuf,
}

impl Toolchain {
    pub(super) fn install(root: &Path) -> Result<Self> {
        let venv = root.join("target/cuda");
        if !venv.join("bin/python").exists() {
            run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        }
        run(Command::new(venv.join("bin/python"))
            .args(["-m", "pip", "install", "--quiet", "--requirement"])
            .arg(root.join("kernels/cuda/requirements.txt")))?;
        let packages = packages(&venv)?;
        let toolchain = Self {
            home: packages.join("nvidia/cu13"),
            old_ptxas: packages.join("nvidia/cuda_nvcc/bin/ptxas"),
            scratch: venv.join("scratch"),
        };
        std::fs::create_dir_all(&toolchain.scratch)?;
        for tool in [toolchain.tool("nvcc"), toolchain.old_ptxas.clone()] {
            ensure!(tool.exists(), "{} is not there", tool.display());
        }
        Ok(toolchain)
    }

    pub(super) fn tool(&self, name: &str) -> PathBuf {
        self.home.join("bin").join(name)
    }

    /// A search path on which the tools find each other.
    pub(super) fn path(&self) -> Result<std::ffi::OsString> {
        let own = std::env::var_os("PATH").unwrap_or_default();
        let all = std::iter::once(self.home.join("bin")).chain(std::env::split_paths(&own));
        Ok(std::env::join_paths(all)?)
    }

    /// The release line of `nvcc --version`.
    pub(super) fn version(&self) -> Result<String> {
        let told = run(Command::new(self.tool("nvcc")).arg("--version"))?;
        let line = told.lines().find(|line| line.contains("release"));
        Ok(line.context("nvcc names no release")?.trim().to_owned())
    }
}

/// `lib/python*/site-packages` of a virtual environment.
fn packages(venv: &Path) -> Result<PathBuf> {
    for entry in std::fs::read_dir(venv.join("lib"))? {
        let path = entry?.path().join("site-packages");
        if path.exists() {
            return Ok(path);
        }
    }
    anyhow::bail!("{} holds no packages", venv.display())
}

/// Runs a command and gives what it printed on both streams; a failure gives the same.
pub(super) fn run(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    ensure!(output.status.success(), "{command:?} failed: {text}");
    Ok(text)
}
