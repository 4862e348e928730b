//! The way from a request to its answer.

use std::sync::Arc;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Method, Request, Response, StatusCode};
use percent_encoding::percent_decode_str;
use serde::Serialize;
use tokio::sync::oneshot;

use crate::backends::AdminState;

use super::api::{PoolsReport, StatusReport};
use super::metrics::Exporter;
use super::view::{Command, View};

pub(super) type Answer = Response<Full<Bytes>>;

/// What requests are answered from.
pub(super) struct Admin {
    pub(super) view: Arc<View>,
    pub(super) exporter: Arc<Exporter>,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
/// Prometheus's text exposition format.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The page may load and ask what is its own, and nothing else; nobody may frame it.
const PAGE_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; form-action 'none'; \
     base-uri 'none'; frame-ancestors 'none'",
);

/// What a path is for.
enum Endpoint<'a> {
    Page,
    Style,
    Script,
    Health,
    Ready,
    Metrics,
    Status,
    Pools,
    Description,
    Change(Change<'a>),
    Nowhere,
}

enum Change<'a> {
    Backend { pool: &'a str, address: &'a str, admin_state: AdminState },
    Reload,
    Shutdown,
}

/// Answers a request. Its body is of no interest.
pub(super) async fn answer(request: &Request<Incoming>, admin: &Admin) -> Answer {
    let view = &admin.view;
    let path = request.uri().path();
    match (Endpoint::parse(path), request.method()) {
        (Endpoint::Nowhere, _) => {
            error(StatusCode::NOT_FOUND, &format!("there is no {path}; see /api/v1/openapi.json"))
        }
        (Endpoint::Change(change), &Method::POST) => match view.guard.judge(request.headers()) {
            Ok(()) => make(change, view).await,
            Err(refusal) => {
                tracing::warn!(path, reason = refusal.message(), "a change was refused");
                let mut answer = error(refusal.status(), refusal.message());
                if refusal.status() == StatusCode::UNAUTHORIZED {
                    answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
                }
                answer
            }
        },
        (Endpoint::Change(_), _) => not_allowed("POST"),
        (endpoint, &Method::GET | &Method::HEAD) => show(&endpoint, admin),
        _ => not_allowed("GET, HEAD"),
    }
}

impl<'a> Endpoint<'a> {
    fn parse(path: &'a str) -> Self {
        match path {
            "/" => Self::Page,
            "/style.css" => Self::Style,
            "/page.js" => Self::Script,
            "/healthz" => Self::Health,
            "/readyz" => Self::Ready,
            "/metrics" => Self::Metrics,
            "/api/v1/status" => Self::Status,
            "/api/v1/pools" => Self::Pools,
            "/api/v1/openapi.json" => Self::Description,
            "/api/v1/reload" => Self::Change(Change::Reload),
            "/api/v1/shutdown" => Self::Change(Change::Shutdown),
            _ => Change::parse_backend(path).map_or(Self::Nowhere, Self::Change),
        }
    }
}

impl<'a> Change<'a> {
    /// `/api/v1/pools/{pool}/backends/{address}/{drain|disable|enable}`; the address of a unix socket may have slashes.
    fn parse_backend(path: &'a str) -> Option<Self> {
        let (pool, rest) = path.strip_prefix("/api/v1/pools/")?.split_once("/backends/")?;
        let (address, verb) = rest.rsplit_once('/')?;
        let admin_state = match verb {
            "drain" => AdminState::Drain,
            "disable" => AdminState::Disable,
            "enable" => AdminState::Enable,
            _ => return None,
        };
        Some(Self::Backend { pool, address, admin_state })
    }
}

fn show(endpoint: &Endpoint<'_>, admin: &Admin) -> Answer {
    let view = &*admin.view;
    match endpoint {
        Endpoint::Page => {
            let mut page = respond(StatusCode::OK, HTML, include_str!("page/index.html"));
            page.headers_mut().insert(CONTENT_SECURITY_POLICY, PAGE_POLICY);
            page
        }
        Endpoint::Style => respond(StatusCode::OK, CSS, include_str!("page/style.css")),
        Endpoint::Script => respond(StatusCode::OK, SCRIPT, include_str!("page/page.js")),
        Endpoint::Description => respond(StatusCode::OK, JSON, include_str!("openapi.json")),
        Endpoint::Health => respond(StatusCode::OK, TEXT, "ok\n"),
        Endpoint::Ready => match view.unready() {
            Some(reason) => error(StatusCode::SERVICE_UNAVAILABLE, &reason),
            None => respond(StatusCode::OK, TEXT, "ready\n"),
        },
        Endpoint::Metrics => respond(StatusCode::OK, METRICS, admin.exporter.render(view)),
        Endpoint::Status => json(StatusCode::OK, &StatusReport::new(view)),
        Endpoint::Pools => json(StatusCode::OK, &PoolsReport::new(view)),
        Endpoint::Change(_) | Endpoint::Nowhere => unreachable!("`answer` has these"),
    }
}

async fn make(change: Change<'_>, view: &View) -> Answer {
    match change {
        Change::Backend { pool, address, admin_state } => {
            let (answer, result) = oneshot::channel();
            let (pool, backend) = (decoded(pool), decoded(address));
            let _ = view.commands.send(Command::SetAdminState { pool, backend, admin_state, answer });
            match result.await {
                Ok(Ok(state)) => message(StatusCode::OK, state.as_str()),
                Ok(Err(why)) => error(StatusCode::NOT_FOUND, &why),
                Err(_) => stopping(),
            }
        }
        Change::Shutdown => {
            tracing::info!("asked to stop by the API");
            // Whoever takes commands has ended only if the process is stopping already.
            let _ = view.commands.send(Command::Shutdown);
            message(StatusCode::ACCEPTED, "draining")
        }
        Change::Reload => {
            let (sender, result) = oneshot::channel();
            let _ = view.commands.send(Command::Reload(sender));
            match result.await {
                Ok(Ok(what)) => message(StatusCode::OK, &what),
                Ok(Err(why)) => error(StatusCode::UNPROCESSABLE_ENTITY, &why),
                Err(_) => stopping(),
            }
        }
    }
}

/// Commands are taken no more.
fn stopping() -> Answer {
    error(StatusCode::SERVICE_UNAVAILABLE, "the balancer is stopping")
}

fn decoded(segment: &str) -> String {
    percent_decode_str(segment).decode_utf8_lossy().into_owned()
}

#[derive(Serialize)]
struct ApiMessage<'a> {
    result: &'a str,
}

#[derive(Serialize)]
struct ApiError<'a> {
    error: &'a str,
}

fn message(status: StatusCode, result: &str) -> Answer {
    json(status, &ApiMessage { result })
}

fn error(status: StatusCode, error: &str) -> Answer {
    json(status, &ApiError { error })
}

fn not_allowed(methods: &'static str) -> Answer {
    let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, &format!("the methods here are: {methods}"));
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    answer
}

fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    respond(status, JSON, serde_json::to_string(value).expect("reports have text keys only"))
}

fn respond(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    Response::builder()
        .status(status)
        .header(CONTENT_TYPE, content_type)
        .header(CACHE_CONTROL, "no-store")
        .header("X-Content-Type-Options", "nosniff")
        .body(Full::new(body.into()))
        .expect("the status and the headers are constants")
}
