//! `understudy plan`: from a short sweep and a goal to what a machine holds and how many are
//! needed.

use std::fmt::Write;

use serde_json::json;

use crate::args::BenchArgs;
use crate::arrivals::Arrivals;
use crate::bench::{Bench, Measured};
use crate::body::Endpoint;
use crate::capacity::{Capacity, Goal, Point};
use crate::error::LoadError;
use crate::length::Length;

/// What users do, and what they are to get.
#[derive(Clone, Debug, clap::Args)]
pub struct PlanArgs {
    /// Users who are active at a time.
    #[arg(long, value_name = "N")]
    pub users: usize,
    /// Seconds between two requests of a user.
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0)]
    pub every: f64,
    /// Tokens of a prompt: 256, 64..512, normal:256,64 or lognormal:256,0.8.
    #[arg(long, value_name = "LENGTH", default_value = "256")]
    pub prompt_tokens: Length,
    /// Tokens of an answer, likewise.
    #[arg(long, value_name = "LENGTH", default_value = "128")]
    pub output_tokens: Length,
    /// Tokens that all prompts begin with alike.
    #[arg(long, value_name = "TOKENS", default_value_t = 0)]
    pub shared_prefix: usize,
    /// 95 of 100 first tokens come within so many milliseconds.
    #[arg(long, value_name = "MS")]
    pub ttft_p95: f64,
    /// 95 of 100 answers have their further tokens within so many milliseconds each.
    #[arg(long, value_name = "MS")]
    pub tpot_p95: Option<f64>,
    /// Share of a machine to leave free, for the hours when more come.
    #[arg(long, value_name = "SHARE", default_value_t = 0.2)]
    pub headroom: f64,
    /// Seconds of each load of the sweep.
    #[arg(long, value_name = "SECONDS", default_value_t = 20.0)]
    pub seconds: f64,
    /// Clients of the load that finds out the most a machine can do.
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub clients: usize,
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Print JSON instead of text.
    #[arg(long)]
    pub as_json: bool,
}

/// Loads of the sweep, as shares of the most that the machine can do.
const SHARES: [f64; 6] = [0.3, 0.5, 0.65, 0.8, 0.9, 1.0];
/// A load for machines that miss the goal at the first of these.
const LEAST_SHARE: f64 = 0.05;
/// Fewest requests of a load: a 95th percentile of fewer says nothing.
const LEAST_REQUESTS: f64 = 40.0;

impl PlanArgs {
    /// The goal in requests a second.
    #[must_use]
    pub fn goal(&self) -> Goal {
        #[expect(clippy::cast_precision_loss, reason = "a count of users")]
        let users = self.users as f64;
        Goal {
            rate: users / self.every,
            ttft_p95_ms: self.ttft_p95,
            tpot_p95_ms: self.tpot_p95,
        }
    }

    fn check(&self) -> Result<(), LoadError> {
        let mut values = vec![
            ("every", self.every),
            ("ttft-p95", self.ttft_p95),
            ("seconds", self.seconds),
        ];
        values.extend(self.tpot_p95.map(|value| ("tpot-p95", value)));
        for (name, value) in values {
            if !(value.is_finite() && value > 0.0) {
                return Err(LoadError::Options(format!("--{name} must be above 0")));
            }
        }
        if self.users == 0 || self.clients == 0 || !(0.0..1.0).contains(&self.headroom) {
            let told = "--users and --clients must be at least 1, --headroom below 1";
            return Err(LoadError::Options(told.to_owned()));
        }
        Ok(())
    }

    /// The loads' flags: prompts of exact lengths, which completions take.
    fn bench(&self, base_url: &str) -> BenchArgs {
        let mut args = BenchArgs::defaults();
        base_url.clone_into(&mut args.base_url);
        args.endpoint = Endpoint::Completions;
        args.work.prompt_tokens = self.prompt_tokens;
        args.work.output_tokens = self.output_tokens;
        args.work.shared_prefix = self.shared_prefix;
        args.when.seed = self.seed;
        args
    }
}

/// Measures the server at `base_url` and plans by it; gives what is to be printed.
pub fn plan(args: &PlanArgs, base_url: &str, api_key: Option<String>) -> Result<String, LoadError> {
    args.check()?;
    let points = crate::runtime()?.block_on(sweep(args, base_url, api_key))?;
    let capacity = args.goal().capacity(&points, args.headroom);
    if args.as_json {
        let told = json!({"goal": args.goal(), "loads": points, "capacity": capacity});
        return Ok(format!("{told:#}\n"));
    }
    Ok(text(args, &points, &capacity))
}

/// A closed loop to find the most that the machine does, then open loads up to it, until one
/// misses the goal.
async fn sweep(
    args: &PlanArgs,
    base_url: &str,
    api_key: Option<String>,
) -> Result<Vec<Point>, LoadError> {
    let mut bench_args = args.bench(base_url);
    bench_args.api_key = api_key;
    bench_args.when.requests = 1_000_000.min(64 * args.clients);
    bench_args.when.duration = Some(args.seconds);
    let bench = Bench::new(bench_args.clone()).await?;
    let n_clients = args.clients;
    let full = bench
        .measure(&Arrivals::Closed { n_clients }, SHARES.len() + 1)
        .await;
    let most = full.summary.requests_per_s;
    if full.summary.n_failed > 0 || most <= 0.0 {
        return Err(LoadError::Server {
            url: base_url.to_owned(),
            reason: format!("{n_clients} clients at a time: {:?}", full.summary.errors),
        });
    }
    let goal = args.goal();
    let mut points = Vec::new();
    for (i, share) in SHARES.into_iter().enumerate() {
        points.push(open_load(&bench_args, args, most * share, 1 + i).await?);
        if goal.capacity(&points, 0.0).held < most * share {
            break;
        }
    }
    if points.len() == 1 && goal.capacity(&points, 0.0).held == 0.0 {
        // Where even the first is too much, one that is much less tells whether anything is held.
        points.push(open_load(&bench_args, args, most * LEAST_SHARE, 0).await?);
    }
    Ok(points)
}

/// Poisson arrivals at a rate.
async fn open_load(
    bench_args: &BenchArgs,
    args: &PlanArgs,
    rate: f64,
    load_idx: usize,
) -> Result<Point, LoadError> {
    let mut bench_args = bench_args.clone();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a small positive count"
    )]
    let n = (rate * args.seconds).max(LEAST_REQUESTS).ceil() as usize;
    bench_args.when.requests = n;
    bench_args.when.duration = None;
    let bench = Bench::new(bench_args).await?;
    let arrivals = Arrivals::Gamma { rate, shape: 1.0 };
    Ok(point(rate, &bench.measure(&arrivals, load_idx).await))
}

fn point(rate: f64, measured: &Measured) -> Point {
    let summary = &measured.summary;
    Point {
        rate,
        ttft_p95_ms: summary.ttft_ms.p95,
        tpot_p95_ms: summary.tpot_ms.p95,
        n_failed: summary.n_failed,
        done_per_s: summary.requests_per_s,
    }
}

fn text(args: &PlanArgs, points: &[Point], capacity: &Capacity) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    describe(&mut out, args, points, capacity).ok();
    out
}

fn describe(
    out: &mut String,
    args: &PlanArgs,
    points: &[Point],
    capacity: &Capacity,
) -> std::fmt::Result {
    let goal = args.goal();
    writeln!(
        out,
        "goal: {} users, a request every {} s each: {:.2} requests/s; p95 first token {} ms",
        args.users, args.every, goal.rate, args.ttft_p95
    )?;
    if let Some(tpot) = args.tpot_p95 {
        writeln!(out, "      p95 further token {tpot} ms")?;
    }
    writeln!(
        out,
        "\n{:>12} {:>12} {:>14} {:>14} {:>8}",
        "offered/s", "done/s", "TTFT p95, ms", "TPOT p95, ms", "failed"
    )?;
    for point in points {
        writeln!(
            out,
            "{:>12.2} {:>12.2} {:>14.1} {:>14.1} {:>8}",
            point.rate, point.done_per_s, point.ttft_p95_ms, point.tpot_p95_ms, point.n_failed
        )?;
    }
    let least = if capacity.is_at_least {
        "at least "
    } else {
        ""
    };
    writeln!(
        out,
        "\nthis machine holds {least}{:.2} requests/s within the goal: {least}{:.0} such users",
        capacity.held,
        (capacity.held * args.every).floor()
    )?;
    match capacity.n_replicas {
        Some(n) => writeln!(
            out,
            "replicas needed: {n} (each to take {:.0}% of what it holds)",
            100.0 * (1.0 - args.headroom)
        ),
        None => writeln!(
            out,
            "replicas do not help: one machine misses the goal under the least load; \
             a faster machine, a smaller model or a wider goal would"
        ),
    }
}
