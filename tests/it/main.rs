//! The behaviour of `lb`, through the real binary: real sockets, real servers and clients on loopback.
#![allow(clippy::unwrap_used, clippy::float_cmp, reason = "a panic is how a test fails; counters are whole numbers")]

// `#[test]` in all modules.
#[macro_use]
extern crate test_attribute;

use std::process::ExitCode;

mod access_log; // one line a connection
mod access_log_rotation; // SIGUSR1: another file, and no line lost
mod access_rules; // who may connect, and how often
mod addresses; // errors of connects, binds that overlap, names of the machine, zones
mod admin; // health, API, metrics, `lb status`
mod admin_access; // who may ask the admin server for what
mod admin_changes; // drain, disable, enable, reload, shutdown
mod attacks; // clients that mean harm
mod backends_detection; // backends that fail under load, flap, come back slowly
mod backends_discovery; // names, their records, and DNS that fails
mod backends_health; // active checks
mod backends_limits; // connections at once, the queue, source addresses, many backends
mod backends_policies; // weights, hashes, loads
mod backends_system_names; // names by /etc/hosts and /etc/resolv.conf, which change
mod balance; // who gets the next connection
mod blame; // what is a backend's fault, and what is its clients'
mod check_deep; // lb check --deep: what a start would meet on this machine
mod client_source; // backends that see clients' own addresses
mod clock; // a wall clock that jumps
mod commands; // lb status, lb backend, lb reload: output, exit codes, advice
mod config; // broken configurations, and how they are refused
mod connections; // open connections: listed, found, ended
mod demo; // what a newcomer runs first
mod docs; // what documents link to, show as configurations, commands and labels
mod drain; // many connections, readiness and the kernel's queue at a stop
mod engine; // io_uring or epoll: what sends small messages, and what happens where it can't
mod exhaustion; // pipes, splice(2) itself and local ports that are not to be had
mod failover; // backends that fail: retry, ejection, probe, fail open
mod fairness; // one bulk flow beside a thousand small ones
mod figures; // what each backend does, in figures; the last hour; what a scrape is
mod guide; // the recipes of docs/guide/recipes
mod guide_clusters; // the recipes before clusters: Galera, Patroni, RabbitMQ
mod guide_servers; // the recipes before further servers: Redis without Sentinel, MQTT, IMAP
mod harness; // which tests there are, and what this machine lacks for them
mod health_checks; // what is asked, where, how often, and what is said of the answer
mod health_checks_services; // databases, directories and mail servers, each in its own protocol
mod health_checks_tls; // certificates that are good, expired, for others, unknown
mod http_clients; // http mode: load generators, a gigabyte up and down
mod http_exchange; // http mode: bodies, limits, failures, upgrades, drain
mod http_failures; // http mode: responses that count as failures, requests under way at a stop
mod http_node; // http mode: node servers, real clients, WebSocket, events
mod http_origins; // http mode: what real servers see is what was sent and logged
mod http_redirect; // http mode: requests that are sent to https
mod http_seed; // http mode: the headers, and how requests are shared
mod http_smuggling; // http mode: nothing of a request is hidden in another
mod http_trust; // http mode: nothing of a client is taken for the balancer's word
mod http_vectors; // http mode: every recorded message gets its verdict
mod import; // lb import, lb -c nginx.conf: what is translated, listed, refused
mod import_haproxy; // files of HAProxy: it and lb side by side, before the same servers
mod import_nginx; // the same with nginx
mod layering; // the house rules, read from the sources
mod lifecycle; // limits, signals, drain, kinds of listeners
mod log_formats; // access_format, and the level of the log while it runs
mod log_readers; // logs that nobody reads, and nothing waits for
mod log_targets; // syslog, and files that vanish
mod members; // backends added, changed and removed by the API
mod mistakes; // what operators get wrong, and what they are told
mod notify; // what systemd is told
mod observe; // numbers under load, against the log, through Prometheus, of a thousand backends
mod others_bugs; // what has broken other balancers
mod outage; // a pool without a usable backend, seen everywhere; events; clients that fail
mod overrides; // file, environment, flags: who wins
mod page; // the status page in a real browser
mod page_members; // backends added, changed and removed on the status page
mod protocols; // redis and PostgreSQL through the balancer
mod proxy_from_trusted; // clients with and without a PROXY header at one listener
mod proxy_peers; // the PROXY protocol with nginx and HAProxy on either side
mod proxy_protocol; // who the client is, told by whom may tell it
mod relay; // bytes, ends and resets from one side to the other
mod reload; // listeners that come, change and go; a configuration that is refused
mod reload_changes; // what a reload changes, key by key, and what it would
mod reload_http; // kept connections, and requests under way
mod reload_load; // reloads by the hundred while clients come, go and stay
mod reload_pools; // backends that come, change and go; a pool's settings
mod reload_watch; // a file that is followed, however it is replaced
mod roles; // primaries and backups by rank: who serves, and what becomes of open connections
mod roles_databases; // Redis and PostgreSQL whose nodes change their roles
mod roles_return; // a primary that returns, roles that change hands
mod routes; // several protocols on one port: by TLS, by first bytes, by silence
mod seed; // the scenario that it all began with
mod server_name_routes; // routes to the host that a TLS client names
mod sni_routes; // pools by the server name of TLS
mod soak; // much of everything for a while, and nothing left of it
mod splice; // bulk moved by the kernel: stalls, ends, resets, changes of the method
mod steering_commands; // lb backend, lb upgrade, lb stop, lb events
mod support; // builders, servers, clients, patience
mod timeouts; // idle and half-closed connections, slow readers
mod tls_backends; // backends that speak TLS: whose certificates are good, and what is said of the others
mod tls_certificates; // which certificate a client gets, and which clients are let in
mod tls_facts; // what backends and logs are told of a client's TLS
mod tls_files; // certificates and keys: refused, renewed, about to expire
mod tls_handshakes; // handshakes that fail: what the client is told, and what is counted
mod tls_lifecycle; // open TLS connections through reloads, upgrades and a drain
mod tls_peers; // TLS with other people's clients and servers
mod tls_relay; // every byte and every end, with TLS on either side
mod top; // lb top in a terminal: what it shows, its keys, its size
mod upgrade; // another process takes over
mod upgrade_state; // what an upgrade carries on
mod urgent_data; // MSG_OOB: every byte in its place

fn main() -> ExitCode {
    harness::main()
}
