//! The least HTTP client: one request, one connection.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::PATIENCE;

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// GETs `path`; fails unless there is a whole answer.
#[track_caller]
pub fn get(address: SocketAddr, path: &str) -> Answer {
    get_from(address, path).unwrap_or_else(|error| panic!("GET http://{address}{path} failed: {error}"))
}

/// GETs `path`.
pub fn get_from(address: SocketAddr, path: &str) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    exchange(&mut stream, path)
}

/// POSTs nothing to `path`.
pub fn post_to(address: SocketAddr, path: &str) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    request(&mut stream, "POST", path)
}

/// GETs `path` over a fresh connection.
pub fn exchange(stream: &mut (impl Read + Write), path: &str) -> io::Result<Answer> {
    request(stream, "GET", path)
}

fn request(stream: &mut (impl Read + Write), method: &str, path: &str) -> io::Result<Answer> {
    stream.write_all(format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let incomplete = || io::Error::new(io::ErrorKind::UnexpectedEof, format!("no whole answer: {answer:?}"));
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(incomplete)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(incomplete)?;
    Ok(Answer { status, head: head.to_owned(), body: body.to_owned() })
}
