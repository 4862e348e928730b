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

/// Why a request gets no other answer than an error.
pub(super) struct Refused(pub(super) StatusCode, pub(super) String);

/// The answer where it goes well.
pub(super) type Answered = Result<AdminResponse, Refused>;

impl Refused {
    /// The main loop has dropped what it was to do.
    pub(super) fn stopping() -> Self {
        let why = "the balancer is stopping, or handing over to a new process; ask again";
        Self(StatusCode::SERVICE_UNAVAILABLE, why.to_owned())
    }

    pub(super) fn into_response(self) -> AdminResponse {
        let Self(status, why) = self;
        error(status, &why)
    }
}

/// A parameter is wrong.
impl From<String> for Refused {
    fn from(why: String) -> Self {
        Self(StatusCode::BAD_REQUEST, why)
    }
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
