//! `proxy_protocol: from_trusted`: those of trusted proxies must send a header, all others are clients themselves.

use std::io::Write;

use crate::support::{Ending, Lb, Server, connect_from, read_to_end, send_and_read, try_connect_from};

const HEADER: &[u8] = b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\r\n";

/// 127.0.0.2 is a proxy.
fn lb(server: &Server, more: &str) -> Lb {
    let backend = server.address();
    Lb::with_config(&format!(
        "listen: 127.0.0.1:0\nbackends: ['{backend}']\nproxy_protocol: from_trusted\n\
         trusted_proxies: [127.0.0.2]\n{more}"
    ))
    .start()
}

#[test]
fn a_trusted_proxy_names_the_client_and_others_are_themselves() {
    let server = Server::mirror();
    let lb = lb(&server, "");
    let mut proxy = connect_from("127.0.0.2".parse().unwrap(), lb.address());
    assert_eq!(send_and_read(&mut proxy, [&[HEADER, b"hello"].concat()[..]], true), (b"hello".to_vec(), Ending::Clean));
    assert_eq!(lb.access_log(1)[0]["client"], "203.0.113.7:4711");
    // What looks like a header is a client's own bytes.
    let mut client = connect_from("127.0.0.3".parse().unwrap(), lb.address());
    let own = client.local_addr().unwrap().to_string();
    assert_eq!(send_and_read(&mut client, [HEADER], true), (HEADER.to_vec(), Ending::Clean));
    assert_eq!(lb.access_log(2)[1]["client"], *own);
}

#[test]
fn a_trusted_proxy_without_a_header_is_refused() {
    let server = Server::mirror();
    let lb = lb(&server, "timeouts: {client_header: 300ms}\n");
    let mut proxy = connect_from("127.0.0.2".parse().unwrap(), lb.address());
    assert_eq!(send_and_read(&mut proxy, [&b"hello"[..]], false), (Vec::new(), Ending::Reset));
    let mut silent = connect_from("127.0.0.2".parse().unwrap(), lb.address());
    assert_eq!(read_to_end(&mut silent), (Vec::new(), Ending::Reset));
    lb.wait_for_rejections("proxy_header", 2);
    assert_eq!(server.accepted(), 0);
}

#[test]
fn rules_judge_clients_with_and_without_a_proxy_by_their_own_addresses() {
    let server = Server::mirror();
    let lb = lb(&server, "deny: [203.0.113.0/24, 127.0.0.3, 127.0.0.2]\n");
    let mut named = connect_from("127.0.0.2".parse().unwrap(), lb.address());
    assert_eq!(send_and_read(&mut named, [HEADER], false), (Vec::new(), Ending::Reset));
    // It is reset as soon as it is there.
    if let Ok(mut direct) = try_connect_from("127.0.0.3".parse().unwrap(), lb.address()) {
        assert_eq!(read_to_end(&mut direct), (Vec::new(), Ending::Reset));
    }
    lb.wait_for_rejections("denied", 2);
    // The proxy's own address is no client's.
    let mut named = connect_from("127.0.0.2".parse().unwrap(), lb.address());
    let header = b"PROXY TCP4 198.51.100.7 192.0.2.1 4711 443\r\nhello";
    assert_eq!(send_and_read(&mut named, [&header[..]], true), (b"hello".to_vec(), Ending::Clean));
}

#[test]
fn only_a_trusted_proxy_is_believed_what_it_forwards() {
    let server = Server::that(|mut stream| {
        let mut request = [0; 4096];
        let length = std::io::Read::read(&mut stream, &mut request).unwrap_or(0);
        let seen = String::from_utf8_lossy(&request[..length]).into_owned();
        let forwarded = seen.lines().find_map(|line| line.strip_prefix("X-Forwarded-For: ")).unwrap_or_default();
        let length = forwarded.len();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{forwarded}");
        let _ = stream.write_all(head.as_bytes());
    });
    let lb = lb(&server, "mode: http\nhttp: {forwarded_from: [127.0.0.0/8]}\n");
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.9\r\nConnection: close\r\n\r\n";
    for (from, header, expected) in [
        // An HTTP proxy of the list, without a PROXY header.
        ("127.0.0.3", &b""[..], "192.0.2.9, 127.0.0.3"),
        // A header that names nobody: the proxy has not looked into the request.
        ("127.0.0.2", b"PROXY UNKNOWN\r\n", "127.0.0.2"),
        ("127.0.0.2", b"PROXY TCP4 127.0.0.9 192.0.2.1 4711 443\r\n", "192.0.2.9, 127.0.0.9"),
    ] {
        let mut client = connect_from(from.parse().unwrap(), lb.address());
        let (answer, _) = send_and_read(&mut client, [&[header, request].concat()[..]], false);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert_eq!(answer.rsplit("\r\n").next(), Some(expected), "{from} {}", String::from_utf8_lossy(header));
    }
}
