//! How much one receive may bring in, so that the receiver's socket takes it: what it doesn't take has to be kept in
//! our memory. Asks the kernel seldom, and knows no mover.

use crate::net::Transport;

use super::unsent::{Credit, SMALL_BYTES};

/// Taken for the room of a direction that has sent nothing, and where the kernel doesn't say: its send buffers begin
/// with 84 KiB.
const FRESH_BYTES: usize = 64 * 1024;
/// The first receive of a direction. Responses of 64 KiB with their heads are moved by one.
pub(super) const FIRST_BYTES: usize = FRESH_BYTES + SMALL_BYTES;

/// The room in the send buffer of a direction's receiver: a lower bound, as it grows by what the peer acknowledges.
#[derive(Debug)]
pub(super) struct Room {
    bytes: usize,
}

impl Room {
    pub(super) fn fresh() -> Self {
        Self { bytes: FRESH_BYTES }
    }

    /// How much may be received for `to`: what it has room for, and a little more, for the kernel enlarges only a
    /// buffer that was full. Asks the kernel if less than `expected` was left, to its knowledge.
    pub(super) fn limit(&mut self, to: &Transport, expected: usize, credit: &Credit) -> usize {
        if credit.is_used_up() {
            return SMALL_BYTES;
        }
        if self.bytes < expected {
            self.bytes = to.send_room().unwrap_or(FRESH_BYTES);
        }
        self.bytes + SMALL_BYTES
    }

    /// The receiver took `sent` bytes; of what was received for it, `is_blocked` says, it did not take all.
    pub(super) fn note_sent(&mut self, sent: usize, is_blocked: bool) {
        self.bytes = if is_blocked { 0 } else { self.bytes.saturating_sub(sent) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_leaves_less_room_and_a_blocked_receiver_none() {
        let mut room = Room::fresh();
        room.note_sent(10, false);
        assert_eq!(room.bytes, FRESH_BYTES - 10);
        room.note_sent(2 * FRESH_BYTES, false);
        assert_eq!(room.bytes, 0);
        let mut room = Room::fresh();
        room.note_sent(10, true);
        assert_eq!(room.bytes, 0);
    }
}
