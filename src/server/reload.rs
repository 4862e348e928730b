//! A reload: the configuration is read again as a whole, and only if all of it can be had does anything change.

use std::time::Instant;

use crate::config::{Config, Loaded};

use super::admin_server::read_token;
use super::error::RunError;
use super::state::ServerState;
use super::systemd;

/// Reads the configuration again and follows it. The answer is what to tell whoever asked: what changed, or why nothing
/// did.
pub(super) async fn reload(state: &mut ServerState) -> Result<String, String> {
    let began = Instant::now();
    systemd::reloading();
    state.file.is_read();
    let result = match load(state) {
        Ok(loaded) => apply(state, loaded).await.map_err(|error| error.to_string()),
        Err(why) => Err(why),
    };
    systemd::ready();
    match &result {
        Ok(what) => tracing::info!(took_ms = began.elapsed().as_millis(), "{what}"),
        Err(error) => tracing::error!(%error, "the configuration was not reloaded; the one before goes on"),
    }
    state.view.reloads.ended(result.clone());
    result
}

fn load(state: &ServerState) -> Result<Loaded, String> {
    let file = state.source.find_file().map_err(|problems| problems.to_string())?;
    match file {
        // A pipe has nothing more to tell; whoever waits for it serves nobody meanwhile.
        Some(path) if path.exists() && !path.is_file() => {
            Err(format!("{} is not a file that can be read again", path.display()))
        }
        _ => state.source.load().map_err(|problems| problems.to_string()),
    }
}

async fn apply(state: &mut ServerState, loaded: Loaded) -> Result<String, RunError> {
    let token = read_token(&loaded.config.admin)?;
    state.running.apply(&loaded.config).await?;
    state.view.guard.set_token(token);
    state.view.connections.set_max(state.capacity.connections(loaded.config.max_connections));
    state.view.shown.store(state.running.shown().into());
    let mut late = needs_restart(&state.config, &loaded.config);
    if loaded.config.shortest_limit() < state.shortest_limit {
        late.push("shorter timeouts (they are kept to within 2 s until then)");
    }
    state.config = loaded.config;
    Ok(if late.is_empty() {
        "configuration reloaded".to_owned()
    } else {
        format!("configuration reloaded, but changes of {} need a restart or an upgrade", late.join(", "))
    })
}

/// What a running process can't change.
fn needs_restart(before: &Config, now: &Config) -> Vec<&'static str> {
    let keys = [
        ("workers", before.workers != now.workers),
        ("admin.bind", before.admin.bind != now.admin.bind),
        ("admin.allowed_hosts", before.admin.allowed_hosts != now.admin.allowed_hosts),
        ("relay", before.relay != now.relay),
        ("log", before.log != now.log),
    ];
    keys.into_iter().filter(|(_, is_changed)| *is_changed).map(|(key, _)| key).collect()
}
