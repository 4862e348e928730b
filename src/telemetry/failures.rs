//! Clients that got nothing of what they came for, by why. The client's own faults, and limits that keep it out, are
//! not among them.

use std::sync::atomic::{AtomicU64, Ordering};

use super::cause::{Cause, Rejection};

labels! {
    /// Why a client (in mode http a request) was not served.
    ClientFailure {
        /// No backend that was tried could be connected to.
        ConnectFailed = "connect_failed",
        /// There was no backend to try.
        NoBackend = "no_backend",
        /// All backends were full, and so was the queue, or it took too long.
        NoRoom = "no_room",
        /// A backend took it and gave no answer, in time or at all, or one that can't be read.
        NoAnswer = "no_answer",
        /// The balancer's fault.
        Internal = "internal",
    }
}

impl ClientFailure {
    /// What the end of a connection means for a client of mode tcp.
    pub fn of_end(cause: Cause) -> Option<Self> {
        match cause {
            Cause::ConnectFailed => Some(Self::ConnectFailed),
            Cause::NoBackend => Some(Self::NoBackend),
            Cause::FirstByteTimeout => Some(Self::NoAnswer),
            Cause::Internal => Some(Self::Internal),
            _ => None,
        }
    }

    pub fn of_rejection(reason: Rejection) -> Option<Self> {
        matches!(reason, Rejection::BackendsFull | Rejection::QueueFull | Rejection::QueueTimeout)
            .then_some(Self::NoRoom)
    }

    /// What an answer of the balancer's own means, given with this status for this cause.
    pub fn of_answer(status: u16, cause: Option<Cause>) -> Option<Self> {
        match (status, cause) {
            // 505 is the client's.
            (500..=504, Some(Cause::Rejected)) => Some(Self::NoRoom),
            (500..=504, cause) => Some(cause.and_then(Self::of_end).unwrap_or(Self::NoAnswer)),
            _ => None,
        }
    }
}

/// Counts by [`ClientFailure`].
#[derive(Debug, Default)]
pub struct FailureCounters([AtomicU64; ClientFailure::ALL.len()]);

impl FailureCounters {
    pub fn count(&self, failure: ClientFailure) {
        self.0[failure as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub fn totals(&self) -> FailureTotals {
        FailureTotals(self.0.each_ref().map(|count| count.load(Ordering::Relaxed)))
    }
}

/// What failure counters have counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FailureTotals([u64; ClientFailure::ALL.len()]);

impl FailureTotals {
    pub fn all(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Each failure and how many there were.
    pub fn by_why(&self) -> impl Iterator<Item = (ClientFailure, u64)> {
        ClientFailure::ALL.iter().map(|failure| (*failure, self.0[*failure as usize]))
    }
}

impl std::iter::Sum for FailureTotals {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self(std::array::from_fn(|index| sum.0[index] + one.0[index])))
    }
}
