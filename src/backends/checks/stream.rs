//! The connection of a check as a stream that libraries take: the same whether it is plain or not, and bounded.
//!
//! Knows no protocol.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::net::Transport;

/// All that one check receives: a head and 64 KiB of a body, as chunks too, or a handshake with many certificates. No
/// protocol's reader can grow beyond it.
const MAX_RECEIVED: usize = 256 * 1024;

/// A backend that was told that the check is over may take this long to end the connection.
const GOODBYE: Duration = Duration::from_millis(100);

/// What a check reads from and writes to.
pub(in crate::backends) trait Io: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Io for T {}

/// The connection of one check.
pub(in crate::backends) type CheckStream = Box<dyn Io>;

/// A connection that was just made.
pub(super) fn over(transport: Transport) -> CheckStream {
    Box::new(Wire { transport, received: 0 })
}

/// Ends the connection so that the backend sees an end, and no reset: it has been told all, and may still say goodbye.
pub(in crate::backends) async fn end(mut stream: CheckStream) {
    let ended = async {
        stream.shutdown().await?;
        let mut ignored = [0; 1024];
        while stream.read(&mut ignored).await? > 0 {}
        io::Result::Ok(())
    };
    // Whatever the backend does now, its check is over.
    let _ = tokio::time::timeout(GOODBYE, ended).await;
}

/// A transport, and how much was received.
struct Wire {
    transport: Transport,
    received: usize,
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.received >= MAX_RECEIVED {
            let message = format!("sent more than {} KiB", MAX_RECEIVED / 1024);
            return Poll::Ready(Err(io::Error::other(message)));
        }
        let length = ready!(self.transport.poll_receive(cx, buffer.initialize_unfilled()))?;
        buffer.advance(length);
        self.received += length;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.transport.poll_send(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.transport.shutdown_write(cx);
        Poll::Ready(Ok(()))
    }
}
