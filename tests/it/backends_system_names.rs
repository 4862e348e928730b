//! Names by the system's own files: hosts(5) and resolv.conf(5), which change while the balancer runs.

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::symlink;

use crate::support::{
    DnsStub, Fleet, Folder, Lb, Reply, greeting, is_in_a_network_of_its_own, put_in_place_of, wait_until,
    wait_until_equal,
};

/// The addresses of the first pool's backends.
fn known(lb: &Lb) -> BTreeSet<String> {
    let report = lb.api("/api/v1/pools");
    let backends = report["pools"][0]["backends"].as_array().unwrap();
    backends.iter().map(|backend| backend["address"].as_str().unwrap().to_owned()).collect()
}

fn set(addresses: &[SocketAddr]) -> BTreeSet<String> {
    addresses.iter().map(ToString::to_string).collect()
}

/// A name server at port 53 that knows one name.
fn name_server(at: &str) -> DnsStub {
    let at = format!("{at}:53").parse().unwrap();
    DnsStub::at(at, |name, kind| match (name, kind) {
        ("app.corp.test", "A") => Reply::V4(vec![[127, 0, 0, 2].into()]),
        _ => Reply::Nothing,
    })
}

#[test]
fn changes_of_the_hosts_file_and_of_the_name_servers_are_followed() {
    const THIS: &str = "backends_system_names::changes_of_the_hosts_file_and_of_the_name_servers_are_followed";
    if !is_in_a_network_of_its_own(THIS) {
        return;
    }
    let fleet = Fleet::start();
    let folder = Folder::new();
    // As Kubernetes mounts what it changes: resolv.conf is a link by way of a folder that is a link, too.
    for (version, server) in [("v1", "127.0.0.9"), ("v2", "127.0.0.53")] {
        fs::create_dir(folder.path().join(version)).unwrap();
        folder.write(&format!("{version}/resolv.conf"), format!("search corp.test\nnameserver {server}\n"));
    }
    symlink("v1", folder.path().join("data")).unwrap();
    symlink("data/resolv.conf", folder.path().join("resolv.conf")).unwrap();
    let hosts = folder.write("hosts", "127.0.0.3 my_host  other\n");
    put_in_place_of("/etc", folder.path());
    // A name server that is dead: it is bound, and never read.
    let _dead = UdpSocket::bind("127.0.0.9:53").unwrap();
    let dns = name_server("127.0.0.53");
    let port = fleet.port();
    let config = format!("listen: 127.0.0.1:0\nbackends: ['app:{port}', 'my_host:{port}']\n");
    // Not checked at its end: at its start it has sockets to the dead server, which it has not later.
    let lb = Lb::with_config(&config).set("resolve.max_ttl", "1h").unwatched().start();
    assert_eq!(known(&lb), set(&[fleet.at("127.0.0.3")]));
    symlink("v2", folder.path().join("next")).unwrap();
    fs::rename(folder.path().join("next"), folder.path().join("data")).unwrap();
    wait_until_equal("the new server is asked", &set(&[fleet.at("127.0.0.2"), fleet.at("127.0.0.3")]), || known(&lb));
    assert!(dns.asked().contains_key(&("app.corp.test".to_owned(), "A")));
    assert!(!dns.asked().keys().any(|(name, _)| name.contains("my_host")), "{:?}", dns.asked());
    fs::write(&hosts, "127.0.0.4 MY_HOST\n").unwrap();
    wait_until_equal("the hosts file is read", &set(&[fleet.at("127.0.0.2"), fleet.at("127.0.0.4")]), || known(&lb));
}

#[test]
fn names_of_the_hosts_file_need_no_name_server() {
    if !is_in_a_network_of_its_own("backends_system_names::names_of_the_hosts_file_need_no_name_server") {
        return;
    }
    let fleet = Fleet::start();
    let folder = Folder::new();
    folder.write("hosts", "127.0.0.2 app\n");
    put_in_place_of("/etc", folder.path());
    let lb = Lb::with_backends(&[&format!("app:{}", fleet.port()), &format!("other:{}", fleet.port())]).start();
    assert_eq!(greeting(lb.address()), "127.0.0.2");
    let unresolved = &lb.api("/api/v1/pools")["pools"][0]["unresolved"];
    assert!(unresolved[0]["error"].as_str().unwrap().contains("/etc/resolv.conf"), "{unresolved}");
}

#[test]
fn names_give_a_pool_no_more_backends_than_its_tables_can_hold() {
    const NAMES: usize = 17;
    const ADDRESSES: usize = 1024;
    if !is_in_a_network_of_its_own("backends_system_names::names_give_a_pool_no_more_backends_than_its_tables_can_hold")
    {
        return;
    }
    let fleet = Fleet::start();
    let folder = Folder::new();
    let line = |number: usize| format!("127.1.{}.{} name{}\n", number / 250, number % 250 + 1, number / ADDRESSES);
    let lines: String = (0..NAMES * ADDRESSES).map(line).collect();
    put_in_place_of("/etc/hosts", &folder.write("hosts", lines));
    let names: Vec<String> = (0..NAMES).map(|number| format!("name{number}:{}", fleet.port())).collect();
    let config = format!("listen: 127.0.0.1:0\npolicy: source_hash\nbackends: {names:?}\n");
    // Without the admin server, and so without the checks of its end: a scrape of so many takes a debug build long.
    let config = folder.write("lb.yaml", config).display().to_string();
    let lb = Lb::with_arguments(&["-c", &config, "--admin", "off"]).unwatched().start();
    let told = || lb.log_lines_with("too many backends");
    wait_until("it is told", || !told().is_empty());
    assert_eq!(told()[0]["used"], 16_384);
    assert!(greeting(lb.address()).starts_with("127.1."));
}
