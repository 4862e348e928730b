//! The backends tried for one connection, or in http mode for one request: what connecting skips and the access log
//! shows.

use std::sync::Arc;
use std::time::Duration;

use crate::access_log::Attempt;
use crate::backends::Backend;
use crate::net::ConnectFailure;

/// The backends tried so far, in order.
#[derive(Default)]
pub(super) struct Attempts {
    /// Boxed: most connections have none, and idle ones would all be larger by it.
    failed: Option<Box<FailedAttempts>>,
    /// With the seconds that its connect took: four bytes, which are exact to a microsecond.
    connected: Option<(Arc<Backend>, Option<f32>)>,
}

#[derive(Default)]
struct FailedAttempts {
    backends: Vec<Arc<Backend>>,
    /// Why each of them failed.
    failures: Vec<ConnectFailure>,
}

impl Attempts {
    /// The backends that failed; none is tried again.
    pub(super) fn tried(&self) -> &[Arc<Backend>] {
        self.failed.as_ref().map_or(&[], |failed| &failed.backends)
    }

    /// Why they failed, in the same order.
    pub(super) fn failures(&self) -> &[ConnectFailure] {
        self.failed.as_ref().map_or(&[], |failed| &failed.failures)
    }

    pub(super) fn failed(&mut self, backend: &Arc<Backend>, failure: ConnectFailure) {
        let failed = self.failed.get_or_insert_default();
        failed.backends.push(backend.clone());
        failed.failures.push(failure);
        self.connected = None;
    }

    /// `took` is the connect's time; `None`: an idle connection was reused.
    pub(super) fn connected(&mut self, backend: &Arc<Backend>, took: Option<Duration>) {
        self.connected = Some((backend.clone(), took.map(|took| took.as_secs_f32())));
    }

    /// The address of the backend that serves.
    pub(super) fn backend(&self) -> Option<&str> {
        self.connected.as_ref().map(|(backend, _)| backend.label())
    }

    /// How long the connect that worked took.
    pub(super) fn connect_time(&self) -> Option<Duration> {
        self.connected.as_ref().and_then(|(_, took)| took.map(Duration::from_secs_f32))
    }

    /// All of them, for the access log.
    pub(super) fn list(&self) -> Vec<Attempt<'_>> {
        let failed = self.tried().iter().zip(self.failures());
        let failed = failed.map(|(backend, failure)| Attempt { backend: backend.label(), outcome: failure.as_str() });
        let connected = self.connected.iter().map(|(backend, took)| Attempt {
            backend: backend.label(),
            outcome: if took.is_some() { Attempt::CONNECTED } else { Attempt::REUSED },
        });
        failed.chain(connected).collect()
    }
}
