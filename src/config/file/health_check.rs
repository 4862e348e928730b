//! The keys of a pool's health checks.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::health_check::{PostgresRole, RedisRole};

use super::off::OnOffOr;
use super::tls::TlsClientSpec;
use super::units::{DurationText, OneOrMany};

/// Active health checks. At most one of the kinds `http`, `exchange`, `redis`, `postgres`, `mysql`, `smtp`, `ldap`;
/// without one, an accepted connection (with `tls` the handshake) is enough.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct HealthCheckSpec {
    /// From the start of one check to that of the next, 10 % more or less.
    pub interval: DurationText,
    /// The same while the last checks failed; default: `interval`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval_down: Option<DurationText>,
    /// A whole check must be over in this time.
    pub timeout: DurationText,
    /// Successes in a row that bring a backend back.
    pub rise: usize,
    /// Failures in a row that take it out.
    pub fall: usize,
    /// The port that is asked; default: the backend's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Asks over TLS; without a kind, the handshake is enough.
    pub tls: OnOffOr<TlsClientSpec>,
    /// Asks by HTTP/1.1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCheckSpec>,
    /// Sends and expects these, in order, on one connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exchange: Option<Vec<StepSpec>>,
    /// Asks a Redis server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis: Option<RedisCheckSpec>,
    /// Asks a PostgreSQL server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub postgres: Option<PostgresCheckSpec>,
    /// Asks a MySQL or MariaDB server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mysql: Option<MysqlCheckSpec>,
    /// Asks a mail server: its greeting, then EHLO and QUIT.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smtp: Option<SmtpCheckSpec>,
    /// Binds to a directory server anonymously.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ldap: Option<LdapCheckSpec>,
}

impl Default for HealthCheckSpec {
    fn default() -> Self {
        Self {
            interval: DurationText::seconds(2),
            interval_down: None,
            timeout: DurationText::seconds(1),
            rise: 2,
            fall: 3,
            port: None,
            tls: OnOffOr::Off,
            http: None,
            exchange: None,
            redis: None,
            postgres: None,
            mysql: None,
            smtp: None,
            ldap: None,
        }
    }
}

/// A health check by HTTP.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpCheckSpec {
    /// The request's method, such as GET, HEAD or OPTIONS.
    pub method: String,
    /// The request's path.
    pub path: String,
    /// The Host header; default: the backend's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Further headers; `${NAME}` in a value stands for a variable of the environment.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Statuses of a healthy backend, such as 200 or 200-399.
    pub status: OneOrMany,
    /// Statuses of one that is well but in another role, as a replica is where the primary is asked for: it is out, as
    /// `standby`, and no failure.
    pub standby_status: OneOrMany,
    /// What the first 64 KiB of the body must hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<BodySpec>,
}

impl Default for HttpCheckSpec {
    fn default() -> Self {
        Self {
            method: "GET".to_owned(),
            path: "/".to_owned(),
            host: None,
            headers: BTreeMap::new(),
            status: OneOrMany(vec!["200-399".to_owned()]),
            standby_status: OneOrMany::default(),
            body: None,
        }
    }
}

/// What a body must hold; one of the two.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct BodySpec {
    /// This text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contains: Option<String>,
    /// A match of this regular expression.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matches: Option<String>,
}

/// A step of an exchange; one of the three. In `send` and `expect`, `\r`, `\n`, `\t`, `\\` and `\xNN` stand for bytes.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct StepSpec {
    /// Sends this; `${NAME}` stands for a variable of the environment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send: Option<String>,
    /// Waits until this has come, after what the steps before have matched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect: Option<String>,
    /// The same, with a regular expression.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect_matches: Option<String>,
}

/// A health check of a Redis server.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedisCheckSpec {
    /// The role that is wanted.
    pub role: RedisRole,
    /// With `password_file`; default: the server's default user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// A file with the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
}

/// A health check of a PostgreSQL server.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct PostgresCheckSpec {
    /// The role that is wanted.
    pub role: PostgresRole,
    /// The user to log in as.
    pub user: String,
    /// Default: that of the user's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// A file with the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
}

impl Default for PostgresCheckSpec {
    fn default() -> Self {
        Self { role: PostgresRole::Any, user: "postgres".to_owned(), database: None, password_file: None }
    }
}

/// A health check of a MySQL or MariaDB server.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct MysqlCheckSpec {
    /// Logs in as this user, who has no password; default: any answer to a login is enough.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// A health check of a mail server.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SmtpCheckSpec {
    /// The name that EHLO gives.
    pub hello: String,
}

impl Default for SmtpCheckSpec {
    fn default() -> Self {
        Self { hello: "localhost".to_owned() }
    }
}

/// A health check of a directory server. It has no keys: write `ldap: {}`.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LdapCheckSpec {}
