//! The signals that mean something: SIGTERM and SIGINT stop. SIGHUP and SIGUSR2 are kept from
//! killing the process.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and SIGINT: both ask to stop.
pub(super) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    user_2: Signal,
}

impl StopSignals {
    /// From now on they no longer kill the process.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            user_2: signal(SignalKind::user_defined2())?,
        })
    }

    /// Waits for the next one, and names it. Safe to cancel.
    pub(super) async fn next(&mut self) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.user_2.recv() => tracing::warn!("SIGUSR2 does not upgrade yet: start the new program and stop this one"),
                _ = self.hang_up.recv() => tracing::warn!("SIGHUP does not reload yet: restart to apply a new configuration"),
            }
        }
    }
}
