//! The sockets that the resolver's queries use. They differ from its own in one thing: where a name server can't be
//! reached by TCP, a truncated UDP answer is taken for what it has.
//!
//! RFC 2181, 9 wants such an answer asked for again by TCP. Behind a firewall that closes port 53/tcp this fails each
//! time, and the addresses that did come are better than none.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hickory_resolver::net::runtime::{DnsUdpSocket, RuntimeProvider, TokioRuntimeProvider, TokioTime};
use tokio::net::UdpSocket;

/// For so long after a failed connect, a server counts as one without TCP.
const WITHOUT_TCP: Duration = Duration::from_secs(60);

/// The bit TC, in the third byte of a message (RFC 1035, 4.1.1).
const TRUNCATED: u8 = 0b10;
const FLAGS: usize = 2;
/// Where a message says how many answers it has.
const ANSWERS: std::ops::Range<usize> = 6..8;

/// tokio, with the sockets described above.
#[derive(Clone, Default)]
pub(super) struct DnsRuntime {
    tokio: TokioRuntimeProvider,
    refusing: Refusing,
}

/// Name servers to which a TCP connection could not be made, each with the time of the last failure. There are as many
/// at most as name servers are configured.
#[derive(Clone, Default)]
struct Refusing(Arc<Mutex<HashMap<SocketAddr, Instant>>>);

impl Refusing {
    fn note(&self, server: SocketAddr) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(server, Instant::now());
    }

    fn has(&self, server: SocketAddr) -> bool {
        let servers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        servers.get(&server).is_some_and(|since| since.elapsed() < WITHOUT_TCP)
    }
}

impl RuntimeProvider for DnsRuntime {
    type Handle = <TokioRuntimeProvider as RuntimeProvider>::Handle;
    type Timer = TokioTime;
    type Udp = DnsSocket;
    type Tcp = <TokioRuntimeProvider as RuntimeProvider>::Tcp;

    fn create_handle(&self) -> Self::Handle {
        self.tokio.create_handle()
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        bind: Option<SocketAddr>,
        timeout: Option<Duration>,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Self::Tcp>>>> {
        let (connecting, refusing) = (self.tokio.connect_tcp(server, bind, timeout), self.refusing.clone());
        Box::pin(async move { connecting.await.inspect_err(|_| refusing.note(server)) })
    }

    fn bind_udp(
        &self,
        local: SocketAddr,
        server: SocketAddr,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Self::Udp>>>> {
        let (binding, refusing) = (self.tokio.bind_udp(local, server), self.refusing.clone());
        Box::pin(async move { Ok(DnsSocket { socket: binding.await?, server, refusing }) })
    }
}

/// A socket for one query to one server.
pub(super) struct DnsSocket {
    socket: UdpSocket,
    server: SocketAddr,
    refusing: Refusing,
}

impl DnsUdpSocket for DnsSocket {
    type Time = TokioTime;

    fn poll_recv_from(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<(usize, SocketAddr)>> {
        let (length, from) = ready!(DnsUdpSocket::poll_recv_from(&self.socket, cx, buffer))?;
        let message = &mut buffer[..length];
        let has_answers = message.get(ANSWERS).is_some_and(|count| count != [0, 0]);
        if has_answers && message[FLAGS] & TRUNCATED != 0 && self.refusing.has(self.server) {
            message[FLAGS] &= !TRUNCATED;
        }
        Poll::Ready(Ok((length, from)))
    }

    fn poll_send_to(&self, cx: &mut Context<'_>, buffer: &[u8], target: SocketAddr) -> Poll<io::Result<usize>> {
        DnsUdpSocket::poll_send_to(&self.socket, cx, buffer, target)
    }
}
