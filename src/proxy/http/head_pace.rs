//! When a head that comes in pieces is read again: each reading starts at its first byte. Knows no socket.

use crate::protocol::http1::HeadLimits;

/// A head is read with each of this many pieces, so that what makes it unacceptable is noticed at once. One that comes
/// in more is read when it has doubled or can be complete: reading it for each byte would let its sender buy much work
/// with little.
const PIECES_READ_AT_ONCE: u32 = 32;

/// The readings of one head.
#[derive(Debug, Default)]
pub(super) struct HeadPace {
    pieces: u32,
    /// How much of it there was at the last reading.
    read_bytes: usize,
}

impl HeadPace {
    /// Whether a part of the head has come.
    pub(super) fn has_begun(&self) -> bool {
        self.pieces > 0
    }

    /// `bytes` have come of the head, the last `fresh` of them just now: whether it is to be read.
    pub(super) fn is_due(&mut self, bytes: &[u8], fresh: usize, limits: &HeadLimits) -> bool {
        self.pieces += 1;
        let before = bytes.len() - fresh;
        let reaches = |limit: usize| before < limit && limit <= bytes.len();
        let is_due = self.pieces <= PIECES_READ_AT_ONCE
            || bytes.len() >= 2 * self.read_bytes
            || has_empty_line(&bytes[before.saturating_sub(b"\n\r".len())..])
            || reaches(limits.max_line_bytes)
            || bytes.len() >= limits.max_head_bytes;
        if is_due {
            self.read_bytes = bytes.len();
        }
        is_due
    }
}

fn has_empty_line(bytes: &[u8]) -> bool {
    bytes.windows(2).any(|two| two == b"\n\n") || bytes.windows(3).any(|three| three == b"\n\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { max_head_bytes: 16 << 10, max_line_bytes: 8 << 10, max_headers: 100 };

    /// Lengths at which a head that comes byte by byte is read.
    fn readings(head: &[u8]) -> Vec<usize> {
        let mut pace = HeadPace::default();
        (1..=head.len()).filter(|length| pace.is_due(&head[..*length], 1, &LIMITS)).collect()
    }

    #[test]
    fn a_head_that_trickles_in_is_read_a_few_times_and_at_its_end() {
        let head = [&b"GET / HTTP/1.1\r\n"[..], &b"a: b\r\n".repeat(1000), b"\r\n"].concat();
        let readings = readings(&head);
        assert_eq!(readings.last(), Some(&head.len()));
        let work: usize = readings.iter().sum();
        assert!(readings[..32].iter().copied().eq(1..=32) && work < 5 * head.len(), "{work} bytes in {readings:?}");
        let lines = readings_of_lf(&head);
        assert_eq!(lines.last().copied(), Some(head.len() - head.iter().filter(|&&byte| byte == b'\r').count()));
    }

    fn readings_of_lf(head: &[u8]) -> Vec<usize> {
        readings(&head.iter().copied().filter(|byte| *byte != b'\r').collect::<Vec<_>>())
    }

    #[test]
    fn a_head_is_read_when_it_reaches_a_limit() {
        let readings = readings(&[b'a'; 20 << 10]);
        assert!(readings.contains(&LIMITS.max_line_bytes) && readings.contains(&LIMITS.max_head_bytes), "{readings:?}");
    }
}
