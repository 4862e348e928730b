//! The bodies of requests.

use std::time::Duration;

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::StatusCode;
use hyper::body::Incoming;
use serde_json::Value;

use super::response::Refused;

/// A body must be complete within this time.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// # Errors
/// It is too large, too late, or no JSON.
pub(super) async fn read_json(body: Incoming, most_bytes: usize) -> Result<Value, Refused> {
    let read = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, most_bytes).collect()).await;
    let too_late = |_| Refused(StatusCode::REQUEST_TIMEOUT, "the body did not come in time".to_owned());
    let body = read.map_err(too_late)?.map_err(|wrong| {
        if wrong.is::<LengthLimitError>() {
            Refused(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than {most_bytes} bytes"))
        } else {
            Refused(StatusCode::BAD_REQUEST, format!("the body can't be read: {wrong}"))
        }
    })?;
    serde_json::from_slice(&body.to_bytes())
        .map_err(|wrong| Refused(StatusCode::BAD_REQUEST, format!("the body is not JSON: {wrong}")))
}
