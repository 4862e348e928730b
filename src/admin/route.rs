//! From a request's method and path to its response.

use std::sync::Arc;
use std::time::Instant;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Method, Request, Response, StatusCode};
use percent_encoding::percent_decode_str;
use serde::Serialize;
use tokio::sync::oneshot;

use crate::backends::AdminState;

use super::apart::apart;
use super::api::{EventsReport, HistoryReport, PoolsReport, StatusReport};
use super::asker::Asker;
use super::authorization::{AdminRefusal, Guard, Reach, Readers};
use super::connections::{self, Parameters};
use super::gzip::{AdminResponse, compressed};
use super::history::{MOST_POINTS, Wanted};
use super::metrics::Exporter;
use super::view::{Command, View};

/// What responses are made from.
pub(super) struct Admin {
    pub(super) view: Arc<View>,
    pub(super) exporter: Arc<Exporter>,
    /// Of the address that the request came by.
    pub(super) reach: Reach,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
/// Prometheus's text exposition format.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A scrape of so many takes about a millisecond.
const MOST_BACKENDS_HERE: usize = 200;

/// The page may load and request only what is the admin server's own, and can't be framed.
const PAGE_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; form-action 'none'; \
     base-uri 'none'; frame-ancestors 'none'",
);

/// What a path does.
enum Operation<'a> {
    Read(Resource<'a>),
    Change(Change<'a>),
    /// Shows connections, or ends them.
    Connections(Option<&'a str>),
}

enum Resource<'a> {
    Page,
    Style,
    Script(&'static str),
    Health,
    /// Of the balancer, and of these pools: what a check in front of it asks that serves them.
    Ready {
        pools: Vec<&'a str>,
    },
    Metrics,
    Status,
    Pools,
    /// `None`: what was given is no number.
    Events {
        after: Option<u64>,
    },
    History(HistoryQuery),
    Description,
}

/// Which series, and in how many points at most; `None`: what was given is no number.
#[derive(Clone)]
struct HistoryQuery {
    pool: Option<String>,
    backend: Option<String>,
    points: Option<usize>,
}

enum Change<'a> {
    Backend { pool: &'a str, address: &'a str, admin_state: AdminState },
    Reload,
    Shutdown,
}

/// Answers a request, whose body is ignored.
pub(super) async fn answer(request: &Request<Incoming>, asker: Asker, admin: &Admin) -> AdminResponse {
    compressed(request.headers(), answer_to(request, asker, admin).await).await
}

async fn answer_to(request: &Request<Incoming>, asker: Asker, admin: &Admin) -> AdminResponse {
    let path = request.uri().path();
    match (Operation::parse(path, request.uri().query()), request.method()) {
        (None, _) => error(StatusCode::NOT_FOUND, &format!("there is no {path}; see /api/v1/openapi.json")),
        (Some(Operation::Read(resource)), &Method::GET | &Method::HEAD) => {
            match admin.view.guard.judge_read(request.headers(), resource.readers(), admin.reach) {
                Ok(()) => show(&resource, admin).await,
                Err(refusal) => refuse(path, refusal, &admin.view.guard),
            }
        }
        (Some(Operation::Read(_)), _) => not_allowed("GET, HEAD"),
        (Some(Operation::Change(change)), &Method::POST) => {
            match admin.view.guard.judge_change(request.headers(), admin.reach) {
                Ok(()) => apply_change(change, &admin.view).await,
                Err(refusal) => refuse(path, refusal, &admin.view.guard),
            }
        }
        (Some(Operation::Change(_)), _) => not_allowed("POST"),
        (Some(Operation::Connections(query)), method) => {
            let (guard, headers) = (&admin.view.guard, request.headers());
            let (is_change, verdict) = match method {
                &Method::GET | &Method::HEAD => (false, guard.judge_read(headers, Readers::Operators, admin.reach)),
                &Method::DELETE => (true, guard.judge_change(headers, admin.reach)),
                _ => return not_allowed("GET, HEAD, DELETE"),
            };
            match verdict {
                Ok(()) if is_change => end_connections(query, asker, &admin.view).await,
                Ok(()) => list_connections(query, &admin.view).await,
                Err(refusal) => refuse(path, refusal, guard),
            }
        }
    }
}

async fn list_connections(query: Option<&str>, view: &View) -> AdminResponse {
    match Parameters::new(pairs(query)).and_then(Parameters::page) {
        Ok((selection, page)) => json(StatusCode::OK, &connections::list(view, selection, page).await),
        Err(why) => error(StatusCode::BAD_REQUEST, &why),
    }
}

async fn end_connections(query: Option<&str>, asker: Asker, view: &Arc<View>) -> AdminResponse {
    match Parameters::new(pairs(query)).and_then(Parameters::selected) {
        Ok(selection) => match connections::end(view.clone(), selection, asker).await {
            Some(report) => json(StatusCode::OK, &report),
            None => stopping(),
        },
        Err(why) => error(StatusCode::BAD_REQUEST, &why),
    }
}

fn refuse(path: &str, refusal: AdminRefusal, guard: &Guard) -> AdminResponse {
    if let Some(unlogged) = guard.to_log(refusal, Instant::now()) {
        tracing::warn!(path, reason = refusal.message(), unlogged, "a request was refused");
    }
    let mut answer = error(refusal.status(), refusal.message());
    if refusal.status() == StatusCode::UNAUTHORIZED {
        answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    answer
}

impl Resource<'_> {
    fn readers(&self) -> Readers {
        match self {
            Self::Health | Self::Ready { .. } => Readers::Everybody,
            Self::Metrics => Readers::Scrapers,
            Self::Page
            | Self::Style
            | Self::Script(_)
            | Self::Status
            | Self::Pools
            | Self::Events { .. }
            | Self::History(_)
            | Self::Description => Readers::Operators,
        }
    }
}

impl<'a> Operation<'a> {
    fn parse(path: &'a str, query: Option<&'a str>) -> Option<Self> {
        let resource = match path {
            "/" => Resource::Page,
            "/style.css" => Resource::Style,
            "/page.js" => Resource::Script(include_str!("page/page.js")),
            "/connections.js" => Resource::Script(include_str!("page/connections.js")),
            "/confirm.js" => Resource::Script(include_str!("page/confirm.js")),
            "/pools.js" => Resource::Script(include_str!("page/pools.js")),
            "/rows.js" => Resource::Script(include_str!("page/rows.js")),
            "/format.js" => Resource::Script(include_str!("page/format.js")),
            "/healthz" => Resource::Health,
            "/readyz" => Resource::Ready { pools: parameters(query, "pool").collect() },
            "/metrics" => Resource::Metrics,
            "/api/v1/status" => Resource::Status,
            "/api/v1/pools" => Resource::Pools,
            "/api/v1/events" => {
                Resource::Events { after: parameters(query, "after").next().map_or(Some(0), |id| id.parse().ok()) }
            }
            "/api/v1/history" => Resource::History(HistoryQuery::parse(query)),
            "/api/v1/openapi.json" => Resource::Description,
            "/api/v1/connections" => return Some(Self::Connections(query)),
            _ => return Change::parse(path).map(Self::Change),
        };
        Some(Self::Read(resource))
    }
}

impl<'a> Change<'a> {
    /// A backend's path is `/api/v1/pools/{pool}/backends/{address}/{drain|disable|enable}`; the address of a unix
    /// socket may have slashes.
    fn parse(path: &'a str) -> Option<Self> {
        match path {
            "/api/v1/reload" => return Some(Self::Reload),
            "/api/v1/shutdown" => return Some(Self::Shutdown),
            _ => {}
        }
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

impl HistoryQuery {
    fn parse(query: Option<&str>) -> Self {
        let text = |name| parameters(query, name).next().map(decoded);
        let points = parameters(query, "points").next().map_or(Some(MOST_POINTS), |points| points.parse().ok());
        Self {
            pool: text("pool"),
            backend: text("backend"),
            points: points.filter(|points| (1..=MOST_POINTS).contains(points)),
        }
    }

    fn answer(&self, view: &View) -> AdminResponse {
        let Some(points) = self.points else {
            return error(StatusCode::BAD_REQUEST, "points is to be a number from 1 to 720");
        };
        let wanted = match (&self.pool, &self.backend) {
            (None, None) => Wanted::Overview,
            (Some(pool), None) => Wanted::Pool(pool),
            (Some(pool), Some(backend)) => Wanted::Backend(pool, backend),
            (None, Some(_)) => return error(StatusCode::BAD_REQUEST, "backend needs its pool"),
        };
        json(StatusCode::OK, &HistoryReport::new(&view.history, &wanted, points))
    }
}

/// All parameters of the query.
fn pairs(query: Option<&str>) -> impl Iterator<Item = (String, String)> {
    let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(name, value)| (decoded(name), decoded(value)))
}

/// What the query gives for a parameter.
fn parameters<'a>(query: Option<&'a str>, name: &'static str) -> impl Iterator<Item = &'a str> {
    let pairs = query.unwrap_or_default().split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.filter(move |(key, _)| *key == name).map(|(_, value)| value)
}

async fn show(resource: &Resource<'_>, admin: &Admin) -> AdminResponse {
    let view = &*admin.view;
    match resource {
        Resource::Page => {
            let mut page = respond(StatusCode::OK, HTML, include_str!("page/index.html"));
            page.headers_mut().insert(CONTENT_SECURITY_POLICY, PAGE_POLICY);
            page
        }
        Resource::Style => respond(StatusCode::OK, CSS, include_str!("page/style.css")),
        Resource::Script(script) => respond(StatusCode::OK, SCRIPT, *script),
        Resource::Description => respond(StatusCode::OK, JSON, include_str!("openapi.json")),
        Resource::Health => respond(StatusCode::OK, TEXT, "ok\n"),
        Resource::Ready { pools } => show_readiness(pools, view),
        Resource::Metrics => scrape(admin).await,
        Resource::Status => json(StatusCode::OK, &StatusReport::new(view, admin.reach)),
        Resource::Pools => json(StatusCode::OK, &PoolsReport::new(view)),
        Resource::Events { after: Some(id) } => json(StatusCode::OK, &EventsReport::after(*id)),
        Resource::History(query) => {
            let (query, view) = (query.clone(), admin.view.clone());
            apart(move || query.answer(&view)).await.unwrap_or_else(stopping)
        }
        Resource::Events { after: None } => error(StatusCode::BAD_REQUEST, "after is to be the id of an event"),
    }
}

fn show_readiness(pools: &[&str], view: &View) -> AdminResponse {
    let shown = view.shown.load();
    for name in pools.iter().map(|name| decoded(name)) {
        let Some(pool) = shown.pools.iter().find(|pool| pool.name() == name) else {
            return error(StatusCode::NOT_FOUND, &format!("there is no pool {name}"));
        };
        if !pool.is_ready(Instant::now()) {
            return error(StatusCode::SERVICE_UNAVAILABLE, &format!("pool {name} has no usable backend"));
        }
    }
    match view.unready() {
        Some(reason) => error(StatusCode::SERVICE_UNAVAILABLE, &reason),
        None => respond(StatusCode::OK, TEXT, "ready\n"),
    }
}

/// With many backends on a thread of its own: it takes some milliseconds then, and nothing may block the main thread.
async fn scrape(admin: &Admin) -> AdminResponse {
    let backends: usize = admin.view.shown.load().pools.iter().map(|pool| pool.backends().len()).sum();
    if backends <= MOST_BACKENDS_HERE {
        return respond(StatusCode::OK, METRICS, admin.exporter.render(&admin.view));
    }
    let (view, exporter) = (admin.view.clone(), admin.exporter.clone());
    match apart(move || exporter.render(&view)).await {
        Some(text) => respond(StatusCode::OK, METRICS, text),
        None => stopping(),
    }
}

async fn apply_change(change: Change<'_>, view: &View) -> AdminResponse {
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
            // An error means that the main loop takes no more commands: the balancer is stopping already.
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

/// For a command that the main loop dropped.
fn stopping() -> AdminResponse {
    error(StatusCode::SERVICE_UNAVAILABLE, "the balancer is stopping, or handing over to a new process; ask again")
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

fn message(status: StatusCode, result: &str) -> AdminResponse {
    json(status, &ApiMessage { result })
}

fn error(status: StatusCode, error: &str) -> AdminResponse {
    json(status, &ApiError { error })
}

fn not_allowed(methods: &'static str) -> AdminResponse {
    let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, &format!("the methods here are: {methods}"));
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    answer
}

fn json(status: StatusCode, value: &impl Serialize) -> AdminResponse {
    respond(status, JSON, serde_json::to_string(value).expect("reports have text keys only"))
}

fn respond(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> AdminResponse {
    Response::builder()
        .status(status)
        .header(CONTENT_TYPE, content_type)
        .header(CACHE_CONTROL, "no-store")
        .header("X-Content-Type-Options", "nosniff")
        .body(Full::new(body.into()))
        .expect("the status and the headers are constants")
}
