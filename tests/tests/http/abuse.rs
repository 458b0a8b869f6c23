//! Clients that mean no good, on real sockets: who means well is answered all the same. A larger
//! version measures what they notice: `cargo run --release -p benches -- abuse`.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use understudy::connections::ConnectionOptions;
use understudy::engine::QueueLimits;
use understudy::shutdown::{Listening, listen};

use crate::server::{Options, Server};

async fn start(options: ConnectionOptions) -> (Server, SocketAddr, Listening) {
    start_with(options, 1 << 20).await
}

async fn start_with(
    options: ConnectionOptions,
    max_tokens: usize,
) -> (Server, SocketAddr, Listening) {
    let server = Server::start(Options {
        queue: QueueLimits {
            max_requests: 3,
            max_tokens,
            timeout: None,
        },
        ..Options::default()
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let listening = listen(listener, server.app.clone(), options);
    (server, address, listening)
}

/// The whole answer to something that is sent as it is.
async fn say(address: SocketAddr, text: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The server may hang up before it has heard all.
    stream.write_all(text).await.ok();
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    tokio::time::timeout(Duration::from_secs(20), read)
        .await
        .unwrap()
        .ok();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn bodies_that_are_only_announced_keep_nobody_out() {
    let (server, address, _listening) = start_with(ConnectionOptions::default(), 1_000).await;
    // Each is as long as a body may be, and more than all that may wait together.
    let mut silent = Vec::new();
    for _ in 0..4 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head =
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n{";
        stream.write_all(head.as_bytes()).await.unwrap();
        silent.push(stream);
    }
    server.wait_for("understudy_requests_receiving", 4.0).await;
    server.wait_for("understudy_requests_queued", 0.0).await;
    assert_eq!(server.chat(json!({})).await.status, 200);
    // Longer than any may be: nobody is asked to send it.
    for path in ["/v1/chat/completions", "/v1/embeddings", "/tokenize"] {
        for more in ["", "expect: 100-continue\r\n"] {
            let head = format!(
                "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
                 content-length: 999999999\r\n{more}\r\n"
            );
            let answer = say(address, head.as_bytes()).await;
            assert!(
                answer.starts_with("HTTP/1.1 413"),
                "{path} {more}: {answer}"
            );
            assert!(answer.contains("request_too_large"), "{answer}");
        }
    }
    drop(silent);
    server.wait_until_idle().await;
}

const GET: &[u8] = b"GET /v1/models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn idle_connections_keep_nobody_out() {
    let options = ConnectionOptions {
        max_connections: 20,
        ..ConnectionOptions::default()
    };
    let (_server, address, _listening) = start(options).await;
    let mut idle = Vec::new();
    for _ in 0..500 {
        idle.push(TcpStream::connect(address).await.unwrap());
        if idle.len() % 100 == 0 {
            let answer = say(address, GET).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
    }
    // Those that were idle for longest were closed.
    let mut byte = [0];
    assert!(matches!(idle[0].read(&mut byte).await, Ok(0) | Err(_)));
}

#[tokio::test]
async fn heads_and_bodies_have_bounds() {
    let options = ConnectionOptions {
        max_body_bytes: 1 << 20,
        ..ConnectionOptions::default()
    };
    let (server, address, _listening) = start(options).await;
    let many: String = (0..200).map(|i| format!("x-{i}: {i}\r\n")).collect();
    let long = "x".repeat(300 << 10);
    for head in [
        format!("GET /v1/models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{many}\r\n"),
        format!(
            "GET /v1/models HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-long: {long}\r\n\r\n"
        ),
        format!("GET /v1/models?x={long} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"),
    ] {
        let answer = say(address, head.as_bytes()).await;
        // Nothing that comes after it takes the answer away.
        let status = answer.split(' ').nth(1).unwrap_or("closed");
        assert!(matches!(status, "431" | "414"), "{answer}");
    }
    // A body of 100 MB that does not say how long it is.
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = "POST /v1/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut n_sent = 0;
    for _ in 0..1600 {
        let piece = [b"10000\r\n".as_slice(), &[b'x'; 1 << 16], b"\r\n"].concat();
        if stream.write_all(&piece).await.is_err() {
            break;
        }
        n_sent += 1;
    }
    assert!(n_sent < 1600, "nobody stopped it");
    // All bodies together are bounded, too: one that waits for its end leaves less for others.
    let mut half = TcpStream::connect(address).await.unwrap();
    let head = "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 900000\r\n\r\n";
    half.write_all(head.as_bytes()).await.unwrap();
    half.write_all(&vec![b'x'; 800_000]).await.unwrap();
    server.wait_for("understudy_requests_receiving", 1.0).await;
    let head = "POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
                content-length: 500000\r\n\r\n";
    let body = vec![b'x'; 500_000];
    let mut answer = say(address, &[head.as_bytes(), &body].concat()).await;
    // What the first has sent may not have been read when the second comes.
    for _ in 0..50 {
        if answer.starts_with("HTTP/1.1 503") {
            break;
        }
        answer = say(address, &[head.as_bytes(), &body].concat()).await;
    }
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("server_overloaded"), "{answer}");
    drop(half);
    server.wait_until_idle().await;
    let answer = say(address, GET).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
