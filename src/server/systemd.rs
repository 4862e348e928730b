//! What systemd is told of the process's life (sd_notify(3)); nothing where it runs without it.
//!
//! Never waits: a service manager that doesn't listen must not keep the main thread from its work.

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::{Interval, MissedTickBehavior, interval};

/// It accepts, and this is the process that counts: it may have taken over from another.
pub(super) fn ready() {
    notify(&format!("MAINPID={}\nREADY=1", std::process::id()));
}

/// It reads its configuration again. The time tells systemd which of its reloads that is.
pub(super) fn reloading() {
    let now = clock_gettime(ClockId::Monotonic);
    let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
    notify(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
}

/// It was asked to stop.
pub(super) fn stopping() {
    notify("STOPPING=1");
}

/// It is not stuck.
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
        tracing::debug!(%error, state, "systemd could not be told");
    }
}

/// A path, or `@` and a name in the abstract namespace (unix(7)).
fn address_of(name: &[u8]) -> io::Result<SocketAddr> {
    match name {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        path => SocketAddr::from_pathname(String::from_utf8_lossy(path).as_ref()),
    }
}

/// When systemd's watchdog wants to hear that the main thread goes on: twice in its time (sd_watchdog_enabled(3)).
pub(super) struct Watchdog(Option<Interval>);

impl Watchdog {
    pub(super) fn new() -> Self {
        Self(watchdog_limit().map(|limit| {
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

fn watchdog_limit() -> Option<Duration> {
    let number = |name: &str| env::var(name).ok()?.parse::<u64>().ok();
    let is_for_us = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    number("WATCHDOG_USEC").filter(|micros| is_for_us && *micros > 0).map(Duration::from_micros)
}
