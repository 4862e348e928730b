//! Sends one HTTP request on a connection of its own, to the admin server or through the demo's balancer.

use std::io;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONNECTION, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// For the connect, the request and the whole response.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Sends a request to `address` (host:port or unix:/path), and returns the status and the body of the response.
///
/// # Errors
/// There is no connection or no response in time, or the response is not HTTP.
pub(super) async fn send_request(
    address: &str,
    method: Method,
    path: &str,
    token: Option<&str>,
) -> io::Result<(StatusCode, Bytes)> {
    let request = |host: String| {
        let mut request = Request::builder().method(method).uri(path).header(HOST, host).header(CONNECTION, "close");
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        request.body(Empty::<Bytes>::new()).map_err(io::Error::other)
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
    tokio::time::timeout(TIMEOUT, exchange).await?
}

async fn send_over<S>(stream: S, request: Request<Empty<Bytes>>) -> io::Result<(StatusCode, Bytes)>
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
