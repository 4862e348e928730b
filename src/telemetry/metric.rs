//! Names, labels and help texts of the metrics; buckets of the histograms.

use metrics::{describe_counter, describe_gauge};

pub const PREFIX: &str = "lb_";

macro_rules! names {
    ($($kind:ident $constant:ident = $name:literal [$($label:ident),*], $help:literal;)*) => {
        $(names!(@constant $kind $constant $name $help);)*

        /// All of them, for the reference.
        #[cfg(test)]
        pub const TABLE: &[Described] = &[$(Described {
            name: $name,
            kind: names!(@kind $kind),
            labels: &[$(stringify!($label)),*],
            help: $help,
        }),*];

        /// Gives every counter and gauge of the exporter its help text.
        pub fn describe() {
            $(names!(@describe $kind $constant $help);)*
        }
    };
    (@constant counter $constant:ident $name:literal $help:literal) => {
        #[doc = $help] pub const $constant: &str = $name;
    };
    (@kind seconds) => { "histogram" };
    (@kind own_counter) => { "counter" };
    (@kind own_gauge) => { "gauge" };
    (@kind $kind:ident) => { stringify!($kind) };
    (@constant gauge $constant:ident $name:literal $help:literal) => {
        #[doc = $help] pub const $constant: &str = $name;
    };
    (@constant own_counter $constant:ident $name:literal $help:literal) => {
        names!(@family $constant $name "counter" $help);
    };
    (@constant own_gauge $constant:ident $name:literal $help:literal) => {
        names!(@family $constant $name "gauge" $help);
    };
    (@constant seconds $constant:ident $name:literal $help:literal) => {
        names!(@family $constant $name "histogram" $help);
    };
    (@constant summary $constant:ident $name:literal $help:literal) => {
        names!(@family $constant $name "summary" $help);
    };
    (@family $constant:ident $name:literal $kind:literal $help:literal) => {
        #[doc = $help] pub const $constant: Family = Family { name: $name, kind: $kind, help: $help };
    };
    (@describe counter $constant:ident $help:literal) => { describe_counter!($constant, $help) };
    (@describe gauge $constant:ident $help:literal) => { describe_gauge!($constant, $help) };
    (@describe $kind:ident $constant:ident $help:literal) => {};
}

/// A metric, as the reference describes it.
#[cfg(test)]
#[derive(Clone, Copy, Debug)]
pub struct Described {
    pub name: &'static str,
    pub kind: &'static str,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

/// A family that is written without the exporter.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    pub name: &'static str,
    pub kind: &'static str,
    pub help: &'static str,
}

names! {
    counter ACCEPTED = "lb_connections_accepted_total" [listener], "Client connections accepted.";
    counter CLOSED = "lb_connections_closed_total" [listener, reason], "Client connections that ended, by cause.";
    counter REJECTED = "lb_connections_rejected_total" [listener, reason],
        "Client connections refused after accept, by reason.";
    counter FAILED = "lb_clients_failed_total" [listener, reason],
        "Clients of a listener (in http mode requests) that were not served, by why.";
    counter POOL_FAILED = "lb_pool_clients_failed_total" [pool, reason],
        "Clients of a pool (in http mode requests) that were not served, by why.";
    counter BYTES = "lb_bytes_total" [listener, direction], "Bytes relayed: in from clients, out to clients.";
    own_counter BACKEND_CONNECTIONS = "lb_backend_connections_total" [pool, backend], "Connections made to a backend.";
    own_counter CONNECT_FAILURES = "lb_backend_connect_failures_total" [pool, backend, reason],
        "Connections to a backend that failed, by reason.";
    own_counter BACKEND_BYTES = "lb_backend_bytes_total" [pool, backend, direction],
        "Bytes relayed: in to the backend, out from it.";
    own_counter EJECTIONS = "lb_backend_ejections_total" [pool, backend, reason],
        "Times that passive failure detection set a backend aside, by reason.";
    own_counter BAD_ENDS = "lb_backend_bad_ends_total" [pool, backend, reason],
        "Connections to a backend (in http mode requests) that ended badly, by how.";
    own_counter HEALTH_CHECKS = "lb_health_checks_total" [pool, backend, result],
        "Health checks of a backend, by result.";
    own_counter UNANSWERED = "lb_backend_unanswered_total" [pool, backend],
        "Clients that had asked a backend for something and left before a byte of an answer.";
    counter RETRIES = "lb_retries_total" [pool],
        "Further backends tried for a client whose backend could not be connected to.";
    counter ACCEPT_ERRORS = "lb_accept_errors_total" [listener, reason], "Failed accepts, by reason.";
    counter ACCESS_LOG_DROPPED = "lb_access_log_dropped_total" [],
        "Lines of the access log lost because they could not be written, or not in time.";
    counter LOG_DROPPED = "lb_log_dropped_total" [],
        "Lines of the program's own log lost because they could not be written, or not in time.";
    counter HTTP_REQUESTS = "lb_http_requests_total" [listener, code, origin],
        "HTTP requests, by the status of the answer and who gave it; 499: the client left before it.";
    counter TLS_HANDSHAKES = "lb_tls_handshakes_total" [listener, result, version, resumed],
        "TLS handshakes with clients, by result: ok, with version and whether a session was resumed, or why not.";
    counter RELOADS = "lb_config_reloads_total" [result], "Reloads of the configuration, by result.";
    counter ADMIN_REFUSED = "lb_admin_refused_total" [reason],
        "Requests to the admin server that were refused, by reason.";
    gauge LAST_RELOAD = "lb_config_last_reload_successful" [], "1 unless the last reload failed.";
    gauge ACTIVE = "lb_connections_active" [listener], "Client connections that are open.";
    own_gauge BACKEND_ACTIVE = "lb_backend_connections_active" [pool, backend],
        "Connections to a backend that are open.";
    own_gauge BACKEND_IDLE = "lb_backend_connections_idle" [pool, backend],
        "Connections to a backend that wait for their next request (http mode).";
    own_gauge BACKEND_UP = "lb_backend_up" [pool, backend], "1 while a backend takes new connections, else 0.";
    own_gauge BACKEND_STATE = "lb_backend_state" [pool, backend, state],
        "1 for the state that a backend is in, 0 for the others.";
    own_gauge BACKEND_WEIGHT = "lb_backend_weight" [pool, backend], "A backend's configured weight.";
    own_gauge BACKEND_RANK = "lb_backend_rank" [pool, backend],
        "A backend's rank: 0 for primaries, 1 and more for backups.";
    gauge POOL_USABLE = "lb_pool_usable_backends" [pool], "Backends of a pool that take new connections.";
    gauge POOL_QUEUE = "lb_pool_queue_length" [pool], "Clients that wait for room on a pool's backends.";
    gauge BUILD_INFO = "lb_build_info" [version], "Always 1; the version is its label.";
    gauge TASKS = "lb_tasks" [],
        "Tasks of the workers: one a connection, and a few of each worker and listener.";
    gauge DRAINING = "lb_draining" [], "1 from the signal to stop on, else 0.";
    gauge MAX_CONNECTIONS = "lb_max_connections" [], "The limit of client connections at once.";
    gauge SPLICE_PIPES = "lb_splice_pipes" [state],
        "Pipes for moving bulk inside the kernel, one a worker: open, or refused by the system, whose worker copies.";
    gauge RELAY_ENGINE = "lb_relay_engine" [engine],
        "1 for what hands small sends to the kernel, io_uring or epoll; both, where some workers' rings have failed.";
    counter SPLICED_BYTES = "lb_spliced_bytes_total" [],
        "Bytes moved inside the kernel (splice), of all bytes relayed.";
    gauge CERTIFICATE_EXPIRY = "lb_certificate_expiry_timestamp_seconds" [listener, name],
        "When a listener's certificate expires, in seconds since 1970.";
    own_counter BACKEND_REQUESTS = "lb_backend_requests_total" [pool, backend, code],
        "Requests that a backend has answered, by the class of the status.";
    summary BACKEND_FIRST_BYTE = "lb_backend_first_byte_seconds" [pool, backend],
        "Time until a backend's first byte: from the request, or the client's first byte.";
    seconds CONNECT_DURATION = "lb_connect_duration_seconds" [pool], "Time to connect to a backend.";
    seconds FIRST_BYTE_DURATION = "lb_first_byte_duration_seconds" [pool],
        "Time from accept to the backend's first byte.";
    seconds HTTP_REQUEST_DURATION = "lb_http_request_duration_seconds" [listener],
        "Time from a request's head to the end of its answer.";
    seconds CONNECTION_DURATION = "lb_connection_duration_seconds" [listener], "Life of a client connection.";
}

/// Upper bounds in seconds for [`CONNECT_DURATION`], [`FIRST_BYTE_DURATION`] and [`HTTP_REQUEST_DURATION`]: 100 µs
/// (loopback) to 10 s.
pub const LATENCY_BUCKETS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Upper bounds in seconds for [`CONNECTION_DURATION`]: 1 ms to a day.
pub const LIFE_BUCKETS: &[f64] =
    &[0.001, 0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0];
