//! `kernels/ptx/MANIFEST.json`: what the images were made from, and their figures.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::build::{FLAGS, Image, SOURCES};
use super::figures::AllFigures;
use super::toolchain::Toolchain;

pub(super) const PATH: &str = "kernels/ptx/MANIFEST.json";
pub(super) const RUST_PATH: &str = "kernels/src/cuda/images.rs";

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Manifest {
    compiler: String,
    flags: Vec<String>,
    /// SHA-256 of every source and header, by path within `kernels/cuda`.
    sources: BTreeMap<String, String>,
    images: Vec<ImageEntry>,
    pub(super) figures: AllFigures,
}

#[derive(Debug, Serialize, Deserialize)]
struct ImageEntry {
    name: String,
    arch: String,
    /// Version of PTX, and so the oldest driver.
    version: String,
    sha256: String,
    kernels: Vec<String>,
}

impl Manifest {
    pub(super) fn new(
        root: &Path,
        toolchain: &Toolchain,
        images: &[Image],
        figures: AllFigures,
    ) -> Result<Self> {
        let images = images.iter().map(|image| ImageEntry {
            name: image.name.clone(),
            arch: image.arch.to_owned(),
            version: image.version.to_owned(),
            sha256: digest(image.ptx.as_bytes()),
            kernels: image.kernels().map(str::to_owned).collect(),
        });
        Ok(Self {
            compiler: toolchain.version()?,
            flags: FLAGS.map(str::to_owned).to_vec(),
            sources: sources(root)?,
            images: images.collect(),
            figures,
        })
    }

    pub(super) fn read(root: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(root.join(PATH)).context(PATH)?;
        serde_json::from_str(&text).context(PATH)
    }

    pub(super) fn to_text(&self) -> Result<String> {
        Ok(format!("{}\n", serde_json::to_string_pretty(self)?))
    }

    /// The images as Rust, to be part of the binary.
    pub(super) fn to_rust(&self) -> String {
        let mut text = "//! The compiled kernels. Written by `cargo xtask kernels`.\n\n\
            use super::Image;\n\n/// Of each name, the oldest architecture first.\n\
            pub(super) static IMAGES: &[Image] = &[\n"
            .to_owned();
        for image in &self.images {
            let (name, arch) = (&image.name, &image.arch);
            let number = arch.trim_end_matches('a');
            let (major, minor) = number.split_at(number.len() - 1);
            writeln!(
                text,
                "    Image {{\n        name: \"{name}\",\n        capability: ({major}, {minor}),\n        \
                 is_exact: {},\n        ptx: include_str!(\"../../ptx/sm_{arch}/{name}.ptx\"),\n    }},",
                arch.ends_with('a')
            )
            .expect("text grows");
        }
        text.push_str("];\n");
        text
    }
}

fn digest(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sources(root: &Path) -> Result<BTreeMap<String, String>> {
    let base = root.join(SOURCES);
    let mut found = BTreeMap::new();
    for dir in [base.clone(), base.join("common")] {
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            if path.is_file() {
                let name = path.strip_prefix(&base)?.to_string_lossy().into_owned();
                found.insert(name, digest(&std::fs::read(&path)?));
            }
        }
    }
    Ok(found)
}
