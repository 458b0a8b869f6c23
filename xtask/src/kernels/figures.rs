//! What the assembler and the disassembler say of each kernel on each architecture.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::build::{Image, in_parallel};
use super::toolchain::{Toolchain, run};

/// Architectures that all images are assembled for, and the newest image each can take: one for
/// an `a` architecture runs there only.
pub(super) const TARGETS: [(&str, &[&str]); 6] = [
    ("80", &["80"]),
    ("86", &["80"]),
    ("89", &["80", "89"]),
    ("90a", &["80", "89", "90a"]),
    ("100a", &["80", "89"]),
    ("120a", &["80", "89"]),
];

/// One kernel on one architecture.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Figures {
    pub(super) registers: u32,
    /// Bytes of static shared memory.
    pub(super) shared: u32,
    /// Bytes of local memory: spills and arrays that found no registers.
    pub(super) stack: u32,
    pub(super) spills: u32,
    /// Instructions of matrix units, float and integer.
    pub(super) hmma: u32,
    pub(super) imma: u32,
    /// Asynchronous copies to shared memory.
    pub(super) ldgsts: u32,
    /// Products of warp groups.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) hgmma: u32,
    /// Bulk copies.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) bulk: u32,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// By kernel, then by architecture.
pub(super) type AllFigures = BTreeMap<String, BTreeMap<String, Figures>>;

pub(super) fn measure(root: &Path, toolchain: &Toolchain, images: &[Image]) -> Result<AllFigures> {
    let mut jobs = Vec::new();
    for (target, usable) in TARGETS {
        let mut names: BTreeMap<&str, &Image> = BTreeMap::new();
        for image in images.iter().filter(|image| usable.contains(&image.arch)) {
            // Images come oldest first: the newest stays.
            names.insert(&image.name, image);
        }
        jobs.extend(names.into_values().map(|image| (target, image)));
    }
    let found = in_parallel(&jobs, |(target, image)| {
        assemble(root, toolchain, target, image)
            .with_context(|| format!("{} for sm_{target}", image.name))
    })?;
    let mut all = AllFigures::new();
    for ((target, _), kernels) in jobs.iter().zip(found) {
        for (kernel, figures) in kernels {
            let by_arch = all.entry(kernel).or_default();
            by_arch.insert((*target).to_owned(), figures);
        }
    }
    Ok(all)
}

fn assemble(
    root: &Path,
    toolchain: &Toolchain,
    target: &str,
    image: &Image,
) -> Result<BTreeMap<String, Figures>> {
    let scratch = &toolchain.scratch;
    let ptx = scratch.join(format!("{}.for.{target}.ptx", image.name));
    std::fs::write(&ptx, &image.ptx)?;
    let cubin = scratch.join(format!("{}.{target}.cubin", image.name));
    let told = run(Command::new(toolchain.tool("ptxas"))
        .current_dir(root)
        .arg(format!("-arch=sm_{target}"))
        .args(["-v", "-o"])
        .arg(&cubin)
        .arg(&ptx))?;
    let mut kernels = resources(&told);
    let sass = run(Command::new(toolchain.tool("cuobjdump"))
        .arg("-sass")
        .arg(&cubin)
        .env("PATH", toolchain.path()?))?;
    count_instructions(&sass, &mut kernels);
    Ok(kernels)
}

/// Reads `ptxas -v`.
fn resources(told: &str) -> BTreeMap<String, Figures> {
    let mut kernels: BTreeMap<String, Figures> = BTreeMap::new();
    let mut name = String::new();
    for line in told.lines() {
        if let Some(rest) = line.split("Compiling entry function '").nth(1) {
            rest.split('\'')
                .next()
                .unwrap_or_default()
                .clone_into(&mut name);
        }
        let figures = kernels.entry(name.clone()).or_default();
        for (words, to) in [
            (" registers", &mut figures.registers),
            (" bytes smem", &mut figures.shared),
            (" bytes stack frame", &mut figures.stack),
        ] {
            if let Some(value) = number_before(line, words) {
                *to = value;
            }
        }
        for words in [" bytes spill stores", " bytes spill loads"] {
            figures.spills += number_before(line, words).unwrap_or(0);
        }
    }
    kernels.remove("");
    kernels
}

fn number_before(line: &str, words: &str) -> Option<u32> {
    let before = &line[..line.find(words)?];
    before
        .rsplit(|c: char| !c.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

fn count_instructions(sass: &str, kernels: &mut BTreeMap<String, Figures>) {
    let mut figures = None;
    for line in sass.lines() {
        if let Some(name) = line.trim().strip_prefix("Function : ") {
            figures = kernels.get_mut(name);
        }
        let Some(figures) = figures.as_deref_mut() else {
            continue;
        };
        for (instruction, to) in [
            (" HMMA.", &mut figures.hmma),
            (" IMMA.", &mut figures.imma),
            (" LDGSTS.", &mut figures.ldgsts),
            (" HGMMA.", &mut figures.hgmma),
            (" UBLKCP.", &mut figures.bulk),
        ] {
            *to += u32::from(line.contains(instruction));
        }
    }
}
