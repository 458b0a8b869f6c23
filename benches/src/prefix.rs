//! Requests that begin alike.

use anyhow::Result;

use crate::report::{Report, ms, quantile};
use crate::server::Product;
use crate::traffic::{Rng, completion, model_name};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Different system prompts.
    #[arg(long, default_value_t = 6)]
    systems: usize,
    /// Questions to each after the first.
    #[arg(long, default_value_t = 5)]
    questions: usize,
    /// Tokens of a system prompt.
    #[arg(long, default_value_t = 1_024)]
    system: usize,
    /// Tokens of a question.
    #[arg(long, default_value_t = 16)]
    question: usize,
}

pub(crate) fn run(product: &Product, options: &Options) -> Result<Report> {
    const BLOCK_SIZE: usize = 16;
    let server = product.start(&["--block-size", "16"])?;
    let client = server.client();
    let model = model_name(&client)?;
    let mut rng = Rng(3);
    let mut ask = |system: &[u64]| {
        let prompt = [system, &rng.tokens(options.question)].concat();
        client.time_to_first_token(&completion(&model, &prompt, 1))
    };
    // Of another beginning, so that the server is warm and its cache is not.
    let mut other = Rng(4);
    ask(&other.tokens(options.system))?;
    let count = |name: &str| client.metric(name);
    let queries_before = count("understudy_queried_prompt_tokens_total")?;
    let hits_before = count("understudy_cached_prompt_tokens_total")?;
    let mut cold = Vec::new();
    let mut warm = Vec::new();
    for _ in 0..options.systems {
        let system = other.tokens(options.system);
        cold.push(ask(&system)?);
        for _ in 0..options.questions {
            warm.push(ask(&system)?);
        }
    }
    let queries = count("understudy_queried_prompt_tokens_total")? - queries_before;
    let hits = count("understudy_cached_prompt_tokens_total")? - hits_before;
    let n_requests = options.systems * (options.questions + 1);
    // Whole blocks of the system prompt, for every question but the first.
    let n_shared = options.system / BLOCK_SIZE * BLOCK_SIZE;
    #[expect(clippy::cast_precision_loss, reason = "small counts")]
    let (queries_expected, hits_expected) = (
        (n_requests * (options.system + options.question)) as f64,
        (options.systems * options.questions * n_shared) as f64,
    );
    let mut report = Report::new("prefix");
    report.note("TTFT p50 cold", ms(quantile(&cold, 0.5)), "ms");
    report.note("TTFT p50 warm", ms(quantile(&warm, 0.5)), "ms");
    let ratio = quantile(&warm, 0.5).as_secs_f64() / quantile(&cold, 0.5).as_secs_f64();
    report.at_most("warm / cold", ratio, 0.1, "x");
    report.note("tokens looked up", queries, "tokens");
    report.at_most(
        "  off the exact count by",
        (queries - queries_expected).abs(),
        0.0,
        "tokens",
    );
    report.note("tokens found", hits, "tokens");
    report.at_most(
        "  off the exact count by",
        (hits - hits_expected).abs(),
        0.0,
        "tokens",
    );
    Ok(report)
}
