//! `/api/v1/log`: how much the program's log shows.

use hyper::StatusCode;
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::telemetry::{LEVELS, log_levels};

use super::asker::Asker;
use super::body::read_json;
use super::response::{Answered, Refused, json};
use super::view::{Command, View};

/// `{"level": "debug"}` has 18 bytes.
const MAX_BODY_BYTES: usize = 1024;

/// `GET /api/v1/log`, and the answer to a change.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct LogReport {
    /// The least severe level shown now.
    pub level: String,
    /// The configuration's, to which a reload returns.
    pub configured: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LogPatch {
    level: String,
}

impl LogReport {
    pub(super) fn now() -> Self {
        let (level, configured) = log_levels();
        Self { level: level.to_owned(), configured: configured.to_owned() }
    }
}

/// Sets the level that the body names.
pub(super) async fn set_level(body: Incoming, asker: Asker, view: &View) -> Answered {
    let read = read_json(body, MAX_BODY_BYTES).await;
    // To a level, a long body is none.
    let read = read.map_err(|Refused(status, why)| match status {
        StatusCode::PAYLOAD_TOO_LARGE => why.into(),
        _ => Refused(status, why),
    });
    let patch = serde_json::from_value::<LogPatch>(read?);
    let patch = patch.map_err(|wrong| format!("the body is not as {{\"level\": \"debug\"}}: {wrong}"))?;
    let Some((_, level)) = LEVELS.iter().find(|(name, _)| *name == patch.level) else {
        let known = LEVELS.map(|(name, _)| name).join(", ");
        let why = format!("`{}` is no level; choose one of: {known}", patch.level);
        return Err(Refused(StatusCode::UNPROCESSABLE_ENTITY, why));
    };
    let (answer, done) = oneshot::channel();
    let _ = view.commands.send(Command::SetLogLevel { level: *level, by: asker.to_string(), answer });
    done.await.map_err(|_| Refused::stopping())?;
    Ok(json(StatusCode::OK, &LogReport::now()))
}
