//! How near kernels come to the machine's limits.
//!
//! Limits are measured in the same run: bytes streamed from memory, and products of the
//! instructions that a kernel consists of. A cell's floor is the larger of its bytes and its
//! operations over them; its share is the floor over the fastest of many calls. Weights are
//! taken in turns from more memory than caches hold, as in a model.

mod attention;
mod linear;

use std::io::Write;
use std::time::{Duration, Instant};

use ::kernels::{CpuOptions, Device, Isa, Peak, WeightType};
use anyhow::{Context, Result};

use crate::report::Report;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[arg(long)]
    threads: Option<usize>,
    /// One of this machine's instruction sets; the fastest if none is given.
    #[arg(long, value_parser = isa_of)]
    isa: Option<Isa>,
    /// Formats of weights; all if none is given.
    #[arg(long, value_delimiter = ',')]
    formats: Vec<String>,
    #[arg(long, value_delimiter = ',', default_values_t = [1, 4, 16, 64, 512])]
    rows: Vec<usize>,
    /// Milliseconds that each cell may take.
    #[arg(long, default_value_t = 200)]
    ms: u64,
    /// Leave attention out.
    #[arg(long)]
    only_linear: bool,
    /// Leave linear layers out.
    #[arg(long, conflicts_with = "only_linear")]
    only_attention: bool,
}

fn isa_of(name: &str) -> Result<Isa, String> {
    let mut available = Isa::available();
    available
        .find(|isa| format!("{isa:?}").eq_ignore_ascii_case(name))
        .ok_or_else(|| format!("one of {:?}", Isa::available().collect::<Vec<_>>()))
}

/// What one call must do at least.
#[derive(Clone, Copy, Debug)]
struct Work {
    bytes: f64,
    int8_ops: f64,
    bf16_ops: f64,
    f32_ops: f64,
}

impl Work {
    /// Seconds below which the machine cannot do it, and whether memory is what limits.
    fn floor(self, peak: Peak) -> (f64, bool) {
        let memory = self.bytes / peak.bytes_per_s;
        let compute = self.int8_ops / peak.int8_ops_per_s
            + self.bf16_ops / peak.bf16_ops_per_s
            + self.f32_ops / peak.f32_ops_per_s;
        (memory.max(compute), memory > compute)
    }
}

/// One kernel at one number of rows.
#[derive(Debug)]
struct Cell {
    kernel: String,
    n_rows: usize,
    seconds: f64,
    work: Work,
}

const FORMATS: [WeightType; 14] = [
    WeightType::F32,
    WeightType::F16,
    WeightType::BF16,
    WeightType::Q8_0,
    WeightType::Q4_0,
    WeightType::Q4_1,
    WeightType::Q5_0,
    WeightType::Q5_1,
    WeightType::Q2_K,
    WeightType::Q3_K,
    WeightType::Q4_K,
    WeightType::Q5_K,
    WeightType::Q6_K,
    WeightType::IQ4_NL,
];

pub(crate) fn run(options: &Options) -> Result<Report> {
    let device = Device::cpu(CpuOptions {
        n_threads: options.threads,
        isa: options.isa,
    });
    let time = Duration::from_millis(options.ms);
    let before = device.peak(time)?.context("the CPU is measured")?;
    let mut cells = Vec::new();
    let wanted = |ty: &WeightType| {
        let name = format!("{ty:?}");
        options.formats.is_empty()
            || options
                .formats
                .iter()
                .any(|format| format.eq_ignore_ascii_case(&name))
    };
    if !options.only_attention {
        for ty in FORMATS.into_iter().filter(wanted) {
            linear::measure(&device, ty, &options.rows, time, &mut cells)?;
        }
    }
    if !options.only_linear {
        attention::measure(&device, &options.rows, time, &mut cells)?;
    }
    // The better of two, as neighbours slow a machine for seconds at a time.
    let after = device.peak(time)?.context("the CPU is measured")?;
    let peak = Peak {
        bytes_per_s: before.bytes_per_s.max(after.bytes_per_s),
        int8_ops_per_s: before.int8_ops_per_s.max(after.int8_ops_per_s),
        bf16_ops_per_s: before.bf16_ops_per_s.max(after.bf16_ops_per_s),
        f32_ops_per_s: before.f32_ops_per_s.max(after.f32_ops_per_s),
    };
    print(&device, &cells, peak, &options.rows)?;
    Ok(report(&cells, peak))
}

/// A line a kernel, a column a number of rows.
fn print(device: &Device, cells: &[Cell], peak: Peak, rows: &[usize]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", device.describe())?;
    writeln!(
        out,
        "limits: {:.1} GB/s streamed, {:.0} Gop/s int8, {:.0} Gop/s bf16, {:.0} Gop/s f32",
        peak.bytes_per_s / 1e9,
        peak.int8_ops_per_s / 1e9,
        peak.bf16_ops_per_s / 1e9,
        peak.f32_ops_per_s / 1e9
    )?;
    write!(out, "{:<24}", "share of the limit")?;
    for n_rows in rows {
        write!(out, "{n_rows:>16}")?;
    }
    writeln!(out, "   (m: memory, c: compute)")?;
    let mut last = "";
    for cell in cells {
        if cell.kernel != last {
            write!(
                out,
                "{}{:<24}",
                if last.is_empty() { "" } else { "\n" },
                cell.kernel
            )?;
            last = &cell.kernel;
        }
        let (floor, memory) = cell.work.floor(peak);
        let limit = if memory { 'm' } else { 'c' };
        let us = format!("{:.0} us", cell.seconds * 1e6);
        write!(
            out,
            "{us:>10}{:>4.0}% {limit}",
            100.0 * floor / cell.seconds
        )?;
    }
    writeln!(out)?;
    Ok(())
}

fn report(cells: &[Cell], peak: Peak) -> Report {
    let mut report = Report::new("kernels");
    report.note("limit: streamed bytes", peak.bytes_per_s / 1e9, "GB/s");
    report.note("limit: int8 products", peak.int8_ops_per_s / 1e9, "Gop/s");
    report.note("limit: bf16 products", peak.bf16_ops_per_s / 1e9, "Gop/s");
    report.note("limit: f32 products", peak.f32_ops_per_s / 1e9, "Gop/s");
    let mut worst = (f64::INFINITY, String::new());
    for cell in cells {
        let share = cell.work.floor(peak).0 / cell.seconds;
        let what = format!("{}, {} rows", cell.kernel, cell.n_rows);
        if share < worst.0 {
            worst = (share, what.clone());
        }
        report.note(what, share, "of limit");
    }
    report.note(format!("worst: {}", worst.1), worst.0, "of limit");
    report
}

/// Seconds of the fastest of many calls; the first ones only warm up.
fn fastest(time: Duration, mut call: impl FnMut(usize)) -> f64 {
    let begin = Instant::now();
    let mut best = f64::INFINITY;
    let mut i = 0;
    while i < 5 || begin.elapsed() < time {
        let start = Instant::now();
        call(i);
        if i > 1 {
            best = best.min(start.elapsed().as_secs_f64());
        }
        i += 1;
    }
    best
}
