//! The buffer that all connections of one worker share. A connection uses it within one poll, and copies out what it
//! needs later.

use std::cell::{RefCell, RefMut};
use std::io;
use std::task::{Context, Poll, ready};

use crate::net::Transport;

use super::room::FIRST_BYTES;

/// Measured: with 64 KiB, responses of 64 KiB cost a fifth more, as their last bytes need a read and a write of their
/// own; 256 KiB still fits into a core's L2 cache beside the rest.
pub(super) const SCRATCH_BYTES: usize = 256 * 1024;

#[derive(Debug)]
pub struct Scratch(RefCell<Box<[u8]>>);

impl Scratch {
    /// Receives into it, no more than could be sent on at once, and calls `look` with the bytes; none: the peer's end
    /// of stream.
    pub fn poll_receive<T>(
        &self,
        cx: &mut Context<'_>,
        from: &Transport,
        look: impl FnOnce(&mut Context<'_>, &[u8]) -> T,
    ) -> Poll<io::Result<T>> {
        self.poll_receive_at_most(cx, from, FIRST_BYTES, look)
    }

    /// The same with the next `most` bytes at most.
    pub fn poll_receive_at_most<T>(
        &self,
        cx: &mut Context<'_>,
        from: &Transport,
        most: usize,
        look: impl FnOnce(&mut Context<'_>, &[u8]) -> T,
    ) -> Poll<io::Result<T>> {
        let mut bytes = self.borrow_mut();
        let received = ready!(from.poll_receive(cx, &mut bytes[..most]))?;
        Poll::Ready(Ok(look(cx, &bytes[..received])))
    }

    /// Calls `look` with up to `most` received bytes, which stay in the socket, once they are more than `known`.
    pub fn poll_peek<T>(
        &self,
        cx: &mut Context<'_>,
        from: &Transport,
        known: usize,
        most: usize,
        look: impl FnOnce(&[u8]) -> T,
    ) -> Poll<io::Result<T>> {
        let mut bytes = self.borrow_mut();
        let seen = ready!(from.poll_peek(cx, &mut bytes[..most], known))?;
        Poll::Ready(Ok(look(&bytes[..seen])))
    }

    /// The whole buffer, with whatever the last use left in it.
    pub(super) fn borrow_mut(&self) -> RefMut<'_, Box<[u8]>> {
        self.0.borrow_mut()
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self(RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice()))
    }
}
