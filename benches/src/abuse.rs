//! Clients that mean no good: ten thousand idle connections, heads that come byte by byte, floods of
//! headers, bodies of 100 MB, bodies that are announced and not sent. What do the others notice, and what does it cost in memory?

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::http::Client;
use crate::report::{Report, ms, quantile};
use crate::server::{Product, Server};
use crate::traffic::{completion, model_name};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Idle connections; they need as many open files here and there.
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// Clients of each other kind at a time.
    #[arg(long, default_value_t = 16)]
    clients: usize,
    /// Seconds of each kind.
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// Megabytes of a body.
    #[arg(long, default_value_t = 100)]
    body_mb: usize,
}

/// Longest that an answer may take while others misbehave, as a multiple of what it takes alone,
/// or in milliseconds, whichever is more.
const MOST_TIMES: f64 = 5.0;
const MOST_MS: f64 = 250.0;

pub(crate) fn run(product: &Product, options: &Options) -> Result<Report> {
    allow_open_files();
    let server = product.start(&["--max-model-len", "1024", "--kv-cache-memory", "128MiB"])?;
    let client = server.client();
    let mut report = Report::new("abuse");
    let seconds = Duration::from_secs(options.seconds);
    let alone = others(&client, Duration::from_secs(5))?;
    report.note("chat of 8 tokens alone, p99", alone.chat_p99, "ms");
    report.note("GET /v1/models alone, p99", alone.models_p99, "ms");
    let kinds: [(&'static str, Abuse); 5] = [
        ("idle", Abuse::Idle(options.connections)),
        ("slow heads", Abuse::SlowHeads(options.clients * 8)),
        ("header floods", Abuse::Headers(options.clients)),
        (
            "large bodies",
            Abuse::Bodies(options.clients, options.body_mb),
        ),
        ("announced bodies", Abuse::Announced(options.clients * 8)),
    ];
    for (name, abuse) in kinds {
        let before = server.resident_mib().unwrap_or(0.0);
        let running = abuse.start(server.address)?;
        let during = others(&client, seconds)?;
        let peak = server.resident_mib().unwrap_or(0.0);
        let n = running.stop();
        report.note(format!("{name}: tried"), n, "");
        let bound = (alone.chat_p99 * MOST_TIMES).max(MOST_MS);
        report.at_most(&format!("{name}: chat p99"), during.chat_p99, bound, "ms");
        let bound = (alone.models_p99 * MOST_TIMES).max(MOST_MS);
        report.at_most(&format!("{name}: GET p99"), during.models_p99, bound, "ms");
        report.at_most(
            &format!("{name}: failures of others"),
            during.n_failed,
            0.0,
            "",
        );
        report.note(format!("{name}: memory before"), before, "MiB");
        // Eight of the greatest bodies, and the buffers of all connections.
        report.at_most(&format!("{name}: memory more"), peak - before, 600.0, "MiB");
    }
    let left = Server::gauges_left(&client, Duration::from_secs(10))?;
    report.at_most(
        "gauges that are not zero after",
        f64::from(u32::try_from(left.len())?),
        0.0,
        "",
    );
    Ok(report)
}

/// Each idle connection is an open file on this side, too.
fn allow_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: maximum,
        maximum,
    };
    // If there are too few, a connection fails and says so.
    setrlimit(Resource::Nofile, most).ok();
}

/// What a client that means well sees.
struct Seen {
    chat_p99: f64,
    models_p99: f64,
    n_failed: f64,
}

fn others(client: &Client, time: Duration) -> Result<Seen> {
    let body = completion(&model_name(client)?, &[40, 41, 42, 43], 8);
    let end = Instant::now() + time;
    let (mut chats, mut models, mut n_failed) = (Vec::new(), Vec::new(), 0);
    while Instant::now() < end {
        match client.post("/v1/completions", &body) {
            Ok(answer) if answer.status == 200 => chats.push(answer.took),
            _ => n_failed += 1,
        }
        match client.get("/v1/models") {
            Ok(answer) if answer.status == 200 => models.push(answer.took),
            _ => n_failed += 1,
        }
    }
    Ok(Seen {
        chat_p99: ms(quantile(&chats, 0.99)),
        models_p99: ms(quantile(&models, 0.99)),
        n_failed: f64::from(n_failed),
    })
}

/// A way to be a burden.
#[derive(Clone, Copy, Debug)]
enum Abuse {
    /// Connections that say nothing.
    Idle(usize),
    /// Heads of which a byte comes every half second.
    SlowHeads(usize),
    /// Heads of megabytes.
    Headers(usize),
    /// Bodies of so many megabytes, in pieces.
    Bodies(usize, usize),
    /// Bodies as long as they may be, of which a byte comes every half second.
    Announced(usize),
}

/// Headers of some megabytes, made once: clients that spell each of them anew, in writes of a few
/// bytes, would mostly keep this machine's cores from the server.
fn flood() -> &'static [u8] {
    static FLOOD: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let headers = (0..200_000).map(|i| format!("x-flood-{i}: {i}\r\n"));
        headers.collect::<String>().into_bytes()
    });
    &FLOOD
}

/// Abuse that goes on until it is told to stop.
struct Running {
    is_over: Arc<AtomicBool>,
    n: Arc<AtomicU32>,
    threads: Vec<thread::JoinHandle<()>>,
    _idle: Vec<TcpStream>,
}

impl Running {
    /// How often it was tried.
    fn stop(self) -> f64 {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads {
            // A thread that has panicked has nothing more to say.
            thread.join().ok();
        }
        f64::from(self.n.load(Ordering::Relaxed))
    }
}

impl Abuse {
    fn start(self, address: SocketAddr) -> Result<Running> {
        let is_over = Arc::new(AtomicBool::new(false));
        let n = Arc::new(AtomicU32::new(0));
        let mut idle = Vec::new();
        let n_threads = match self {
            Self::Idle(n_connections) => {
                for i in 0..n_connections {
                    let stream = TcpStream::connect(address);
                    idle.push(stream.with_context(|| format!("connection {i}"))?);
                }
                n.store(u32::try_from(n_connections)?, Ordering::Relaxed);
                0
            }
            Self::SlowHeads(n) | Self::Headers(n) | Self::Bodies(n, _) | Self::Announced(n) => n,
        };
        let threads = (0..n_threads).map(|_| {
            let (is_over, n) = (Arc::clone(&is_over), Arc::clone(&n));
            thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    n.fetch_add(1, Ordering::Relaxed);
                    // The server hangs up on it: that is what is measured.
                    self.once(address, &is_over).ok();
                }
            })
        });
        Ok(Running {
            threads: threads.collect(),
            is_over,
            n,
            _idle: idle,
        })
    }

    fn once(self, address: SocketAddr, is_over: &AtomicBool) -> std::io::Result<()> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.set_write_timeout(Some(Duration::from_secs(5)))?;
        match self {
            Self::Idle(_) => {}
            Self::SlowHeads(_) => {
                let head = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\nx-slow: ";
                drip(&mut stream, head.iter().cycle(), is_over)?;
            }
            Self::Announced(_) => {
                // The longest that --max-body-size allows unasked.
                write!(
                    stream,
                    "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
                    32 << 20
                )?;
                drip(&mut stream, b"{ ".iter().cycle(), is_over)?;
            }
            Self::Headers(_) => {
                stream.write_all(b"GET /v1/models HTTP/1.1\r\nhost: x\r\n")?;
                stream.write_all(flood())?;
            }
            Self::Bodies(_, megabytes) => {
                stream.write_all(
                    b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n",
                )?;
                let piece = vec![b'x'; 1 << 20];
                for _ in 0..megabytes {
                    stream.write_all(b"100000\r\n")?;
                    stream.write_all(&piece)?;
                    stream.write_all(b"\r\n")?;
                }
            }
        }
        let mut answer = [0; 256];
        stream.read(&mut answer).map(drop)
    }
}

/// Sends a byte every half second.
fn drip<'b>(
    stream: &mut TcpStream,
    bytes: impl Iterator<Item = &'b u8>,
    is_over: &AtomicBool,
) -> std::io::Result<()> {
    for byte in bytes {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        stream.write_all(&[*byte])?;
        thread::sleep(Duration::from_millis(500));
    }
    Ok(())
}
