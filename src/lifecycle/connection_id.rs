//! Ids of connections, by which the log and the access log can be joined.

use std::cell::Cell;
use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

/// Unique within the process; shown in hexadecimal.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct ConnectionId(u64);

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.0, f)
    }
}

impl FromStr for ConnectionId {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        u64::from_str_radix(text, 16).map(Self)
    }
}

/// The ids of one worker: every `workers`-th number, so that workers share no counter.
#[derive(Debug)]
pub struct ConnectionIds {
    next: Cell<u64>,
    step: u64,
}

impl ConnectionIds {
    /// Of the worker with this number, from 0.
    pub fn new(worker: usize, workers: usize) -> Self {
        // The first id is 1: 0 would look like a missing one.
        Self { next: Cell::new(worker as u64 + 1), step: workers as u64 }
    }

    pub fn next(&self) -> ConnectionId {
        let id = self.next.get();
        self.next.set(id.wrapping_add(self.step));
        ConnectionId(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_give_different_ids() {
        let workers = [ConnectionIds::new(0, 2), ConnectionIds::new(1, 2)];
        let shown: Vec<String> = (0..32).map(|turn| workers[turn % 2].next().to_string()).collect();
        assert_eq!(shown[..3], ["1", "2", "3"]);
        assert_eq!(shown[31], "20");
        assert_eq!("20".parse::<ConnectionId>().map(|id| id.to_string()), Ok("20".to_owned()));
    }
}
