//! A listener: the mirror of its block in the file, and the run-time form.

use std::num::NonZeroUsize;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::http::{Http, HttpFile};
use super::units::{DurationText, OneOrMany};
use super::{BindAddress, Mode};

/// A place to accept connections, and what becomes of them.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Its name in logs and metrics.
    pub name: String,
    /// At least one.
    pub bind: Vec<BindAddress>,
    /// What is understood of the bytes.
    pub mode: Mode,
    /// The name of the pool that serves it.
    pub pool: String,
    /// `None`: only the global limit.
    pub max_connections: Option<NonZeroUsize>,
    /// No byte either way for this long ends a connection; default 10 minutes.
    pub idle_timeout: Duration,
    /// The same once one side has ended; default 1 minute.
    pub half_closed_timeout: Duration,
    /// A request's head must be there in this time; default 10 seconds.
    pub client_header_timeout: Duration,
    /// Peers whose X-Forwarded-For and X-Forwarded-Proto are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// What `mode: http` adds.
    pub http: Http,
    /// Whether its connections are logged; default true.
    pub access_log: bool,
}

impl Listener {
    /// The shortest of its time limits: how precise its clock must be.
    pub fn shortest_limit(&self) -> Duration {
        let always = self.idle_timeout.min(self.half_closed_timeout);
        match self.mode {
            Mode::Tcp => always,
            Mode::Http => [self.client_header_timeout, self.http.response_header_timeout, self.http.keep_alive_timeout]
                .into_iter()
                .fold(always, Duration::min),
        }
    }
}

/// One listener.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListenerFile {
    pub bind: OneOrMany,
    pub mode: Mode,
    pub pool: Option<String>,
    pub max_connections: usize,
    pub trusted_proxies: Vec<String>,
    pub timeouts: ListenerTimeoutsFile,
    pub access_log: bool,
    pub http: HttpFile,
}

impl Default for ListenerFile {
    fn default() -> Self {
        Self {
            bind: OneOrMany::default(),
            mode: Mode::Tcp,
            pool: None,
            max_connections: 0,
            trusted_proxies: Vec::new(),
            timeouts: ListenerTimeoutsFile::default(),
            access_log: true,
            http: HttpFile::default(),
        }
    }
}

/// A listener's time limits.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListenerTimeoutsFile {
    pub idle: DurationText,
    pub half_closed: DurationText,
    pub client_header: DurationText,
}

impl Default for ListenerTimeoutsFile {
    fn default() -> Self {
        Self {
            idle: DurationText::seconds(600),
            half_closed: DurationText::seconds(60),
            client_header: DurationText::seconds(10),
        }
    }
}
