//! Which of the two movers a direction uses now.
//!
//! Copying is cheaper for small messages, splicing for bulk data: it saves one copy of each byte, but its two system
//! calls cost more than a receive and a send.

use crate::config::RelayMode;

use super::pipes::PIPE_BYTES;
use super::scratch::SCRATCH_BYTES;

/// Full reads in a row after which a direction counts as bulk data, as with HAProxy's splice-auto.
const FULL_READS_TO_SPLICE: u8 = 3;
/// A splice of fewer bytes costs more than copying them.
pub(super) const SMALL_SPLICE_BYTES: u64 = 32 * 1024;
/// Small splices in a row after which a direction copies again.
const SMALL_SPLICES_TO_COPY: u8 = 3;
/// What a move is expected to bring while the last ones were small.
const FEW_BYTES: usize = 64 * 1024;

/// The choice for one direction, by the sizes of its last moves.
#[derive(Debug)]
pub(super) struct MoverChoice {
    splices: bool,
    /// While copying: full reads in a row. While splicing: small splices in a row.
    run: u8,
}

impl MoverChoice {
    pub(super) fn new(mode: RelayMode) -> Self {
        Self { splices: mode == RelayMode::Splice, run: 0 }
    }

    /// Whether the next move is to be a splice.
    pub(super) fn splices(&self) -> bool {
        self.splices
    }

    /// How many bytes the next move may bring, by the last ones.
    pub(super) fn expected_bytes(&self) -> usize {
        match (self.splices, self.run) {
            (true, _) => PIPE_BYTES,
            (false, 1..) => SCRATCH_BYTES,
            (false, 0) => FEW_BYTES,
        }
    }

    /// Takes a copying move into account. If the receive brought all it might, there is probably more in the socket.
    pub(super) fn note_receive(&mut self, is_full: bool, mode: RelayMode) {
        self.run = if is_full { self.run + 1 } else { 0 };
        if self.run >= FULL_READS_TO_SPLICE {
            *self = Self { splices: mode != RelayMode::Copy, run: 0 };
        }
    }

    /// Takes a splicing move into account; of no bytes, if it left them to a copying one.
    pub(super) fn note_splice(&mut self, bytes: usize, mode: RelayMode) {
        self.run = if (bytes as u64) < SMALL_SPLICE_BYTES { self.run + 1 } else { 0 };
        if self.run >= SMALL_SPLICES_TO_COPY {
            *self = Self { splices: mode == RelayMode::Splice, run: 0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE_SPLICE: usize = 1024 * 1024;

    /// The choice after receives, of which each did or didn't fill the buffer.
    fn after_receives(mode: RelayMode, receives: &[bool]) -> MoverChoice {
        let mut choice = MoverChoice::new(mode);
        receives.iter().for_each(|filled| choice.note_receive(*filled, mode));
        choice
    }

    #[test]
    fn splices_after_three_full_reads_in_a_row() {
        assert!(!after_receives(RelayMode::Auto, &[true, true]).splices());
        assert!(!after_receives(RelayMode::Auto, &[true, true, false, true]).splices());
        assert!(after_receives(RelayMode::Auto, &[true, true, false, true, true, true]).splices());
    }

    #[test]
    fn copies_again_after_three_small_splices_in_a_row() {
        let mut choice = after_receives(RelayMode::Auto, &[true; 3]);
        for bytes in [1, 1, LARGE_SPLICE, 1, 1] {
            choice.note_splice(bytes, RelayMode::Auto);
            assert!(choice.splices());
        }
        choice.note_splice(1, RelayMode::Auto);
        assert!(!choice.splices());
    }

    #[test]
    fn a_configured_mover_is_never_changed() {
        assert!(!after_receives(RelayMode::Copy, &[true; 10]).splices());
        let mut choice = MoverChoice::new(RelayMode::Splice);
        for _ in 0..10 {
            choice.note_splice(1, RelayMode::Splice);
            assert!(choice.splices());
        }
    }
}
