//! `GET` and `DELETE /api/v1/connections`: the open connections of clients.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::lifecycle::{Listing, OpenConnection};

/// `GET /api/v1/connections`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct OpenConnectionsReport {
    /// Connections that fit, on this page and after it.
    pub matched: usize,
    /// In the order that was asked for.
    pub connections: Vec<ConnectionReport>,
    /// What `after` is to be for the next page; null: this is the last one.
    pub next: Option<String>,
}

/// One connection of a client, as it was when its worker was asked.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ConnectionReport {
    /// As in the access log.
    pub id: String,
    /// Its address, `unix:` for one of a unix socket.
    pub client: String,
    /// The name that it asked for, where the listener ends its TLS or has routes by it.
    pub server_name: Option<String>,
    pub listener: String,
    /// `tcp` or `http`.
    pub mode: String,
    /// Null: what the client says is still to decide.
    pub pool: Option<String>,
    /// The backend that it uses or connects to; null: it waits for one, or in mode http for its next request.
    pub backend: Option<String>,
    pub age_seconds: f64,
    /// Since its last byte, to a second or finer.
    pub idle_seconds: f64,
    /// Bytes from the client.
    pub bytes_in: u64,
    /// Bytes to the client.
    pub bytes_out: u64,
    /// Requests so far; 0 in mode tcp.
    pub requests: u64,
}

/// `DELETE /api/v1/connections`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct EndedReport {
    /// Connections that were reset.
    pub ended: usize,
}

impl OpenConnectionsReport {
    pub(in crate::admin) fn new(listing: Listing) -> Self {
        let Listing { matched, connections } = listing;
        let last = connections.last().filter(|_| matched > connections.len());
        Self {
            matched,
            next: last.map(|last| last.place.to_string()),
            connections: connections.into_iter().map(ConnectionReport::new).collect(),
        }
    }
}

impl ConnectionReport {
    fn new(connection: OpenConnection) -> Self {
        Self {
            id: connection.place.id.to_string(),
            client: connection.client.map_or_else(|| "unix:".to_owned(), |client| client.to_string()),
            server_name: connection.server_name,
            listener: connection.listener,
            mode: if connection.is_http { "http" } else { "tcp" }.to_owned(),
            pool: connection.pool,
            backend: connection.backend,
            age_seconds: seconds(connection.age),
            idle_seconds: seconds(connection.idle),
            bytes_in: connection.bytes_in,
            bytes_out: connection.bytes_out,
            requests: connection.requests,
        }
    }
}

/// Whole milliseconds.
fn seconds(time: Duration) -> f64 {
    time.as_millis() as f64 / 1e3
}
