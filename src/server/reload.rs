//! A reload: the whole configuration is read again, and applied only if nothing is wrong with it.

use std::time::Instant;

use crate::config::{Config, Loaded};

use super::admin_server::read_token;
use super::changes;
use super::error::RunError;
use super::server_state::ServerState;
use super::systemd;

/// Reads the configuration again and applies it. The result, for the log and the API, is what changed, or why nothing.
pub(super) async fn reload(state: &mut ServerState) -> Result<String, String> {
    let began = Instant::now();
    systemd::reloading();
    state.file.mark_read();
    let mut changes = String::new();
    let result = match load(state) {
        Ok(loaded) => {
            log_warnings(&loaded);
            changes = changes::between(&state.config, &loaded.config);
            apply(state, loaded).await.map_err(|error| error.to_string())
        }
        Err(why) => Err(why),
    };
    systemd::ready();
    match &result {
        Ok(what) => tracing::info!(event = "reloaded", changes, took_ms = began.elapsed().as_millis(), "{what}"),
        Err(error) => {
            tracing::error!(
                event = "reload_failed",
                %error,
                "the configuration was not reloaded; the previous one stays in use"
            );
        }
    }
    state.view.reloads.ended(result.clone());
    result
}

/// Of a configuration that is about to run.
pub(super) fn log_warnings(loaded: &Loaded) {
    loaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
}

fn load(state: &ServerState) -> Result<Loaded, String> {
    let file = state.source.find_file().map_err(|problems| problems.to_string())?;
    match file {
        // A pipe was read to its end at the start; reading it again would block the main thread.
        Some(path) if path.exists() && !path.is_file() => {
            Err(format!("{} is not a file that can be read again", path.display()))
        }
        _ => state.source.load().map_err(|problems| problems.to_string()),
    }
}

async fn apply(state: &mut ServerState, loaded: Loaded) -> Result<String, RunError> {
    let token = read_token(&loaded.config.admin)?;
    let limits = state.capacity.limits(&loaded.config)?;
    state.running.apply(&loaded.config).await?;
    state.view.guard.set_token(token);
    state.view.connections.set_max(limits.connections);
    state.idle_connections.set_max(limits.idle_connections);
    state.view.shown.store(state.running.shown().into());
    let mut pending = needs_restart(&state.config, &loaded.config);
    if loaded.config.shortest_limit() < state.shortest_limit {
        pending.push("shorter timeouts (they are kept to within 2 s until then)");
    }
    state.config = loaded.config;
    if pending.is_empty() {
        Ok("configuration reloaded".to_owned())
    } else {
        Ok(format!("configuration reloaded, but changes of {} need a restart or an upgrade", pending.join(", ")))
    }
}

/// The changed keys that a running process can't apply.
fn needs_restart(before: &Config, now: &Config) -> Vec<&'static str> {
    let keys = [
        ("workers", before.workers != now.workers),
        ("admin.bind", before.admin.bind != now.admin.bind),
        ("admin.socket", before.admin.socket != now.admin.socket),
        ("admin.allowed_hosts", before.admin.allowed_hosts != now.admin.allowed_hosts),
        ("relay", before.relay != now.relay),
        ("log", before.log != now.log),
    ];
    keys.into_iter().filter(|(_, is_changed)| *is_changed).map(|(key, _)| key).collect()
}
