//! How long a start takes, by phase: from the process to its socket, to the loaded model, to the
//! first token. Files are in the page cache after the first start, which is told apart.

use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::http::Client;
use crate::report::{Report, ms, quantile};
use crate::server::Product;
use crate::traffic::{Rng, completion, model_name};

/// How often to look.
const LOOK: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(300);

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Starts, after the first.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

/// Times from the start of the process.
struct Start {
    listening: Duration,
    loaded: Duration,
    first_token: Duration,
}

pub(crate) fn run(product: &Product, options: &Options) -> Result<Report> {
    ensure!(options.rounds > 0, "--rounds must be at least 1");
    let mut report = Report::new("startup");
    let first = start(product)?;
    report.note(
        "first start: first token after",
        ms(first.first_token),
        "ms",
    );
    let starts: Vec<Start> = (0..options.rounds)
        .map(|_| start(product))
        .collect::<Result<_>>()?;
    for (name, get) in [
        (
            "process to socket",
            (|s| s.listening) as fn(&Start) -> Duration,
        ),
        ("socket to loaded model", |s| s.loaded - s.listening),
        ("loaded model to first token", |s| s.first_token - s.loaded),
        ("process to first token", |s| s.first_token),
    ] {
        let times: Vec<Duration> = starts.iter().map(get).collect();
        report.note(format!("{name}, p50"), ms(quantile(&times, 0.5)), "ms");
    }
    Ok(report)
}

/// A process that is killed when this is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn start(product: &Product) -> Result<Start> {
    // A port that was free a moment ago: phases before the model is loaded are asked for there.
    let port = std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .port();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let begin = Instant::now();
    let mut command = Command::new(&product.binary);
    command.arg("serve").args(&product.model);
    command.args(["--port", &port.to_string()]);
    let child = command
        .env("RUST_LOG", "warn")
        .stdout(Stdio::null())
        .spawn()?;
    let _running = Running(child);
    until(begin, || Ok(TcpStream::connect(address).is_ok()))?;
    let listening = begin.elapsed();
    let client = Client { address, key: None };
    until(begin, || Ok(client.get("/health/startup")?.status == 200))?;
    let loaded = begin.elapsed();
    let body = completion(&model_name(&client)?, &Rng(1).tokens(16), 1);
    client.time_to_first_token(&body)?;
    Ok(Start {
        listening,
        loaded,
        first_token: begin.elapsed(),
    })
}

fn until(begin: Instant, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    while !is_so()? {
        ensure!(begin.elapsed() < PATIENCE, "the server does not start");
        std::thread::sleep(LOOK);
    }
    Ok(())
}
