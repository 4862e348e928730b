//! Backends by name: A, AAAA and SRV records of a real DNS server, followed as they change; DNS that fails.

use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::support::{
    Dns, DnsStub, Fleet, Folder, Lb, Reply, connect, exchange, free_port, greeting, short_read, wait_for_within,
    wait_until, wait_until_equal,
};

/// A balancer in front of `backends`, names that `dns` knows.
fn yaml(backends: &str, dns: std::net::SocketAddr) -> String {
    format!(
        "listen: 127.0.0.1:0\nbackends: [{backends}]\n\
         resolve: {{min_ttl: 100ms, max_ttl: 1s, nameservers: ['{dns}']}}\n"
    )
}

/// The addresses of the first pool's backends.
fn known(lb: &Lb) -> BTreeSet<String> {
    let report = lb.api("/api/v1/pools");
    let backends = report["pools"][0]["backends"].as_array().unwrap();
    backends.iter().map(|backend| backend["address"].as_str().unwrap().to_owned()).collect()
}

fn set(addresses: &[std::net::SocketAddr]) -> BTreeSet<String> {
    addresses.iter().map(ToString::to_string).collect()
}

#[test]
fn every_a_and_aaaa_record_is_a_backend_and_changes_are_followed() {
    let fleet = Fleet::start();
    let dns = Dns::with_hosts(&[("app.test", "127.0.0.2"), ("app.test", "127.0.0.3"), ("app.test", "::1")]);
    let lb = Lb::with_config(&yaml(&format!("app.test:{}", fleet.port()), dns.address())).start();
    assert_eq!(known(&lb), set(&[fleet.at("127.0.0.2"), fleet.at("127.0.0.3"), fleet.at("::1")]));
    let names: BTreeSet<String> = (0..3).map(|_| greeting(lb.address())).collect();
    assert_eq!(names, ["127.0.0.2", "127.0.0.3", "::1"].map(str::to_owned).into());
    let stays = || lb.backend(fleet.at("127.0.0.3"))["total"].clone();
    assert_eq!(stays(), 1);
    dns.change_to(&[("app.test", "127.0.0.3"), ("app.test", "127.0.0.4")]);
    let wanted = set(&[fleet.at("127.0.0.3"), fleet.at("127.0.0.4")]);
    wait_until_equal("backends", &wanted, || known(&lb));
    assert_eq!(stays(), 1, "its counts live on");
    let names: BTreeSet<String> = (0..4).map(|_| greeting(lb.address())).collect();
    assert_eq!(names, ["127.0.0.3", "127.0.0.4"].map(str::to_owned).into());
}

#[test]
fn connections_to_an_address_that_vanished_live_on() {
    let fleet = Fleet::start();
    let dns = Dns::with_hosts(&[("app.test", "127.0.0.2")]);
    let lb = Lb::with_config(&yaml(&format!("app.test:{}", fleet.port()), dns.address())).start();
    let mut client = connect(lb.address());
    assert_eq!(short_read(&mut client), "127.0.0.2");
    dns.change_to(&[("app.test", "127.0.0.3")]);
    wait_until_equal("backends", &set(&[fleet.at("127.0.0.3")]), || known(&lb));
    assert_eq!(greeting(lb.address()), "127.0.0.3");
    assert_eq!(fleet.visited("127.0.0.2").active, 1);
    client.write_all(b"!").unwrap();
    wait_until("the byte arrives and the backend ends", || fleet.visited("127.0.0.2").active == 0);
    drop(client);
}

#[test]
fn the_last_good_set_stays_while_dns_fails() {
    let fleet = Fleet::start();
    let dns = Dns::with_hosts(&[("app.test", "127.0.0.2"), ("app.test", "127.0.0.3")]);
    let lb = Lb::with_config(&yaml(&format!("app.test:{}", fleet.port()), dns.address())).start();
    let both = set(&[fleet.at("127.0.0.2"), fleet.at("127.0.0.3")]);
    dns.change_to(&[("other.test", "127.0.0.9")]);
    wait_until("NXDOMAIN is noticed", || lb.log_lines_with("name can't be resolved; trying again").len() == 1);
    assert_eq!(known(&lb), both);
    dns.change_to(&[("app.test", "127.0.0.3")]);
    wait_until_equal("backends", &set(&[fleet.at("127.0.0.3")]), || known(&lb));
    let address = dns.stop();
    wait_until("the dead server is noticed", || lb.log_lines_with("name can't be resolved; trying again").len() == 2);
    assert_eq!(known(&lb), set(&[fleet.at("127.0.0.3")]));
    assert_eq!(greeting(lb.address()), "127.0.0.3");
    assert_eq!(lb.ask("/readyz").status, 200);
    let _dns = Dns::back_at(address, &[("app.test", "127.0.0.4")]);
    wait_until_equal("backends", &set(&[fleet.at("127.0.0.4")]), || known(&lb));
}

fn ask_by_unix_socket(socket: &Path, path: &str) -> (u16, Value) {
    let mut stream = UnixStream::connect(socket).unwrap();
    let answer = exchange(&mut stream, path).unwrap();
    (answer.status, serde_json::from_str(&answer.body).unwrap_or_default())
}

#[test]
fn a_name_that_does_not_resolve_keeps_nobody_from_starting() {
    let fleet = Fleet::start();
    let dns = Dns::with_hosts(&[("other.test", "127.0.0.9")]);
    let folder = Folder::new();
    let config = folder.write("lb.yaml", yaml(&format!("app.test:{}", fleet.port()), dns.address()));
    // By its unix socket, since a start that waits for /readyz would wait for the name.
    let admin = folder.path().join("admin.sock");
    let admin_flag = format!("unix:{}", admin.display());
    let lb = Lb::with_arguments(&["-c", &config.display().to_string(), "--admin", &admin_flag]).start();
    let (status, report) = ask_by_unix_socket(&admin, "/readyz");
    assert_eq!(status, 503);
    let reason = report["error"].as_str().unwrap();
    assert!(reason.contains("pool default") && reason.contains("names gave no address"), "{reason}");
    assert_eq!(ask_by_unix_socket(&admin, "/healthz").0, 200);
    assert!(crate::support::try_greeting(lb.address()).is_err());
    assert_eq!(lb.only_access()["cause"], "no_backend");
    dns.change_to(&[("app.test", "127.0.0.2")]);
    wait_until("it is ready", || ask_by_unix_socket(&admin, "/readyz").0 == 200);
    assert_eq!(greeting(lb.address()), "127.0.0.2");
}

#[test]
fn a_dns_server_that_never_answers_keeps_nobody_from_starting_or_serving_others() {
    let fleet = Fleet::start();
    // Bound, so that nobody else answers there, and never read.
    let silent = std::net::UdpSocket::bind(free_port()).unwrap();
    let backends = format!("'{}', app.test:{}", fleet.at("127.0.0.2"), fleet.port());
    let lb = Lb::with_config(&yaml(&backends, silent.local_addr().unwrap())).start();
    assert_eq!(greeting(lb.address()), "127.0.0.2");
    assert_eq!(lb.ask("/readyz").status, 200);
}

#[test]
fn srv_records_give_ports_weights_and_backups() {
    let (one, two, spare) = (Fleet::start(), Fleet::start(), Fleet::start());
    let records = [("a.test", "127.0.0.2"), ("b.test", "127.0.0.3"), ("c.test", "127.0.0.4")];
    let service = |target: &str, fleet: &Fleet, priority: u16, weight: u16| {
        format!("_web._tcp.app.test,{target},{},{priority},{weight}", fleet.port())
    };
    let services = [service("a.test", &one, 10, 3), service("b.test", &two, 10, 1), service("c.test", &spare, 20, 1)];
    let dns = Dns::with_services(&records, &services);
    let config = yaml("'srv:_web._tcp.app.test'", dns.address());
    let lb = Lb::with_config(&config).set("failure_detection.failures", 1).start();
    let backend = |fleet: &Fleet, host: &str| lb.backend(fleet.at(host));
    assert_eq!(backend(&one, "127.0.0.2")["weight"], 3);
    assert_eq!(backend(&two, "127.0.0.3")["weight"], 1);
    assert_eq!(backend(&spare, "127.0.0.4")["backup"], true);
    let names: Vec<String> = (0..8).map(|_| greeting(lb.address())).collect();
    let share = |host: &str| names.iter().filter(|name| *name == host).count();
    assert_eq!([share("127.0.0.2"), share("127.0.0.3"), share("127.0.0.4")], [6, 2, 0]);
}

#[test]
fn a_target_of_a_service_that_does_not_resolve_keeps_none_of_the_others_out() {
    let (one, two) = (Fleet::start(), Fleet::start());
    let service = |target: &str, fleet: &Fleet| format!("_web._tcp.app.test,{target},{},10,1", fleet.port());
    let dns = Dns::with_services(&[("a.test", "127.0.0.2")], &[service("gone.test", &two), service("a.test", &one)]);
    let lb = Lb::with_config(&yaml("'srv:_web._tcp.app.test'", dns.address())).start();
    assert_eq!(known(&lb), set(&[one.at("127.0.0.2")]));
    assert_eq!(lb.ask("/readyz").status, 200);
    assert_eq!(greeting(lb.address()), "127.0.0.2");
    let warnings = || lb.log_lines_with("SRV target can't be resolved; trying again");
    wait_until("it is logged", || warnings().len() == 1);
    assert_eq!(warnings()[0]["name"], "gone.test.");
    let both = set(&[one.at("127.0.0.2"), two.at("127.0.0.3")]);
    dns.change_to(&[("a.test", "127.0.0.2"), ("gone.test", "127.0.0.3")]);
    wait_until_equal("backends", &both, || known(&lb));
    assert_eq!(warnings().len(), 1, "logged once, however often it was asked for");
    // It fails again: its address stays, as that of any name does, and the other's changes are followed.
    dns.change_to(&[("a.test", "127.0.0.4")]);
    let both = set(&[one.at("127.0.0.4"), two.at("127.0.0.3")]);
    wait_until_equal("backends", &both, || known(&lb));
    wait_until("it is logged again", || warnings().len() == 2);
}

#[test]
fn a_zone_that_never_answers_delays_no_other_name() {
    let fleet = Fleet::start();
    let silent = std::net::UdpSocket::bind(free_port()).unwrap();
    let dns = Dns::with_upstream_for_silent(&[("app.test", "127.0.0.2")], silent.local_addr().unwrap());
    let port = fleet.port();
    let lb = Lb::with_config(&yaml(&format!("app.silent:{port}, app.test:{port}"), dns.address())).start();
    // A resolver gives up after 5 seconds at the earliest.
    let soon = Duration::from_secs(3);
    let is_followed = |host: &str| (known(&lb) == set(&[fleet.at(host)])).then_some(());
    wait_for_within(soon, "the other name resolves", || is_followed("127.0.0.2"));
    dns.change_to(&[("app.test", "127.0.0.3")]);
    wait_for_within(soon, "its change is followed", || is_followed("127.0.0.3"));
    assert!(lb.log_lines_with("name can't be resolved; trying again").is_empty(), "it is being asked for");
}

#[test]
fn metrics_of_addresses_that_vanished_vanish_too() {
    let fleet = Fleet::start();
    let dns = Dns::with_hosts(&[("app.test", "127.0.0.2")]);
    let lb = Lb::with_config(&yaml(&format!("app.test:{}", fleet.port()), dns.address())).start();
    greeting(lb.address());
    let series = lb.metrics().samples.len();
    for host in 3..7 {
        let address = format!("127.0.0.{host}");
        dns.change_to(&[("app.test", &address)]);
        wait_until_equal("backends", &set(&[fleet.at(&address)]), || known(&lb));
        let metrics = lb.metrics();
        assert_eq!(metrics.label_values("backend_up", "backend"), [fleet.at(&address).to_string()]);
        assert_eq!(metrics.samples.len(), series, "pods that come and go must not add up");
    }
    assert_eq!(lb.metrics().sum("connections_accepted_total", &[]), 1.0, "what is still there stays");
}

#[test]
fn names_with_underscores_resolve() {
    let fleet = Fleet::start();
    let service = format!("_web._tcp.my_app.test,node_1.test,{},10,1", fleet.port());
    let dns = Dns::with_services(&[("my_app.test", "127.0.0.2"), ("node_1.test", "127.0.0.3")], &[service]);
    let backends = format!("my_app.test:{}, 'srv:_web._tcp.my_app.test'", fleet.port());
    let lb = Lb::with_config(&yaml(&backends, dns.address())).start();
    assert_eq!(known(&lb), set(&[fleet.at("127.0.0.2"), fleet.at("127.0.0.3")]));
}

#[test]
fn an_srv_record_with_port_0_or_without_a_target_is_left_out_and_reported() {
    let fleet = Fleet::start();
    let service = |target: &str, port: u16| format!("_web._tcp.app.test,{target},{port},10,1");
    let services = [service("a.test", 0), service("b.test", fleet.port())];
    let dns = Dns::with_services(&[("a.test", "127.0.0.2"), ("b.test", "127.0.0.3")], &services);
    let lb = Lb::with_config(&yaml("'srv:_web._tcp.app.test'", dns.address())).start();
    assert_eq!(known(&lb), set(&[fleet.at("127.0.0.3")]));
    let report = &lb.api("/api/v1/pools")["pools"][0]["unresolved"];
    assert_eq!(report[0]["name"], "a.test.");
    assert!(report[0]["error"].as_str().unwrap().contains("port 0"), "{report}");
    assert_eq!(lb.wait_for_log("SRV target can't be resolved; trying again", 1).len(), 1);
}

#[test]
fn each_name_is_asked_for_once_a_family_at_the_start() {
    let fleet = Fleet::start();
    let dns =
        DnsStub::that(|_, kind| if kind == "A" { Reply::V4(vec![[127, 0, 0, 2].into()]) } else { Reply::Nothing });
    let port = fleet.port();
    let config = yaml(&format!("a.test:{port}, b.test:{port}"), dns.address());
    let lb = Lb::with_config(&config).set("resolve.min_ttl", "1m").set("resolve.max_ttl", "1m").start();
    assert_eq!(greeting(lb.address()), "127.0.0.2");
    let asked = dns.asked();
    assert_eq!(asked.len(), 4, "{asked:?}");
    assert!(asked.values().all(|times| *times == 1), "{asked:?}");
}

#[test]
fn a_family_that_is_not_answered_for_delays_the_other_by_a_moment_and_is_added_when_it_comes() {
    let fleet = Fleet::start();
    let (answer, may_answer) = std::sync::mpsc::channel::<()>();
    let last = Arc::new(AtomicU8::new(2));
    let now = last.clone();
    let dns = DnsStub::that(move |_, kind| match kind {
        "A" => Reply::V4(vec![[127, 0, 0, now.load(Ordering::Relaxed)].into()]),
        _ if may_answer.try_recv().is_ok() => Reply::V6(vec![std::net::Ipv6Addr::LOCALHOST]),
        _ => Reply::Silence,
    });
    let backends = format!("'{}', app.test:{}", fleet.at("127.0.0.9"), fleet.port());
    let lb = Lb::with_config(&yaml(&backends, dns.address())).start();
    // A resolver gives a family up after 15 seconds.
    let one = set(&[fleet.at("127.0.0.9"), fleet.at("127.0.0.2")]);
    let soon = Duration::from_secs(10);
    wait_for_within(soon, "the one family is used", || (known(&lb) == one).then_some(()));
    last.store(3, Ordering::Relaxed);
    let one = set(&[fleet.at("127.0.0.9"), fleet.at("127.0.0.3")]);
    wait_for_within(soon, "its changes are followed", || (known(&lb) == one).then_some(()));
    answer.send(()).unwrap();
    let both = set(&[fleet.at("127.0.0.9"), fleet.at("127.0.0.3"), fleet.at("::1")]);
    wait_until_equal("backends", &both, || known(&lb));
}

#[test]
fn only_the_wanted_family_is_asked_for_and_used() {
    let fleet = Fleet::start();
    let dns = DnsStub::that(|_, kind| match kind {
        "A" => Reply::V4(vec![[127, 0, 0, 2].into()]),
        _ => Reply::V6(vec![std::net::Ipv6Addr::LOCALHOST]),
    });
    let config = yaml(&format!("app.test:{}", fleet.port()), dns.address());
    for (family, address) in [("ipv4", "127.0.0.2"), ("ipv6", "::1")] {
        let lb = Lb::with_config(&config).set("resolve.family", family).start();
        assert_eq!(known(&lb), set(&[fleet.at(address)]));
        let other = if family == "ipv4" { "AAAA" } else { "A" };
        if family == "ipv4" {
            assert!(!dns.asked().contains_key(&("app.test".to_owned(), other)), "{:?}", dns.asked());
        }
    }
}

#[test]
fn a_truncated_answer_is_used_where_the_server_has_no_tcp() {
    let fleet = Fleet::start();
    let dns = DnsStub::that(|_, kind| match kind {
        "A" => Reply::Truncated(vec![[127, 0, 0, 2].into(), [127, 0, 0, 3].into()]),
        _ => Reply::Nothing,
    });
    let lb = Lb::with_config(&yaml(&format!("app.test:{}", fleet.port()), dns.address())).start();
    wait_until_equal("backends", &set(&[fleet.at("127.0.0.2"), fleet.at("127.0.0.3")]), || known(&lb));
}
