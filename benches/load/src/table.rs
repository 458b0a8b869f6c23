//! Figures for people.

use std::fmt::Write;

use crate::quantile::Spread;
use crate::summary::Summary;

/// All loads, a block each; then, of several, a line each.
#[must_use]
pub(crate) fn text(title: &str, summaries: &[Summary]) -> String {
    let mut out = format!("{title}\n");
    for summary in summaries {
        // Writing to a string does not fail.
        block(&mut out, summary).ok();
    }
    if summaries.len() > 1 {
        overview(&mut out, summaries).ok();
    }
    out
}

fn block(out: &mut String, s: &Summary) -> std::fmt::Result {
    writeln!(out, "\n{}", s.load)?;
    let (n, n_failed) = (s.n_requests, s.n_failed);
    writeln!(
        out,
        "  requests       {n} in {:.1} s, {n_failed} failed",
        s.seconds
    )?;
    writeln!(
        out,
        "  throughput     {:.2} requests/s, {:.1} output tokens/s, {:.1} prompt tokens/s",
        s.requests_per_s, s.output_tokens_per_s, s.prompt_tokens_per_s
    )?;
    if let (Some(good), Some(share)) = (s.goodput_per_s, s.good_share) {
        let percent = share * 100.0;
        writeln!(
            out,
            "  goodput        {good:.2} requests/s ({percent:.1}% of all met the SLO)"
        )?;
    }
    writeln!(
        out,
        "  tokens         {:.0} a prompt ({} of {} from the cache), {:.1} an answer",
        s.prompt_tokens.mean, s.n_cached_tokens, s.n_prompt_tokens, s.output_tokens.mean
    )?;
    writeln!(
        out,
        "  {:<14} {:>10} {:>10} {:>10} {:>10}",
        "ms", "p50", "p90", "p99", "max"
    )?;
    let rows: [(&str, &Spread); 5] = [
        ("first token", &s.ttft_ms),
        ("further token", &s.tpot_ms),
        ("between events", &s.gap_ms),
        ("whole answer", &s.e2e_ms),
        ("sent late", &s.late_ms),
    ];
    for (name, spread) in rows.iter().filter(|(_, spread)| spread.n > 0) {
        let Spread {
            p50, p90, p99, max, ..
        } = spread;
        writeln!(
            out,
            "  {name:<14} {p50:>10.1} {p90:>10.1} {p99:>10.1} {max:>10.1}"
        )?;
    }
    for error in &s.errors {
        writeln!(
            out,
            "  failed         {} x {}: {}",
            error.n,
            error.kind,
            error.example.trim()
        )?;
    }
    for (model, n) in &s.models {
        writeln!(out, "  asked          {n} x {model}")?;
    }
    Ok(())
}

fn overview(out: &mut String, summaries: &[Summary]) -> std::fmt::Result {
    writeln!(
        out,
        "\n{:<34} {:>8} {:>9} {:>9} {:>9} {:>9} {:>9} {:>7}",
        "load", "req/s", "tokens/s", "TTFT p50", "TTFT p99", "TPOT p50", "TPOT p99", "failed"
    )?;
    for s in summaries {
        writeln!(
            out,
            "{:<34} {:>8.2} {:>9.1} {:>9.1} {:>9.1} {:>9.2} {:>9.2} {:>7}",
            s.load,
            s.requests_per_s,
            s.output_tokens_per_s,
            s.ttft_ms.p50,
            s.ttft_ms.p99,
            s.tpot_ms.p50,
            s.tpot_ms.p99,
            s.n_failed
        )?;
    }
    Ok(())
}
