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
use super::query::values;
use super::response::{Refused, error, json, not_allowed, respond};
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
    Read(Resource),
    Change(Change<'a>),
    /// Shows connections, or ends them.
    Connections,
    /// Shows the level of the log, or sets it.
    Log,
}

/// What a client needs to be allowed.
#[derive(Clone, Copy)]
enum Need {
    Read(Readers),
    Change,
}

enum Resource {
    Page,
    Style,
    Script(&'static str),
    Health,
    /// Of the balancer, and of these pools: what a check in front of it asks that serves them.
    Ready {
        pools: Vec<String>,
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
    let (path, query, method) = (request.uri.path(), request.uri.query(), &request.method);
    let Admin { view, reach, .. } = admin;
    let Some(operation) = Operation::parse(path, query) else {
        return error(StatusCode::NOT_FOUND, &format!("there is no {path}; see /api/v1/openapi.json"));
    };
    let Some(need) = operation.need(method) else { return not_allowed(operation.methods()) };
    let verdict = match need {
        Need::Read(readers) => view.guard.judge_read(&request.headers, readers, *reach),
        Need::Change => view.guard.judge_change(&request.headers, *reach),
    };
    if let Err(refusal) = verdict {
        return refuse(path, refusal, &view.guard);
    }
    let answered = match (operation, need) {
        (Operation::Read(resource), _) => Ok(show(&resource, admin).await),
        (Operation::Change(change), _) => change.apply(method, query, body, asker, view).await,
        (Operation::Connections, Need::Change) => connections::end(query, asker, view).await,
        (Operation::Connections, Need::Read(_)) => connections::list(query, view).await,
        (Operation::Log, Need::Change) => log_level::set_level(body, asker, view).await,
        (Operation::Log, Need::Read(_)) => Ok(json(StatusCode::OK, &LogReport::now())),
    };
    answered.unwrap_or_else(Refused::into_response)
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

impl Resource {
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
            "/readyz" => Resource::Ready { pools: values(query, "pool").collect() },
            "/metrics" => Resource::Metrics,
            "/api/v1/status" => Resource::Status,
            "/api/v1/pools" => Resource::Pools,
            "/api/v1/events" => {
                Resource::Events { after: values(query, "after").next().map_or(Some(0), |id| id.parse().ok()) }
            }
            "/api/v1/history" => Resource::History(HistoryQuery::parse(query)),
            "/api/v1/openapi.json" => Resource::Description,
            "/api/v1/connections" => return Some(Self::Connections),
            "/api/v1/log" => return Some(Self::Log),
            _ => return Change::parse(path).map(Self::Change),
        };
        Some(Self::Read(resource))
    }

    fn methods(&self) -> &'static str {
        match self {
            Self::Read(_) => "GET, HEAD",
            Self::Change(change) => change.methods(),
            Self::Connections => "GET, HEAD, DELETE",
            Self::Log => "GET, HEAD, PATCH",
        }
    }

    /// `None`: there is no such method here.
    fn need(&self, method: &Method) -> Option<Need> {
        match (self, method) {
            (Self::Read(resource), &Method::GET | &Method::HEAD) => Some(Need::Read(resource.readers())),
            (Self::Connections | Self::Log, &Method::GET | &Method::HEAD) => Some(Need::Read(Readers::Operators)),
            (Self::Connections, &Method::DELETE) | (Self::Log, &Method::PATCH) => Some(Need::Change),
            (Self::Change(change), method) if change.takes(method) => Some(Need::Change),
            _ => None,
        }
    }
}

impl HistoryQuery {
    fn parse(query: Option<&str>) -> Self {
        let text = |name| values(query, name).next();
        let points = values(query, "points").next().map_or(Some(MOST_POINTS), |points| points.parse().ok());
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

async fn show(resource: &Resource, admin: &Admin) -> AdminResponse {
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
            apart(move || query.answer(&view)).await.unwrap_or_else(|| Refused::stopping().into_response())
        }
        Resource::Events { after: None } => error(StatusCode::BAD_REQUEST, "after is to be the id of an event"),
    }
}

fn show_readiness(pools: &[String], view: &View) -> AdminResponse {
    let shown = view.shown.load();
    for name in pools {
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
        None => Refused::stopping().into_response(),
    }
}
