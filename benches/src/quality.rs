//! What quantizing costs in quality: `understudy quantize` and `understudy eval-quant` over the
//! demo model (docs/models.md).

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::report::Report;
use crate::server::Product;

const TYPES: &str = "q8_0,q6_k,q5_k,q5_1,q5_0,q4_k,q4_1,q4_0,iq4_nl,q3_k,q2_k";

pub(crate) fn run(product: &Product) -> Result<Report> {
    let model = match &product.model {
        Some(model) => model.clone(),
        None => told(product, &["fetch"])?.trim().to_owned(),
    };
    let dir = std::env::temp_dir().join(format!("understudy-quality-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let plain = dir.join("plain.gguf");
    let plain = plain.to_str().context("a directory of UTF-8")?;
    let widen = ["--type", "bf16", "--allow-requantize"];
    let table = told(
        product,
        &[&["quantize", &model, plain][..], &widen].concat(),
    )
    .and_then(|_| told(product, &["eval-quant", plain, "--type", TYPES]));
    std::fs::remove_dir_all(&dir)?;
    report(&table?)
}

/// The lines of the table: `| weights | size | perplexity | ratio | KL mean | ...`.
fn report(table: &str) -> Result<Report> {
    let mut report = Report::new("quality");
    let mut n_lines = 0;
    let lines = table.lines().map(|line| line.split('|').map(str::trim));
    for line in lines {
        let cells: Vec<&str> = line.collect();
        let [_, name, size, perplexity, ratio, divergence, ..] = cells[..] else {
            continue;
        };
        // Not the line of names, nor the one below it.
        let Ok(perplexity) = perplexity.parse() else {
            continue;
        };
        let size = size.strip_suffix(" MiB").context("a size in MiB")?;
        report.note(format!("{name}: size"), size.parse()?, "MiB");
        n_lines += 1;
        report.note(format!("{name}: perplexity"), perplexity, "");
        report.note(format!("{name}: of unquantized"), ratio.parse()?, "x");
        report.note(format!("{name}: mean divergence"), divergence.parse()?, "");
    }
    // One of the weights as stored.
    let n_expected = TYPES.split(',').count() + 1;
    ensure!(n_lines == n_expected, "lines are missing: {table}");
    Ok(report)
}

/// What the product prints.
fn told(product: &Product, args: &[&str]) -> Result<String> {
    let output = Command::new(&product.binary).args(args).output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "understudy {}: {errors}", args[0]);
    Ok(String::from_utf8(output.stdout)?)
}
