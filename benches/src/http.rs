//! A client as plain as can be: one connection a request, HTTP/1.0 so that nothing is chunked,
//! and the time of every event.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Longer than anything measured here.
const READ_TIMEOUT: Duration = Duration::from_secs(300);

/// Where to send, and in whose name.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    pub(crate) key: Option<&'static str>,
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: String,
    /// From before the connection to the last byte.
    pub(crate) took: Duration,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body)
            .with_context(|| format!("status {}: {}", self.status, self.body))
    }
}

/// An answer whose body is still to come.
#[derive(Debug)]
pub(crate) struct Open {
    status: u16,
    headers: Vec<(String, String)>,
    body: BufReader<TcpStream>,
    sent: Instant,
}

impl Client {
    fn open(&self, method: &str, path: &str, body: &str) -> Result<Open> {
        let sent = Instant::now();
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(READ_TIMEOUT))?;
        stream.set_nodelay(true)?;
        let key = self.key.map_or(String::new(), |key| {
            format!("authorization: Bearer {key}\r\n")
        });
        let request = format!(
            "{method} {path} HTTP/1.0\r\nhost: {}\r\ncontent-type: application/json\r\n{key}\
             content-length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        stream.write_all(request.as_bytes())?;
        let mut body = BufReader::new(stream);
        let mut line = String::new();
        body.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
        let status = status.with_context(|| format!("no status in {line:?}"))?;
        let mut headers = Vec::new();
        loop {
            line.clear();
            body.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(": ") else {
                break;
            };
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        Ok(Open {
            status,
            headers,
            body,
            sent,
        })
    }

    pub(crate) fn get(&self, path: &str) -> Result<Answer> {
        self.open("GET", path, "")?.whole()
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        self.open("POST", path, &body.to_string())?.whole()
    }

    /// A streamed completion.
    pub(crate) fn stream(&self, body: &Value) -> Result<Events> {
        let open = self.open("POST", "/v1/completions", &body.to_string())?;
        if open.status != 200 {
            let answer = open.whole()?;
            anyhow::bail!("status {}: {}", answer.status, answer.body);
        }
        Ok(Events {
            lines: open.body,
            sent: open.sent,
        })
    }

    /// The time from sending a completion to its first event.
    pub(crate) fn time_to_first_token(&self, body: &Value) -> Result<Duration> {
        let mut events = self.stream(body)?;
        let first = events.next().context("a stream without events")??;
        let took = first.duration_since(events.sent);
        for event in events {
            event?;
        }
        Ok(took)
    }

    /// The sum of a metric over its labels.
    pub(crate) fn metric(&self, name: &str) -> Result<f64> {
        let answer = self.get("/metrics")?;
        ensure!(answer.status == 200, "metrics: status {}", answer.status);
        let lines = answer.body.lines().filter(|line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with([' ', '{']))
        });
        let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        Ok(values.sum())
    }
}

impl Open {
    fn whole(mut self) -> Result<Answer> {
        let mut body = String::new();
        self.body.read_to_string(&mut body)?;
        Ok(Answer {
            status: self.status,
            headers: self.headers,
            body,
            took: self.sent.elapsed(),
        })
    }
}

/// When each event of a stream came. Dropping it hangs up.
#[derive(Debug)]
pub(crate) struct Events {
    lines: BufReader<TcpStream>,
    sent: Instant,
}

impl Iterator for Events {
    type Item = Result<Instant>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut line = String::new();
        loop {
            line.clear();
            match self.lines.read_line(&mut line) {
                Ok(0) => return Some(Err(anyhow::anyhow!("a stream without end"))),
                Err(error) => return Some(Err(error.into())),
                Ok(_) => {}
            }
            let Some(data) = line.strip_prefix("data: ") else {
                continue;
            };
            if data.starts_with("[DONE]") {
                return None;
            }
            if data.starts_with("{\"error\"") {
                return Some(Err(anyhow::anyhow!("a stream that failed: {data}")));
            }
            return Some(Ok(Instant::now()));
        }
    }
}
