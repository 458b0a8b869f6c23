//! What kernels ask of memory, as the simulator counts it (`kernels/examples/traffic`), and why
//! where that is more than the least.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// A ratio above this is more than rounding.
const LEAST: f64 = 1.005;

/// One launch of a kernel by one image.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Traffic {
    pub(super) kernel: String,
    shape: String,
    arch: String,
    /// Passes over shared memory, and without conflicts of banks.
    passes: u64,
    ideal_passes: u64,
    /// Instructions of warps on global memory, sectors that they touch, and the fewest that hold
    /// what each of them asks for.
    requests: u64,
    sectors: u64,
    ideal_sectors: u64,
}

impl Traffic {
    fn conflicts(&self) -> f64 {
        self.passes as f64 / self.ideal_passes.max(1) as f64
    }

    fn spread(&self) -> f64 {
        self.sectors as f64 / self.ideal_sectors.max(1) as f64
    }
}

/// Runs the committed images on the simulator.
pub(super) fn measure(root: &Path) -> Result<Vec<Traffic>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["run", "--release", "--quiet", "-p", "kernels"])
        .args(["--example", "traffic"])
        .current_dir(root)
        .stderr(std::process::Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "the example `traffic` failed");
    let text = String::from_utf8(output.stdout)?;
    let mut all: Vec<Traffic> = text
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| line.to_owned()))
        .collect::<Result<_>>()?;
    all.sort();
    Ok(all)
}

/// Fails where a kernel has no launch, asks for more than the least without a reason, or has a
/// reason that it does not need.
pub(super) fn check<'a>(all: &[Traffic], kernels: impl Iterator<Item = &'a String>) -> Result<()> {
    for kernel in kernels {
        let found = all.iter().any(|traffic| traffic.kernel == *kernel);
        ensure!(found, "no launch of {kernel} in kernels/examples/traffic");
    }
    let mut used: BTreeSet<&(&str, &str)> = BTreeSet::new();
    for traffic in all {
        let at = format!("{}, {}", traffic.kernel, traffic.shape);
        for (is_more, reasons, what) in [
            (traffic.conflicts() > LEAST, CONFLICTS, "conflicts of banks"),
            (traffic.spread() > LEAST, SPREAD, "more sectors than needed"),
        ] {
            let reason = reasons.iter().find(|(of, _)| is_of(of, &traffic.kernel));
            ensure!(!is_more || reason.is_some(), "{at}: unexplained {what}");
            used.extend(reason.filter(|_| is_more));
        }
    }
    for reason in CONFLICTS.iter().chain(SPREAD) {
        ensure!(used.contains(&reason), "{}: needs no reason", reason.0);
    }
    Ok(())
}

/// Whether a kernel is one of those that a pattern names: `*` stands for any text.
fn is_of(pattern: &str, kernel: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == kernel,
        Some((begin, end)) => {
            let rest = kernel.strip_prefix(begin);
            rest.is_some_and(|rest| rest.ends_with(end))
        }
    }
}

/// The figures as a table, and the reasons below it.
pub(super) fn table(all: &[Traffic]) -> String {
    let mut text = "| kernel | launch | image | passes | ideal | ratio | requests | sectors each \
                    | ideal | ratio |\n|---|---|---|--:|--:|--:|--:|--:|--:|--:|\n"
        .to_owned();
    for traffic in all {
        let of = |n: u64| n as f64 / traffic.requests.max(1) as f64;
        let ratio = match traffic.ideal_passes {
            0 => String::new(),
            _ => format!("{:.2}", traffic.conflicts()),
        };
        writeln!(
            text,
            "| `{}` | {} | sm_{} | {} | {} | {ratio} | {} | {:.2} | {:.2} | {:.2} |",
            traffic.kernel,
            traffic.shape,
            traffic.arch,
            traffic.passes,
            traffic.ideal_passes,
            traffic.requests,
            of(traffic.sectors),
            of(traffic.ideal_sectors),
            traffic.spread(),
        )
        .expect("text grows");
    }
    for (title, reasons) in [
        ("Passes above the ideal", CONFLICTS),
        ("Sectors above the ideal", SPREAD),
    ] {
        if reasons.is_empty() {
            continue;
        }
        writeln!(text, "\n{title}:\n").expect("text grows");
        for (kernel, reason) in reasons {
            writeln!(text, "- `{kernel}`: {reason}").expect("text grows");
        }
    }
    text
}

/// Why passes over shared memory are more than without conflicts of banks.
const CONFLICTS: &[(&str, &str)] = &[
    (
        "attention_heads_*_256",
        "sums are put down once a row, by lanes 64 bytes apart.",
    ),
    (
        "attention_80",
        "copies to shared memory only; a row of 160 bytes ends within eight copies of 16 bytes, \
         and the padding behind it, which products need, puts one of them into a taken bank.",
    ),
    ("attention_96", "as `attention_80`, with rows of 192 bytes."),
    (
        "route",
        "the scores of the chosen experts are read from where they lie, once a row.",
    ),
    (
        "sample_rows",
        "where the sort exchanges entries of 8 bytes less than 16 apart, each half of a warp \
         takes every other one: two passes. A row is sorted once or twice.",
    ),
];

/// Why requests touch more sectors than would hold what they ask for.
const SPREAD: &[(&str, &str)] = &[
    (
        "attention_heads_*",
        "queries only, once a row: a lane reads its 64 bytes in four pieces, each half a sector.",
    ),
    (
        "embed",
        "of a block format a lane takes its code from the word of bits that holds it; the \
         neighbours' words follow in later requests, from L1.",
    ),
    (
        "linear_exact",
        "lanes are columns and rows: 16 neighbouring weights are two sectors, but the two rows' \
         values lie apart, one to a sector, and the next seven come from L1.",
    ),
    (
        "linear_bf16_wgmma_*",
        "a lane writes its two neighbouring columns one after the other, each half a sector, \
         which L2 joins.",
    ),
    ("linear_f16_wgmma_*", "as `linear_bf16_wgmma_*`."),
    (
        "linear_*_small",
        "four rows' scales and sums, 8 bytes each, lie a row apart: a quarter of each sector, \
         whose rest the next three groups take from L1.",
    ),
    (
        "linear_*_large",
        "scales and sums as in the small version, copied for 32 rows at once.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn traffic(kernel: &str, passes: u64, sectors: u64) -> Traffic {
        Traffic {
            kernel: kernel.to_owned(),
            shape: "any".to_owned(),
            arch: "80".to_owned(),
            passes,
            ideal_passes: 100,
            requests: 10,
            sectors,
            ideal_sectors: 100,
        }
    }

    /// What `check` says of one kernel of this traffic.
    fn refusal(traffic: Traffic) -> String {
        let kernel = traffic.kernel.clone();
        let checked = check(&[traffic], [kernel].iter());
        checked
            .expect_err("reasons of other kernels are left")
            .to_string()
    }

    #[test]
    fn more_than_the_least_needs_a_reason() {
        assert!(refusal(traffic("fill", 101, 100)).contains("unexplained conflicts"));
        assert!(refusal(traffic("fill", 100, 101)).contains("unexplained more sectors"));
        assert!(refusal(traffic("attention_80", 110, 100)).contains("needs no reason"));
        let none = check(&[], ["fill".to_owned()].iter());
        assert!(
            none.expect_err("no launch")
                .to_string()
                .contains("no launch of fill")
        );
    }

    #[test]
    fn stars_stand_for_any_text() {
        assert!(is_of("linear_*_small", "linear_q4_0_small"));
        assert!(!is_of("linear_*_small", "linear_q4_0_large"));
        assert!(is_of("embed", "embed") && !is_of("embed", "embedding"));
    }
}
