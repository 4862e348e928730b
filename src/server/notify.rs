//! What systemd is told of the process's life (sd_notify(3)); nothing where it runs without it.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// It accepts, and this is the process that counts: it may have taken over from another.
pub(super) fn ready() {
    tell(&[NotifyState::MainPid(std::process::id()), NotifyState::Ready]);
}

/// It reads its configuration again.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// It was asked to stop.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// It is not stuck.
pub(super) fn alive() {
    tell(&[NotifyState::Watchdog]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "systemd could not be told");
    }
}

/// When systemd's watchdog wants to hear that the main thread goes on: twice in its time (sd_watchdog_enabled(3)).
pub(super) struct Watchdog(Option<Interval>);

impl Watchdog {
    pub(super) fn new() -> Self {
        Self(sd_notify::watchdog_enabled().map(|limit| {
            let mut ticks = interval((limit / 2).max(Duration::from_millis(1)));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        }))
    }

    /// Waits until it is time again; for ever where there is no watchdog. Safe to cancel.
    pub(super) async fn due(&mut self) {
        match &mut self.0 {
            Some(ticks) => drop(ticks.tick().await),
            None => std::future::pending().await,
        }
    }
}
