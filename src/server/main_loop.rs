//! The main loop: handles signals, commands of the API and changes of the configuration file, and drains at the end.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;
use tracing::Level;

use crate::admin::Command;
use crate::config::DrainConfig;
use crate::lifecycle::{ConnectionLimit, Drain, Phase};
use crate::telemetry::{log_writer, set_level};

use super::admin_server::AdminServer;
use super::history_state;
use super::listen_sockets::ListenSockets;
use super::reload::{preview, reload};
use super::server_state::ServerState;
use super::signals::{SignalAction, Signals};
use super::steering;
use super::systemd::{self, Watchdog};
use super::upgrade::Upgrade;

/// What operators change is a command to this loop, so that no two changes overlap. What name servers say is applied
/// between two of them, by tasks on the same thread.
pub(super) struct MainLoop {
    pub(super) state: ServerState,
    /// `None`: it is off.
    pub(super) admin: AdminServer,
    pub(super) drain: Drain,
    pub(super) signals: Signals,
    pub(super) commands: UnboundedReceiver<Command>,
    pub(super) upgrade: Upgrade,
}

/// How the serving ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// By a signal or the API.
    Requested,
    /// By an upgrade: the new process accepts in place of this one.
    Upgraded,
}

/// How the drain ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum DrainEnd {
    /// No connection was left, or the drain timeout was over.
    Over,
    /// By a second signal.
    Cut,
}

impl MainLoop {
    /// Serves until it is asked to stop, then drains.
    pub(super) async fn serve_and_drain(&mut self) -> DrainEnd {
        let ending = self.serve().await;
        // Dropped without an answer, as those that come later are: the API then answers that the balancer is stopping.
        self.commands.close();
        while self.commands.try_recv().is_ok() {}
        let grace = match ending {
            Ending::Requested => {
                self.upgrade.cancel();
                systemd::stopping();
                self.state.config.drain.grace
            }
            // New clients reach the new process already.
            Ending::Upgraded => Duration::ZERO,
        };
        self.drain.advance(Phase::Leaving);
        let Self { drain, state, signals, .. } = self;
        let connections = &state.view.connections;
        let sockets = &mut state.running.listen_sockets;
        tokio::select! {
            () = run_drain(drain, sockets, grace, connections) => DrainEnd::Over,
            (why, end) = time_is_over(signals, ending, grace, state.config.drain) => {
                tracing::warn!(event = "cut", active = connections.active(), "{why}; closing what is left");
                end
            }
        }
    }

    /// Closes what is still open; returns the number of connections that this cuts.
    pub(super) fn close(&mut self) -> usize {
        self.state.running.listen_sockets.close();
        self.drain.advance(Phase::Closing);
        let forced = self.state.view.connections.active();
        self.drain.advance(Phase::Over);
        forced
    }

    async fn serve(&mut self) -> Ending {
        let mut watchdog = Watchdog::new();
        loop {
            let ending = tokio::select! {
                action = self.signals.next() => self.handle_signal(action).await,
                command = self.commands.recv() => self.handle_command(command).await,
                () = self.state.file.changed(), if self.state.config.watch => {
                    // The result is logged and shown.
                    let _ = reload(&mut self.state).await;
                    None
                }
                new_process = self.upgrade.ended() => new_process.map(|_| self.stop_admin()),
                () = watchdog.due() => {
                    systemd::alive();
                    None
                }
            };
            if let Some(ending) = ending {
                return ending;
            }
        }
    }

    /// `Some`: the serving ends.
    async fn handle_signal(&mut self, action: SignalAction) -> Option<Ending> {
        match action {
            SignalAction::Stop(signal) => {
                let active = self.state.view.connections.active();
                tracing::info!(event = "stopping", signal, active, "stopping; a second signal stops at once");
                return Some(Ending::Requested);
            }
            SignalAction::Reload => {
                // The result is logged and shown.
                let _ = reload(&mut self.state).await;
            }
            SignalAction::ReopenLogs => {
                if let Some(log) = &self.state.view.access_log {
                    log.reopen();
                }
                if let Some(log) = log_writer() {
                    log.reopen();
                }
            }
            SignalAction::Upgrade => self.begin_upgrade(None),
        }
        None
    }

    /// `Some`: the serving ends.
    async fn handle_command(&mut self, command: Option<Command>) -> Option<Ending> {
        match command {
            Some(Command::Reload { dry_run, answer }) => {
                let result = if dry_run { preview(&self.state).await } else { reload(&mut self.state).await };
                // An error means that the client has left.
                let _ = answer.send(result);
                None
            }
            Some(Command::SetLogLevel { level, by, answer }) => {
                change_log_level(level, &by);
                let _ = answer.send(());
                None
            }
            // It would not reach the new process, which was told already. Dropped, it is answered: ask again.
            Some(Command::Add { .. } | Command::Steer { .. }) if self.upgrade.is_under_way() => None,
            Some(Command::Add { pool, entry, by, answer }) => {
                let _ = answer.send(steering::add(&self.state, &pool, &entry, &by).await);
                None
            }
            Some(Command::Steer { pool, address, order, by, answer }) => {
                let _ = answer.send(steering::steer(&self.state, &pool, &address, order, &by));
                None
            }
            Some(Command::Upgrade(answer)) => {
                self.begin_upgrade(Some(answer));
                None
            }
            Some(Command::Shutdown) | None => {
                let active = self.state.view.connections.active();
                tracing::info!(event = "stopping", active, "stopping; a signal stops at once");
                Some(Ending::Requested)
            }
        }
    }

    fn begin_upgrade(&mut self, answer: Option<oneshot::Sender<Result<u32, String>>>) {
        let Self { state, admin, upgrade, .. } = self;
        let sockets = || {
            let history = history_state::pass(&state.view.history);
            state.running.passed_on().into_iter().chain(history).chain(admin.named_sockets()).collect()
        };
        upgrade.begin(sockets, answer);
    }

    /// The new process serves the admin address now.
    fn stop_admin(&mut self) -> Ending {
        self.admin.stop();
        Ending::Upgraded
    }
}

/// Told at the level that shows it, if one of the two does.
fn change_log_level(level: Level, by: &str) {
    let name = level.as_str().to_ascii_lowercase();
    let tell = || tracing::info!(event = "operator", level = name, by, "log level changed by the API");
    if level < Level::INFO {
        tell();
        set_level(level);
    } else {
        set_level(level);
        tell();
    }
}

/// Waits until the drain has lasted for as long as it may, and says why that is over.
async fn time_is_over(
    signals: &mut Signals,
    ending: Ending,
    grace: Duration,
    limits: DrainConfig,
) -> (&'static str, DrainEnd) {
    if ending == Ending::Upgraded {
        let upgrade_timeout = async {
            match limits.upgrade_timeout {
                Some(limit) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = upgrade_timeout => return ("the upgrade timeout is over", DrainEnd::Over),
            // A service manager that stops the service signals both processes, and this one closes as the other.
            signal = signals.next_stop() => tracing::info!(signal, "stopping; a second signal stops at once"),
        }
    }
    tokio::select! {
        () = tokio::time::sleep(grace + limits.timeout) => ("the drain timeout is over", DrainEnd::Over),
        _ = signals.next_stop() => ("second signal", DrainEnd::Cut),
    }
}

/// Accepts for the grace time, then waits for the end of the connections.
async fn run_drain(
    drain: &Drain,
    listen_sockets: &mut ListenSockets,
    grace: Duration,
    connections: &Arc<ConnectionLimit>,
) {
    tokio::time::sleep(grace).await;
    listen_sockets.close();
    drain.advance(Phase::Closing);
    // Connections that the kernel had queued count as well.
    listen_sockets.closed().await;
    connections.emptied().await;
}
