//! Real sockets: disconnects as the operating system tells them, and the end of a server.

use std::future::pending;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use understudy::shutdown::serve;

use crate::server::{Options, Server, chat_body};

/// A server on a port of its own.
struct Listening {
    server: Server,
    address: std::net::SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<std::io::Result<()>>,
}

async fn listen(options: Options, grace: Duration) -> Listening {
    listen_until(options, grace, pending()).await
}

async fn listen_until(
    options: Options,
    grace: Duration,
    told_again: impl Future<Output = ()> + Send + 'static,
) -> Listening {
    let mut server = Server::start(options);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, told) = oneshot::channel();
    let told = async move {
        told.await.unwrap();
    };
    let engine = server.engine.take().unwrap();
    let task = tokio::spawn(serve(
        listener,
        server.app.clone(),
        engine,
        grace,
        told,
        told_again,
    ));
    Listening {
        server,
        address,
        stop: Some(stop),
        task,
    }
}

/// Sends a chat request over a new connection.
async fn post(address: std::net::SocketAddr, more: Value) -> TcpStream {
    let body = chat_body(more).to_string();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await.unwrap();
    stream
}

async fn rest(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await.unwrap();
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn a_closed_connection_cancels() {
    for stream in [true, false] {
        // A server for each: gauges tell of the last step that ended, so an engine that is still
        // at work for the one before could not be told from an idle one.
        let options = Options {
            says: None,
            max_model_len: 1000,
            ..Options::default()
        };
        let listening = listen(options, Duration::from_secs(5)).await;
        let more = json!({"stream": stream, "ignore_eos": true, "n": 2});
        if !stream {
            listening.server.gate.close();
        }
        let mut connection = post(listening.address, more).await;
        if stream {
            let mut some = [0; 600];
            connection.read_exact(&mut some).await.unwrap();
        } else {
            listening.server.wait_for_started(1).await;
        }
        drop(connection);
        if !stream {
            // The server has noticed before there is an answer.
            listening
                .server
                .wait_for("understudy_disconnects_total", 1.0)
                .await;
        }
        listening.server.gate.open();
        listening.server.wait_until_idle().await;
    }
}

#[tokio::test]
async fn who_has_no_request_under_way_is_not_waited_for() {
    let mut listening = listen(Options::default(), Duration::from_secs(60)).await;
    let mut half_head = TcpStream::connect(listening.address).await.unwrap();
    half_head.write_all(b"POST /v1/chat/comp").await.unwrap();
    let silent = TcpStream::connect(listening.address).await.unwrap();
    let mut half_body = TcpStream::connect(listening.address).await.unwrap();
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 500\r\n\r\n{\"mod";
    half_body.write_all(head.as_bytes()).await.unwrap();
    // It was let in, so its body is waited for.
    listening
        .server
        .wait_for("understudy_requests_receiving", 1.0)
        .await;
    let started = std::time::Instant::now();
    listening.stop.take().unwrap().send(()).unwrap();
    let text = rest(half_body).await;
    assert!(text.starts_with("HTTP/1.1 503"), "{text}");
    assert!(text.contains("server_shutting_down"), "{text}");
    listening.task.await.unwrap().unwrap();
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
    drop((half_head, silent));
}

#[tokio::test]
async fn running_requests_finish_before_the_end() {
    let mut listening = listen(Options::default(), Duration::from_secs(20)).await;
    listening.server.gate.close();
    let connection = post(listening.address, json!({})).await;
    listening.server.wait_for_started(1).await;
    listening.stop.take().unwrap().send(()).unwrap();
    // Whoever comes now is told to go elsewhere.
    while listening.server.get("/health").await.status == 200 {
        tokio::task::yield_now().await;
    }
    let late = rest(post(listening.address, json!({"stream": true})).await).await;
    assert!(late.starts_with("HTTP/1.1 503"), "{late}");
    assert!(late.contains("retry-after: "), "{late}");
    assert!(late.contains("server_shutting_down"), "{late}");
    let refused = listening.server.chat(json!({})).await;
    assert_eq!(refused.status.as_u16(), 503);
    assert_eq!(refused.json()["error"]["code"], "server_shutting_down");
    assert!(refused.header("retry-after-ms").is_some());
    assert_eq!(listening.server.get("/health").await.status.as_u16(), 503);
    listening.server.gate.open();
    let text = rest(connection).await;
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert!(text.contains("Hello there"));
    listening.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_exceeds_the_grace_period_is_cancelled() {
    let options = Options {
        says: None,
        max_model_len: 1000,
        ..Options::default()
    };
    // What would end the grace period early is let go of when it is over, and requests are
    // cancelled before any other task of this thread goes on.
    let (held, is_over) = oneshot::channel::<()>();
    let told_again = async move {
        pending::<()>().await;
        drop(held);
    };
    let mut listening = listen_until(options, Duration::ZERO, told_again).await;
    listening.server.gate.close();
    let connection = post(
        listening.address,
        json!({"stream": true, "ignore_eos": true}),
    )
    .await;
    listening.server.wait_for_started(1).await;
    listening.stop.take().unwrap().send(()).unwrap();
    // The step at the gate may end after the cancellation only.
    assert!(is_over.await.is_err());
    listening.server.gate.open();
    let text = rest(connection).await;
    assert!(text.contains("server_shutting_down"), "{text}");
    assert!(!text.contains("[DONE]"));
    listening.task.await.unwrap().unwrap();
}
