//! Signals that end `lb top`: the terminal is restored first, which dying of them would not do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tokio::signal::unix::{SignalKind, signal};

use super::super::admin::runtime;
use super::super::error::CliError;

/// Whether SIGTERM, SIGINT or SIGHUP has come.
pub(super) struct Interrupted(Arc<AtomicBool>);

impl Interrupted {
    /// Waits for them from now on, on a thread of its own.
    pub(super) fn watch() -> Result<Self, CliError> {
        let runtime = runtime()?;
        let entered = runtime.enter();
        let of = |kind| signal(kind).map_err(CliError::Runtime);
        let [mut term, mut int, mut hup] =
            [of(SignalKind::terminate())?, of(SignalKind::interrupt())?, of(SignalKind::hangup())?];
        drop(entered);
        let has_come = Arc::<AtomicBool>::default();
        let seen = has_come.clone();
        thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = term.recv() => {}
                    _ = int.recv() => {}
                    _ = hup.recv() => {}
                }
            });
            seen.store(true, Ordering::Relaxed);
        });
        Ok(Self(has_come))
    }

    pub(super) fn has_come(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
