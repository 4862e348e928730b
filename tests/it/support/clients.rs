//! Clients, and how a connection ended for them.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use socket2::SockRef;

use super::PATIENCE;

/// How a stream of bytes ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// FIN: that was all.
    Clean,
    /// RST.
    Reset,
}

/// Connects, with a bound on every read and write.
#[track_caller]
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)
        .unwrap_or_else(|error| panic!("can't connect to {address}: {error}"));
    bound(&stream);
    stream
}

/// A client that is not served, whether it is reset at once or later.
pub fn knock(address: SocketAddr) {
    if let Ok(mut stream) = TcpStream::connect_timeout(&address, PATIENCE) {
        bound(&stream);
        let _ = stream.read(&mut [0]);
    }
}

pub fn bound(stream: &TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
    stream.set_write_timeout(Some(PATIENCE)).expect("not zero");
}

/// Closes with a reset.
pub fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a live socket");
    drop(stream);
}

/// Reads until the stream ends: what came, and how it ended.
#[track_caller]
pub fn read_to_end(stream: &mut TcpStream) -> (Vec<u8>, Ending) {
    let mut received = Vec::new();
    match stream.read_to_end(&mut received) {
        Ok(_) => (received, Ending::Clean),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => (received, Ending::Reset),
        Err(error) => panic!("neither an end nor a reset after {} bytes: {error}", received.len()),
    }
}

/// Connects and reads until the stream ends. A reset may come before connect(2) has told that it worked.
#[track_caller]
pub fn connect_and_read(address: SocketAddr) -> (Vec<u8>, Ending) {
    match TcpStream::connect(address) {
        Ok(mut stream) => {
            bound(&stream);
            read_to_end(&mut stream)
        }
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => (Vec::new(), Ending::Reset),
        Err(error) => panic!("can't connect to {address}: {error}"),
    }
}

/// Sends the pieces, a segment each as far as the network likes, then ends where `ends`, and reads until the other side
/// has ended too. A reset may come while it still sends.
#[track_caller]
pub fn send_and_read<'a>(
    stream: &mut TcpStream,
    pieces: impl IntoIterator<Item = &'a [u8]>,
    ends: bool,
) -> (Vec<u8>, Ending) {
    stream.set_nodelay(true).expect("a live socket");
    for piece in pieces {
        match stream.write_all(piece) {
            Ok(()) => thread::yield_now(),
            Err(error) if [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe].contains(&error.kind()) => {
                return (Vec::new(), Ending::Reset);
            }
            Err(error) => panic!("neither taken nor refused: {error}"),
        }
    }
    if ends {
        // Fails where a reset has come.
        let _ = stream.shutdown(Shutdown::Write);
    }
    read_to_end(stream)
}

/// Reads some bytes, as text.
#[track_caller]
pub fn short_read(stream: &mut TcpStream) -> String {
    let mut buffer = [0; 1024];
    let length = stream.read(&mut buffer).unwrap_or_else(|error| panic!("no bytes came: {error}"));
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

/// Makes the kernel take few bytes before the reader does.
pub fn shrink_receive_buffer(stream: &TcpStream) {
    SockRef::from(stream).set_recv_buffer_size(256 * 1024).expect("a live socket");
}
