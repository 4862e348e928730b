//! What the tests are written with: the balancer as a process, servers and clients of every temper, and patience.

mod admin;
mod authority;
mod browser;
mod clients;
mod dns;
mod dns_stub;
mod files;
mod fleet;
mod http;
mod lb;
mod lines;
mod load;
mod metrics;
mod network;
mod node;
mod notify;
mod origin;
mod packages;
mod pairs;
mod pattern;
mod peers;
mod ports;
mod process;
mod programs;
mod servers;
mod services;
mod sockets;
mod stage;
mod terminal;
mod tls_client;
mod tls_end;
mod vectors;

use std::fmt::Debug;
use std::time::{Duration, Instant};

pub use admin::{RELOAD, assert_api_error, backend_path, change_backend, greeter, start_with_file};
pub use authority::{Authority, openssl};
pub use browser::Browser;
pub use clients::{
    Ending, bound, connect, connect_and_read, knock, read_to_end, reset, send_and_read, short_read,
    shrink_receive_buffer,
};
pub use dns::Dns;
pub use dns_stub::{DnsStub, Reply};
pub use files::Folder;
pub use fleet::{
    Fleet, Flooded, connect_from, greeting, greeting_unix_socket, refusing_at, try_connect_from, try_greeting,
};
pub use http::{ask_from, exchange, get, get_from, post, request};
pub use lb::{Lb, LbBuilder, lb_command, ordinary_user, run_to_end};
pub use load::Load;
pub use metrics::Metrics;
pub use network::{Network, is_in_a_network_of_its_own, put_in_place_of, run, switch_ipv6_off};
pub use node::{Node, ONE_CHECK, ROLE_CHECK, closed_for, of_one_rank, ranked, session, wait_for_state};
pub use notify::Notifications;
pub use origin::{Message, Origin, Reader};
pub use packages::{missing_packages, required};
pub use pairs::{Pair, Pairs, send_portions_until_stuck, send_until_stuck};
pub use pattern::{receive_pattern, send_pattern, send_pattern_from, send_pattern_until_blocked};
pub use peers::{haproxy, nginx, tls_nginx};
pub use ports::{Refusing, free_port};
pub use process::{allow_open_files, cpu_time, has_ended, open_files, resident_bytes};
pub use programs::{Program, output_of, python_http_server, python_http_server_at, run_to_output};
pub use servers::Server;
pub use services::{
    Mariadb, PASSWORD, as_user, database_at, give_to, mail_server, postgres, postgres_replica, postgres_with, psql,
    redis, rsyslog, slapd,
};
pub use sockets::{has_keepalive_at_peer, is_listened_on};
pub use stage::{Stage, agent, answering, case, teller, told, told_from};
pub use terminal::Terminal;
pub use tls_client::{Seen, shake_hands};
pub use tls_end::{TlsEnd, TlsEnding, tls_server};
pub use vectors::{Vector, Verdict, client_hellos, proxy_headers};

/// How the relay can be told to move bytes: `relay.mode`.
pub const METHODS: [&str; 3] = ["auto", "copy", "splice"];

/// Nothing here takes this long unless it hangs, even on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(5);

/// Waits until `condition` gives a value; fails with `what` after [`PATIENCE`].
#[track_caller]
pub fn wait_for<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    wait_for_within(PATIENCE, what, condition)
}

/// Waits until `condition` gives a value; fails with `what` when `limit` is over.
#[track_caller]
pub fn wait_for_within<T>(limit: Duration, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {limit:?} in vain: {what}");
        std::thread::sleep(PAUSE);
    }
}

/// Waits until `condition` holds.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(what, || condition().then_some(()));
}

/// Waits until `observe` gives `expected`; the failure shows what it gave at last.
#[track_caller]
pub fn wait_until_equal<T: PartialEq + Debug>(what: &str, expected: &T, mut observe: impl FnMut() -> T) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let seen = observe();
        if seen == *expected {
            return;
        }
        assert!(Instant::now() < deadline, "{what}: still {seen:?} after {PATIENCE:?}, not {expected:?}");
        std::thread::sleep(PAUSE);
    }
}
