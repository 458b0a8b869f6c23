//! What a request costs beside the model: the null server, by requests a second and by time of
//! processors. The generator runs beside it and takes its share of the machine, so the second
//! figure is the one to compare.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use load::{Arrivals, Bench, BenchArgs, Endpoint, Length};

use crate::report::Report;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Requests of each kind.
    #[arg(long, default_value_t = 2_000)]
    requests: usize,
    /// Clients at a time.
    #[arg(long, default_value_t = 32)]
    clients: usize,
}

pub(crate) fn run(model: Option<&str>, options: &Options) -> Result<Report> {
    let server = NullServer::start(model)?;
    let mut report = Report::new("overhead");
    let mut first = None;
    for (name, endpoint, is_stream, n_output) in [
        ("chat, 1 token, whole", Endpoint::Chat, false, 1),
        ("chat, 1 token, streamed", Endpoint::Chat, true, 1),
        ("chat, 64 tokens, streamed", Endpoint::Chat, true, 64),
        (
            "completion of ids, 1 token, whole",
            Endpoint::Completions,
            false,
            1,
        ),
    ] {
        let mut args = BenchArgs::defaults();
        args.base_url.clone_from(&server.url);
        args.endpoint = endpoint;
        args.when.requests = options.requests;
        args.work.prompt_tokens = Length::Fixed(64);
        args.work.output_tokens = Length::Fixed(n_output);
        args.work.no_stream = !is_stream;
        let arrivals = Arrivals::Closed {
            n_clients: options.clients,
        };
        let (before, after, summary) = load::runtime()?.block_on(async {
            let bench = Bench::new(args).await?;
            let before = server.cpu_seconds()?;
            let measured = bench.measure(&arrivals, 0).await;
            anyhow::Ok((before, server.cpu_seconds()?, measured.summary))
        })?;
        ensure!(summary.n_failed == 0, "{name}: {:?}", summary.errors);
        #[expect(clippy::cast_precision_loss, reason = "a small count")]
        let cpu = (after - before) / summary.n_requests as f64;
        report.note(
            format!("{name}: rate"),
            summary.requests_per_s,
            "requests/s",
        );
        report.note(format!("{name}: processor"), cpu * 1e6, "us each");
        report.note(
            format!("{name}: whole answer p50"),
            summary.e2e_ms.p50,
            "ms",
        );
        let one = *first.get_or_insert(cpu);
        if n_output > 1 {
            #[expect(clippy::cast_precision_loss, reason = "a small count")]
            let token = (cpu - one) / (n_output - 1) as f64;
            report.note(
                "each further token of a stream: processor",
                token * 1e6,
                "us",
            );
        }
    }
    Ok(report)
}

/// This binary as a null server; it ends with this value.
struct NullServer {
    child: Child,
    url: String,
}

impl NullServer {
    fn start(model: Option<&str>) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("null-server");
        if let Some(model) = model {
            command.args(["--model", model]);
        }
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().context("standard output is piped")?;
        let mut server = Self {
            child,
            url: String::new(),
        };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let url = line.trim().strip_prefix("URL ");
        url.context("the null server did not start")?
            .clone_into(&mut server.url);
        Ok(server)
    }

    /// Time that it has had of processors, by all its threads.
    fn cpu_seconds(&self) -> Result<f64> {
        let mut nanoseconds = 0.0;
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            // Its first number is time on a processor.
            let told = std::fs::read_to_string(thread?.path().join("schedstat"))?;
            let first = told.split_whitespace().next().context("no figures")?;
            nanoseconds += first.parse::<f64>()?;
        }
        Ok(nanoseconds * 1e-9)
    }
}

impl Drop for NullServer {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
