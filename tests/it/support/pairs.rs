//! Both ends of a connection through the balancer in one hand: what is read, and when, is the test's choice.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use socket2::SockRef;

use super::clients::bound;
use super::{Lb, PATIENCE, Refusing, connect, send_pattern_from};

const KIB: usize = 1024;
/// What is sent between two looks at whether it was passed on: less than any receive buffer.
const PORTION: usize = 64 * KIB;
/// So many looks without a byte moved mean that none will be: 700 ms, longer than the first probes of a closed window
/// (200 and 400 ms), which can find room after all.
const LOOKS: usize = 140;
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(5);
/// More than all buffers on the way hold.
const MOST_HELD: usize = 64 * KIB * KIB;

/// A backend whose connections the test itself accepts.
pub struct Pairs(TcpListener);

/// The client's and the backend's end of one connection through the balancer.
pub struct Pair {
    pub client: TcpStream,
    pub backend: TcpStream,
}

impl Pairs {
    pub fn new() -> Self {
        Self(Refusing::new().listen())
    }

    /// One whose kernel takes few bytes before they are read.
    pub fn with_small_buffers() -> Self {
        let pairs = Self::new();
        SockRef::from(&pairs.0).set_recv_buffer_size(64 * KIB).expect("a live socket");
        pairs
    }

    pub fn address(&self) -> SocketAddr {
        self.0.local_addr().expect("a bound socket")
    }

    /// Connects through the balancer's first listener. One at a time: else the ends might not belong together.
    #[track_caller]
    pub fn connect(&self, lb: &Lb) -> Pair {
        self.connect_to(lb.address())
    }

    /// The same through the listener at `address`.
    #[track_caller]
    pub fn connect_to(&self, address: SocketAddr) -> Pair {
        let client = connect(address);
        let backend = self.accept();
        client.set_nodelay(true).expect("a live socket");
        backend.set_nodelay(true).expect("a live socket");
        Pair { client, backend }
    }

    /// The backend's end of a connection that somebody made.
    #[track_caller]
    pub fn accept(&self) -> TcpStream {
        SockRef::from(&self.0).set_read_timeout(Some(PATIENCE)).expect("not zero");
        let (stream, _) = self.0.accept().expect("the balancer connects at once");
        bound(&stream);
        stream
    }
}

/// Sends the pattern until the balancer can't pass it on, for nobody reads: how many bytes that were. The sender can
/// still send a little. No other connection may move bytes meanwhile.
#[track_caller]
pub fn send_until_stuck(lb: &Lb, from: &mut TcpStream) -> usize {
    send_portions_until_stuck(lb, from, PORTION)
}

/// The same in messages of this size, each passed on before the next is sent.
#[track_caller]
pub fn send_portions_until_stuck(lb: &Lb, from: &mut TcpStream, portion: usize) -> usize {
    let passed_on = || lb.metrics().sum("bytes_total", &[]);
    let (before, mut sent) = (passed_on(), 0);
    loop {
        send_pattern_from(from, sent, portion);
        sent += portion;
        assert!(sent < MOST_HELD, "{sent} bytes were taken without a reader");
        let mut last = passed_on();
        let mut still = 0;
        #[allow(clippy::cast_precision_loss, reason = "a float holds such numbers exactly")]
        while last - before < sent as f64 {
            thread::sleep(PAUSE);
            let now = passed_on();
            still = if now == last { still + 1 } else { 0 };
            last = now;
            if still == LOOKS {
                return sent;
            }
        }
    }
}

impl Pair {
    /// A message each way.
    #[track_caller]
    pub fn ping(&mut self, message: &[u8]) {
        let mut got = vec![0; message.len()];
        self.client.write_all(message).expect("the connection lives");
        self.backend.read_exact(&mut got).expect("the message comes");
        assert_eq!(got, message, "to the backend");
        self.backend.write_all(message).expect("the connection lives");
        got.fill(0);
        self.client.read_exact(&mut got).expect("the answer comes");
        assert_eq!(got, message, "to the client");
    }
}
