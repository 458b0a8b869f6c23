//! The tables of figures in `kernels/README.md`.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::figures::TARGETS;
use super::manifest::Manifest;
use super::traffic::{self, Traffic};

const PATH: &str = "kernels/README.md";

pub(super) fn write(root: &Path, manifest: &Manifest) -> Result<()> {
    let traffic = measured(root, manifest)?;
    let text = std::fs::read_to_string(root.join(PATH))?;
    std::fs::write(root.join(PATH), replaced(&text, manifest, &traffic)?)?;
    Ok(())
}

/// Fails when the tables are not those of the manifest and of the committed images.
pub(super) fn check(root: &Path, manifest: &Manifest) -> Result<()> {
    let traffic = measured(root, manifest)?;
    let text = std::fs::read_to_string(root.join(PATH))?;
    ensure!(
        replaced(&text, manifest, &traffic)? == text,
        "the tables of {PATH} are old; run `cargo xtask kernels --table`"
    );
    Ok(())
}

fn measured(root: &Path, manifest: &Manifest) -> Result<Vec<Traffic>> {
    let all = traffic::measure(root)?;
    traffic::check(&all, manifest.figures.keys())?;
    Ok(all)
}

fn replaced(text: &str, manifest: &Manifest, traffic: &[Traffic]) -> Result<String> {
    let text = between(text, "figures", &table(manifest))?;
    between(&text, "traffic", &traffic::table(traffic))
}

/// Replaces what stands between the two marks of that name.
fn between(text: &str, name: &str, table: &str) -> Result<String> {
    let begin = format!("<!-- {name}: begin (cargo xtask kernels --table) -->\n");
    let end = format!("<!-- {name}: end -->");
    let (before, rest) = text.split_once(&begin).context("README has no table")?;
    let (_, after) = rest.split_once(&end).context("the table has no end")?;
    Ok(format!("{before}{begin}{table}{end}{after}"))
}

/// Registers a thread by architecture; the most bytes that any of them spills; shared bytes and
/// matrix instructions, where they differ at all, of the first.
fn table(manifest: &Manifest) -> String {
    let mut text =
        "| kernel | shared bytes | HMMA | HGMMA | IMMA | LDGSTS | UBLKCP | spills |".to_owned();
    for (target, _) in TARGETS {
        write!(text, " sm_{target} |").expect("text grows");
    }
    text.push_str("\n|---|--:|--:|--:|--:|--:|--:|--:|");
    text.push_str(&"--:|".repeat(TARGETS.len()));
    text.push('\n');
    for (kernel, by_arch) in &manifest.figures {
        let first = TARGETS.iter().find_map(|(target, _)| by_arch.get(*target));
        let first = first.cloned().unwrap_or_default();
        let spills = by_arch.values().map(|figures| figures.spills).max();
        write!(
            text,
            "| `{kernel}` | {} | {} | {} | {} | {} | {} | {} |",
            first.shared,
            first.hmma,
            first.hgmma,
            first.imma,
            first.ldgsts,
            first.bulk,
            spills.unwrap_or(0)
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
