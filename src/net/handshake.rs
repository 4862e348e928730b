//! The handshake of TLS on a connected socket, for both sides.

use std::cell::RefCell;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Waker};

use tokio::sync::Semaphore;

use crate::tls::Session;

use super::stream::Stream;
use super::tls_layer::TlsLayer;

/// Sees what the peer has sent of its next message. `false`: this is not to be gone on with.
pub type Look<'a> = dyn FnMut(&[u8]) -> bool + 'a;

/// Why a handshake did not work.
#[derive(Debug)]
pub enum HandshakeError {
    /// The peers don't agree, or one of them breaks the protocol.
    Tls(rustls::Error),
    /// The peer has ended or reset the connection: `UnexpectedEof` is its end.
    Lost(io::Error),
    /// Whoever looked at what the peer has sent wants no TLS. The peer was told nothing.
    NotWanted,
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tls(error) => error.fmt(f),
            Self::Lost(error) => error.fmt(f),
            Self::NotWanted => f.write_str("this is not TLS"),
        }
    }
}

impl std::error::Error for HandshakeError {}

/// So many handshakes of a thread go on by a message between two looks at its sockets, each of some 80 µs. Measured:
/// beside 2,000 ClientHellos at once, 100 ping-pongs waited for all of them without a limit, 130 ms and more.
const STEPS_AT_ONCE: usize = 4;

thread_local! {
    static STEPS: Arc<Semaphore> = Arc::new(Semaphore::new(STEPS_AT_ONCE));
}

/// Safe to cancel.
pub(super) async fn run(
    stream: &Stream,
    session: Session,
    look: &mut Look<'_>,
) -> Result<Box<RefCell<TlsLayer>>, HandshakeError> {
    // Where it will stay.
    let layer = Box::new(RefCell::new(TlsLayer::new(session)));
    loop {
        let advanced = advance(&layer).await;
        let is_over = advanced.map_err(|error| {
            // Its alert, as far as that goes without a wait.
            let _ = layer.borrow_mut().poll_flush(stream, &mut Context::from_waker(Waker::noop()));
            HandshakeError::Tls(error)
        })?;
        poll_fn(|cx| layer.borrow_mut().poll_flush(stream, cx)).await.map_err(HandshakeError::Lost)?;
        if is_over {
            return Ok(layer);
        }
        poll_fn(|cx| layer.borrow_mut().poll_fill(stream, cx)).await.map_err(HandshakeError::Lost)?;
        if !look(layer.borrow().filled()) {
            return Err(HandshakeError::NotWanted);
        }
    }
}

/// Acts on what has come. That is arithmetic: whoever has something to move on this thread has a turn meanwhile.
async fn advance(layer: &RefCell<TlsLayer>) -> Result<bool, rustls::Error> {
    if layer.borrow().filled().is_empty() {
        return layer.borrow_mut().advance();
    }
    let _step = STEPS.with(Arc::clone).acquire_owned().await.expect("it is never closed");
    let advanced = layer.borrow_mut().advance();
    // Comes back after the sockets were looked at, and all that were ready have had their turn.
    tokio::task::yield_now().await;
    advanced
}
