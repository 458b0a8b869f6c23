//! A long context on a model all of whose layers have windows: the gauge of a real server shows
//! that a sequence holds KV blocks for its window, and a pool far smaller than the context is
//! enough.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

const WINDOW: usize = 16;
const BLOCK: usize = 4;
const BATCH: usize = 16;
const PROMPT: usize = 30_000;

/// The server, which ends with the test.
struct Server {
    process: Child,
    address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

impl Server {
    fn start(model: &Path, flags: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_understudy"))
            .args(["serve", "--port", "0"])
            .args(flags)
            .arg(model)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let banner = BufReader::new(process.stdout.take().unwrap());
        let url = banner.lines().map_while(Result::ok).find_map(|line| {
            let (_, rest) = line.split_once("http://")?;
            Some(rest.trim_end_matches("/v1").to_owned())
        });
        let address = url.expect("a banner with a URL");
        Self { process, address }
    }

    /// The body of the answer to one request.
    fn ask(&self, head: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let host = &self.address;
        let length = body.len();
        write!(
            stream,
            "{head} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        body.to_owned()
    }

    fn gauge(&self, name: &str) -> f64 {
        let metrics = self.ask("GET /metrics", "");
        let line = metrics.lines().find_map(|line| {
            let rest = line.strip_prefix(name)?;
            rest.strip_prefix(' ').map(str::to_owned)
        });
        line.expect("the gauge").trim().parse().unwrap()
    }
}

#[test]
fn a_long_context_holds_blocks_for_its_window() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
    let model = tempfile::tempdir().unwrap();
    for file in [
        "models/mistral-sw/config.json",
        "models/mistral-sw/model.safetensors",
        "tokenizers/spm/tokenizer.json",
    ] {
        let from = fixtures.join(file);
        let to = model.path().join(from.file_name().unwrap());
        fs::write(to, fs::read(from).unwrap()).unwrap();
    }
    let config = model.path().join("config.json");
    let mut json: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    assert_eq!(json["sliding_window"], WINDOW);
    json["max_position_embeddings"] = json!(32_768);
    fs::write(&config, json.to_string()).unwrap();
    // 20 blocks: keys and values of 3 layers, 2 heads of 32, 2 bytes each.
    let bytes = 20 * BLOCK * 2 * 3 * 2 * 32 * 2;
    let (block, batch, bytes) = (BLOCK.to_string(), BATCH.to_string(), bytes.to_string());
    let server = Server::start(
        model.path(),
        &[
            "--served-model-name=m",
            "--block-size",
            &block,
            "--max-num-batched-tokens",
            &batch,
            "--max-num-seqs",
            "2",
            "--kv-cache-memory",
            &bytes,
        ],
    );
    assert_eq!(server.gauge("understudy_kv_blocks"), 20.0);
    let prompt: Vec<usize> = (0..PROMPT).map(|i| 5 + i * 97 % 500).collect();
    let body = json!({"model": "m", "prompt": prompt, "max_tokens": 100, "temperature": 0});
    let is_done = AtomicBool::new(false);
    let (answer, seen) = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut seen = Vec::new();
            while !is_done.load(Ordering::Relaxed) {
                seen.push(server.gauge("understudy_kv_blocks_in_use"));
            }
            seen
        });
        let answer = server.ask("POST /v1/completions", &body.to_string());
        is_done.store(true, Ordering::Relaxed);
        (answer, watch.join().unwrap())
    });
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["usage"]["prompt_tokens"], PROMPT, "{answer}");
    // What the first token of a step sees, the step, and a block begun at each end.
    let most = (WINDOW + BATCH).div_ceil(BLOCK) + 2;
    let largest = seen.iter().copied().fold(0.0, f64::max);
    assert!(largest > 0.0, "no look at a running sequence: {seen:?}");
    assert!(largest <= most as f64, "{largest} blocks, not {most}");
}
