//! The table of figures in `kernels/README.md`.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::figures::TARGETS;
use super::manifest::Manifest;

const PATH: &str = "kernels/README.md";
const BEGIN: &str = "<!-- figures: begin (cargo xtask kernels --table) -->\n";
const END: &str = "<!-- figures: end -->";

pub(super) fn write(root: &Path, manifest: &Manifest) -> Result<()> {
    let text = std::fs::read_to_string(root.join(PATH))?;
    std::fs::write(root.join(PATH), replaced(&text, manifest)?)?;
    Ok(())
}

pub(super) fn check(root: &Path, manifest: &Manifest) -> Result<()> {
    let text = std::fs::read_to_string(root.join(PATH))?;
    ensure!(
        replaced(&text, manifest)? == text,
        "the table of {PATH} is old; run `cargo xtask kernels --table`"
    );
    Ok(())
}

fn replaced(text: &str, manifest: &Manifest) -> Result<String> {
    let (before, rest) = text.split_once(BEGIN).context("README has no table")?;
    let (_, after) = rest.split_once(END).context("the table has no end")?;
    Ok(format!("{before}{BEGIN}{}{END}{after}", table(manifest)))
}

/// Registers a thread by architecture; shared bytes and matrix instructions, where they differ at
/// all, of the first.
fn table(manifest: &Manifest) -> String {
    let mut text = "| kernel | shared bytes | HMMA | HGMMA | IMMA | LDGSTS | UBLKCP |".to_owned();
    for (target, _) in TARGETS {
        write!(text, " sm_{target} |").expect("text grows");
    }
    text.push_str("\n|---|--:|--:|--:|--:|--:|--:|");
    text.push_str(&"--:|".repeat(TARGETS.len()));
    text.push('\n');
    for (kernel, by_arch) in &manifest.figures {
        let first = TARGETS.iter().find_map(|(target, _)| by_arch.get(*target));
        let first = first.cloned().unwrap_or_default();
        write!(
            text,
            "| `{kernel}` | {} | {} | {} | {} | {} | {} |",
            first.shared, first.hmma, first.hgmma, first.imma, first.ldgsts, first.bulk
        )
        .expect("text grows");
        for (target, _) in TARGETS {
            match by_arch.get(target) {
                Some(figures) => write!(text, " {} |", figures.registers),
                None => write!(text, " |"),
            }
            .expect("text grows");
        }
        text.push('\n');
    }
    text
}
