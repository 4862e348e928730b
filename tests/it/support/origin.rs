//! An HTTP server that keeps what reached it, byte for byte, and a client that reads answers by their framing.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::ports::Refusing;
use super::servers::Server;

/// Answers each request with 200 and the request's own head as the body.
pub struct Origin {
    server: Server,
    seen: Arc<Mutex<Seen>>,
    /// Answers nothing more.
    is_dead: Arc<AtomicBool>,
}

#[derive(Default)]
struct Seen {
    bytes: Vec<u8>,
    requests: Vec<Message>,
    /// Connections that are over.
    ended: usize,
}

/// A request or a response.
#[derive(Clone, Debug)]
pub struct Message {
    pub head: String,
    pub body: Vec<u8>,
}

impl Message {
    /// The value of a header; fails where it stands twice.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        let values: Vec<&str> =
            lines.filter(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect();
        assert!(values.len() <= 1, "{name} stands twice in {}", self.head);
        values.first().copied()
    }

    pub fn status(&self) -> u16 {
        self.head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Origin {
    pub fn new() -> Self {
        Self::on(Refusing::new())
    }

    /// The same at an address that refused until now.
    pub fn on(address: Refusing) -> Self {
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let is_dead = Arc::<AtomicBool>::default();
        let (keep, dies) = (seen.clone(), is_dead.clone());
        let server = Server::on(address, move |stream| {
            let mut reader = Reader::new(stream, Some(keep.clone()));
            while let Some(request) = reader.message(false).filter(|_| !dies.load(Ordering::Relaxed)) {
                keep.lock().unwrap().requests.push(request.clone());
                let body = if request.head.starts_with("HEAD ") { "" } else { request.head.as_str() };
                let length = request.head.len();
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
                if reader.stream.write_all(answer.as_bytes()).is_err() {
                    break;
                }
            }
            keep.lock().unwrap().ended += 1;
        });
        Self { server, seen, is_dead }
    }

    /// Ends it: its address refuses, and its connections close with their next request.
    pub fn die(self) {
        self.is_dead.store(true, Ordering::Relaxed);
    }

    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    pub fn connections(&self) -> usize {
        self.server.accepted()
    }

    /// Those of them that live.
    pub fn open_connections(&self) -> usize {
        self.connections() - self.seen.lock().unwrap().ended
    }

    /// All that reached it.
    pub fn bytes(&self) -> Vec<u8> {
        self.seen.lock().unwrap().bytes.clone()
    }

    /// Whole requests.
    pub fn requests(&self) -> Vec<Message> {
        self.seen.lock().unwrap().requests.clone()
    }
}

/// Reads messages by their framing, which the tests trust: no judge of anything.
pub struct Reader {
    pub stream: TcpStream,
    seen: Option<Arc<Mutex<Seen>>>,
    buffer: Vec<u8>,
    /// Answers to HEAD are read, which have no body.
    pub reads_no_bodies: bool,
}

impl Reader {
    fn new(stream: TcpStream, seen: Option<Arc<Mutex<Seen>>>) -> Self {
        Self { stream, seen, buffer: Vec::new(), reads_no_bodies: false }
    }

    /// A client's side.
    pub fn of(stream: TcpStream) -> Self {
        Self::new(stream, None)
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the peer takes it");
    }

    /// The next response; fails unless there is one.
    #[track_caller]
    pub fn response(&mut self) -> Message {
        self.message(true).expect("a response")
    }

    /// The next message; `None`: the peer has ended, or the message is cut short.
    pub fn message(&mut self, ends_by_close: bool) -> Option<Message> {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            self.more()?;
        };
        let head = String::from_utf8_lossy(&self.buffer.drain(..end).collect::<Vec<_>>()).into_owned();
        let mut message = Message { head, body: Vec::new() };
        let interim = message.head.starts_with("HTTP/1.1 1");
        if self.reads_no_bodies {
            return Some(message);
        }
        if message.header("transfer-encoding").is_some() {
            message.body = self.chunks()?;
        } else if let Some(length) = message.header("content-length") {
            let length = length.parse().ok()?;
            while self.buffer.len() < length {
                self.more()?;
            }
            message.body = self.buffer.drain(..length).collect();
        } else if ends_by_close && !interim && ![204, 304].contains(&message.status()) {
            while self.more().is_some() {}
            message.body = std::mem::take(&mut self.buffer);
        }
        Some(message)
    }

    /// A chunked body with its coding, trailers included.
    fn chunks(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
            let size = usize::from_str_radix(std::str::from_utf8(&line[..digits]).ok()?, 16).ok()?;
            body.extend(line);
            if size == 0 {
                break;
            }
            while self.buffer.len() < size + 2 {
                self.more()?;
            }
            body.extend(self.buffer.drain(..size + 2));
        }
        loop {
            let line = self.line()?;
            body.extend(&line);
            if line == b"\r\n" {
                return Some(body);
            }
        }
    }

    fn line(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.buffer.windows(2).position(|two| two == b"\r\n") {
                return Some(self.buffer.drain(..at + 2).collect());
            }
            self.more()?;
        }
    }

    /// Whether the peer has ended, with nothing left to read.
    pub fn is_at_end(&mut self) -> bool {
        self.buffer.is_empty() && self.more().is_none()
    }

    fn more(&mut self) -> Option<()> {
        let mut piece = [0; 16 * 1024];
        let length = loop {
            match self.stream.read(&mut piece) {
                Ok(0) => return None,
                Ok(length) => break length,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        };
        if let Some(seen) = &self.seen {
            seen.lock().unwrap().bytes.extend_from_slice(&piece[..length]);
        }
        self.buffer.extend_from_slice(&piece[..length]);
        Some(())
    }
}
