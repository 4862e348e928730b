//! What a health check asks: a file for each protocol, over one kind of stream.
//!
//! Knows neither the backend's state nor when it is to be asked. Whatever a backend answers, a check ends in time, has
//! received a bounded number of bytes, and says what it found in words. It ends politely, so that no server takes it
//! for a failed login.

mod asked;
mod exchange;
mod failure;
mod http;
mod ldap;
mod mysql;
mod postgres;
mod redis;
mod smtp;
mod stream;

use std::time::Duration;

use tokio::time::Instant;

use crate::config::{CheckKind, HealthCheck};

use super::connector::Connector;

pub(super) use asked::{Asked, Finder};
pub(super) use failure::CheckError;
pub(super) use stream::{CheckStream, end};

/// Asks once, in the time that a check may take. What is left of the connection is to be given to [`end`] when the
/// result was taken; `None`: nothing. Safe to cancel.
///
/// # Errors
/// The backend's answer is none, or not the one that is wanted; or the check could not be made.
pub(super) async fn ask(
    connector: &Connector,
    asked: &Asked,
    check: &HealthCheck,
) -> Result<Option<CheckStream>, CheckError> {
    let deadline = Instant::now() + check.timeout;
    let mut waits_for = "a connection".to_owned();
    let answer = tokio::time::timeout_at(deadline, ask_for_ever(connector, asked, check, deadline, &mut waits_for));
    match answer.await {
        Ok(result) => result,
        Err(_) => Err(CheckError::backend(late(&waits_for, check.timeout))),
    }
}

fn late(what: &str, timeout: Duration) -> String {
    format!("no {} within {timeout:?}", what.trim_start_matches("a ").trim_start_matches("an "))
}

/// The same without the limit, which only an exchange needs to know. `waits_for` is what it waits for now.
async fn ask_for_ever(
    connector: &Connector,
    asked: &Asked,
    check: &HealthCheck,
    deadline: Instant,
    waits_for: &mut String,
) -> Result<Option<CheckStream>, CheckError> {
    let transport = connector.connect_for_check(&asked.target, asked.is_own).await?;
    let mut stream = stream::over(transport);
    "answer".clone_into(waits_for);
    match &check.kind {
        CheckKind::Connect => return Ok(None),
        CheckKind::Http(http) => http::check(&mut stream, http, &asked.host).await?,
        CheckKind::Exchange(steps) => exchange::check(&mut stream, steps, deadline).await?,
        CheckKind::Redis(redis) => redis::check(&mut stream, redis).await?,
        CheckKind::Postgres(postgres) => return postgres::check(stream, postgres).await,
        CheckKind::Mysql(mysql) => mysql::check(&mut stream, mysql).await?,
        CheckKind::Smtp { hello } => smtp::check(&mut stream, hello).await?,
        CheckKind::Ldap => ldap::check(&mut stream).await?,
    }
    Ok(Some(stream))
}
