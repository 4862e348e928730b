//! One HTTP request on a connection of its own: to the admin server, or through the demo's balancer.

use std::io;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::header::{CONNECTION, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// A whole exchange must be over in this time.
const TIMEOUT: Duration = Duration::from_secs(5);

/// GETs `path` from `address` (host:port or unix:/path) and gives the status and the body.
///
/// # Errors
/// No connection, no answer in time, or no HTTP.
pub(super) async fn get(address: &str, path: &str) -> io::Result<(StatusCode, Bytes)> {
    let exchange = async {
        match address.strip_prefix("unix:") {
            Some(socket) => get_over(UnixStream::connect(socket).await?, "localhost", path).await,
            None => get_over(TcpStream::connect(address).await?, address, path).await,
        }
    };
    tokio::time::timeout(TIMEOUT, exchange).await?
}

async fn get_over<S>(stream: S, host: &str, path: &str) -> io::Result<(StatusCode, Bytes)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let driver = tokio::spawn(connection);
    let request = Request::get(path)
        .header(HOST, host)
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(io::Error::other)?;
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
    driver.abort();
    Ok((status, body))
}
