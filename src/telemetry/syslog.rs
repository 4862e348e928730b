//! Syslog: a line of a log as a datagram (RFC 5424), by UDP (RFC 5426) or to a unix socket such as /dev/log.
//!
//! A receiver that is not there loses lines, which are counted; by UDP only as far as this machine is told of it.

use std::fmt;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use super::clock::{OldSyslogTime, rfc3339};
use super::lost_lines::LostLines;

/// A receiver that could not be reached is looked for again after this time.
const RETRY: Duration = Duration::from_secs(1);

/// Longer lines are cut: UDP takes no more over IPv4.
const MOST_BYTES: usize = 65_507;

/// In the order of their numbers (RFC 5424, 6.2.1); the words are those of syslog.conf(5).
pub const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "ntp",
    "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
];

/// How grave a line is, by its number in syslog (RFC 5424, 6.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Error = 3,
    Warning = 4,
    Info = 6,
    Debug = 7,
}

/// Where lines go, and as whose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyslogTarget {
    pub receiver: SyslogReceiver,
    /// Index in [`FACILITIES`].
    pub facility: u8,
    /// The name of the program (APP-NAME).
    pub tag: String,
    pub format: SyslogFormat,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyslogFormat {
    #[default]
    Rfc5424,
    /// As syslog(3) writes it: what journald, and rsyslog as Debian sets it up, expect at /dev/log.
    Local,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyslogReceiver {
    /// By UDP. The host may be a name, which is looked up when the log is opened.
    Udp { host: String, port: u16 },
    /// The path of a unix socket.
    Unix(PathBuf),
}

impl fmt::Display for SyslogTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.receiver {
            SyslogReceiver::Udp { host, port } if host.contains(':') => write!(f, "syslog:[{host}]:{port}"),
            SyslogReceiver::Udp { host, port } => write!(f, "syslog:{host}:{port}"),
            SyslogReceiver::Unix(path) => write!(f, "syslog:{}", path.display()),
        }
    }
}

/// What each message begins with.
#[derive(Debug)]
pub(super) struct Header {
    facility: u8,
    format: SyslogFormat,
    /// What follows the time.
    rest: String,
}

impl Header {
    /// `kind` says which log a message is of (MSGID).
    pub(super) fn new(target: &SyslogTarget, kind: &str) -> Self {
        let SyslogTarget { facility, tag, format, .. } = target;
        let (facility, format, pid) = (*facility, *format, std::process::id());
        if format == SyslogFormat::Local {
            return Self { facility, format, rest: format!("{tag}[{pid}]: ") };
        }
        let system = rustix::system::uname();
        let host: String = system.nodename().to_string_lossy().chars().filter(char::is_ascii_graphic).collect();
        // The nil value, where there is no name.
        let host = if host.is_empty() { "-" } else { &host };
        Self { facility, format, rest: format!("{host} {tag} {pid} {kind} - ") }
    }

    pub(super) fn write(&self, severity: Severity, out: &mut Vec<u8>) {
        let priority = self.facility * 8 + severity as u8;
        let (now, rest) = (SystemTime::now(), &self.rest);
        let written = match self.format {
            SyslogFormat::Rfc5424 => write!(out, "<{priority}>1 {} {rest}", rfc3339(now)),
            SyslogFormat::Local => write!(out, "<{priority}>{} {rest}", OldSyslogTime(now)),
        };
        written.expect("a Vec takes every byte");
    }
}

/// A receiver, and the socket to it while it is known to be there.
#[derive(Debug)]
pub struct SyslogSink {
    receiver: SyslogReceiver,
    socket: Option<Socket>,
    /// The last attempt to reach it, and why it failed.
    failed: Option<(Instant, io::ErrorKind)>,
}

#[derive(Debug)]
enum Socket {
    Udp(UdpSocket),
    Unix(UnixDatagram),
}

impl SyslogSink {
    /// A receiver that starts later doesn't keep the balancer from starting; a name is looked up with the first line.
    pub(super) fn new(receiver: SyslogReceiver) -> Self {
        let is_name = matches!(&receiver, SyslogReceiver::Udp { host, .. } if host.parse::<IpAddr>().is_err());
        let mut sink = Self { receiver, socket: None, failed: None };
        if !is_name {
            // An error shows with the first line.
            let _ = sink.socket();
        }
        sink
    }

    /// Sends each line as a datagram. Waits while a unix socket's receiver reads too slowly.
    pub(super) fn write(&mut self, lines: &[u8]) -> Result<(), LostLines> {
        let (mut lost, mut last) = (0, None);
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let line = &line[..line.len().min(MOST_BYTES)];
            if let Err((error, lines)) = self.send(line) {
                (lost, last) = (lost + lines, Some(error));
            }
        }
        last.map_or(Ok(()), |error| Err(LostLines { error, lines: lost }))
    }

    /// # Errors
    /// So many lines are lost: this one, or by UDP the one before, of which the receiver's machine tells only now
    /// (ICMP).
    fn send(&mut self, line: &[u8]) -> Result<(), (io::Error, u64)> {
        let send = |sink: &mut Self| sink.socket()?.send(line);
        let Err(error) = send(self) else { return Ok(()) };
        match self.receiver {
            // This one was not sent; the socket can go on.
            SyslogReceiver::Udp { .. } if error.kind() == io::ErrorKind::ConnectionRefused => {
                let again = send(self);
                Err((error, 1 + u64::from(again.is_err())))
            }
            // It was started anew, with another socket at the same path.
            SyslogReceiver::Unix(_) if is_gone(&error) => {
                self.socket = None;
                send(self).map_err(|error| (error, 1))
            }
            _ => Err((error, 1)),
        }
    }

    fn socket(&mut self) -> io::Result<&Socket> {
        if self.socket.is_none() {
            if let Some((_, kind)) = self.failed.filter(|(at, _)| at.elapsed() < RETRY) {
                return Err(kind.into());
            }
            match Socket::open(&self.receiver) {
                Ok(socket) => (self.socket, self.failed) = (Some(socket), None),
                Err(error) => {
                    self.failed = Some((Instant::now(), error.kind()));
                    return Err(error);
                }
            }
        }
        Ok(self.socket.as_ref().expect("it was opened above"))
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset | io::ErrorKind::NotConnected
    )
}

impl Socket {
    fn open(receiver: &SyslogReceiver) -> io::Result<Self> {
        match receiver {
            SyslogReceiver::Unix(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(path)?;
                Ok(Self::Unix(socket))
            }
            SyslogReceiver::Udp { host, port } => {
                let mut last = io::ErrorKind::NotFound.into();
                for address in (host.as_str(), *port).to_socket_addrs()? {
                    match connected(address) {
                        Ok(socket) => return Ok(Self::Udp(socket)),
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
        }
    }

    fn send(&self, line: &[u8]) -> io::Result<()> {
        loop {
            let sent = match self {
                Self::Udp(socket) => socket.send(line),
                Self::Unix(socket) => socket.send(line),
            };
            match sent {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn connected(address: SocketAddr) -> io::Result<UdpSocket> {
    let any = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
    socket.connect(address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_begins_as_the_standard_says() {
        let text_in = |format| {
            let receiver = SyslogReceiver::Unix("/dev/log".into());
            let header = Header::new(&SyslogTarget { receiver, facility: 16, tag: "web".to_owned(), format }, "access");
            let mut message = Vec::new();
            header.write(Severity::Info, &mut message);
            String::from_utf8(message).expect("ASCII")
        };
        let text = text_in(SyslogFormat::Rfc5424);
        let words: Vec<&str> = text.split(' ').collect();
        let pid = std::process::id().to_string();
        // Ends with the space before the message.
        assert_eq!((words[0], words[3], words[4], &words[5..]), ("<134>1", "web", &*pid, &["access", "-", ""][..]));
        assert!(words[1].ends_with('Z') && !words[2].is_empty(), "{text}");
        let text = text_in(SyslogFormat::Local);
        assert!(text.starts_with("<134>") && text.ends_with(&format!(" web[{pid}]: ")), "{text}");
    }

    #[test]
    fn a_receiver_that_comes_back_gets_lines_again_and_all_others_are_counted() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let mut sink = SyslogSink::new(SyslogReceiver::Unix(path.clone()));
        let lost = |result: Result<(), LostLines>| result.map_or_else(|lost| lost.lines, |()| 0);
        assert_eq!(lost(sink.write(b"one\ntwo\n")), 2, "nobody is there, and nobody is looked for within a second");
        sink.failed = None;
        let first = UnixDatagram::bind(&path).expect("it is free");
        assert_eq!(lost(sink.write(b"three\n")), 0);
        drop(first);
        std::fs::remove_file(&path).expect("it is there");
        assert_eq!(lost(sink.write(b"four\n")), 1);
        sink.failed = None;
        let second = UnixDatagram::bind(&path).expect("it is free");
        assert_eq!(lost(sink.write(b"five\nsix\n")), 0);
        let mut buffer = [0; 16];
        let read = second.recv(&mut buffer).expect("it was sent");
        assert_eq!(&buffer[..read], b"five");
    }
}
