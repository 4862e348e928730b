//! Notifications to systemd (sd_notify(3)); without systemd, nothing.
//!
//! Never blocks: a service manager that doesn't read must not stop the main thread.

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::{Interval, MissedTickBehavior, interval};

/// The balancer accepts. Names this process as the main one: after an upgrade it is another than systemd knows.
pub(super) fn ready() {
    notify(&format!("MAINPID={}\nREADY=1", std::process::id()));
}

/// The configuration is being read again. By the time systemd knows which of its requests this answers.
pub(super) fn reloading() {
    let now = clock_gettime(ClockId::Monotonic);
    let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
    notify(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
}

/// The drain has begun.
pub(super) fn stopping() {
    notify("STOPPING=1");
}

/// The main thread is not stuck.
pub(super) fn alive() {
    notify("WATCHDOG=1");
}

fn notify(state: &str) {
    let Some(name) = env::var_os("NOTIFY_SOCKET") else { return };
    let sent = address_of(name.as_encoded_bytes()).and_then(|address| {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.send_to_addr(state.as_bytes(), &address)
    });
    if let Err(error) = sent {
        tracing::debug!(%error, state, "could not notify systemd");
    }
}

/// A path, or `@` and a name in the abstract namespace (unix(7)).
fn address_of(name: &[u8]) -> io::Result<SocketAddr> {
    match name {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        path => SocketAddr::from_pathname(String::from_utf8_lossy(path).as_ref()),
    }
}

/// When systemd's watchdog is to be notified: twice within its limit (sd_watchdog_enabled(3)).
pub(super) struct Watchdog(Option<Interval>);

impl Watchdog {
    pub(super) fn new() -> Self {
        Self(watchdog_limit().map(|limit| {
            let mut ticks = interval((limit / 2).max(Duration::from_millis(1)));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        }))
    }

    /// Waits until the next notification is due; for ever if there is no watchdog. Safe to cancel.
    pub(super) async fn due(&mut self) {
        match &mut self.0 {
            Some(ticks) => {
                ticks.tick().await;
            }
            None => std::future::pending().await,
        }
    }
}

fn watchdog_limit() -> Option<Duration> {
    // The variables may have been inherited from a process that the watchdog was meant for.
    if number_in("WATCHDOG_PID").is_some_and(|pid| pid != u64::from(std::process::id())) {
        return None;
    }
    number_in("WATCHDOG_USEC").filter(|micros| *micros > 0).map(Duration::from_micros)
}

fn number_in(variable: &str) -> Option<u64> {
    env::var(variable).ok()?.parse().ok()
}
