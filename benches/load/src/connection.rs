//! Connections: kept and used again, as the clients of users do.

use std::sync::{Mutex, PoisonError};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::outcome::{ErrorKind, Failure};
use crate::target::Target;

type Sender = SendRequest<Full<Bytes>>;

/// A stream of bytes, encrypted or not.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A server, and the connections to it that wait for their next request.
#[derive(Debug)]
pub struct Connections {
    target: Target,
    idle: Mutex<Vec<Sender>>,
}

/// An answer whose body is still to come. The connection can be used again after it.
pub(crate) struct Answer {
    pub(crate) response: Response<Incoming>,
    sender: Sender,
}

impl Connections {
    #[must_use]
    pub fn new(target: Target) -> Self {
        Self {
            target,
            idle: Mutex::new(Vec::new()),
        }
    }

    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Sends a request to `path` behind the base URL. A connection that the server has closed
    /// while it was idle is not the server's fault: the request then goes out on a new one, if
    /// nothing of it was sent.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Answer, Failure> {
        loop {
            let (mut sender, is_used) = match self.take_idle() {
                Some(sender) => (sender, true),
                None => (self.connect().await?, false),
            };
            let request = self.request(&method, path, body.clone())?;
            match sender.send_request(request).await {
                Ok(response) => return Ok(Answer { response, sender }),
                Err(error) if is_used && error.is_canceled() => {}
                Err(error) => {
                    return Err(Failure::new(ErrorKind::Disconnected, error.to_string()));
                }
            }
        }
    }

    /// Keeps the connection of an answer that was read to its end.
    pub(crate) async fn keep(&self, mut sender: Sender) {
        if sender.ready().await.is_ok() {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.push(sender);
        }
    }

    fn take_idle(&self) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|sender| !sender.is_closed());
        idle.pop()
    }

    fn request(
        &self,
        method: &Method,
        path: &str,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, Failure> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.target.prefix))
            .header("host", self.target.authority())
            .header(
                "user-agent",
                concat!("understudy-bench/", env!("CARGO_PKG_VERSION")),
            );
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        if let Some(key) = &self.target.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let request = request.body(Full::new(body));
        request.map_err(|error| Failure::new(ErrorKind::Connect, error.to_string()))
    }

    async fn connect(&self) -> Result<Sender, Failure> {
        let failure =
            |error: &dyn std::fmt::Display| Failure::new(ErrorKind::Connect, error.to_string());
        let target = &self.target;
        let tcp = TcpStream::connect((target.host.as_str(), target.port))
            .await
            .map_err(|error| failure(&error))?;
        tcp.set_nodelay(true).map_err(|error| failure(&error))?;
        let stream: Box<dyn Stream> = match &target.tls {
            None => Box::new(tcp),
            Some(tls) => {
                let name = ServerName::try_from(target.host.clone());
                let name = name.map_err(|error| failure(&error))?;
                let stream = tls.connect(name, tcp).await;
                Box::new(stream.map_err(|error| failure(&error))?)
            }
        };
        let (sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(|error| failure(&error))?;
        // It ends with the connection; what went wrong the request hears.
        tokio::spawn(connection);
        Ok(sender)
    }
}

impl Answer {
    pub(crate) fn into_parts(self) -> (Response<Incoming>, Sender) {
        (self.response, self.sender)
    }
}
