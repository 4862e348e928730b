//! HAProxy and lb with the same haproxy.cfg, one after the other, before the same servers: what clients and servers
//! see.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::support::{
    Dns, Ending, Folder, Origin, Program, Reader, Refusing, Stage, agent, answering, case, connect, get,
    is_in_a_network_of_its_own, nginx, output_of, read_to_end, required, run, send_and_read, teller, told, told_from,
    wait_until, wait_until_equal,
};

/// A client from elsewhere.
const STRANGER: &str = "203.0.113.7";

/// A server of TLS, by nginx: each answer is its name.
fn tls_server(folder: &Folder, address: &str, name: &str) -> Program {
    let at = folder.path().display();
    let server = format!(
        "http {{ $TEMP server {{ listen {address} ssl; \
         ssl_certificate {at}/cert.pem; ssl_certificate_key {at}/key.pem; \
         location / {{ return 200 '{name}'; }} }} }}"
    );
    nginx(folder, address.parse().unwrap(), &server)
}

fn self_signed(folder: &Folder) {
    let at = folder.path().display();
    let made = format!("req -x509 -newkey rsa:2048 -nodes -keyout {at}/key.pem -out {at}/cert.pem -subj /CN=x -days 9");
    output_of(&required("openssl"), &made.split(' ').collect::<Vec<_>>());
}

/// What a GET over TLS is answered; empty where there is no answer.
fn get_over_tls(address: &str) -> String {
    let output =
        Command::new(required("curl")).args(["-ks", "--max-time", "10", &format!("https://{address}/")]).output();
    String::from_utf8(output.unwrap().stdout).unwrap()
}

#[test]
fn a_clusters_ports_lead_to_the_node_for_the_installation_only_while_the_others_fail() {
    if !is_in_a_network_of_its_own(
        "import_haproxy::a_clusters_ports_lead_to_the_node_for_the_installation_only_while_the_others_fail",
    ) {
        return;
    }
    // Checks every ten seconds are too slow for a test.
    let text = case("cluster-install.cfg").replace("inter 10s", "inter 100ms").replace("inter 1s", "inter 100ms");
    let stage = Stage::of("haproxy.cfg", &text, "127.0.0.1:16443");
    let api = "127.0.0.1:16443";
    // nginx's files are named by the port alone.
    let folders = [Folder::new(), Folder::new(), Folder::new()];
    folders.iter().for_each(self_signed);
    let _boot = tls_server(&folders[0], "127.0.0.10:6443", "boot");
    let _boot_of_machines = teller("127.0.0.10:22623", "boot");
    let _ingress = [21, 22].map(|number| teller(&format!("127.0.0.{number}:443"), &number.to_string()));
    let observe = || {
        let nodes = [(1, "127.0.0.11:6443", "m0"), (2, "127.0.0.12:6443", "m1")];
        let nodes = nodes.map(|(at, address, name)| tls_server(&folders[at], address, name));
        let machine = teller("127.0.0.11:22623", "m0");
        wait_until("both nodes are used", || {
            let answers = [get_over_tls(api), get_over_tls(api)];
            answers.contains(&"m0".to_owned()) && answers.contains(&"m1".to_owned())
        });
        let answers: Vec<String> = (0..100).map(|_| get_over_tls(api)).collect();
        let spread = ["m0", "m1", "boot"].map(|name| answers.iter().filter(|answer| *answer == name).count());
        let of_machines = || told("127.0.0.1:12623");
        wait_until_equal("the node is used", &"m0|hello\n".to_owned(), of_machines);
        let clients = (1..=20).map(|number| format!("127.0.2.{number}"));
        let are_kept = clients.into_iter().all(|client| {
            let first = told_from(&client, "127.0.0.1:10443");
            !first.is_empty() && first == told_from(&client, "127.0.0.1:10443")
        });
        drop((nodes, machine));
        wait_until_equal("only the backup is left", &"boot".to_owned(), || get_over_tls(api));
        wait_until_equal("only the backup is left", &"boot|hello\n".to_owned(), of_machines);
        let pages = ["/", "/healthz"].map(|path| get("127.0.0.1:19000".parse().unwrap(), path).status);
        (spread, are_kept, pages)
    };
    let haproxy = stage.haproxy();
    let of_haproxy = observe();
    haproxy.stop();
    let _lb = stage.lb();
    assert_eq!(of_haproxy, ([50, 50, 0], true, [200, 200]));
    assert_eq!(observe(), of_haproxy);
}

#[test]
fn a_cluster_with_one_writer_has_one_at_a_time() {
    if !is_in_a_network_of_its_own("import_haproxy::a_cluster_with_one_writer_has_one_at_a_time") {
        return;
    }
    run("ip", &["address", "add", &format!("{STRANGER}/32"), "dev", "lo"]);
    let text = case("galera-one-writer.cfg").replace("inter 12s", "inter 100ms");
    let stage = Stage::of("haproxy.cfg", &text, "127.0.0.1:13306");
    let database = "127.0.0.1:13306";
    let _servers = [11, 12, 13].map(|number| teller(&format!("127.0.0.{number}:3306"), &number.to_string()));
    let states = [200, 200, 200].map(|status| Arc::new(AtomicU16::new(status)));
    let agents = [11, 12, 13].map(|number| format!("127.0.0.{number}:9200"));
    let _agents: Vec<_> = agents.iter().zip(&states).map(|(address, status)| agent(address, status)).collect();
    let set =
        |wanted: [u16; 3]| states.iter().zip(wanted).for_each(|(state, status)| state.store(status, Ordering::Relaxed));
    let name = || told(database).split('|').next().unwrap().to_owned();
    let observe = || {
        set([200, 200, 200]);
        wait_until_equal("the first writes", &"11".to_owned(), name);
        let of_ten = (0..10).map(|_| name()).collect::<Vec<String>>();
        // A PROXY header of version 2: the signature, version and family, the length, addresses and ports.
        let mut header = proxy_header(database.parse().unwrap());
        header[24..26].fill(0);
        set([503, 200, 200]);
        wait_until_equal("the second writes", &"12".to_owned(), name);
        let of_ten_then = (0..10).map(|_| name()).collect::<Vec<String>>();
        set([503, 503, 200]);
        wait_until_equal("the third writes", &"13".to_owned(), name);
        let mut session = connect(database.parse().unwrap());
        wait_until_equal("the third writes still", &"13".to_owned(), name);
        set([503, 503, 503]);
        wait_until_equal("nobody writes", &String::new(), name);
        set([503, 200, 200]);
        wait_until_equal("the second writes again", &"12".to_owned(), name);
        set([200, 200, 200]);
        wait_until_equal("the first writes again", &"11".to_owned(), name);
        // Its backend was a backup: closed when the first has returned, by HAProxy with either of the two.
        let (received, _): (Vec<u8>, Ending) = read_to_end(&mut session);
        (of_ten, header, of_ten_then, received, told_from(STRANGER, database))
    };
    let haproxy = stage.haproxy();
    let of_haproxy = observe();
    haproxy.stop();
    let _lb = stage.lb();
    assert_eq!(of_haproxy.0, vec!["11".to_owned(); 10]);
    assert_eq!(of_haproxy.4, "", "the stranger is refused");
    assert_eq!(observe(), of_haproxy);
}

/// What the server got before the client's `hello`.
fn proxy_header(address: SocketAddr) -> Vec<u8> {
    let mut client = Reader::of(connect(address));
    client.send("hello\n");
    let (received, _) = read_to_end(&mut client.stream);
    received.strip_prefix(b"11|").unwrap().strip_suffix(b"hello\n").unwrap().to_vec()
}

#[test]
fn servers_of_a_service_in_dns_get_the_same_headers_and_shares() {
    if !is_in_a_network_of_its_own("import_haproxy::servers_of_a_service_in_dns_get_the_same_headers_and_shares") {
        return;
    }
    let origins = ["127.0.0.11:8001", "127.0.0.12:8002"].map(|at| Origin::on(Refusing::at(at.parse().unwrap())));
    let services = ["web1.service.example,8001", "web2.service.example,8002"]
        .map(|target| format!("_web._tcp.service.example,{target},1,10"));
    let records = [("web1.service.example", "127.0.0.11"), ("web2.service.example", "127.0.0.12")];
    let _dns = Dns::serving_at("127.0.0.1:8600".parse().unwrap(), &records, &services);
    let stage = Stage::of("haproxy.cfg", &case("consul-srv.cfg"), "127.0.0.1:18080");
    let address: SocketAddr = "127.0.0.1:18080".parse().unwrap();
    let served = || origins.each_ref().map(|origin| origin.requests().len());
    let observe = || {
        let began = served();
        wait_until("both servers are used", || {
            let _ = get(address, "/");
            served()[0] > began[0] && served()[1] > began[1]
        });
        let before = served();
        for _ in 0..100 {
            assert_eq!(get(address, "/").status, 200);
        }
        let spread = [served()[0] - before[0], served()[1] - before[1]];
        let mut client = Reader::of(connect(address));
        client.send(
            "GET /x HTTP/1.1\r\nHost: Example.COM:1\r\nX-Real-IP: 6.6.6.6\r\nX-Forwarded-For: 7.7.7.7\r\n\
             X-Forwarded-Proto: https\r\n\r\n",
        );
        // The origin answers with what it got. HAProxy adds a line of its own where lb makes one of both.
        let head = client.response().text();
        let of = |name: &str| -> String {
            let lines = head.lines().filter_map(|line| line.split_once(": "));
            let values: Vec<&str> =
                lines.filter(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect();
            values.join(", ")
        };
        (spread, ["host", "x-real-ip", "x-forwarded-for", "x-forwarded-proto"].map(of))
    };
    let haproxy = stage.haproxy();
    let of_haproxy = observe();
    haproxy.stop();
    let _lb = stage.lb();
    assert_eq!(of_haproxy.0, [50, 50]);
    assert_eq!(of_haproxy.1, ["Example.COM:1", "6.6.6.6", "7.7.7.7, 127.0.0.1", "https"]);
    assert_eq!(observe(), of_haproxy);
}

/// What stands before the sections of a test's own.
const DEFAULTS: &str = "\
defaults
  mode tcp
  timeout connect 2s
  timeout client 10s
  timeout server 10s
";

const STAGES: &str = "\
frontend f
  bind 127.0.0.1:18443
  tcp-request connection accept if { src 127.0.1.0/24 }
  tcp-request connection reject if { src 127.0.0.0/22 }
  tcp-request content reject if !{ src 127.0.1.0/24 } !{ src 127.0.8.0/24 }
  default_backend b
backend b
  tcp-request content reject if { src 127.0.1.9 }
  server a 127.0.0.11:25
";

#[test]
fn rules_of_several_stages_let_the_same_clients_in() {
    if !is_in_a_network_of_its_own("import_haproxy::rules_of_several_stages_let_the_same_clients_in") {
        return;
    }
    let _server = teller("127.0.0.11:25", "25");
    let stage = Stage::of("haproxy.cfg", &[DEFAULTS, STAGES].concat(), "127.0.0.1:18443");
    let observe = || {
        ["127.0.0.1", "127.0.1.5", "127.0.1.9", "127.0.8.1", "127.0.9.1"]
            .map(|client| told_from(client, "127.0.0.1:18443"))
    };
    let haproxy = stage.haproxy();
    let of_haproxy = observe();
    haproxy.stop();
    let _lb = stage.lb();
    assert_eq!(of_haproxy, ["", "25|hello\n", "", "25|hello\n", ""]);
    assert_eq!(observe(), of_haproxy);
}

#[test]
fn clients_are_told_apart_by_what_they_say_first() {
    if !is_in_a_network_of_its_own("import_haproxy::clients_are_told_apart_by_what_they_say_first") {
        return;
    }
    const CONF: &str = "\
frontend f
    bind 127.0.0.1:10443
    tcp-request inspect-delay 1s
    tcp-request content accept if { req.ssl_hello_type 1 }
    tcp-request content accept if { req.len gt 0 }
    use_backend ssh if { req.payload(0,4) -m bin 5353482d }
    use_backend socks if { req.payload(0,1) -m bin 05 }
    default_backend web
backend ssh
    server s 127.0.0.11:22
backend socks
    server s 127.0.0.12:1080
backend web
    server s 127.0.0.13:80
";
    let servers = [("11:22", "ssh"), ("12:1080", "socks"), ("13:80", "web")];
    let _servers = servers.map(|(at, name)| answering(&format!("127.0.0.{at}"), name));
    let stage = Stage::of("haproxy.cfg", &[DEFAULTS, CONF].concat(), "127.0.0.1:10443");
    let observe = || {
        [&b"SSH-2.0-x\r\n"[..], b"\x05\x01\x00", b"\x04\x01", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03"].map(|bytes| {
            let mut stream = connect("127.0.0.1:10443".parse().unwrap());
            let (received, _) = send_and_read(&mut stream, [bytes], false);
            String::from_utf8(received).unwrap()
        })
    };
    let haproxy = stage.haproxy();
    let of_haproxy = observe();
    haproxy.stop();
    let _lb = stage.lb();
    assert_eq!(of_haproxy, ["ssh", "socks", "web", "web", "web"]);
    assert_eq!(observe(), of_haproxy);
}
