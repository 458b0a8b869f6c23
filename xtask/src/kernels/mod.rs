//! `cargo xtask kernels`: compiles the CUDA kernels to the PTX that is committed, and checks it.

mod budget;
mod build;
mod figures;
mod manifest;
mod table;
mod toolchain;
mod traffic;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use manifest::Manifest;
use toolchain::Toolchain;

/// Compiles the CUDA kernels, or checks what is committed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Compare with what is committed, byte for byte, instead of writing it
    #[arg(long)]
    check: bool,
    /// Only write the tables of kernels/README.md, from the committed manifest and images
    #[arg(long, conflicts_with = "check")]
    table: bool,
}

pub(crate) fn run(root: &Path, args: &Args) -> Result<()> {
    if args.table {
        return table::write(root, &Manifest::read(root)?);
    }
    let toolchain = Toolchain::install(root)?;
    rebuild(root, &toolchain, args.check)
}

/// For CI: as `--check`, but a compiler that cannot be had is said loudly and is no failure.
pub(crate) fn check(root: &Path) -> Result<()> {
    match Toolchain::install(root) {
        Ok(toolchain) => rebuild(root, &toolchain, true),
        Err(error) => {
            crate::say(&format!(
                "!! the CUDA compiler cannot be installed, kernels are NOT rebuilt: {error:#}"
            ));
            table::check(root, &Manifest::read(root)?)
        }
    }
}

fn rebuild(root: &Path, toolchain: &Toolchain, check: bool) -> Result<()> {
    let images = build::compile(root, toolchain)?;
    let figures = figures::measure(root, toolchain, &images)?;
    budget::check(&figures)?;
    let manifest = Manifest::new(root, toolchain, &images, figures)?;
    let mut files: BTreeMap<String, String> = images
        .iter()
        .map(|image| (image.path(), image.ptx.clone()))
        .collect();
    files.insert(manifest::PATH.to_owned(), manifest.to_text()?);
    files.insert(manifest::RUST_PATH.to_owned(), manifest.to_rust());
    if check {
        compare(root, &files)?;
        table::check(root, &manifest)?;
    } else {
        write(root, &files)?;
        table::write(root, &manifest)?;
    }
    let n_bytes: usize = images.iter().map(|image| image.ptx.len()).sum();
    crate::say(&format!("{} images, {n_bytes} bytes of PTX", images.len()));
    Ok(())
}

/// Relative paths of the PTX files that are there.
fn committed(root: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let dir = root.join("kernels/ptx");
    if !dir.exists() {
        return Ok(found);
    }
    for arch in std::fs::read_dir(dir)? {
        let arch = arch?;
        if !arch.path().is_dir() {
            continue;
        }
        for file in std::fs::read_dir(arch.path())? {
            let path = file?.path();
            let path = path.strip_prefix(root)?;
            found.push(path.to_string_lossy().into_owned());
        }
    }
    Ok(found)
}

fn write(root: &Path, files: &BTreeMap<String, String>) -> Result<()> {
    for stale in committed(root)? {
        if !files.contains_key(&stale) {
            std::fs::remove_file(root.join(&stale))?;
        }
    }
    for (path, text) in files {
        let path = root.join(path);
        let dir = path.parent().context("a file lies in a folder")?;
        std::fs::create_dir_all(dir)?;
        std::fs::write(&path, text)?;
    }
    Ok(())
}

fn compare(root: &Path, files: &BTreeMap<String, String>) -> Result<()> {
    for stale in committed(root)? {
        ensure!(
            files.contains_key(&stale),
            "{stale} comes from no source; run `cargo xtask kernels`"
        );
    }
    for (path, text) in files {
        let found = std::fs::read_to_string(root.join(path)).unwrap_or_default();
        ensure!(
            found == *text,
            "{path} is not what its sources compile to; run `cargo xtask kernels`"
        );
    }
    Ok(())
}
