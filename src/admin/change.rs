//! Requests that change the running balancer: what they ask for, and what came of it. The main loop makes the change;
//! who waits for its effect waits here, and keeps nobody else waiting.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::{Method, StatusCode};
use tokio::sync::{Semaphore, oneshot};

use crate::backends::{AdminState, Backend, BackendState, Order, Refusal};
use crate::config::{BackendChanges, duration};

use super::api::{DrainReport, MembersReport, UpgradeReport};
use super::asker::Asker;
use super::body::read_json;
use super::gzip::AdminResponse;
use super::query::{Parameters, decoded};
use super::response::{Answered, Refused, json, message};
use super::view::{Command, Steered, View};

/// An entry of `backends` has some hundred bytes.
const MAX_BODY_BYTES: usize = 16 * 1024;
/// One request waits no longer; who wants to asks again.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// Requests that wait at once: the admin server has places for others then. One more is answered at once.
static WAITING: Semaphore = Semaphore::const_new(16);
/// Between two looks at what is waited for.
const LOOK: Duration = Duration::from_millis(50);

/// What a path of changes is about.
pub(super) enum Change<'a> {
    /// The backends of a pool.
    Pool {
        pool: &'a str,
    },
    Backend {
        pool: &'a str,
        address: &'a str,
    },
    State {
        pool: &'a str,
        address: &'a str,
        admin_state: AdminState,
    },
    Reload,
    Upgrade,
    Shutdown,
}

impl<'a> Change<'a> {
    /// A backend's path is `/api/v1/pools/{pool}/backends/{address}`, with `/{drain|disable|enable}` behind it for its
    /// state; the address of a unix socket may have slashes.
    pub(super) fn parse(path: &'a str) -> Option<Self> {
        match path {
            "/api/v1/reload" => return Some(Self::Reload),
            "/api/v1/upgrade" => return Some(Self::Upgrade),
            "/api/v1/shutdown" => return Some(Self::Shutdown),
            _ => {}
        }
        let rest = path.strip_prefix("/api/v1/pools/")?;
        let Some((pool, rest)) = rest.split_once("/backends/") else {
            return rest.strip_suffix("/backends").map(|pool| Self::Pool { pool });
        };
        if let Some((address, verb)) = rest.rsplit_once('/') {
            let state = |admin_state| Some(Self::State { pool, address, admin_state });
            match verb {
                "drain" => return state(AdminState::Drain),
                "disable" => return state(AdminState::Disable),
                "enable" => return state(AdminState::Enable),
                _ if decoded(address).starts_with("unix:") => {}
                _ => return None,
            }
        }
        Some(Self::Backend { pool, address: rest })
    }

    pub(super) fn methods(&self) -> &'static str {
        match self {
            Self::Backend { .. } => "DELETE, PATCH",
            Self::Pool { .. } | Self::State { .. } | Self::Reload | Self::Upgrade | Self::Shutdown => "POST",
        }
    }

    pub(super) fn takes(&self, method: &Method) -> bool {
        self.methods().split(", ").any(|taken| taken == method.as_str())
    }

    /// Makes the change, which the client may by now.
    pub(super) async fn apply(
        self,
        method: &Method,
        query: Option<&str>,
        body: Incoming,
        asker: Asker,
        view: &View,
    ) -> Answered {
        let orders = Orders { by: asker.to_string(), view };
        let parameters = Parameters::of(query)?;
        match self {
            Self::Pool { pool } => {
                parameters.finish()?;
                orders.add(decoded(pool), body).await
            }
            Self::Backend { pool, address } if method == Method::PATCH => {
                parameters.finish()?;
                orders.change(decoded(pool), decoded(address), body).await
            }
            Self::Backend { pool, address } => orders.remove(decoded(pool), decoded(address), parameters).await,
            Self::State { pool, address, admin_state } => {
                orders.set_state(decoded(pool), decoded(address), admin_state, parameters).await
            }
            Self::Reload => reload(parameters, orders.view).await,
            Self::Upgrade => {
                parameters.finish()?;
                upgrade(orders.view).await
            }
            Self::Shutdown => {
                parameters.finish()?;
                Ok(shut_down(&orders))
            }
        }
    }
}

/// About backends.
struct Orders<'a> {
    /// Who gives them, for the log.
    by: String,
    view: &'a View,
}

impl Orders<'_> {
    async fn add(self, pool: String, body: Incoming) -> Answered {
        let entry = read_json(body, MAX_BODY_BYTES).await?;
        let added = self.steered(|by, answer| Command::Add { pool, entry, by, answer }).await?;
        let result = "added; a restart forgets it, unless the configuration has it by then";
        Ok(json(StatusCode::CREATED, &MembersReport::new(result, &added, &self.view.history)))
    }

    async fn change(self, pool: String, address: String, body: Incoming) -> Answered {
        let changes = BackendChanges::from_json(&read_json(body, MAX_BODY_BYTES).await?);
        let changes = changes.map_err(|problems| Refused(StatusCode::UNPROCESSABLE_ENTITY, problems.to_string()))?;
        let changed = self.steer(pool, address, Order::Change(changes)).await?;
        let result = "changed; a restart forgets it, unless the configuration has it by then";
        Ok(json(StatusCode::OK, &MembersReport::new(result, &changed, &self.view.history)))
    }

    async fn remove(self, pool: String, address: String, mut parameters: Parameters) -> Answered {
        let wait = wait_of(&mut parameters)?;
        let is_forced = bool_of(&mut parameters, "force")?;
        parameters.finish()?;
        let order = if is_forced { Order::ForceOut } else { Order::Remove(wait) };
        let backends = self.steer(pool, address, order).await?;
        let is_overruled = || backends.iter().any(|backend| backend.is_in_pool() && !is_put_out(backend));
        let is_gone = || backends.iter().all(|backend| !backend.is_in_pool());
        until(wait.map(|wait| wait + 2 * LOOK), || is_gone() || is_overruled()).await;
        if is_overruled() {
            return Err(overruled());
        }
        if is_gone() {
            let result = "removed; a restart forgets it, unless the configuration has lost it by then";
            Ok(json(StatusCode::OK, &DrainReport::new(result, &backends)))
        } else {
            let result = "draining; it is removed once its connections have ended";
            Ok(json(StatusCode::ACCEPTED, &DrainReport::new(result, &backends)))
        }
    }

    async fn set_state(
        self,
        pool: String,
        address: String,
        admin_state: AdminState,
        mut parameters: Parameters,
    ) -> Answered {
        let wait = wait_of(&mut parameters)?;
        parameters.finish()?;
        let backends = self.steer(pool, address, Order::Set(admin_state)).await?;
        let Some(wait) = wait.filter(|_| admin_state != AdminState::Enable) else {
            let state = backends.first().map_or("", |backend| backend.state().as_str());
            return Ok(message(StatusCode::OK, state));
        };
        let is_empty = || backends.iter().all(|backend| backend.active() == 0);
        let is_overruled = || !backends.iter().all(is_put_out);
        until(Some(wait), || is_empty() || is_overruled()).await;
        if is_overruled() {
            return Err(overruled());
        }
        let status = if is_empty() { StatusCode::OK } else { StatusCode::ACCEPTED };
        Ok(json(status, &DrainReport::new(if is_empty() { "drained" } else { "draining" }, &backends)))
    }

    async fn steer(&self, pool: String, address: String, order: Order) -> Result<Vec<Arc<Backend>>, Refused> {
        self.steered(|by, answer| Command::Steer { pool, address, order, by, answer }).await
    }

    /// Has the main loop carry it out; the backends concerned.
    async fn steered(&self, command: impl FnOnce(String, Steered) -> Command) -> Result<Vec<Arc<Backend>>, Refused> {
        let (answer, result) = oneshot::channel();
        let _ = self.view.commands.send(command(self.by.clone(), answer));
        result.await.map_err(|_| Refused::stopping())?.map_err(|refusal| {
            let status = match refusal {
                Refusal::NotFound(_) => StatusCode::NOT_FOUND,
                Refusal::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
                Refusal::Conflict(_) => StatusCode::CONFLICT,
            };
            Refused(status, refusal.message().to_owned())
        })
    }
}

async fn reload(mut parameters: Parameters, view: &View) -> Answered {
    let dry_run = bool_of(&mut parameters, "dry_run")?;
    parameters.finish()?;
    let (answer, result) = oneshot::channel();
    let _ = view.commands.send(Command::Reload { dry_run, answer });
    let done = result.await.map_err(|_| Refused::stopping())?;
    done.map(|done| json(StatusCode::OK, &done)).map_err(|why| Refused(StatusCode::UNPROCESSABLE_ENTITY, why))
}

async fn upgrade(view: &View) -> Answered {
    let (sender, result) = oneshot::channel();
    let _ = view.commands.send(Command::Upgrade(sender));
    let failed = |why| Refused(StatusCode::UNPROCESSABLE_ENTITY, format!("the upgrade failed: {why}"));
    let pid = result.await.map_err(|_| Refused::stopping())?.map_err(failed)?;
    let result = format!("upgraded: process {pid} accepts, this one ends with its connections");
    Ok(json(StatusCode::OK, &UpgradeReport { result, pid }))
}

fn shut_down(Orders { by, view }: &Orders<'_>) -> AdminResponse {
    tracing::info!(by, "asked to stop by the API");
    // An error means that the main loop takes no more commands: the balancer is stopping already.
    let _ = view.commands.send(Command::Shutdown);
    message(StatusCode::ACCEPTED, "draining")
}

/// Whether an operator keeps it from new connections.
fn is_put_out(backend: &Arc<Backend>) -> bool {
    matches!(backend.state(), BackendState::Draining | BackendState::Disabled)
}

fn overruled() -> Refused {
    Refused(StatusCode::CONFLICT, "somebody has given another order for it meanwhile".to_owned())
}

/// How long the client wants to wait for the effect; `None`: not at all.
fn wait_of(parameters: &mut Parameters) -> Result<Option<Duration>, String> {
    let Some(text) = parameters.take_text("wait") else { return Ok(None) };
    match duration(&text) {
        Ok(wait) if wait <= LONGEST_WAIT => Ok(Some(wait)),
        Ok(_) => Err("wait is 1h at most; ask again after it".to_owned()),
        Err(why) => Err(format!("wait: {why}")),
    }
}

/// What is not said is false.
fn bool_of(parameters: &mut Parameters, name: &str) -> Result<bool, String> {
    Ok(parameters.take(name, "true or false", |text| text.parse().ok())?.unwrap_or(false))
}

/// Waits until it is so, or the time is over. Who leaves meanwhile is waited for no more.
async fn until(wait: Option<Duration>, is_so: impl Fn() -> bool) {
    let (Some(wait), Ok(_place)) = (wait, WAITING.try_acquire()) else { return };
    let deadline = Instant::now() + wait;
    while !is_so() && Instant::now() < deadline {
        tokio::time::sleep(LOOK.min(deadline.saturating_duration_since(Instant::now()))).await;
    }
}
