//! Which of the two movers a direction uses now.
//!
//! Copying is cheaper for small messages, splicing for large ones: it saves one copy of each byte, but its two system
//! calls cost more than a receive and a send. What the next message is like is guessed from the last.

use std::mem;

use crate::config::RelayMode;

use super::pipes::PIPE_BYTES;

/// A splice of fewer bytes costs more than copying them, on loopback.
pub(super) const SMALL_SPLICE_BYTES: usize = 16 * 1024;
/// Small messages in a row after which a direction copies again.
const SMALL_MESSAGES_TO_COPY: u8 = 3;
/// A splice of more may have ended for want of room in the pipe.
const BULK_BYTES: usize = 256 * 1024;
/// What a move is expected to bring at least.
const FEW_BYTES: usize = 64 * 1024;

/// The choice for one direction, by the sizes of its last moves.
#[derive(Debug)]
pub(super) struct MoverChoice {
    splices: bool,
    /// While splicing: small messages in a row.
    small: u8,
    /// The last splice took less than it might: there is probably nothing more, which a receive has to confirm.
    confirms: bool,
    /// Of what the last move brought: its logarithm, rounded up.
    last_log2: u8,
}

impl MoverChoice {
    pub(super) fn new(mode: RelayMode) -> Self {
        Self { splices: mode == RelayMode::Splice, small: 0, confirms: false, last_log2: 0 }
    }

    /// Whether the next move is to be a splice: asked once for each.
    pub(super) fn next_splices(&mut self) -> bool {
        !mem::take(&mut self.confirms) && self.splices
    }

    /// How many bytes the next move may bring, by the last one.
    pub(super) fn expected_bytes(&self) -> usize {
        (1 << self.last_log2).clamp(FEW_BYTES, PIPE_BYTES)
    }

    /// Takes a splicing move into account, which might have brought `most` bytes.
    pub(super) fn note_splice(&mut self, bytes: usize, most: usize, mode: RelayMode) {
        self.confirms = bytes < most.min(BULK_BYTES);
        self.note_receive(bytes, mode);
    }

    /// Takes a copying move into account.
    pub(super) fn note_receive(&mut self, bytes: usize, mode: RelayMode) {
        self.last_log2 = bytes.min(PIPE_BYTES).next_power_of_two().ilog2().try_into().expect("below 64");
        if bytes >= SMALL_SPLICE_BYTES {
            (self.splices, self.small) = (mode != RelayMode::Copy, 0);
        } else if self.splices {
            self.small = self.small.saturating_add(1);
            self.splices = mode == RelayMode::Splice || self.small < SMALL_MESSAGES_TO_COPY;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: usize = SMALL_SPLICE_BYTES;

    /// The choice after receives of so many bytes.
    fn after_receives(mode: RelayMode, receives: &[usize]) -> MoverChoice {
        let mut choice = MoverChoice::new(mode);
        receives.iter().for_each(|bytes| choice.note_receive(*bytes, mode));
        choice
    }

    #[test]
    fn splices_after_a_large_message() {
        assert!(!after_receives(RelayMode::Auto, &[1, LARGE - 1]).next_splices());
        assert!(after_receives(RelayMode::Auto, &[1, LARGE]).next_splices());
    }

    #[test]
    fn copies_again_after_three_small_messages_in_a_row() {
        let mut choice = after_receives(RelayMode::Auto, &[LARGE]);
        for bytes in [1, 1, LARGE, 1, 1] {
            choice.note_splice(bytes, bytes, RelayMode::Auto);
            assert!(choice.next_splices());
        }
        choice.note_splice(1, 1, RelayMode::Auto);
        assert!(!choice.next_splices());
    }

    #[test]
    fn receives_after_a_splice_that_took_less_than_it_might() {
        let mut choice = after_receives(RelayMode::Auto, &[LARGE]);
        choice.note_splice(LARGE, LARGE + 1, RelayMode::Auto);
        assert!(!choice.next_splices() && choice.next_splices());
    }

    #[test]
    fn expects_what_came_last() {
        assert_eq!(after_receives(RelayMode::Auto, &[]).expected_bytes(), FEW_BYTES);
        assert_eq!(after_receives(RelayMode::Auto, &[100_000]).expected_bytes(), 128 * 1024);
        assert_eq!(after_receives(RelayMode::Auto, &[usize::MAX]).expected_bytes(), PIPE_BYTES);
    }

    #[test]
    fn a_configured_mover_is_never_changed() {
        assert!(!after_receives(RelayMode::Copy, &[LARGE; 10]).next_splices());
        let mut choice = MoverChoice::new(RelayMode::Splice);
        for _ in 0..10 {
            choice.note_splice(1, 1, RelayMode::Splice);
            assert!(choice.next_splices());
        }
    }
}
