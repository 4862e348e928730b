//! From a request's method and path to its response.

use std::sync::Arc;
use std::time::Instant;

use hyper::body::Incoming;
use hyper::header::{CONTENT_SECURITY_POLICY, HeaderValue, WWW_AUTHENTICATE};
use hyper::http::request::Parts;
use hyper::{Method, Request, StatusCode};

use super::apart::apart;
use super::api::{EventsReport, HistoryReport, PoolsReport, StatusReport};
use super::asker::Asker;
use super::authorization::{AdminRefusal, Guard, Reach, Readers};
use super::change::Change;
use super::connections;
use super::gzip::{AdminResponse, compressed};
use super::history::{MOST_POINTS, Wanted};
use super::log_level::{self, LogReport};
use super::metrics::Exporter;
use super::query::{Parameters, decoded, pairs, parameters};
use super::response::{error, json, not_allowed, respond, stopping};
use super::view::View;

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
    /// Shows the level of the log, or sets it.
    Log,
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

/// Answers a request. A body is read only where the request needs one, and may make it.
pub(super) async fn answer(request: Request<Incoming>, asker: Asker, admin: &Admin) -> AdminResponse {
    let (head, body) = request.into_parts();
    let answer = answer_to(&head, body, asker, admin).await;
    compressed(&head.headers, answer).await
}

async fn answer_to(request: &Parts, body: Incoming, asker: Asker, admin: &Admin) -> AdminResponse {
    let (path, query) = (request.uri.path(), request.uri.query());
    match (Operation::parse(path, query), &request.method) {
        (None, _) => error(StatusCode::NOT_FOUND, &format!("there is no {path}; see /api/v1/openapi.json")),
        (Some(Operation::Read(resource)), &Method::GET | &Method::HEAD) => {
            match admin.view.guard.judge_read(&request.headers, resource.readers(), admin.reach) {
                Ok(()) => show(&resource, admin).await,
                Err(refusal) => refuse(path, refusal, &admin.view.guard),
            }
        }
        (Some(Operation::Read(_)), _) => not_allowed("GET, HEAD"),
        (Some(Operation::Change(change)), method) if change.takes(method) => {
            match admin.view.guard.judge_change(&request.headers, admin.reach) {
                Ok(()) => change.apply(method, query, body, asker, &admin.view).await,
                Err(refusal) => refuse(path, refusal, &admin.view.guard),
            }
        }
        (Some(Operation::Change(change)), _) => not_allowed(change.methods()),
        (Some(Operation::Connections(query)), method) => {
            let (guard, headers) = (&admin.view.guard, &request.headers);
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
        (Some(Operation::Log), method) => {
            let guard = &admin.view.guard;
            let verdict = match *method {
                Method::GET | Method::HEAD => guard.judge_read(&request.headers, Readers::Operators, admin.reach),
                Method::PATCH => guard.judge_change(&request.headers, admin.reach),
                _ => return not_allowed("GET, HEAD, PATCH"),
            };
            match verdict {
                Ok(()) if method == Method::PATCH => set_log_level(body, asker, &admin.view).await,
                Ok(()) => json(StatusCode::OK, &LogReport::now()),
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

async fn set_log_level(body: Incoming, asker: Asker, view: &View) -> AdminResponse {
    match log_level::set_level(body, asker, view).await {
        Ok(report) => json(StatusCode::OK, &report),
        Err(Some((status, why))) => error(status, &why),
        Err(None) => stopping(),
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
            "/members.js" => Resource::Script(include_str!("page/members.js")),
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
            "/api/v1/log" => return Some(Self::Log),
            _ => return Change::parse(path).map(Self::Change),
        };
        Some(Self::Read(resource))
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
        if let Some(pool) = &self.pool {
            let shown = view.shown.load();
            let Some(known) = shown.pools.iter().find(|known| known.name() == pool) else {
                return error(StatusCode::NOT_FOUND, &format!("there is no pool {pool}"));
            };
            let is_known = |backend: &String| known.backends().iter().any(|known| known.label() == backend);
            if let Some(backend) = self.backend.as_ref().filter(|backend| !is_known(backend)) {
                return error(StatusCode::NOT_FOUND, &format!("pool {pool} has no backend {backend}"));
            }
        }
        json(StatusCode::OK, &HistoryReport::new(&view.history, &wanted, points))
    }
}

/// All parameters of the query.
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
