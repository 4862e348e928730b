//! A number for each accepted connection, by which lines of the log and of the access log can be joined.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Serialize, Serializer};

/// Unique within the process, and in the order of accept; shown in hexadecimal. An upgraded process begins anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId(u64);

static NEXT: AtomicU64 = AtomicU64::new(1);

impl ConnectionId {
    /// Costs one relaxed add on a cache line that all workers share: some tens of nanoseconds where they contend for
    /// it, beside the microseconds of an accept. 64 bits don't wrap: at a million a second they last 584,000 years.
    pub fn next() -> Self {
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl Serialize for ConnectionId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::thread;

    use super::*;

    #[test]
    fn no_two_connections_of_a_process_have_the_same_id() {
        let draw = || (0..1000).map(|_| ConnectionId::next()).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| thread::spawn(draw)).collect();
        let drawn = threads.into_iter().flat_map(|thread| thread.join().expect("it only draws"));
        assert_eq!(drawn.collect::<HashSet<_>>().len(), 4000);
    }

    #[test]
    fn it_is_shown_in_hexadecimal() {
        assert_eq!(ConnectionId(0x1f3).to_string(), "1f3");
    }
}
