//! What a health check asks: a file for each protocol, over one kind of stream.
//!
//! Knows neither the backend's state nor when it is to be asked. Whatever a backend answers, a check ends in time, has
//! received a bounded number of bytes, and says what it found in words. It ends politely, so that no server takes it
//! for a failed login.

mod check_target;
mod exchange;
mod failure;
mod handshake;
mod http;
mod ldap;
mod mysql;
mod postgres;
mod redis;
mod smtp;
mod stream;

use tokio::time::Instant;

use crate::config::{CheckKind, HealthCheck};

use super::connector::Connector;

use handshake::Handshake;

pub(super) use check_target::{CheckTarget, Finder};
pub(super) use failure::CheckError;
pub(super) use stream::{CheckStream, end};

/// Asks once, until `deadline`, which is the end of the time that a check may take. What is left of the connection is
/// to be given to [`end`] when the result was taken; `None`: nothing. Safe to cancel.
///
/// # Errors
/// The backend's answer is none, or not the one that is wanted; or the check could not be made.
pub(super) async fn ask(
    connector: &Connector,
    target: &CheckTarget,
    check: &HealthCheck,
    deadline: Instant,
) -> Result<Option<CheckStream>, CheckError> {
    let mut waits_for = "connection";
    let answer = tokio::time::timeout_at(deadline, ask_in_time(connector, target, check, deadline, &mut waits_for));
    match answer.await {
        Ok(result) => result,
        Err(_) => Err(CheckError::backend(format!("no {waits_for} within {:?}", check.timeout))),
    }
}

/// The same; the deadline is the caller's to watch, but an exchange has more to say about it. `waits_for` is what it
/// waits for now.
async fn ask_in_time(
    connector: &Connector,
    target: &CheckTarget,
    check: &HealthCheck,
    deadline: Instant,
    waits_for: &mut &'static str,
) -> Result<Option<CheckStream>, CheckError> {
    if check.kind == CheckKind::Connect && check.tls.is_none() {
        connector.try_connect(&target.address).await?;
        return Ok(None);
    }
    let mut stream = stream::over(connector.connect_for_check(&target.address, target.is_own).await?);
    let mut handshake = check.tls.as_ref().map(|tls| Handshake::with(target, tls));
    if !negotiates_tls(&check.kind)
        && let Some(handshake) = handshake.take()
    {
        *waits_for = "end of the TLS handshake";
        stream = handshake.over(stream).await?;
    }
    *waits_for = "answer";
    match &check.kind {
        CheckKind::Connect => {}
        CheckKind::Http(http) => http::check(&mut stream, http, &target.host()).await?,
        CheckKind::Exchange(steps) => exchange::check(&mut stream, steps, deadline).await?,
        CheckKind::Redis(redis) => redis::check(&mut stream, redis).await?,
        CheckKind::Postgres(postgres) => return postgres::check(stream, postgres, handshake).await,
        CheckKind::Mysql(mysql) => return mysql::check(stream, mysql, handshake).await,
        CheckKind::Smtp { hello } => smtp::check(&mut stream, hello).await?,
        CheckKind::Ldap => ldap::check(&mut stream).await?,
    }
    Ok(Some(stream))
}

/// Whether client and server of this protocol agree on TLS in their first messages, instead of beginning with it.
fn negotiates_tls(kind: &CheckKind) -> bool {
    matches!(kind, CheckKind::Postgres(_) | CheckKind::Mysql(_))
}
