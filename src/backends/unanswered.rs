//! Clients that left one backend without an answer. That is no evidence against it, as a client may be impatient or
//! change its mind; but a backend that hangs leaves no other trace while its clients give up sooner than any timeout.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// So many in a row, without an answer to anybody in between, are worth a line of the log.
const LOGGED_FROM: u64 = 3;
/// The time between two lines about one backend.
const LOG_PAUSE: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Unanswered {
    total: AtomicU64,
    /// Since the last answer.
    in_a_row: AtomicU64,
    /// Milliseconds on the pool's clock.
    no_line_before: AtomicU64,
}

impl Unanswered {
    /// The backend answered somebody.
    pub(super) fn answered(&self) {
        // Nearly always 0: no write then, which all workers would contend for.
        if self.in_a_row.load(Ordering::Relaxed) > 0 {
            self.in_a_row.store(0, Ordering::Relaxed);
        }
    }

    /// A client left. Gives how many did in a row, if that is to be logged.
    pub(super) fn left(&self, now_millis: u64) -> Option<u64> {
        self.total.fetch_add(1, Ordering::Relaxed);
        let in_a_row = self.in_a_row.fetch_add(1, Ordering::Relaxed) + 1;
        let not_before = self.no_line_before.load(Ordering::Relaxed);
        if in_a_row < LOGGED_FROM || now_millis < not_before {
            return None;
        }
        let next = now_millis + u64::try_from(LOG_PAUSE.as_millis()).unwrap_or(u64::MAX);
        let taken = self.no_line_before.compare_exchange(not_before, next, Ordering::Relaxed, Ordering::Relaxed);
        taken.is_ok().then_some(in_a_row)
    }

    pub(super) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_logged_from_the_third_on_and_once_a_minute() {
        let unanswered = Unanswered::default();
        let lines = |range: std::ops::Range<u64>| range.map(|at| unanswered.left(at)).collect::<Vec<_>>();
        assert_eq!(lines(0..2), [None, None]);
        unanswered.answered();
        assert_eq!(lines(2..6), [None, None, Some(3), None]);
        assert_eq!(lines(60_004..60_006), [Some(5), None]);
        assert_eq!(unanswered.total(), 8);
    }
}
