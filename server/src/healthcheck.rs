//! `understudy healthcheck`: asks a running server how it is, for images that hold no HTTP client.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use crate::args::{HealthcheckArgs, Probe};

/// Of the answer only the status line counts.
const MAX_HEAD_BYTES: usize = 1024;

/// Why a server is not healthy.
#[derive(Debug, thiserror::Error)]
pub enum HealthcheckError {
    #[error("--timeout must be at least 1")]
    Zero,
    #[error("{address} cannot be asked: {error}")]
    Unreachable { address: String, error: io::Error },
    #[error("{address} answered {path} with \"{answer}\"")]
    Unhealthy {
        address: String,
        path: &'static str,
        answer: String,
    },
}

impl Probe {
    /// Where the server answers it.
    fn path(self) -> &'static str {
        match self {
            Self::Live => "/health/live",
            Self::Ready => "/health/ready",
            Self::Startup => "/health/startup",
        }
    }
}

/// `Ok` if the server answers the probe with status 200 in time.
///
/// # Errors
/// The server cannot be reached, is too slow, or says that it is not well.
pub fn check(args: &HealthcheckArgs) -> Result<(), HealthcheckError> {
    if args.timeout == 0 {
        return Err(HealthcheckError::Zero);
    }
    let address = format!("{}:{}", args.host, args.port);
    let deadline = Instant::now() + Duration::from_secs(args.timeout);
    let path = args.probe.path();
    let answer = ask(args, path, deadline).map_err(|error| HealthcheckError::Unreachable {
        address: address.clone(),
        error,
    })?;
    if answer.split(' ').nth(1) == Some("200") {
        return Ok(());
    }
    Err(HealthcheckError::Unhealthy {
        address,
        path,
        answer,
    })
}

/// The same of a server with TLS. Its certificate is for the name that clients call it by, and not
/// for this address; nothing secret is sent.
fn ask_tls(args: &HealthcheckArgs, path: &str, deadline: Instant) -> io::Result<String> {
    let tls = ureq::tls::TlsConfig::builder().disable_verification(true);
    let agent = ureq::Agent::config_builder()
        .tls_config(tls.build())
        .timeout_global(Some(left(deadline)?))
        .http_status_as_error(false)
        .build()
        .new_agent();
    let url = format!("https://{}:{}{path}", args.host, args.port);
    let response = agent.get(url).call().map_err(io::Error::other)?;
    Ok(format!("HTTP/1.1 {}", response.status()))
}

/// The status line of the answer.
fn ask(args: &HealthcheckArgs, path: &str, deadline: Instant) -> io::Result<String> {
    if args.tls {
        return ask_tls(args, path, deadline);
    }
    let mut stream = connect(args, deadline)?;
    stream.set_write_timeout(Some(left(deadline)?))?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {}:{}\r\nConnection: close\r\n\r\n",
        args.host, args.port
    );
    stream.write_all(request.as_bytes())?;
    let mut head = Vec::new();
    let mut piece = [0; MAX_HEAD_BYTES];
    // Whoever answers in drops has no longer than the others.
    while head.len() < MAX_HEAD_BYTES && !head.contains(&b'\n') {
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(&mut piece)? {
            0 => break,
            n_bytes => head.extend_from_slice(&piece[..n_bytes]),
        }
    }
    let head = String::from_utf8_lossy(&head);
    Ok(head.lines().next().unwrap_or_default().to_owned())
}

/// The first of the host's addresses that listens.
fn connect(args: &HealthcheckArgs, deadline: Instant) -> io::Result<TcpStream> {
    let addresses: Vec<SocketAddr> = (args.host.as_str(), args.port).to_socket_addrs()?.collect();
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, left(deadline)?) {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Time until the deadline; never zero, which a socket takes for "no limit".
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"));
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// What a server that says `answer` is taken for, and the line it was asked with.
    fn ask_one_that_says(answer: &'static str) -> (Result<(), HealthcheckError>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            let mut byte = [0];
            while !asked.ends_with(b"\r\n\r\n") {
                stream.read_exact(&mut byte).unwrap();
                asked.push(byte[0]);
            }
            stream.write_all(answer.as_bytes()).unwrap();
            let asked = String::from_utf8(asked).unwrap();
            asked.lines().next().unwrap().to_owned()
        });
        let args = HealthcheckArgs {
            host: "127.0.0.1".into(),
            port,
            probe: Probe::Live,
            timeout: 10,
            tls: false,
        };
        let checked = check(&args);
        (checked, server.join().unwrap())
    }

    #[test]
    fn only_status_200_is_healthy() {
        let (healthy, asked) = ask_one_that_says("HTTP/1.1 200 OK\r\n\r\n");
        assert!(healthy.is_ok(), "{healthy:?}");
        assert_eq!(asked, "GET /health/live HTTP/1.1");
        for answer in ["HTTP/1.1 503 Service Unavailable\r\n\r\n", "HTTP/1.1", ""] {
            let (unhealthy, _) = ask_one_that_says(answer);
            assert!(
                matches!(unhealthy, Err(HealthcheckError::Unhealthy { .. })),
                "{answer}: {unhealthy:?}"
            );
        }
    }

    #[test]
    fn a_server_that_is_not_there_or_says_nothing_is_not_healthy() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut args = HealthcheckArgs {
            host: "127.0.0.1".into(),
            port: listener.local_addr().unwrap().port(),
            probe: Probe::Ready,
            timeout: 1,
            tls: false,
        };
        // The kernel connects, and nobody answers.
        let silent = check(&args);
        assert!(
            matches!(silent, Err(HealthcheckError::Unreachable { .. })),
            "{silent:?}"
        );
        drop(listener);
        let gone = check(&args);
        assert!(
            matches!(gone, Err(HealthcheckError::Unreachable { .. })),
            "{gone:?}"
        );
        args.timeout = 0;
        assert!(matches!(check(&args), Err(HealthcheckError::Zero)));
    }
}
