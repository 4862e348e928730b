//! nginx and lb with the same nginx.conf, one after the other, before the same servers: what clients and servers see.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::support::{
    Folder, Message, Origin, Reader, Refusing, Server, Stage, answering, case, connect, get,
    is_in_a_network_of_its_own, output_of, read_to_end, required, run, send_and_read, teller, told, told_from,
    wait_until_equal,
};

/// A client from elsewhere.
const STRANGER: &str = "203.0.113.7";

fn origin_at(address: &str) -> Origin {
    Origin::on(Refusing::at(address.parse().unwrap()))
}

/// What requests are made of that go to both, byte for byte.
const REQUESTS: [&str; 8] = [
    "GET / HTTP/1.1\r\nHost: Example.COM:8080\r\n",
    "GET /a?b HTTP/1.1\r\nHost: example.com\r\n",
    "GET /a HTTP/1.1\r\nHost: [::1]:81\r\n",
    "GET http://Other.example:99/x?y HTTP/1.1\r\nHost: example.com\r\n",
    "GET / HTTP/1.1\r\nHost: h\r\nX-Real-IP: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nx-real-ip: 7.7.7.7\r\n",
    "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 6.6.6.6\r\n",
    "HEAD / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 6.6.6.6, 7.7.7.7\r\nX-Forwarded-Host: other\r\n",
    "DELETE /%41//b/../c HTTP/1.1\r\nHost: h\r\nX-Other: kept\r\n",
];

fn send_requests(address: SocketAddr) {
    for request in REQUESTS {
        let mut client = Reader::of(connect(address));
        client.send(format!("{request}Connection: close\r\n\r\n"));
        let _ = read_to_end(&mut client.stream);
    }
}

/// The lines of these headers as they came, and the first line without its version.
fn lines<'a>(request: &'a Message, names: &[&str]) -> Vec<&'a str> {
    let is_one = |line: &&str| names.iter().any(|name| line.split(':').next().unwrap().eq_ignore_ascii_case(name));
    let mut lines: Vec<&str> = request.head.lines().skip(1).filter(is_one).collect();
    lines.sort_unstable();
    lines.insert(0, request.head.lines().next().unwrap().rsplit_once(' ').unwrap().0);
    lines
}

/// How the requests that an origin got in the second half differ from those of the first: not at all.
#[track_caller]
fn assert_same_halves(requests: &[Message], names: &[&str]) {
    let (first, second) = requests.split_at(requests.len() / 2);
    let of = |half: &[Message]| -> Vec<Vec<String>> {
        let mut all: Vec<Vec<String>> =
            half.iter().map(|request| lines(request, names).into_iter().map(str::to_owned).collect()).collect();
        all.sort();
        all
    };
    assert_eq!(of(first), of(second));
}

#[test]
fn the_seeds_nginx_conf_runs_as_it_is() {
    if !is_in_a_network_of_its_own("import_nginx::the_seeds_nginx_conf_runs_as_it_is") {
        return;
    }
    let origins = ["127.0.0.1:3001", "127.0.0.1:3002"].map(origin_at);
    let stage = Stage::of("nginx.conf", &case("seed.conf"), "127.0.0.1:8080");
    let address = "127.0.0.1:8080".parse().unwrap();
    let seen = || origins.each_ref().map(|origin| origin.requests().len());
    let ten_gets = || {
        let before = seen();
        for _ in 0..10 {
            output_of(&required("curl"), &["-sSf", "--max-time", "10", "http://127.0.0.1:8080/"]);
        }
        [seen()[0] - before[0], seen()[1] - before[1]]
    };
    let nginx = stage.nginx();
    assert_eq!(ten_gets(), [5, 5]);
    send_requests(address);
    nginx.stop();
    let lb = stage.lb();
    assert_eq!(ten_gets(), [5, 5]);
    send_requests(address);
    assert_eq!(lb.api("/api/v1/status")["connections"]["max"], 1024);
    let requests: Vec<Message> = {
        let all = origins.each_ref().map(Origin::requests);
        let half = |half: usize| {
            all.iter().flat_map(move |of_one| of_one[half * of_one.len() / 2..(half + 1) * of_one.len() / 2].to_vec())
        };
        half(0).chain(half(1)).collect()
    };
    assert_eq!(requests.len(), 2 * (10 + REQUESTS.len()));
    assert_same_halves(&requests, &["Host", "X-Real-IP", "X-Forwarded-For", "X-Forwarded-Proto", "X-Other"]);
}

#[test]
fn a_plain_reverse_proxy_sets_the_same_headers_and_uses_its_backup() {
    if !is_in_a_network_of_its_own("import_nginx::a_plain_reverse_proxy_sets_the_same_headers_and_uses_its_backup") {
        return;
    }
    let addresses = ["127.0.0.11:8080", "127.0.0.12:8080", "127.0.0.13:8080"];
    let stage = Stage::of("nginx.conf", &case("http-headers.conf"), "127.0.0.1:10080");
    let address = "127.0.0.1:10080".parse().unwrap();
    let observe = || {
        let mut origins = Vec::from(addresses.map(origin_at));
        for _ in 0..100 {
            assert_eq!(get(address, "/").status, 200);
        }
        let spread: Vec<usize> = origins.iter().map(|origin| origin.requests().len()).collect();
        send_requests(address);
        let headers: Vec<Message> = origins[..2].iter().flat_map(|origin| origin.requests()[50..].to_vec()).collect();
        let backup = origins.pop().unwrap();
        origins.into_iter().for_each(Origin::die);
        for _ in 0..10 {
            assert_eq!(get(address, "/").status, 200);
        }
        (spread, headers, backup.requests().len())
    };
    let nginx = stage.nginx();
    let (spread, headers, by_backup) = observe();
    nginx.stop();
    let _lb = stage.lb();
    let (spread_of_lb, headers_of_lb, by_backup_of_lb) = observe();
    assert_eq!((&spread, by_backup), (&vec![50, 50, 0], 10));
    assert_eq!((spread_of_lb, by_backup_of_lb), (spread, by_backup));
    let names = ["Host", "X-Real-IP", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Other"];
    // $http_host is the Host line to nginx, even where the request line has another host (RFC 9112, 3.2.2).
    let has_one_host = |request: &Message| !request.head.starts_with("GET /x?y");
    let all = [headers, headers_of_lb].concat();
    assert_same_halves(&all.into_iter().filter(has_one_host).collect::<Vec<_>>(), &names);
}

#[test]
fn a_stream_spreads_by_weight_and_connections_and_has_a_health_page() {
    if !is_in_a_network_of_its_own("import_nginx::a_stream_spreads_by_weight_and_connections_and_has_a_health_page") {
        return;
    }
    let stage = Stage::of("nginx.conf", &case("kube-api-stream.conf"), "127.0.0.1:16443");
    let servers = || -> Vec<Server> {
        (11..=13).map(|number| teller(&format!("127.0.0.{number}:6443"), &number.to_string())).collect()
    };
    // Nothing else comes any more once these connections have.
    let observe = |mut servers: Vec<Server>, so_far: usize| {
        assert!(told("127.0.0.1:16443").ends_with("|hello\n"));
        let sum = || servers.iter().map(Server::accepted).sum();
        wait_until_equal("connections before", &(so_far + 1), sum);
        let began: Vec<usize> = servers.iter().map(Server::accepted).collect();
        let accepted = |servers: &[Server]| -> Vec<usize> {
            servers.iter().zip(&began).map(|(server, began)| server.accepted() - began).collect()
        };
        let mut clients = Vec::new();
        for number in 1..=100 {
            clients.push(connect("127.0.0.1:16443".parse().unwrap()));
            wait_until_equal("connections that have come", &number, || accepted(&servers).iter().sum());
        }
        let spread = accepted(&servers);
        drop(clients);
        servers.pop();
        let answers: Vec<String> = (0..20).map(|_| told("127.0.0.1:16443")).collect();
        let are_of_others = answers.iter().all(|answer| answer == "11|hello\n" || answer == "12|hello\n");
        (spread, are_of_others, get("127.0.0.1:18081".parse().unwrap(), "/healthz").status)
    };
    let of_nginx = {
        let (servers, _nginx) = (servers(), stage.nginx());
        // One looked whether it accepts.
        observe(servers, 1)
    };
    assert_eq!(of_nginx, (vec![25, 25, 50], true, 200));
    let (servers, _lb) = (servers(), stage.lb());
    assert_eq!(observe(servers, 0), of_nginx);
}

#[test]
fn a_mail_servers_ports_send_the_same_proxy_header_and_let_the_same_clients_in() {
    if !is_in_a_network_of_its_own(
        "import_nginx::a_mail_servers_ports_send_the_same_proxy_header_and_let_the_same_clients_in",
    ) {
        return;
    }
    run("ip", &["address", "add", &format!("{STRANGER}/32"), "dev", "lo"]);
    let _servers = [25, 465, 993, 4190].map(|port| teller(&format!("127.0.0.11:{port}"), &port.to_string()));
    let stage = Stage::of("nginx.conf", &case("mail-stream.conf"), "127.0.0.1:10025");
    let observe = || {
        let clients = ["127.0.0.1", "127.0.0.9", STRANGER];
        let ports = [10025, 10465, 10993, 14190];
        let all = clients.iter().flat_map(|client| ports.map(|port| told_from(client, &format!("{STRANGER}:{port}"))));
        all.collect::<Vec<String>>()
    };
    let nginx = stage.nginx();
    let of_nginx = observe();
    nginx.stop();
    let _lb = stage.lb();
    assert_eq!(of_nginx[0], format!("25|PROXY TCP4 127.0.0.1 {STRANGER} PORT 10025\r\nhello\n"));
    assert_eq!((of_nginx[3].as_str(), of_nginx[11].as_str()), ("4190|hello\n", ""), "the stranger is refused");
    assert_eq!(observe(), of_nginx);
}

/// The bytes with which a client of TLS begins that asks for `name`.
fn client_hello(name: &str) -> Vec<u8> {
    client_hello_offering(name, &[])
}

/// The same of one that offers these protocols.
fn client_hello_offering(name: &str, protocols: &[&str]) -> Vec<u8> {
    let mut config = ClientConfig::builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut hello = Vec::new();
    ClientConnection::new(Arc::new(config), name).unwrap().write_tls(&mut hello).unwrap();
    hello
}

#[test]
fn a_map_by_server_name_leads_to_the_same_servers() {
    if !is_in_a_network_of_its_own("import_nginx::a_map_by_server_name_leads_to_the_same_servers") {
        return;
    }
    let servers = [("11:4444", "web"), ("12:5349", "turn"), ("13:443", "shop"), ("14:443", "shop")];
    let _servers = servers.map(|(address, name)| answering(&format!("127.0.0.{address}"), name));
    let stage = Stage::of("nginx.conf", &case("sni-map.conf"), "127.0.0.1:10443");
    let names = [
        "meet.example.org",
        "MEET.Example.org",
        "turn.example.org",
        "a.shop.example.org",
        "b.a.shop.example.org",
        "shop.example.org",
        "other.example",
        "192.0.2.1",
    ];
    let observe = || {
        let ask = |name: &str, address: &str| {
            let mut stream = connect(address.parse().unwrap());
            let (received, _) = send_and_read(&mut stream, [&client_hello(name)[..]], false);
            String::from_utf8(received).unwrap()
        };
        let both = names.map(|name| [ask(name, "127.0.0.1:10443"), ask(name, "[::1]:10443")]);
        both.to_vec()
    };
    let nginx = stage.nginx();
    let of_nginx = observe();
    nginx.stop();
    let _lb = stage.lb();
    let expected = ["web", "web", "turn", "shop", "shop", "web", "web", "web"];
    assert_eq!(of_nginx, expected.map(|name| [name.to_owned(), name.to_owned()]));
    assert_eq!(observe(), of_nginx);
}

#[test]
fn brokers_keep_their_clients_and_one_that_is_down_gets_none() {
    if !is_in_a_network_of_its_own("import_nginx::brokers_keep_their_clients_and_one_that_is_down_gets_none") {
        return;
    }
    let folder = Folder::new();
    let at = folder.path().display();
    let made = format!("req -x509 -newkey rsa:2048 -nodes -keyout {at}/key.pem -out {at}/cert.pem -subj /CN=x -days 9");
    output_of(&required("openssl"), &made.split(' ').collect::<Vec<_>>());
    let text = case("mqtt-tls.conf")
        .replace("/etc/ssl/certs/ssl-cert-example.pem", &format!("{at}/cert.pem"))
        .replace("/etc/ssl/private/ssl-cert-example.key", &format!("{at}/key.pem"));
    let _servers = [11, 12, 13].map(|number| teller(&format!("127.0.0.{number}:1883"), &number.to_string()));
    let stage = Stage::of("nginx.conf", &text, "127.0.0.1:11883");
    let observe = || {
        let mut clients = BTreeMap::<String, usize>::new();
        for number in 1..=100 {
            let client = format!("127.0.1.{number}");
            let answers = [told_from(&client, "127.0.0.1:11883"), told_from(&client, "127.0.0.1:11883")];
            assert_eq!(answers[0], answers[1], "a client keeps its broker");
            let (name, received) = answers[0].split_once('|').unwrap();
            assert_eq!(received, format!("PROXY TCP4 {client} 127.0.0.1 PORT 11883\r\nhello\n"));
            *clients.entry(name.to_owned()).or_default() += 1;
        }
        // Hashes differ, and so do the shares of a hundred clients: two thirds and one third.
        let share = clients["11"];
        assert!((45..=88).contains(&share), "{clients:?}");
        // Over TLS, without a PROXY header.
        let mut command = Command::new("sh");
        command.args(["-c", "(echo hello; sleep 1) | openssl s_client -quiet -connect 127.0.0.1:18883"]);
        let over_tls = String::from_utf8(command.output().unwrap().stdout).unwrap();
        let over_tls = over_tls.split_once('|').unwrap().1.to_owned();
        (clients.into_keys().collect::<Vec<_>>(), over_tls)
    };
    let nginx = stage.nginx();
    let of_nginx = observe();
    nginx.stop();
    let _lb = stage.lb();
    assert_eq!(of_nginx, (vec!["11".to_owned(), "13".to_owned()], "hello\n".to_owned()));
    assert_eq!(observe(), of_nginx);
}

#[test]
fn ssh_and_tls_on_one_port_reach_the_same_servers() {
    if !is_in_a_network_of_its_own("import_nginx::ssh_and_tls_on_one_port_reach_the_same_servers") {
        return;
    }
    const CONF: &str = r#"
        events {}
        stream {
            upstream ssh { server 127.0.0.11:22; }
            upstream web { server 127.0.0.12:443; }
            map $ssl_preread_protocol $to { "" ssh; default web; }
            map $ssl_preread_alpn_protocols $by_alpn { ~\bacme-tls/1\b ssh; default web; }
            server { listen 127.0.0.1:10443; ssl_preread on; proxy_pass $to; }
            server { listen 127.0.0.1:10444; ssl_preread on; proxy_pass $by_alpn; }
        }"#;
    let _servers = [("11:22", "ssh"), ("12:443", "web")].map(|(at, name)| answering(&format!("127.0.0.{at}"), name));
    let stage = Stage::of("nginx.conf", CONF, "127.0.0.1:10443");
    let hello = |protocols: &[&str]| client_hello_offering("a.example", protocols);
    let observe = || {
        let ask = |bytes: &[u8], port: u16| {
            let mut stream = connect(SocketAddr::from(([127, 0, 0, 1], port)));
            let (received, _) = send_and_read(&mut stream, [bytes], false);
            String::from_utf8(received).unwrap()
        };
        let versions = [&b"SSH-2.0-x\r\n"[..], &hello(&[]), b"GET / HTTP/1.1\r\n\r\n"];
        let protocols = [hello(&["acme-tls/1"]), hello(&["h2", "acme-tls/1"]), hello(&["h2"]), hello(&[])];
        let by_protocol = protocols.iter().map(|bytes| ask(bytes, 10444));
        versions.into_iter().map(|bytes| ask(bytes, 10443)).chain(by_protocol).collect::<Vec<_>>()
    };
    let nginx = stage.nginx();
    let of_nginx = observe();
    nginx.stop();
    let _lb = stage.lb();
    assert_eq!(of_nginx, ["ssh", "web", "ssh", "ssh", "ssh", "web", "web"]);
    assert_eq!(observe(), of_nginx);
}
