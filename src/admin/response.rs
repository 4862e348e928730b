//! Responses: what all of them have, and those of a few words.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;

use super::gzip::AdminResponse;

const JSON: &str = "application/json";

#[derive(Serialize)]
struct ApiMessage<'a> {
    result: &'a str,
}

#[derive(Serialize)]
struct ApiError<'a> {
    error: &'a str,
}

pub(super) fn message(status: StatusCode, result: &str) -> AdminResponse {
    json(status, &ApiMessage { result })
}

pub(super) fn error(status: StatusCode, error: &str) -> AdminResponse {
    json(status, &ApiError { error })
}

/// For what the main loop dropped.
pub(super) const STOPPING: &str = "the balancer is stopping, or handing over to a new process; ask again";

pub(super) fn stopping() -> AdminResponse {
    error(StatusCode::SERVICE_UNAVAILABLE, STOPPING)
}

pub(super) fn not_allowed(methods: &'static str) -> AdminResponse {
    let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, &format!("the methods here are: {methods}"));
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    answer
}

pub(super) fn json(status: StatusCode, value: &impl Serialize) -> AdminResponse {
    respond(status, JSON, serde_json::to_string(value).expect("reports have text keys only"))
}

pub(super) fn respond(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> AdminResponse {
    Response::builder()
        .status(status)
        .header(CONTENT_TYPE, content_type)
        .header(CACHE_CONTROL, "no-store")
        .header("X-Content-Type-Options", "nosniff")
        .body(Full::new(body.into()))
        .expect("the status and the headers are constants")
}
