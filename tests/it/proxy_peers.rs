//! The PROXY protocol with other people's programs: nginx and HAProxy, in front of the balancer and behind it.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};

use crate::support::{
    Ending, Folder, Lb, Program, Reader, Server, connect, free_port, haproxy, nginx, send_and_read, wait_until,
};

/// An nginx that wants a header, and answers each request with the client and the server that it names.
fn nginx_that_tells(folder: &Folder, address: SocketAddr) -> Program {
    let told = "$proxy_protocol_addr:$proxy_protocol_port $proxy_protocol_server_addr:$proxy_protocol_server_port";
    let server = format!("server {{ listen {address} proxy_protocol; location / {{ return 200 '{told}'; }} }}");
    nginx(folder, address, &format!("http {{ $TEMP keepalive_requests 1000; {server} }}"))
}

/// A HAProxy that does the same.
fn haproxy_that_tells(folder: &Folder, address: SocketAddr) -> Program {
    let told =
        "http-request return status 200 content-type text/plain lf-string \"%[src]:%[src_port] %[dst]:%[dst_port]\"";
    let bind = format!("bind {address} accept-proxy");
    haproxy(folder, address, &format!("frontend told\n  mode http\n  {bind}\n  {told}"))
}

/// What a GET over this fresh connection is answered, and the connection's own address.
fn asked(mut stream: TcpStream, first: &[u8]) -> (String, SocketAddr) {
    let own = stream.local_addr().unwrap();
    stream.write_all(&[first, b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"].concat()).unwrap();
    let answer = Reader::of(stream).response();
    assert_eq!(answer.status(), 200, "{}", answer.head);
    (answer.text(), own)
}

#[test]
fn nginx_and_haproxy_behind_it_are_told_the_client() {
    let folder = Folder::new();
    for peer in [nginx_that_tells(&folder, free_port()), haproxy_that_tells(&folder, free_port())] {
        for (version, mode) in [("v1", "tcp"), ("v2", "tcp"), ("v1", "http"), ("v2", "http")] {
            let lb = Lb::in_front_of(&[peer.address()]).with(&["--mode", mode]).set("send_proxy", version).start();
            for _ in 0..3 {
                let (told, own) = asked(connect(lb.address()), b"");
                assert_eq!(told, format!("{own} {}", lb.address()), "{version} in mode {mode}");
            }
            lb.assert_balanced();
            // The client of a header, of either family.
            let lb = Lb::with_config(&format!(
                "listen: 127.0.0.1:0\nmode: {mode}\nbackends: ['{}']\nsend_proxy: {version}\n\
                 proxy_protocol: required\ntrusted_proxies: [127.0.0.1]\n",
                peer.address()
            ))
            .start();
            let (told, _) = asked(connect(lb.address()), b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\r\n");
            assert_eq!(told, "203.0.113.7:4711 192.0.2.1:443", "{version} in mode {mode}");
            let (told, _) = asked(connect(lb.address()), b"PROXY TCP6 2001:db8::1 2001:db8::2 4711 443\r\n");
            assert_eq!(told, "2001:db8::1:4711 2001:db8::2:443", "{version} in mode {mode}");
        }
    }
}

#[test]
fn nginx_and_haproxy_in_front_of_it_tell_the_client() {
    let folder = Folder::new();
    let server = Server::mirror();
    let lb = Lb::with_config(&format!(
        "listen: 127.0.0.1:0\nbackends: ['{}']\nproxy_protocol: required\ntrusted_proxies: [127.0.0.1]\n",
        server.address()
    ))
    .start();
    let (to, fronts) = (lb.address(), [free_port(), free_port(), free_port()]);
    let front = |version: &str, address: SocketAddr| {
        haproxy(&folder, address, &format!("listen front\n  bind {address}\n  server lb {to} {version}"))
    };
    let _programs = [
        nginx(
            &folder,
            fronts[0],
            &format!(
                "stream {{ server {{ listen {}; proxy_pass {to}; proxy_protocol on; proxy_half_close on; }} }}",
                fronts[0]
            ),
        ),
        front("send-proxy", fronts[1]),
        front("send-proxy-v2", fronts[2]),
    ];
    let payload: Vec<u8> = (0..200_000u32).map(|number| number.to_le_bytes()[0]).collect();
    for address in fronts {
        let mut stream = connect(address);
        let own = stream.local_addr().unwrap();
        let (received, ending) = send_and_read(&mut stream, [&payload[..]], true);
        assert!(received == payload && ending == Ending::Clean, "{} bytes by {address}", received.len());
        assert_eq!(lb.access_of(own)["bytes_in"], payload.len(), "by {address}");
    }
}

#[test]
fn each_client_has_backend_connections_of_its_own_where_a_header_is_sent() {
    let folder = Folder::new();
    let peer = nginx_that_tells(&folder, free_port());
    let lb = Lb::with_config(&format!(
        "listen: 127.0.0.1:0\nmode: http\nworkers: 1\nbackends: ['{}']\nsend_proxy: v2\n\
         proxy_protocol: required\ntrusted_proxies: [127.0.0.1]\n",
        peer.address()
    ))
    .start();
    let mut clients: Vec<Reader> = (1..=4)
        .map(|host| {
            let mut client = Reader::of(connect(lb.address()));
            client.send(format!("PROXY TCP4 203.0.113.{host} 192.0.2.1 {host} 80\r\n"));
            client
        })
        .collect();
    for round in 0..5 {
        for (client, host) in clients.iter_mut().zip(1..) {
            client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
            let told = client.response().text();
            assert_eq!(told, format!("203.0.113.{host}:{host} 192.0.2.1:80"), "in round {round}");
        }
    }
    drop(clients);
}

#[test]
fn a_backend_that_wants_a_header_is_found_well_by_checks_that_send_one() {
    for (version, check) in [("v1", "http"), ("v2", "http"), ("v1", "tcp"), ("v2", "tcp")] {
        for by_nginx in [true, false] {
            let folder = Folder::new();
            let address = free_port();
            let check = match check {
                "http" => "{interval: 50ms, rise: 2, fall: 1, http: {path: /, status: 200}}",
                _ => "{interval: 50ms, rise: 2, fall: 1}",
            };
            let lb = Lb::with_config(&format!(
                "listen: 127.0.0.1:0\nbackends: ['{address}']\nsend_proxy: {version}\nhealth_check: {check}\n"
            ))
            .start();
            wait_until("it is down", || lb.state_of(address) == "down");
            let _peer = match by_nginx {
                true => nginx_that_tells(&folder, address),
                false => haproxy_that_tells(&folder, address),
            };
            wait_until("it is up", || lb.state_of(address) == "up");
            let (told, own) = asked(connect(lb.address()), b"");
            assert_eq!(told, format!("{own} {}", lb.address()));
        }
    }
}

#[test]
fn a_backend_that_wants_a_header_is_found_unwell_without_one() {
    let folder = Folder::new();
    let peer = nginx_that_tells(&folder, free_port());
    let lb = Lb::with_config(&format!(
        "listen: 127.0.0.1:0\nbackends: ['{}']\nhealth_check: {{interval: 50ms, fall: 1, http: {{path: /}}}}\n",
        peer.address()
    ))
    .start();
    wait_until("it is down", || lb.state_of(peer.address()) == "down");
}
