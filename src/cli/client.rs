//! Sends one HTTP request on a connection of its own, to the admin server or through the demo's balancer.

use std::io;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONNECTION, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// For the connect, the request and the whole response, of what is answered at once.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What is asked.
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    pub(super) path: &'a str,
    /// JSON, or nothing.
    pub(super) body: String,
    /// The answer is given up after this time.
    pub(super) longest: Duration,
}

impl<'a> Ask<'a> {
    /// Without a body, for what is answered at once.
    pub(super) fn new(method: Method, path: &'a str) -> Self {
        Self { method, path, body: String::new(), longest: TIMEOUT }
    }

    /// The same for an answer that may be waited for.
    pub(super) fn that_waits(self, wait: Duration) -> Self {
        Self { longest: TIMEOUT + wait, ..self }
    }
}

/// Sends a request to `address` (host:port or unix:/path), and returns the status and the body of the response.
///
/// # Errors
/// There is no connection or no response in time, or the response is not HTTP.
pub(super) async fn send_request(address: &str, ask: Ask<'_>, token: Option<&str>) -> io::Result<(StatusCode, Bytes)> {
    let Ask { method, path, body, longest } = ask;
    let request = |host: String| {
        let mut request = Request::builder().method(method).uri(path).header(HOST, host).header(CONNECTION, "close");
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        request.body(Full::from(body)).map_err(io::Error::other)
    };
    let exchange = async {
        if let Some(socket) = address.strip_prefix("unix:") {
            return send_over(UnixStream::connect(socket).await?, request("localhost".to_owned())?).await;
        }
        let stream = TcpStream::connect(address).await?;
        // Not the name that led there: the admin server believes addresses, which nobody can rebind.
        let host = stream.peer_addr()?.to_string();
        send_over(stream, request(host)?).await
    };
    tokio::time::timeout(longest, exchange).await?
}

async fn send_over<S>(stream: S, request: Request<Full<Bytes>>) -> io::Result<(StatusCode, Bytes)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let driver = tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
    driver.abort();
    Ok((status, body))
}
