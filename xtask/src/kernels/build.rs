//! From CUDA sources to PTX images.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};

use super::toolchain::{Toolchain, run};

pub(super) const SOURCES: &str = "kernels/cuda";
pub(super) const FLAGS: [&str; 3] = ["-ptx", "-O3", "-std=c++17"];

/// Architectures that images are made for, oldest first. One whose code is the same as that of an
/// older one gets no image: the driver compiles the older one for it.
const ARCHS: [&str; 3] = ["80", "89", "90a"];

/// Sources of instructions that a single architecture has.
const SINGLE: [(&str, &str); 1] = [("linear_wgmma", "90a")];

/// PTX versions to try, oldest first: the oldest that knows all features a kernel uses reaches
/// the most drivers.
const VERSIONS: [&str; 9] = [
    "7.0", "7.1", "7.4", "7.8", "8.0", "8.1", "8.4", "8.6", "8.8",
];

/// One compiled source for one architecture.
#[derive(Clone, Debug)]
pub(super) struct Image {
    pub(super) name: String,
    /// `80`, `89`, `90a`.
    pub(super) arch: &'static str,
    pub(super) version: &'static str,
    pub(super) ptx: String,
}

impl Image {
    pub(super) fn path(&self) -> String {
        format!("kernels/ptx/sm_{}/{}.ptx", self.arch, self.name)
    }

    /// Names of its kernels.
    pub(super) fn kernels(&self) -> impl Iterator<Item = &str> {
        let entries = self.ptx.lines();
        entries.filter_map(|line| line.strip_prefix(".visible .entry ")?.split('(').next())
    }
}

/// Sources of kernels, by name.
pub(super) fn sources(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root.join(SOURCES))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "cu") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

pub(super) fn compile(root: &Path, toolchain: &Toolchain) -> Result<Vec<Image>> {
    let sources = sources(root)?;
    let all = in_parallel(&sources, |source| compile_one(toolchain, source))?;
    Ok(all.into_iter().flatten().collect())
}

fn compile_one(toolchain: &Toolchain, source: &Path) -> Result<Vec<Image>> {
    let name = source.file_stem().context("a source has a name")?;
    let name = name.to_string_lossy().into_owned();
    let mut images: Vec<Image> = Vec::new();
    let single = SINGLE.iter().find(|(source, _)| *source == name);
    let wanted = |arch: &&str| single.is_none_or(|(_, only)| only == arch);
    for arch in ARCHS.into_iter().filter(wanted) {
        let file = toolchain.scratch.join(format!("{name}.{arch}.ptx"));
        run(Command::new(toolchain.tool("nvcc"))
            .args(FLAGS)
            .arg(format!("-arch=compute_{arch}"))
            .arg("-o")
            .arg(&file)
            .arg(source))?;
        let text = std::fs::read_to_string(&file)?;
        let body = strip(&text);
        if images.iter().any(|older| body_of(&older.ptx) == body) {
            continue;
        }
        images.push(lower(toolchain, &name, arch, &body)?);
    }
    Ok(images)
}

/// PTX without comments, empty lines and the lines that name version and target.
fn strip(ptx: &str) -> String {
    let mut body = String::new();
    for line in ptx.lines() {
        let line = line.split("//").next().unwrap_or_default().trim();
        if !(line.is_empty() || line.starts_with(".version") || line.starts_with(".target")) {
            body.push_str(line);
            body.push('\n');
        }
    }
    body
}

fn head(arch: &str, version: &str) -> String {
    format!(".version {version}\n.target sm_{arch}\n")
}

/// What follows the two lines of [`head`].
fn body_of(ptx: &str) -> &str {
    ptx.splitn(3, '\n').nth(2).unwrap_or_default()
}

/// Gives PTX the oldest version with which assemblers take it.
fn lower(toolchain: &Toolchain, name: &str, arch: &'static str, body: &str) -> Result<Image> {
    let mut refused = None;
    for version in VERSIONS {
        let image = Image {
            name: name.to_owned(),
            arch,
            version,
            ptx: format!("{}{body}", head(arch, version)),
        };
        let file = toolchain.scratch.join(format!("{name}.{arch}.lower.ptx"));
        std::fs::write(&file, &image.ptx)?;
        let old = run(Command::new(&toolchain.old_ptxas)
            .arg(format!("-arch=sm_{arch}"))
            .args(["-O0", "-o", "/dev/null"])
            .arg(&file));
        match old {
            Ok(_) => return Ok(image),
            Err(error) => refused = Some(error),
        }
    }
    Err(refused.context("there are versions")?)
        .with_context(|| format!("no version of PTX fits {name} on sm_{arch}"))
}

/// Maps on two threads, results in order.
pub(super) fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((i, item)) = {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    items.get(i).map(|item| (i, item))
                } {
                    let result = work(item);
                    if let Ok(mut done) = done.lock() {
                        done.push((i, result));
                    }
                }
            });
        }
    });
    let mut done = done
        .into_inner()
        .map_err(|_| anyhow::anyhow!("a worker panicked"))?;
    done.sort_by_key(|(i, _)| *i);
    done.into_iter().map(|(_, result)| result).collect()
}
