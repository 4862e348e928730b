//! Says once when clients begin to be refused for a limit of connections, and once when that is over.

use std::collections::BTreeMap;

use crate::telemetry::{ListenerTotals, Rejection};

/// Rejections by which a limit shows.
const LIMITS: [Rejection; 2] = [Rejection::MaxConnections, Rejection::ListenerMaxConnections];
/// Steps without a refusal after which it is over.
const QUIET_STEPS: u32 = 2;

#[derive(Debug, Default)]
pub(super) struct LimitWatch(BTreeMap<String, AtLimit>);

#[derive(Debug, Default)]
struct AtLimit {
    refused: u64,
    /// Steps since the last refusal; `None`: none was told of.
    quiet: Option<u32>,
}

impl LimitWatch {
    pub(super) fn look(&mut self, listener: &str, totals: &ListenerTotals) {
        let refused = LIMITS.iter().map(|limit| totals.rejected[*limit as usize]).sum();
        let known = match self.0.get_mut(listener) {
            Some(known) => known,
            None => self.0.entry(listener.to_owned()).or_default(),
        };
        let grows = refused > known.refused;
        known.refused = refused;
        known.quiet = match (known.quiet, grows) {
            (None, false) => None,
            (None, true) => {
                let active = totals.active();
                tracing::warn!(
                    event = "limit_reached",
                    listener,
                    active,
                    "clients are refused: as many connections are open as max_connections allows"
                );
                Some(0)
            }
            (Some(_), true) => Some(0),
            (Some(quiet), false) if quiet + 1 < QUIET_STEPS => Some(quiet + 1),
            (Some(_), false) => {
                tracing::info!(event = "limit_left", listener, "no client is refused any more for max_connections");
                None
            }
        };
    }
}
