//! A reload: the whole configuration is read again, and applied only if nothing is wrong with it.

use std::time::Instant;

use crate::admin::{ConfigChange, ReloadAnswer};
use crate::config::Loaded;
use crate::telemetry::configure_level;

use super::admin_server::read_token;
use super::changes;
use super::error::RunError;
use super::server_state::ServerState;
use super::systemd;

/// Reads the configuration again and applies it. The result, for the log and the API, is what changed, or why nothing.
pub(super) async fn reload(state: &mut ServerState) -> Result<ReloadAnswer, String> {
    let began = Instant::now();
    systemd::reloading();
    state.file.mark_read();
    let result = match load(state) {
        Ok(loaded) => {
            log_warnings(&loaded);
            let changes = changes_to(&loaded, state);
            apply(state, loaded, &changes).await.map(|message| (message, changes)).map_err(|error| error.to_string())
        }
        Err(why) => Err(why),
    };
    systemd::ready();
    match &result {
        Ok((what, changes)) => {
            let changes = changes::as_line(changes);
            tracing::info!(event = "reloaded", changes, took_ms = began.elapsed().as_millis(), "{what}");
        }
        Err(error) => {
            tracing::error!(
                event = "reload_failed",
                %error,
                "the configuration was not reloaded; the previous one stays in use"
            );
        }
    }
    state.view.reloads.ended(result.as_ref().map(|(what, _)| what.clone()).map_err(Clone::clone));
    result.map(|(what, changes)| ReloadAnswer::new(what, changes))
}

/// What a reload would change now, as far as this can be told without changing anything.
pub(super) async fn preview(state: &ServerState) -> Result<ReloadAnswer, String> {
    let loaded = load(state)?;
    let checked = async {
        read_token(&loaded.config.admin)?;
        state.capacity.limits(&loaded.config)?;
        state.running.check(&loaded.config).await
    };
    checked.await.map_err(|error: RunError| error.to_string())?;
    let changes = changes_to(&loaded, state);
    let message = match changes.len() {
        0 => "a reload would change nothing".to_owned(),
        1 => "a reload would make 1 change".to_owned(),
        many => format!("a reload would make {many} changes"),
    };
    Ok(ReloadAnswer::new(message, changes))
}

fn changes_to(loaded: &Loaded, state: &ServerState) -> Vec<ConfigChange> {
    let mut changes = changes::between(&state.effective, &loaded.effective);
    changes.extend(changes::by_files(&state.config, &loaded.config, &changes));
    changes
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

async fn apply(state: &mut ServerState, loaded: Loaded, changes: &[ConfigChange]) -> Result<String, RunError> {
    let token = read_token(&loaded.config.admin)?;
    let limits = state.capacity.limits(&loaded.config)?;
    state.running.apply(&loaded.config).await?;
    state.view.guard.set_token(token);
    state.view.connections.set_max(limits.connections);
    state.idle_connections.set_max(limits.idle_connections);
    state.view.shown.store(state.running.shown().into());
    configure_level(loaded.config.log.level);
    let at_the_start = changes.iter().filter(|change| change.needs_restart);
    let mut pending: Vec<&str> = at_the_start.map(|change| change.path.as_str()).collect();
    if loaded.config.shortest_limit() < state.shortest_limit {
        pending.push("shorter timeouts (they are kept to within 2 s until then)");
    }
    state.effective = loaded.effective;
    state.config = loaded.config;
    if pending.is_empty() {
        Ok("configuration reloaded".to_owned())
    } else {
        Ok(format!("configuration reloaded, but changes of {} need a restart or an upgrade", pending.join(", ")))
    }
}
