//! The least HTTP client: one request, one connection.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

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

/// GETs `path` over a fresh connection.
pub fn exchange(stream: &mut (impl Read + Write), path: &str) -> io::Result<Answer> {
    request(stream, "GET", path, &[("Host", "localhost")], "")
}

/// POSTs to `path` with these headers, and with the address as the host where they don't name one.
#[track_caller]
pub fn post(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Answer {
    ask_from(address, "POST", path, headers)
        .unwrap_or_else(|error| panic!("POST http://{address}{path} failed: {error}"))
}

/// Asks with any method.
pub fn ask_from(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let host = address.to_string();
    let own = [("Host", host.as_str())];
    let names_host = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host"));
    let headers = [if names_host { &[] } else { &own[..] }, headers].concat();
    request(&mut stream, method, path, &headers, "")
}

/// Sends a request, and reads until the server ends.
pub fn request(
    stream: &mut (impl Read + Write),
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> io::Result<Answer> {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let head = format!("{method} {path} HTTP/1.1\r\n{headers}{length}Connection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let incomplete = || io::Error::new(io::ErrorKind::UnexpectedEof, format!("no whole answer: {answer:?}"));
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(incomplete)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(incomplete)?;
    let mut answer = Answer { status, head: head.to_owned(), body: body.to_owned() };
    if answer.header("transfer-encoding").is_some() {
        answer.body = unchunked(body).ok_or_else(incomplete)?;
    }
    Ok(answer)
}

/// A chunked body, without the coding; trailers are left out.
fn unchunked(mut rest: &str) -> Option<String> {
    let mut body = String::new();
    loop {
        let (size, after) = rest.split_once("\r\n")?;
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body += after.get(..size)?;
        rest = after.get(size..)?.strip_prefix("\r\n")?;
    }
}

impl Answer {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines.filter(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }
}
