//! Finding a backend that answers: pick (waiting in the queue for room), dial or reuse an idle connection, and try the
//! next one where that failed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tracing::Span;

use crate::backends::{Backend, ConnectingClient, Lease, RetryPermit};
use crate::balancer::{PickError, PickRequest};
use crate::config::TlsTo;
use crate::lifecycle::IdleTimer;
use crate::net::{ConnectFailure, Peer, Transport};
use crate::protocol::proxy_header::{Header, Origin};
use crate::telemetry::{Cause, Rejection};

use super::account::Account;
use super::attempts::Attempts;
use super::client_facts::ClientFacts;
use super::idle_pool::IdlePool;
use super::record::connection_span;
use super::refusal::Refusal;
use super::upstream::Upstream;

/// A connection to a backend, counted on it. Dropped in this order: the backend's place is given back once its socket
/// is closed.
pub(super) struct Connected {
    pub(super) transport: Transport,
    /// How it was made.
    pub(super) tls: Option<TlsTo>,
    pub(super) lease: Lease,
    /// It has served a request before.
    pub(super) is_reused: bool,
}

/// Whom a backend is wanted for.
#[derive(Clone, Copy)]
pub(super) struct ConnectContext<'a> {
    pub(super) account: &'a Account,
    pub(super) upstream: &'a Upstream,
    pub(super) client: &'a Transport,
    /// Notes which backend the client uses, so that its connection can be cut with it.
    pub(super) idle_timer: &'a IdleTimer,
    /// Idle connections to reuse, where one that has served another request will do.
    pub(super) idle_pool: Option<&'a IdlePool>,
    /// The client has sent its request: one that has ended its side waits for the answer all the same.
    pub(super) has_asked: bool,
}

impl<'a> ConnectContext<'a> {
    /// Who the client is.
    pub(super) fn peer(&self) -> Peer {
        self.account.peer()
    }

    /// What its preface said of the client.
    pub(super) fn facts(&self) -> Option<&'a ClientFacts> {
        self.account.facts()
    }

    /// Where a PROXY header says that the client connected to.
    pub(super) fn named_server(&self) -> Option<SocketAddr> {
        self.facts().and_then(|facts| facts.server)
    }

    /// Where the client connected to; `None`: to a unix socket.
    pub(super) fn server(&self) -> Option<SocketAddr> {
        self.named_server().or_else(|| self.client.local_address())
    }

    /// The client uses this backend from now on, or none. In the step of its task in which it was picked.
    pub(super) fn use_backend(&self, backend: Option<&Arc<Backend>>) {
        self.account.set_backend(backend);
        self.idle_timer.use_backend(backend.map(|backend| backend.id()));
    }

    pub(super) fn span(&self) -> Span {
        connection_span(self.account.id, self.peer())
    }
}

/// Tries backends, each at most once and `attempts` at most. Not a byte of the client is read before one answers.
/// Safe to cancel.
///
/// # Errors
/// Why the client can't be served.
pub(super) async fn to_backend(context: ConnectContext<'_>, attempts: &mut Attempts) -> Result<Connected, Refusal> {
    let pool = context.upstream.pool();
    while attempts.tried().len() < pool.settings().attempts.get() {
        let Pick { lease, retry } = match pick(context, attempts).await {
            Ok(pick) => pick,
            Err(NoPick::Refused(refusal)) => return Err(refusal),
            Err(NoPick::NoneLeft) => break,
        };
        context.use_backend(Some(lease.backend()));
        if retry.is_some() {
            pool.count_retry();
        }
        let tls = pool.settings().tls.clone();
        let idle = context.idle_pool.and_then(|idle_pool| idle_pool.take(lease.backend(), tls.as_ref()));
        if let Some(transport) = idle {
            attempts.connected(lease.backend(), None);
            return Ok(Connected { transport, tls, lease, is_reused: true });
        }
        match dial(context, lease, attempts).await {
            Ok(connected) => return Ok(connected),
            Err(DialFailure::Backend) => {}
            Err(DialFailure::Client) => return Err(Refusal::Closed(Cause::ClientReset)),
        }
    }
    Err(Refusal::Closed(cause_of(attempts.failures())))
}

/// A new connection to the backend that is leased already; where that fails, to the next ones.
///
/// # Errors
/// Why the client can't be served.
pub(super) async fn reconnect(
    context: ConnectContext<'_>,
    lease: Lease,
    attempts: &mut Attempts,
) -> Result<Connected, Refusal> {
    match dial(context, lease, attempts).await {
        Ok(connected) => Ok(connected),
        Err(DialFailure::Backend) => to_backend(ConnectContext { idle_pool: None, ..context }, attempts).await,
        Err(DialFailure::Client) => Err(Refusal::Closed(Cause::ClientReset)),
    }
}

/// Why a dial gave no connection.
enum DialFailure {
    /// Another backend may do better.
    Backend,
    /// The client has reset meanwhile: nobody waits for the connection. That says nothing about the backend.
    Client,
}

async fn dial(context: ConnectContext<'_>, lease: Lease, attempts: &mut Attempts) -> Result<Connected, DialFailure> {
    let upstream = context.upstream;
    let started = Instant::now();
    // Before the connector looks at them: at worst they are older than those that it uses.
    let tls = upstream.pool().settings().tls.clone();
    let has_asked = context.has_asked || context.client.has_received();
    let client = ConnectingClient { ip: context.peer().ip(), has_asked };
    let dialled = tokio::select! {
        biased;
        dialled = upstream.connector().connect(lease.backend(), client, || header(context)) => dialled,
        // A client that has only ended its side may still wait for an answer.
        () = context.client.reset_by_peer() => return Err(DialFailure::Client),
    };
    let error = match dialled {
        Ok(transport) => {
            let now = Instant::now();
            let took = now.duration_since(started);
            lease.connected(took, now);
            upstream.pool().histograms().connect.record(took);
            attempts.connected(lease.backend(), Some(took));
            return Ok(Connected { transport, tls, lease, is_reused: false });
        }
        Err(error) => error,
    };
    if let (ConnectFailure::Local, Some(idle_pool)) = (error.failure, context.idle_pool) {
        idle_pool.give_way();
    }
    context.span().in_scope(|| {
        tracing::debug!(pool = upstream.pool().name(), backend = lease.backend().label(), %error, "connect failed");
        attempts.failed(lease.backend(), error.failure);
        lease.connect_failed(error, Instant::now());
    });
    Err(DialFailure::Backend)
}

/// Whose connection a backend is given, in the words of the PROXY protocol.
fn header(context: ConnectContext<'_>) -> Header<'_> {
    let origin = match (context.peer(), context.server()) {
        (Peer::Tcp(client), Some(server)) => Origin::Tcp { client, server },
        // A client of a unix socket.
        _ => Origin::Unix,
    };
    Header { origin, tls: context.facts().and_then(ClientFacts::tls_header) }
}

/// Local trouble (no port, no file) is the cause only where no attempt was the backend's fault.
fn cause_of(failures: &[ConnectFailure]) -> Cause {
    if failures.is_empty() {
        Cause::NoBackend
    } else if failures.iter().any(|failure| failure.is_backends_fault()) {
        Cause::ConnectFailed
    } else {
        Cause::Internal
    }
}

/// A backend to try.
struct Pick<'a> {
    lease: Lease,
    /// For the first backend of a client none is needed.
    retry: Option<RetryPermit<'a>>,
}

/// Why there is no backend to try.
enum NoPick {
    /// None is left, or there is no budget for a retry.
    NoneLeft,
    /// There was no room for the client, or it is gone.
    Refused(Refusal),
}

/// Chooses a backend, waiting in the pool's queue while all are full. A retry waits for its permit first: while it
/// waits, it holds no place on a backend. And while it waits for a place, it holds no permit.
async fn pick<'a>(context: ConnectContext<'a>, attempts: &Attempts) -> Result<Pick<'a>, NoPick> {
    let balancer = context.upstream.balancer();
    let pool = balancer.pool();
    let is_retry = !attempts.tried().is_empty();
    let retry = if is_retry {
        context.use_backend(None);
        Some(retry_permit(context).await?)
    } else {
        None
    };
    if let Some(facts) = context.facts().filter(|facts| !facts.named.is_empty()) {
        // The queue is for the pool's own backends.
        let lease = first_untried(&facts.named, attempts.tried()).ok_or(NoPick::NoneLeft)?;
        return Ok(Pick { lease, retry });
    }
    let choose =
        || balancer.pick(&PickRequest { now: Instant::now(), client: context.peer().ip(), tried: attempts.tried() });
    if !pool.has_called() {
        match choose() {
            Ok(lease) => return Ok(Pick { lease, retry }),
            Err(PickError::NoneLeft) => return Err(NoPick::NoneLeft),
            Err(PickError::Full) if pool.settings().queue.length == 0 => {
                return Err(NoPick::Refused(Rejection::BackendsFull.into()));
            }
            Err(PickError::Full) => {}
        }
    }
    drop(retry);
    let slot = pool.queue().ok_or(NoPick::Refused(Rejection::QueueFull.into()))?;
    let timeout = pool.settings().queue.timeout;
    let look = || {
        if !is_retry {
            return choose().map(|lease| Pick { lease, retry: None });
        }
        // A permit is not taken on trial: given back, it would call a client, which may be this one.
        if !pool.has_retry() {
            return Err(PickError::Full);
        }
        let lease = choose()?;
        let retry = Some(pool.try_retry().ok_or(PickError::Full)?);
        Ok(Pick { lease, retry })
    };
    let turn = async {
        loop {
            slot.called().await;
            let error = match look() {
                Ok(pick) => return Ok(pick),
                Err(error) => error,
            };
            slot.pass_on();
            if error == PickError::NoneLeft {
                return Err(NoPick::NoneLeft);
            }
        }
    };
    tokio::select! {
        pick = turn => pick,
        () = left(context) => Err(NoPick::Refused(Rejection::LeftQueue.into())),
        () = tokio::time::sleep(timeout) => Err(NoPick::Refused(Rejection::QueueTimeout.into())),
    }
}

/// Of the backends of a host that the client named.
fn first_untried(named: &[Arc<Backend>], tried: &[Arc<Backend>]) -> Option<Lease> {
    named.iter().find(|backend| !tried.iter().any(|tried| Arc::ptr_eq(tried, backend))).and_then(Lease::take)
}

/// Waits until the client can't wait for an answer any more.
async fn left(context: ConnectContext<'_>) {
    if context.has_asked {
        context.client.reset_by_peer().await;
    } else {
        context.client.closed_before_data().await;
    }
}

/// Waits for the right to try another backend.
async fn retry_permit<'a>(context: ConnectContext<'a>) -> Result<RetryPermit<'a>, NoPick> {
    tokio::select! {
        biased;
        retry = context.upstream.pool().retry() => retry.ok_or(NoPick::NoneLeft),
        () = context.client.reset_by_peer() => Err(NoPick::Refused(Refusal::Closed(Cause::ClientReset))),
    }
}
