//! The server under test: the release binary, on a free port, ended when dropped.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::http::Client;

/// Gauges that are zero when nothing is going on.
const GAUGES: [&str; 8] = [
    "understudy_sequences_running",
    "understudy_sequences_waiting",
    "understudy_tokens_running",
    "understudy_requests_receiving",
    "understudy_requests_queued",
    "understudy_tokens_queued",
    "understudy_kv_blocks_in_use",
    "understudy_kv_usage_ratio",
];

/// What to run.
#[derive(Clone, Debug)]
pub(crate) struct Product {
    pub(crate) binary: PathBuf,
    /// `None`: the demo model.
    pub(crate) model: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    /// What it says of its KV cache: `n` blocks, and bytes of one.
    pub(crate) n_blocks: u64,
    pub(crate) bytes_per_block: f64,
}

impl Product {
    /// The binary beside this one.
    pub(crate) fn new(model: Option<String>) -> Result<Self> {
        let own = std::env::current_exe()?;
        let dir = own.parent().context("a binary is in a directory")?;
        let binary = dir.join("understudy");
        ensure!(
            binary.exists(),
            "no {}: run `cargo build --release --bin understudy` first",
            binary.display()
        );
        Ok(Self { binary, model })
    }

    /// Starts it and waits until it serves.
    pub(crate) fn start(&self, flags: &[&str]) -> Result<Server> {
        let mut command = Command::new(&self.binary);
        command.arg("serve").args(&self.model).args(flags);
        let mut child = command
            .args(["--port", "0"])
            .env(
                "RUST_LOG",
                std::env::var("RUST_LOG").unwrap_or_else(|_| "warn".to_owned()),
            )
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().context("standard output is piped")?;
        let mut address = None;
        let mut cache = None;
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["KV", "cache", n, unit, n_blocks, "blocks", ..] => {
                    cache = Some((bytes(n, unit)?, n_blocks.parse::<u64>()?));
                }
                ["URL", url] => address = Some(parse_address(url)?),
                ["curl", ..] => break,
                _ => {}
            }
        }
        let (n_bytes, n_blocks) = cache.context("the server did not start")?;
        #[expect(clippy::cast_precision_loss, reason = "as exact as what is shown")]
        let bytes_per_block = n_bytes / n_blocks as f64;
        Ok(Server {
            child,
            address: address.context("the server did not say where it listens")?,
            n_blocks,
            bytes_per_block,
        })
    }
}

fn parse_address(url: &str) -> Result<SocketAddr> {
    let address = url.trim_start_matches("http://").trim_end_matches("/v1");
    Ok(address.parse()?)
}

/// `1.5` and `GiB:`.
fn bytes(number: &str, unit: &str) -> Result<f64> {
    let factor = match unit {
        "B:" => 0,
        "KiB:" => 10,
        "MiB:" => 20,
        "GiB:" => 30,
        "TiB:" => 40,
        _ => anyhow::bail!("what is {unit}?"),
    };
    Ok(number.parse::<f64>()? * 2_f64.powi(factor))
}

impl Server {
    pub(crate) fn client(&self) -> Client {
        Client {
            address: self.address,
            key: None,
        }
    }

    /// Resident memory in MiB, where the system tells.
    pub(crate) fn resident_mib(&self) -> Option<f64> {
        let path = Path::new("/proc").join(self.child.id().to_string());
        let status = std::fs::read_to_string(path.join("status")).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
        Some(kib / 1024.0)
    }

    /// Waits until all gauges are zero; the names of those that are not after `patience`.
    pub(crate) fn gauges_left(
        client: &Client,
        patience: Duration,
    ) -> Result<Vec<(&'static str, f64)>> {
        let end = Instant::now() + patience;
        loop {
            let mut left = Vec::new();
            for name in GAUGES {
                let value = client.metric(name)?;
                if value != 0.0 {
                    left.push((name, value));
                }
            }
            if left.is_empty() || Instant::now() > end {
                return Ok(left);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
