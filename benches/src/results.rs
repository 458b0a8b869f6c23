//! `results`: everything that is measured, in one go, as `benches/RESULTS.md`.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::report::{machine, told};

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Sections to leave out, by their names.
    #[arg(long, value_delimiter = ',')]
    skip: Vec<String>,
    /// Only these sections; the others stay as they were.
    #[arg(long, value_delimiter = ',', conflicts_with = "skip")]
    only: Vec<String>,
    /// Models to run beside llama.cpp (benches/peers/README.md), instead of all.
    #[arg(long)]
    peer_models: Option<String>,
    /// Where the page goes.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/RESULTS.md"))]
    page: PathBuf,
    /// Where the figures of each section are kept.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/results"))]
    figures: PathBuf,
}

/// A part of the page.
struct Section {
    name: &'static str,
    title: &'static str,
    /// Arguments of this binary; of another program, its path first.
    command: &'static [&'static str],
    is_own: bool,
    /// What is written to the directory of figures.
    file: &'static str,
}

const fn own(
    name: &'static str,
    title: &'static str,
    command: &'static [&'static str],
    file: &'static str,
) -> Section {
    Section {
        name,
        title,
        command,
        is_own: true,
        file,
    }
}

const SECTIONS: [Section; 24] = [
    own(
        "kernels",
        "Kernels: share of the machine's limits",
        &["kernels"],
        "kernels.json",
    ),
    own(
        "speed",
        "Prompts and decode steps, without a server",
        &["speed"],
        "speed.json",
    ),
    own(
        "quality",
        "What quantizing costs in quality",
        &["quality"],
        "quality.json",
    ),
    own(
        "scheduler",
        "Policy: a step without a model",
        &["scheduler"],
        "scheduler.json",
    ),
    own(
        "text",
        "Tokenizer, detokenizer, grammars",
        &["text"],
        "text.json",
    ),
    own(
        "overhead",
        "HTTP without a model",
        &["overhead"],
        "overhead.json",
    ),
    own("startup", "Start", &["startup"], "startup.json"),
    own(
        "interference",
        "A long prompt beside streams",
        &["interference"],
        "interference.json",
    ),
    own("fairness", "Two tenants", &["fairness"], "fairness.json"),
    own(
        "prefix",
        "Shared system prompts",
        &["prefix"],
        "prefix.json",
    ),
    own(
        "overload",
        "Ten times too many requests",
        &["overload"],
        "overload.json",
    ),
    own(
        "structured",
        "Structured output",
        &["structured"],
        "structured.json",
    ),
    own(
        "hostile",
        "Schemas and grammars that nobody should send",
        &["hostile"],
        "hostile.json",
    ),
    own(
        "invariance",
        "The same requests, the same bytes",
        &["invariance"],
        "invariance.json",
    ),
    own("abuse", "Misbehaving connections", &["abuse"], "abuse.json"),
    own("lora", "Steps with adapters", &["lora"], "lora.json"),
    own(
        "adapters",
        "More adapters than fit",
        &["adapters"],
        "adapters.json",
    ),
    own(
        "capacity",
        "The plan against a real run",
        &["capacity"],
        "capacity.json",
    ),
    own(
        "validate",
        "Simulation against measurement",
        &["simulate", "validate"],
        "simulate-validate.json",
    ),
    own(
        "gpu",
        "Modelled: one H100",
        &["simulate", "gpu"],
        "simulate-gpu.json",
    ),
    own(
        "replicas",
        "Modelled: four H100 behind a router",
        &["simulate", "replicas"],
        "simulate-replicas.json",
    ),
    Section {
        name: "agree",
        title: "The load generator beside guidellm",
        command: &["benches/agree.sh"],
        is_own: false,
        file: "agree.json",
    },
    Section {
        name: "peers",
        title: "Beside llama.cpp",
        command: &["python3", "benches/peers/compare.py"],
        is_own: false,
        file: "peers-llama.cpp.json",
    },
    Section {
        name: "vllm",
        title: "Beside vLLM on the CPU",
        command: &["python3", "benches/peers/compare.py", "--peer", "vllm"],
        is_own: false,
        file: "peers-vllm.json",
    },
];

pub(crate) fn run(model: Option<&str>, options: &Options) -> Result<()> {
    for name in options.skip.iter().chain(&options.only) {
        let names: Vec<&str> = SECTIONS.iter().map(|section| section.name).collect();
        let is_known = names.contains(&name.as_str());
        ensure!(
            is_known,
            "no section {name}; there are {}",
            names.join(", ")
        );
    }
    std::fs::create_dir_all(&options.figures)?;
    let mut out = std::io::stderr();
    for section in &SECTIONS {
        let is_wanted = if options.only.is_empty() {
            !options.skip.iter().any(|name| name == section.name)
        } else {
            options.only.iter().any(|name| name == section.name)
        };
        if is_wanted {
            let begin = Instant::now();
            let is_met = measure(model, section, options)?;
            let seconds = begin.elapsed().as_secs_f64();
            let told = if is_met { "" } else { ", expectations missed" };
            std::io::Write::write_fmt(
                &mut out,
                format_args!("{}: {seconds:.0} s{told}\n", section.name),
            )?;
        }
    }
    std::fs::write(&options.page, page(&options.figures)?)?;
    Ok(())
}

/// Measures a section; whether its expectations were met. An error if it made no figures.
fn measure(model: Option<&str>, section: &Section, options: &Options) -> Result<bool> {
    let figures = &options.figures;
    let path = figures.join(section.file);
    if path.exists() {
        std::fs::remove_file(&path)?;
    }
    let mut command = if section.is_own {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(section.command);
        if let Some(model) = model {
            command.args(["--model", model]);
        }
        command
    } else {
        let mut command = Command::new(section.command[0]);
        command.args(&section.command[1..]);
        if let ("peers", Some(models)) = (section.name, &options.peer_models) {
            command.args(["--models", models]);
        }
        command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        command
    };
    let status = command
        .arg("--results")
        .arg(figures.canonicalize()?)
        .status();
    let status = status.with_context(|| section.command.join(" "))?;
    ensure!(
        path.exists(),
        "{}: {status}, and no {}",
        section.name,
        path.display()
    );
    Ok(status.success())
}

fn page(figures: &Path) -> Result<String> {
    let mut page = String::new();
    writeln!(
        page,
        "# Results\n\nMade by `cargo run --release -p benches -- results` (after `cargo build --release --bin \
         understudy`), and written over by the next run. One\nmachine at one time: compare ratios, and figures of one \
         section with each other.\n\n\
         | | |\n|---|---|\n| machine | {} |\n| threads of the page's writer | {} |\n| Understudy | {} ({}) |\n\
         | compiler | {} |\n| system | {} |\n",
        machine(),
        std::thread::available_parallelism().map_or(1, usize::from),
        env!("CARGO_PKG_VERSION"),
        told(
            "git",
            &["describe", "--always", "--dirty", "--exclude", "*"]
        ),
        told("rustc", &["--version"]),
        told("uname", &["-sr"]),
    )?;
    for section in &SECTIONS {
        let path = figures.join(section.file);
        writeln!(page, "## {}\n", section.title)?;
        let Ok(text) = std::fs::read_to_string(&path) else {
            writeln!(
                page,
                "Left out of this run (`--only {}` makes it).\n",
                section.name
            )?;
            continue;
        };
        let told: Value = serde_json::from_str(&text)?;
        let command = if section.is_own {
            format!(
                "cargo run --release -p benches -- {}",
                section.command.join(" ")
            )
        } else {
            section.command.join(" ")
        };
        writeln!(page, "`{command}`{}{}\n", when(&told), pressure(&told))?;
        match section.name {
            "peers" | "vllm" => peers(&mut page, &told)?,
            "agree" => agree(&mut page, &told)?,
            _ => rows(&mut page, &told)?,
        }
    }
    Ok(page.trim_end().to_owned() + "\n")
}

/// The day and the commit of a measurement, where it tells them.
fn when(told: &Value) -> String {
    let Some(seconds) = told["unix_seconds"].as_u64() else {
        return String::new();
    };
    let day = crate::report::told("date", &["-u", "-d", &format!("@{seconds}"), "+%F"]);
    let commit = told["commit"].as_str().unwrap_or("unknown");
    format!(", {day}, {commit}")
}

/// What else ran: figures of a busy machine are rough.
fn pressure(told: &Value) -> String {
    match told["pressure_percent"]
        .as_f64()
        .or(told["pressure"].as_f64())
    {
        Some(percent) if percent > 10.0 => {
            format!(
                ", on a busy machine (something waited for a processor {percent:.0}% of the time)"
            )
        }
        _ => String::new(),
    }
}

fn rows(page: &mut String, told: &Value) -> Result<()> {
    writeln!(
        page,
        "| figure | value | unit | expected |\n|---|--:|---|---|"
    )?;
    for row in told["rows"].as_array().into_iter().flatten() {
        let text = |name: &str| row[name].as_str().unwrap_or_default();
        let value = row["value"].as_f64().unwrap_or_default();
        let expected = match row["met"].as_bool() {
            None => String::new(),
            Some(true) => format!("{}, met", text("expected")),
            Some(false) => format!("{}, **missed**", text("expected")),
        };
        writeln!(
            page,
            "| {} | {} | {} | {expected} |",
            text("what"),
            figure(value),
            text("unit")
        )?;
    }
    writeln!(page)?;
    Ok(())
}

/// Three digits that say something.
fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || size == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn agree(page: &mut String, told: &Value) -> Result<()> {
    writeln!(
        page,
        "| figure | understudy bench | guidellm | difference |\n|---|--:|--:|--:|"
    )?;
    for (name, off) in told["off_percent"].as_object().into_iter().flatten() {
        let of = |tool: &str| figure(told["means"][tool][name].as_f64().unwrap_or_default());
        let off = off.as_f64().unwrap_or_default();
        writeln!(
            page,
            "| {name} | {} | {} | {off:+.1}% |",
            of("understudy bench"),
            of("guidellm")
        )?;
    }
    writeln!(page)?;
    Ok(())
}

fn peers(page: &mut String, told: &Value) -> Result<()> {
    let package = told["peer"].as_str().unwrap_or("unknown");
    let n_threads = &told["threads"];
    let rows = told["rows"].as_array().map_or(&[][..], Vec::as_slice);
    let medians = rows.first().and_then(|row| row["medians"].as_object());
    let mut names = medians.into_iter().flat_map(|medians| medians.keys());
    let peer = names
        .find(|name| *name != "understudy")
        .context("no other server")?;
    writeln!(
        page,
        "{peer} is `{package}`; each server has {n_threads} threads.\n\n\
         | model | scenario | figure | understudy | {peer} | ratio |\n|---|---|---|--:|--:|--:|"
    )?;
    for row in rows {
        let text = |name: &str| row[name].as_str().unwrap_or_default();
        for (name, ratio) in row["ratios"].as_object().into_iter().flatten() {
            let of =
                |server: &str| figure(row["medians"][server][name].as_f64().unwrap_or_default());
            writeln!(
                page,
                "| {} | {} | {name} | {} | {} | {} |",
                text("model"),
                text("scenario"),
                of("understudy"),
                of(peer),
                figure(ratio.as_f64().unwrap_or_default())
            )?;
        }
    }
    writeln!(page)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_page_has_every_section_and_its_figures() {
        let dir = tempfile::tempdir().unwrap();
        let rows = json!({"pressure_percent": 40.0, "rows": [
            {"what": "speed", "value": 1234.5, "unit": "tokens/s", "expected": null, "met": null},
            {"what": "error", "value": 16.25, "unit": "%", "expected": "<= 15", "met": false}]});
        std::fs::write(dir.path().join("speed.json"), rows.to_string()).unwrap();
        let agree = json!({"off_percent": {"ttft_ms": -1.25},
            "means": {"guidellm": {"ttft_ms": 200.0}, "understudy bench": {"ttft_ms": 197.5}}});
        std::fs::write(dir.path().join("agree.json"), agree.to_string()).unwrap();
        let vllm = json!({"peer": "vllm==1", "threads": 2, "rows": [{"model": "a:hf",
            "scenario": "decode", "medians": {"understudy": {"tokens_per_s": 50.0},
            "vllm": {"tokens_per_s": 20.0}}, "ratios": {"tokens_per_s": 2.5}}]});
        std::fs::write(dir.path().join("peers-vllm.json"), vllm.to_string()).unwrap();
        let page = page(dir.path()).unwrap();
        assert!(page.contains("vllm is `vllm==1`"), "{page}");
        assert!(
            page.contains("| a:hf | decode | tokens_per_s | 50.0 | 20.0 | 2.50 |"),
            "{page}"
        );
        assert!(
            page.contains("| speed | 1234 | tokens/s |  |") || page.contains("| speed | 1235 |")
        );
        assert!(
            page.contains("| error | 16.2 | % | <= 15, **missed** |"),
            "{page}"
        );
        assert!(page.contains("| ttft_ms | 198 | 200 | -1.2% |"), "{page}");
        assert!(page.contains("busy machine"));
        assert_eq!(page.matches("\n## ").count(), SECTIONS.len());
        assert_eq!(page.matches("Left out").count(), SECTIONS.len() - 3);
    }
}
