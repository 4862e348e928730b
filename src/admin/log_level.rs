//! `/api/v1/log`: how much the program's log shows.

use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::StatusCode;
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::telemetry::{LEVELS, log_levels};

use super::asker::Asker;
use super::view::{Command, View};

/// `{"level": "debug"}` has 18 bytes.
const MAX_BODY_BYTES: usize = 1024;
/// A body must be complete within this time.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

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
///
/// # Errors
/// Why it was not done; without a reason, because the balancer takes no more commands.
pub(super) async fn set_level(
    body: Incoming,
    asker: Asker,
    view: &View,
) -> Result<LogReport, Option<(StatusCode, String)>> {
    let body = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY_BYTES).collect());
    let bytes = match body.await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) => return Err(Some((StatusCode::BAD_REQUEST, format!("the body can't be read: {error}")))),
        Err(_) => return Err(Some((StatusCode::REQUEST_TIMEOUT, "the body did not come in time".to_owned()))),
    };
    let patch: LogPatch = serde_json::from_slice(&bytes).map_err(|error| {
        Some((StatusCode::BAD_REQUEST, format!("the body is not as {{\"level\": \"debug\"}}: {error}")))
    })?;
    let Some((_, level)) = LEVELS.iter().find(|(name, _)| *name == patch.level) else {
        let known = LEVELS.map(|(name, _)| name).join(", ");
        let message = format!("`{}` is no level; choose one of: {known}", patch.level);
        return Err(Some((StatusCode::UNPROCESSABLE_ENTITY, message)));
    };
    let (answer, done) = oneshot::channel();
    let _ = view.commands.send(Command::SetLogLevel { level: *level, by: asker.to_string(), answer });
    done.await.map_err(|_| None)?;
    Ok(LogReport::now())
}
