//! `GET /api/v1/events`: what happened.

use serde::{Deserialize, Serialize};

use crate::telemetry::{PastEvent, events_after, rfc3339};

/// `GET /api/v1/events`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct EventsReport {
    /// The last 1,000 since the start, the oldest first.
    pub events: Vec<EventReport>,
}

/// One event: a line of the log, whether or not the log's level shows it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct EventReport {
    /// 1 for the first since the start, then one more each: `?after=ID` asks for later ones.
    pub id: u64,
    /// RFC 3339.
    pub time: String,
    /// Of which kind it is: `pool_down`, `pool_up`, `ejected` …
    pub event: String,
    /// `info`, `warn` or `error`.
    pub level: String,
    pub message: String,
    pub pool: Option<String>,
    pub backend: Option<String>,
    pub listener: Option<String>,
    /// The reason and further values, as text; empty: there is none.
    pub detail: String,
}

impl EventsReport {
    /// Those of a later id.
    pub(in crate::admin) fn after(id: u64) -> Self {
        Self { events: events_after(id).into_iter().map(EventReport::new).collect() }
    }
}

impl EventReport {
    fn new(event: PastEvent) -> Self {
        let PastEvent { id, at, kind, level, message, pool, backend, listener, detail } = event;
        let (time, level) = (rfc3339(at).to_string(), level.to_owned());
        Self { id, time, event: kind, level, message, pool, backend, listener, detail }
    }
}
