//! Active health checks, as they run: how often a backend is asked, where, and by what.

use std::fmt;
use std::num::{NonZeroU16, NonZeroUsize};
use std::ops::RangeInclusive;
use std::time::Duration;

use regex::bytes::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::tls::TlsTo;

/// Active health checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// From the start of one check to that of the next, 10 % more or less.
    pub interval: Duration,
    /// The same while the last checks failed.
    pub interval_down: Duration,
    /// A whole check must be over in this time.
    pub timeout: Duration,
    /// Successes in a row that bring a backend back.
    pub rise: NonZeroUsize,
    /// Failures in a row that take it out.
    pub fall: NonZeroUsize,
    /// The port that is asked; `None`: the backend's own.
    pub port: Option<NonZeroU16>,
    /// `None`: it is asked without TLS.
    pub tls: Option<TlsTo>,
    /// What is asked.
    pub kind: CheckKind,
}

/// What a check asks, and so what it takes for an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckKind {
    /// An accepted connection, with TLS the handshake, is enough.
    Connect,
    /// A request and the status, perhaps the body, of its response.
    Http(HttpCheck),
    /// Sends and expects these, in order.
    Exchange(Vec<Step>),
    /// PING or ROLE.
    Redis(RedisCheck),
    /// A startup packet, or a login and a query.
    Postgres(PostgresCheck),
    /// The greeting, or a login.
    Mysql(MysqlCheck),
    /// The greeting, EHLO with this name, QUIT.
    Smtp { hello: String },
    /// An anonymous bind.
    Ldap,
}

/// A health check by HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpCheck {
    /// The request's method.
    pub method: String,
    /// The request's path.
    pub path: String,
    /// The Host header; `None`: the backend's address.
    pub host: Option<String>,
    /// Further headers.
    pub headers: Vec<(String, Secret)>,
    /// Statuses of a healthy backend.
    pub status: Vec<RangeInclusive<u16>>,
    /// Statuses of one that is well and in another role.
    pub standby_status: Vec<RangeInclusive<u16>>,
    /// What the body must hold; `None`: it isn't read.
    pub body: Option<Pattern>,
}

/// A step of an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Send(Secret),
    Expect(Pattern),
}

/// What received bytes must hold.
#[derive(Clone, Debug)]
pub enum Pattern {
    /// These bytes, shown as the user wrote them.
    Text { bytes: Vec<u8>, written: String },
    /// A match of this.
    Matches(Regex),
}

impl Pattern {
    /// Where its first match ends.
    pub fn end_in(&self, received: &[u8]) -> Option<usize> {
        match self {
            Self::Text { bytes, .. } if bytes.is_empty() => Some(0),
            Self::Text { bytes, .. } => {
                received.windows(bytes.len()).position(|window| window == bytes).map(|start| start + bytes.len())
            }
            Self::Matches(regex) => regex.find(received).map(|found| found.end()),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text { written, .. } => write!(f, "`{written}`"),
            Self::Matches(regex) => write!(f, "a match of `{regex}`"),
        }
    }
}

/// As they were written.
impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Text { bytes: one, .. }, Self::Text { bytes: other, .. }) => one == other,
            (Self::Matches(one), Self::Matches(other)) => one.as_str() == other.as_str(),
            _ => false,
        }
    }
}

impl Eq for Pattern {}

/// Bytes that may hold a password: no log and no report shows them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret {
    pub bytes: Vec<u8>,
    /// Those of them that came from the environment.
    pub values: Vec<Vec<u8>>,
}

impl Secret {
    /// What a server sent, with stars for values that it has from here.
    pub fn hide_in(&self, received: &[u8]) -> Vec<u8> {
        let mut shown = Vec::new();
        let mut rest = received;
        while let Some((first, others)) = rest.split_first() {
            match self.values.iter().find(|value| !value.is_empty() && rest.starts_with(value)) {
                Some(value) => {
                    shown.extend_from_slice(b"***");
                    rest = &rest[value.len()..];
                }
                None => {
                    shown.push(*first);
                    rest = others;
                }
            }
        }
        shown
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Which of a set of Redis servers is wanted.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RedisRole {
    /// One that answers PING.
    #[default]
    Any,
    /// One that takes writes.
    Master,
    /// One that follows a master.
    Replica,
}

/// A health check of a Redis server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisCheck {
    pub role: RedisRole,
    /// `None`: no login.
    pub login: Option<RedisLogin>,
}

/// Who asks a Redis server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisLogin {
    /// `None`: the server's default user.
    pub username: Option<String>,
    pub password: Secret,
}

/// Which of a set of PostgreSQL servers is wanted.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PostgresRole {
    /// One that answers a startup packet; no login.
    #[default]
    Any,
    /// One that takes writes.
    Primary,
    /// One in recovery.
    Replica,
}

/// A health check of a PostgreSQL server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresCheck {
    pub role: PostgresRole,
    pub user: String,
    /// `None`: that of the user's name.
    pub database: Option<String>,
    /// `None`: the server must want none.
    pub password: Option<Secret>,
}

/// A health check of a MySQL or MariaDB server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MysqlCheck {
    /// Logs in without a password; `None`: any answer to a login is enough.
    pub user: Option<String>,
}
