//! A server whose every byte the test decides.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

use serde_json::{Value, json};

/// A request as the stub has read it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Value,
}

/// What it answers: all bytes, head included. Empty: it hangs up.
pub(crate) type Answer = dyn Fn(&Asked) -> Vec<u8> + Send + Sync;

/// The stub, and what it was asked.
pub(crate) struct Stub {
    pub(crate) url: String,
    pub(crate) asked: Arc<Mutex<Vec<Asked>>>,
}

impl Stub {
    /// Serves until the test's process ends.
    pub(crate) fn start(answer: impl Fn(&Asked) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let answer: Arc<Answer> = Arc::new(answer);
        let log = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, log) = (Arc::clone(&answer), Arc::clone(&log));
                std::thread::spawn(move || serve(stream, &*answer, &log));
            }
        });
        Self { url, asked }
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(stream: TcpStream, answer: &Answer, log: &Mutex<Vec<Asked>>) {
    let mut out = stream.try_clone().unwrap();
    let mut input = BufReader::new(stream);
    while let Some(asked) = read(&mut input) {
        log.lock().unwrap().push(asked.clone());
        let bytes = answer(&asked);
        if bytes.is_empty() || out.write_all(&bytes).is_err() {
            return;
        }
    }
}

fn read(input: &mut impl BufRead) -> Option<Asked> {
    let mut line = String::new();
    input.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = HashMap::new();
    loop {
        line.clear();
        input.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers
        .get("content-length")
        .map_or(0, |n| n.parse().unwrap());
    let mut body = vec![0; length];
    input.read_exact(&mut body).ok()?;
    let body = serde_json::from_slice(&body).unwrap_or_default();
    Some(Asked {
        path,
        headers,
        body,
    })
}

/// A whole answer with this status.
pub(crate) fn plain(status: &str, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// A stream of these events, chunked, in pieces of a few bytes.
pub(crate) fn stream(events: &[String]) -> Vec<u8> {
    let text: String = events
        .iter()
        .map(|event| format!("data: {event}\n\n"))
        .collect();
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut bytes = head.as_bytes().to_vec();
    for piece in text.as_bytes().chunks(7) {
        bytes.extend(format!("{:x}\r\n", piece.len()).bytes());
        bytes.extend(piece);
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"0\r\n\r\n");
    bytes
}

/// The events of a completion of `n_output` tokens that does what was asked.
pub(crate) fn completion(n_prompt: usize, n_output: usize) -> Vec<String> {
    let chunk = |i: usize| {
        let reason = (i + 1 == n_output).then_some("length");
        json!({"choices": [{"index": 0, "text": " a", "finish_reason": reason}]}).to_string()
    };
    let usage = json!({"choices": [], "usage": {"prompt_tokens": n_prompt,
        "completion_tokens": n_output, "total_tokens": n_prompt + n_output}});
    let mut events: Vec<String> = (0..n_output).map(chunk).collect();
    events.extend([usage.to_string(), "[DONE]".to_owned()]);
    events
}

/// Lengths that a completion of token ids asks for.
pub(crate) fn lengths(asked: &Asked) -> (usize, usize) {
    let n_prompt = asked.body["prompt"].as_array().unwrap().len();
    let n_output = asked.body["max_tokens"].as_u64().unwrap();
    (n_prompt, usize::try_from(n_output).unwrap())
}

/// A count that threads wait for.
#[derive(Default)]
pub(crate) struct Gate {
    n: Mutex<usize>,
    changed: Condvar,
}

impl Gate {
    /// Counts one more and waits until there are `n`.
    pub(crate) fn wait_for(&self, n: usize) {
        let mut count = self.n.lock().unwrap();
        *count += 1;
        self.changed.notify_all();
        while *count < n {
            count = self.changed.wait(count).unwrap();
        }
    }
}
