//! Http mode in the scenario that it all began with: the same headers as nginx sets, and requests shared one by one.

use std::net::SocketAddr;
use std::process::Command;

use crate::support::{Folder, Lb, Message, Origin, Program, Reader, connect, free_port, output_of, required};

const SET: [&str; 4] = ["Host", "X-Real-IP", "X-Forwarded-For", "X-Forwarded-Proto"];

fn lb_before(origins: &[&Origin]) -> Lb {
    let addresses: Vec<SocketAddr> = origins.iter().map(|origin| origin.address()).collect();
    Lb::in_front_of(&addresses).with(&["--mode", "http"]).start()
}

#[test]
fn ten_gets_by_curl_are_shared_five_and_five_and_carry_the_headers() {
    let (one, two) = (Origin::new(), Origin::new());
    let lb = lb_before(&[&one, &two]);
    let curl = required("curl");
    for _ in 0..10 {
        output_of(&curl, &["-sSf", "--max-time", "10", &format!("http://{}/", lb.address())]);
    }
    assert_eq!((one.requests().len(), two.requests().len()), (5, 5));
    for request in one.requests().iter().chain(&two.requests()) {
        let values = SET.map(|name| request.header(name));
        assert_eq!(values, [Some("127.0.0.1"), Some("127.0.0.1"), Some("127.0.0.1"), Some("http")]);
    }
    assert_eq!(lb.metrics().sum("http_requests_total", &[("code", "200")]), 10.0);
}

#[test]
fn ten_gets_over_one_connection_are_shared_five_and_five() {
    let (one, two) = (Origin::new(), Origin::new());
    let lb = lb_before(&[&one, &two]);
    let url = format!("http://{}/", lb.address());
    let urls = [url.as_str(); 10];
    output_of(&required("curl"), &[&["-sSf", "--max-time", "10"], &urls[..]].concat());
    assert_eq!((one.requests().len(), two.requests().len()), (5, 5));
    assert_eq!((one.connections(), two.connections()), (1, 1), "the backends' connections are kept");
    assert_eq!(lb.metrics().sum("connections_accepted_total", &[]), 1.0);
}

#[test]
fn forged_headers_never_arrive_whatever_their_spelling() {
    let origin = Origin::new();
    let lb = lb_before(&[&origin]);
    let mut client = Reader::of(connect(lb.address()));
    client.send(
        "GET / HTTP/1.1\r\nHost: h\r\nX-Real-IP: 6.6.6.6\r\nx-real-ip: 6.6.6.6\r\nX_Real_IP: 6.6.6.6\r\n\
         X-Forwarded-For: 6.6.6.6\r\nx_forwarded_for: 6.6.6.6\r\nX-Forwarded-Proto: gopher\r\n\
         Connection: X-Real-IP, X-Forwarded-For\r\n\r\n",
    );
    let seen = client.response().text();
    assert!(!seen.contains("6.6.6.6") && !seen.contains("gopher"), "{seen}");
    let request = &origin.requests()[0];
    assert_eq!(request.header("X-Real-IP"), Some("127.0.0.1"));
    assert_eq!(request.header("X-Forwarded-For"), Some("127.0.0.1"));
}

#[test]
fn a_trusted_peer_is_believed() {
    let origin = Origin::new();
    let lb = Lb::in_front_of(&[origin.address()])
        .with(&["--mode", "http"])
        .set("trusted_proxies", "[127.0.0.0/8]")
        .set("http.set_headers", "{X-Real-IP: null, X-Port: $server_port, X-Id: $request_id}")
        .start();
    let mut client = Reader::of(connect(lb.address()));
    client.send(
        "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: 192.0.2.2, 192.0.2.3\r\n\
         X-Forwarded-Proto: https\r\nX-Request-ID: abc\r\n\r\n",
    );
    client.response();
    let request = &origin.requests()[0];
    assert_eq!(request.header("X-Forwarded-For"), Some("192.0.2.1, 192.0.2.2, 192.0.2.3, 127.0.0.1"));
    assert_eq!(request.header("X-Forwarded-Proto"), Some("https"));
    assert_eq!(request.header("X-Real-IP"), None);
    assert_eq!(request.header("X-Port"), Some(lb.address().port().to_string().as_str()));
    assert_eq!(request.header("X-Id"), Some("abc"));
    let line = lb.only_access();
    let shown = (&line["method"], &line["path"], &line["status"], &line["request_id"]);
    assert_eq!(shown, (&"GET".into(), &"/".into(), &200.into(), &"abc".into()));
}

/// nginx with the seed's configuration.
fn nginx(folder: &Folder, origin: SocketAddr) -> Program {
    let address = free_port();
    let at = folder.path().display();
    let headers = SET.iter().zip(["$host", "$remote_addr", "$proxy_add_x_forwarded_for", "$scheme"]);
    let headers: String = headers.map(|(name, value)| format!("proxy_set_header {name} {value};")).collect();
    let config = folder.write(
        "nginx.conf",
        format!(
            "daemon off; master_process off; pid {at}/nginx.pid; error_log {at}/error.log; events {{}}\n\
             http {{ access_log off; client_body_temp_path {at}/a; proxy_temp_path {at}/b; fastcgi_temp_path {at}/c;\n\
             uwsgi_temp_path {at}/d; scgi_temp_path {at}/e; upstream backend {{ server {origin}; }}\n\
             server {{ listen {address}; location / {{ proxy_pass http://backend; {headers} }} }} }}\n"
        ),
    );
    let mut command = Command::new(required("nginx"));
    command.args(["-p", &at.to_string(), "-c", &config.display().to_string()]);
    Program::serving_at(address, &mut command)
}

#[test]
fn sets_the_four_headers_as_nginx_does() {
    let folder = Folder::new();
    let (behind_nginx, behind_lb) = (Origin::new(), Origin::new());
    let nginx = nginx(&folder, behind_nginx.address());
    let lb = lb_before(&[&behind_lb]);
    let requests = [
        "GET / HTTP/1.1\r\nHost: Example.COM:8080\r\n",
        "GET /a?b HTTP/1.1\r\nHost: example.com.\r\n",
        "GET /a HTTP/1.1\r\nHost: [::1]:81\r\n",
        "GET http://Other.example:99/x?y HTTP/1.1\r\nHost: example.com\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nX-Real-IP: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nx-real-ip: 7.7.7.7\r\n",
        "HEAD / HTTP/1.1\r\nHost: h\r\nAccept: */*\r\n",
        "DELETE /%41//b/../c HTTP/1.1\r\nHost: h\r\n",
    ];
    for request in requests {
        for address in [nginx.address(), lb.address()] {
            let mut client = Reader::of(connect(address));
            client.send(format!("{request}Connection: close\r\n\r\n"));
            let _ = crate::support::read_to_end(&mut client.stream);
        }
    }
    let of = |origin: &Origin| -> Vec<(String, [Option<String>; 4])> {
        let facts = |request: &Message| {
            let line: Vec<&str> = request.head.lines().next().unwrap().split(' ').collect();
            (line[..2].join(" "), SET.map(|name| request.header(name).map(str::to_owned)))
        };
        origin.requests().iter().map(facts).collect()
    };
    let (nginx, lb) = (of(&behind_nginx), of(&behind_lb));
    assert_eq!(nginx.len(), requests.len());
    assert_eq!(nginx, lb);
}
