//! `source: client`: backends see clients' own addresses. In three networks: of the client, of lb, of the backend.

use std::process::{Command, Stdio};

use crate::support::{Folder, Lb, Network, is_in_a_network_of_its_own, required, run, run_to_end, wait_for};

/// Accepts at an address, and tells each client which address it comes from; over HTTP, if it asks for that.
const SERVER: &str = r"
import socket, sys, threading
def serve(listener):
    while True:
        connection, peer = listener.accept()
        threading.Thread(target=answer, args=(connection, peer), daemon=True).start()
def answer(connection, peer):
    text = ('%s %d' % peer[:2]).encode()
    while True:
        said = connection.recv(4096)
        if said.startswith(b'GET '):
            connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s' % (len(text), text))
            continue
        if said:
            connection.sendall(text)
        return connection.close()
for ip in sys.argv[1:]:
    family = socket.AF_INET6 if ':' in ip else socket.AF_INET
    listener = socket.create_server((ip, 7000), family=family)
    threading.Thread(target=serve, args=(listener,)).start()
";

/// Connects from an address and says a word; prints its own address and the answer.
const CLIENT: &str = r"
import socket, sys
connection = socket.create_connection((sys.argv[2], int(sys.argv[3])), timeout=15, source_address=(sys.argv[1], 0))
connection.sendall(b'hello')
connection.shutdown(socket.SHUT_WR)
print(connection.recv(4096).decode(), end='')
";

/// What the backend says to a client of this network.
fn hears(clients: &Network, from: &str, lb: &str, port: u16) -> String {
    let mut command = clients.command("python3");
    let output = command.args(["-c", CLIENT, from, lb, &port.to_string()]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Whatever comes from the backends' network is for this machine, whomever it is addressed to.
fn route_answers_here() {
    for family in ["-4", "-6"] {
        run("ip", &[family, "rule", "add", "iif", "backends", "lookup", "100"]);
        run("ip", &[family, "route", "add", "local", "default", "dev", "lo", "table", "100"]);
    }
}

const NAMED: &str = "client_source::backends_see_the_clients_addresses_in_both_families";

#[test]
fn backends_see_the_clients_addresses_in_both_families() {
    required("nsenter");
    if !is_in_a_network_of_its_own(NAMED) {
        return;
    }
    let (clients, backends) =
        (Network::joined("clients", "10.1.0", "fd01"), Network::joined("backends", "10.2.0", "fd02"));
    route_answers_here();
    let mut server = backends.command("python3");
    let mut server = server.args(["-c", SERVER, "10.2.0.2", "fd02::2"]).spawn().unwrap();
    let pool = |address: &str| {
        format!("{{backends: ['{address}:7000'], source: client, health_check: {{interval: 50ms, rise: 1, fall: 1}}}}")
    };
    let lb = Lb::with_config(&format!(
        "listeners:\n  v4: {{bind: '10.1.0.1:0', pool: v4}}\n  v6: {{bind: '[fd01::1]:0', pool: v6}}\n  \
         mixed: {{bind: '10.1.0.1:0', pool: v6}}\n  http: {{bind: '10.1.0.1:0', mode: http, pool: v4}}\n\
         pools:\n  v4: {}\n  v6: {}\n",
        pool("10.2.0.2"),
        pool("[fd02::2]")
    ))
    .start();
    wait_for("the health checks, which come from lb itself, pass", || {
        (lb.metrics().sum("pool_usable_backends", &[]) == 2.0).then_some(())
    });
    for (listener, at, ips) in [("v4", "10.1.0.1", ["10.1.0.2", "10.1.0.3"]), ("v6", "fd01::1", ["fd01::2", "fd01::3"])]
    {
        for ip in ips {
            let seen = hears(&clients, ip, at, lb.address_of(listener).port());
            let (seen, port) = seen.split_once(' ').expect("an address and a port");
            assert_eq!(seen, ip);
            assert!(port.parse::<u16>().unwrap() >= 1024, "{port}");
        }
    }
    // In http mode no client has another's connection.
    for ip in ["10.1.0.2", "10.1.0.3", "10.1.0.2"] {
        let url = format!("http://{}/", lb.address_of("http"));
        let arguments = ["--silent", "--max-time", "15", "--noproxy", "*", "--interface", ip, &url, &url];
        let output = clients.command("curl").args(arguments).output().unwrap();
        let answers = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(answers.matches(&format!("{ip} ")).count(), 2, "{answers}");
    }
    // An IPv4 client has no address for a backend of IPv6. That is no fault of the backend.
    let port = lb.address_of("mixed").port();
    let output = clients.command("python3").args(["-c", CLIENT, "10.1.0.2", "10.1.0.1", &port.to_string()]).output();
    assert!(!output.unwrap().status.success());
    let failures = |reason| lb.metrics().sum("backend_connect_failures_total", &[("reason", reason)]);
    assert_eq!((failures("local"), failures("unreachable")), (1.0, 0.0));
    assert_eq!(lb.metrics().sum("pool_usable_backends", &[]), 2.0);
    drop(lb);
    server.kill().unwrap();
    server.wait().unwrap();
}

#[test]
fn a_route_that_is_missing_is_told_of() {
    if !is_in_a_network_of_its_own("client_source::a_route_that_is_missing_is_told_of") {
        return;
    }
    let start = || {
        let yaml = "listen: 127.0.0.1:0\nbackends: ['127.0.0.1:3001', '[::1]:3001']\nsource: client\n";
        Lb::with_config(yaml).start()
    };
    let warning = "`source: client`: no route brings answers to clients' addresses here; add a `local` route and a \
                   rule for it (docs/guide/client-address.md)";
    let families = |lb: &Lb| {
        let lines = lb.log_lines_with(warning);
        lines.iter().map(|line| line["family"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let lb = start();
    lb.wait_for_log(warning, 2);
    assert_eq!(families(&lb), ["IPv4", "IPv6"]);
    drop(lb);
    run("ip", &["-4", "route", "add", "local", "default", "dev", "lo", "table", "100"]);
    let lb = start();
    lb.wait_for_log("accepting connections", 1);
    assert_eq!(families(&lb), ["IPv6"]);
}

#[test]
fn without_the_capability_nothing_starts() {
    let folder = Folder::new();
    let yaml = "listen: 127.0.0.1:0\nbackends: [127.0.0.1:3001]\nsource: client\nadmin: {bind: off}\n";
    let file = folder.write("lb.yaml", yaml).display().to_string();
    let lb = env!("CARGO_BIN_EXE_lb");
    let mut command = Command::new(lb);
    if rustix::process::geteuid().is_root() {
        command = Command::new(required("setpriv"));
        command.args(["--bounding-set=-net_admin,-net_raw", lb]);
    }
    let output = command.args(["-c", &file]).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("pool `default`: `source: client` needs the capability CAP_NET_ADMIN: start lb"), "{said}");
    // Whether it is right says a machine without it, too.
    assert_eq!(run_to_end(folder.path(), &["check"], &[]).status.code(), Some(0));
}
