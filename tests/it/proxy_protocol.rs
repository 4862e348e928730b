//! The PROXY protocol: who the client is, told by whom may tell it; and told on. With nginx and HAProxy: `proxy_peers`.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{
    Ending, Fleet, Folder, Lb, Origin, Reader, Server, Vector, Verdict, connect, connect_from, proxy_headers,
    read_to_end, reset, run_to_end, send_and_read, short_read, try_connect_from, wait_until,
};

const HEADER: &[u8] = b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\r\n";
const CLIENT: &str = "203.0.113.7:4711";

/// A listener that wants a header, of everybody on this machine.
const REQUIRED: &str = "proxy_protocol: required\ntrusted_proxies: [127.0.0.0/8]\n";

/// In front of `backend`; what else stands in the file comes in `more`.
fn behind_a_proxy(backend: impl std::fmt::Display, more: &str) -> Lb {
    Lb::with_config(&format!("listen: 127.0.0.1:0\nbackends: ['{backend}']\n{REQUIRED}{more}")).start()
}

/// An accepted header, what is to follow it, and the client that it names; `own` is the sender's own address.
fn accepted(vector: &Vector, own: SocketAddr) -> (Vec<u8>, Vec<u8>, String) {
    let (header, payload) = vector.bytes.split_at(vector.length);
    let payload = if payload.is_empty() { b"what follows".as_slice() } else { payload };
    let client = match vector.facts["origin"].as_str() {
        Some("tcp") => vector.facts["client"].as_str().unwrap().to_owned(),
        Some("unix") => "unix:".to_owned(),
        _ => own.to_string(),
    };
    (header.to_vec(), payload.to_vec(), client)
}

fn of_verdict(verdict: Verdict) -> Vec<Vector> {
    let vectors: Vec<Vector> = proxy_headers().into_iter().filter(|vector| vector.verdict == verdict).collect();
    assert!(vectors.len() > 10, "{} of {verdict:?}", vectors.len());
    vectors
}

fn client_of_last(lb: &Lb, connections: usize) -> String {
    lb.access_log(connections).last().unwrap()["client"].as_str().unwrap().to_owned()
}

#[test]
fn every_sound_header_names_the_client_and_what_follows_it_arrives() {
    let server = Server::mirror();
    let lb = behind_a_proxy(server.address(), "");
    let mut connections = 0;
    for vector in of_verdict(Verdict::Accept) {
        for length in [usize::MAX, 1] {
            let mut stream = connect(lb.address());
            let (header, payload, client) = accepted(&vector, stream.local_addr().unwrap());
            let bytes = [header, payload.clone()].concat();
            let got = send_and_read(&mut stream, bytes.chunks(length.min(bytes.len())), true);
            assert_eq!(got, (payload.clone(), Ending::Clean), "{} in pieces of {length}", vector.name);
            connections += 1;
            assert_eq!(client_of_last(&lb, connections), client, "{} in pieces of {length}", vector.name);
        }
    }
    assert_eq!(server.accepted(), connections);
}

#[test]
fn every_unsound_header_is_refused_and_reaches_nobody() {
    let server = Server::mirror();
    let lb = behind_a_proxy(server.address(), "");
    let mut refused = 0;
    for vector in of_verdict(Verdict::Reject) {
        for length in [usize::MAX, 1] {
            let mut stream = connect(lb.address());
            let pieces = vector.bytes.chunks(length.min(vector.bytes.len()));
            let got = send_and_read(&mut stream, pieces, false);
            assert_eq!(got, (Vec::new(), Ending::Reset), "{} in pieces of {length}", vector.name);
            refused += 1;
        }
    }
    lb.wait_for_rejections("proxy_header", refused);
    for line in lb.access_log(refused) {
        assert_eq!([&line["cause"], &line["reason"]], ["rejected", "proxy_header"], "{line}");
        assert_eq!(line["bytes_in"], 0, "{line}");
    }
    assert_eq!(server.accepted(), 0);
}

#[test]
fn a_header_that_does_not_come_to_its_end_is_refused_when_its_time_is_over() {
    let server = Server::mirror();
    let lb = behind_a_proxy(server.address(), "timeouts: {client_header: 300ms}\n");
    let started = Instant::now();
    let waiting = of_verdict(Verdict::Incomplete).into_iter().map(|vector| {
        let mut stream = connect(lb.address());
        stream.write_all(&vector.bytes).unwrap();
        (vector.name, stream)
    });
    for (name, mut stream) in waiting.collect::<Vec<_>>() {
        assert_eq!(read_to_end(&mut stream), (Vec::new(), Ending::Reset), "{name}");
        assert!(started.elapsed() >= Duration::from_millis(300), "{name}: after {:?}", started.elapsed());
    }
    // Each byte is news, and none buys time.
    let mut slow = connect(lb.address());
    slow.write_all(b"PROXY UNKNOWN ").unwrap();
    wait_until("a byte now and then keeps nobody waiting", || {
        thread::sleep(Duration::from_millis(20));
        slow.write_all(b"x").is_err()
    });
    lb.wait_for_rejections("proxy_header", of_verdict(Verdict::Incomplete).len() + 1);
    assert_eq!(server.accepted(), 0);
}

#[test]
fn a_client_that_leaves_within_its_header_is_forgotten_at_once() {
    let server = Server::mirror();
    let lb = behind_a_proxy(server.address(), "timeouts: {client_header: 1h}\n");
    let (mut ends, mut resets) = (connect(lb.address()), connect(lb.address()));
    ends.write_all(&HEADER[..20]).unwrap();
    resets.write_all(&HEADER[..20]).unwrap();
    drop(ends);
    lb.access_log(1);
    reset(resets);
    let causes: Vec<_> = lb.access_log(2).into_iter().map(|line| line["cause"].as_str().unwrap().to_owned()).collect();
    assert_eq!(causes, ["client_closed", "client_reset"]);
    assert_eq!(server.accepted(), 0);
}

#[test]
fn a_header_may_be_cut_anywhere_with_what_follows_in_the_same_segment() {
    let server = Server::mirror();
    let lb = behind_a_proxy(server.address(), "");
    let payload = b"\r\nPROXY TCP4 1.1.1.1 2.2.2.2 3 4\r\nand so on";
    let longest = proxy_headers().into_iter().find(|vector| vector.name == "v2/checksum between TLVs").unwrap();
    for header in [HEADER, &longest.bytes[..longest.length]] {
        let bytes = [header, payload].concat();
        for at in 1..header.len() {
            let (one, two) = bytes.split_at(at);
            let got = send_and_read(&mut connect(lb.address()), [one, two], true);
            assert_eq!(got, (payload.to_vec(), Ending::Clean), "cut at {at}");
        }
    }
}

#[test]
fn who_is_not_trusted_is_refused_whatever_it_sends() {
    let server = Server::mirror();
    let yaml = "listen: 127.0.0.1:0\nproxy_protocol: required\ntrusted_proxies: [127.0.0.9, 127.1.0.0/16]\n";
    let lb = Lb::with_config(&format!("{yaml}backends: ['{}']\n", server.address())).start();
    for bytes in [HEADER, b"GET / HTTP/1.1\r\n\r\n"] {
        // It is refused before it has said a word: connect(2) itself may tell of the reset.
        if let Ok(mut stream) = try_connect_from(IpAddr::from([127, 0, 0, 1]), lb.address()) {
            assert_eq!(send_and_read(&mut stream, [bytes], false), (Vec::new(), Ending::Reset));
        }
    }
    lb.wait_for_rejections("untrusted_proxy", 2);
    assert_eq!(server.accepted(), 0);
    let line = &lb.access_log(2)[0];
    assert_eq!([&line["cause"], &line["reason"]], ["rejected", "untrusted_proxy"]);
    assert!(line["client"].as_str().unwrap().starts_with("127.0.0.1:"), "its own address: {line}");
    for source in [[127, 0, 0, 9], [127, 1, 2, 3]] {
        let mut stream = connect_from(IpAddr::from(source), lb.address());
        assert_eq!(send_and_read(&mut stream, [HEADER, b"hello"], true), (b"hello".to_vec(), Ending::Clean));
    }
}

#[test]
fn a_header_that_nobody_may_send_is_a_mistake_in_the_file() {
    let folder = Folder::new();
    folder.write("lb.yaml", "listen: 127.0.0.1:0\nbackends: [127.0.0.1:1]\nproxy_protocol: required\n");
    let output = run_to_end(folder.path(), &["check"], &[]);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains("lb.yaml:3:1: proxy_protocol") && errors.contains("trusted_proxies"), "{errors}");
}

#[test]
fn the_client_is_known_behind_two_balancers() {
    for version in ["v1", "v2"] {
        let server = Server::mirror();
        let second = behind_a_proxy(server.address(), "");
        let first = behind_a_proxy(second.address(), &format!("send_proxy: {version}\n"));
        let mut connections = 0;
        for vector in of_verdict(Verdict::Accept) {
            let mut stream = connect(first.address());
            let (header, payload, client) = accepted(&vector, stream.local_addr().unwrap());
            let got = send_and_read(&mut stream, [&[header, payload.clone()].concat()[..]], true);
            assert_eq!(got, (payload, Ending::Clean), "{} and {version}", vector.name);
            connections += 1;
            let told = client_of_last(&second, connections);
            if (client.as_str(), version) == ("unix:", "v1") {
                // Version 1 has no word for it: the sender's own address is left.
                assert!(told.starts_with("127.0.0.1:"), "{}: {told}", vector.name);
            } else {
                assert_eq!(told, client, "{} and {version}", vector.name);
            }
        }
        assert_eq!(server.accepted(), connections);
        first.assert_balanced();
        second.assert_balanced();
    }
}

#[test]
fn the_server_that_the_client_came_to_is_told_on() {
    let server = Server::mirror();
    let told = |lb: &Lb, first: &[u8]| {
        let mut stream = connect(lb.address());
        let own = stream.local_addr().unwrap();
        let (got, _) = send_and_read(&mut stream, [first], true);
        (String::from_utf8(got).unwrap(), own.port())
    };
    let lb = behind_a_proxy(server.address(), "send_proxy: v1\n");
    assert_eq!(told(&lb, HEADER).0.as_bytes(), HEADER, "as the header said");
    let port = lb.address().port();
    let (line, own) = told(&lb, b"PROXY UNKNOWN\r\nhello");
    assert_eq!(line, format!("PROXY TCP4 127.0.0.1 127.0.0.1 {own} {port}\r\nhello"), "who is known by the socket");
    let lb = Lb::in_front_of(&[server.address()]).set("send_proxy", "v1").start();
    let port = lb.address().port();
    let (line, own) = told(&lb, b"hello");
    assert_eq!(line, format!("PROXY TCP4 127.0.0.1 127.0.0.1 {own} {port}\r\nhello"));
}

/// A unix socket that sends back what it got, once the client has ended.
fn mirroring_unix_socket(path: &Path) {
    let listener = UnixListener::bind(path).unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut received = Vec::new();
            let _ = stream.read_to_end(&mut received);
            let _ = stream.write_all(&received);
        }
    });
}

#[test]
fn unix_sockets_on_both_sides_carry_headers() {
    let folder = Folder::new();
    let [front, back] = ["front.sock", "back.sock"].map(|name| folder.path().join(name));
    mirroring_unix_socket(&back);
    let lb = Lb::with_config(&format!(
        "listeners:\n  told: {{bind: 'unix:{}', pool: app, proxy_protocol: required, trusted_proxies: [127.0.0.1]}}\n  \
         untold: {{bind: 'unix:{}', pool: app}}\n  tcp: {{bind: '127.0.0.1:0', pool: app}}\n\
         pools:\n  app: {{backends: ['unix:{}'], send_proxy: v2}}\n",
        front.display(),
        folder.path().join("untold.sock").display(),
        back.display()
    ))
    .start();
    let ask = |path: &Path, bytes: &[u8]| {
        let mut stream = UnixStream::connect(path).unwrap();
        // As a stream, too, a unix socket keeps each write by itself.
        bytes.chunks(1).for_each(|byte| stream.write_all(byte).unwrap());
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        received
    };
    let signature = &b"\r\n\r\n\0\r\nQUIT\n"[..];
    let tcp = [signature, &b"\x21\x11\0\x0c\xcb\0\x71\x07\xc0\0\x02\x01\x12\x67\x01\xbb"[..]].concat();
    assert_eq!(ask(&front, &[HEADER, b"hello"].concat()), [&tcp[..], b"hello"].concat());
    assert_eq!(lb.access_of(CLIENT)["listener"], "told");
    let unix = [signature, &b"\x21\x31\0\xd8"[..], &[0; 216]].concat();
    assert_eq!(ask(&folder.path().join("untold.sock"), b"hello"), [&unix[..], b"hello"].concat());
    let (received, _) = send_and_read(&mut connect(lb.address_of("tcp")), [&b"hello"[..]], true);
    assert!(received.starts_with(&[signature, &b"\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01"[..]].concat()));
    assert!(received.ends_with(b"hello") && received.len() == 28 + 5, "{received:?}");
}

#[test]
fn a_request_comes_from_the_client_of_the_header() {
    let origin = Origin::new();
    let lb = Lb::with_config(&format!(
        "listen: 127.0.0.1:0\nmode: http\nbackends: ['{}']\nproxy_protocol: required\n\
         trusted_proxies: [127.0.0.0/8]\n\
         http: {{forwarded_from: [203.0.113.0/24], backend_keep_alive: {{idle_connections: 0}}}}\n",
        origin.address()
    ))
    .start();
    let ask = |header: &[u8], times: usize| {
        let mut client = Reader::of(connect(lb.address()));
        client.send([header, b"GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 10.1.1.1\r\n\r\n"].concat());
        assert_eq!(client.response().status(), 200);
        for _ in 1..times {
            client.send("GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 10.1.1.1\r\n\r\n");
            assert_eq!(client.response().status(), 200);
        }
    };
    // Twice on one connection: the header counts for all requests of it.
    ask(HEADER, 2);
    ask(b"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n", 2);
    let requests = origin.requests();
    let addresses = |header: &str| requests.iter().map(|request| request.header(header).unwrap()).collect::<Vec<_>>();
    assert_eq!(addresses("x-real-ip"), ["203.0.113.7", "203.0.113.7", "2001:db8::1", "2001:db8::1"]);
    // The first is itself in a listed network, so what it says of others is kept; the second is not.
    let first = "10.1.1.1, 203.0.113.7";
    assert_eq!(addresses("x-forwarded-for"), [first, first, "2001:db8::1", "2001:db8::1"]);
    assert_eq!(lb.access_of(CLIENT)["status"], 200);
}

#[test]
fn server_first_protocols_need_no_byte_after_the_header() {
    let server = Server::greeting("220 ready");
    let lb = behind_a_proxy(server.address(), "");
    let mut stream: TcpStream = connect(lb.address());
    stream.write_all(HEADER).unwrap();
    assert_eq!(short_read(&mut stream), "220 ready");
    drop(stream);
    assert_eq!(lb.only_access()["client"], CLIENT);
}

#[test]
fn the_next_backend_is_told_the_same_when_one_resets() {
    let (resetting, good) = (Server::resetting_on_accept(), Server::mirror());
    for version in ["v1", "v2"] {
        let lb = Lb::with_config(&format!(
            "listen: 127.0.0.1:0\nbackends: ['{}', '{}']\nsend_proxy: {version}\nfailure_detection: off\n{REQUIRED}",
            resetting.address(),
            good.address()
        ))
        .start();
        let mut lengths = Vec::new();
        let before = good.accepted();
        for _ in 0..20 {
            let mut stream = connect(lb.address());
            stream.write_all(HEADER).unwrap();
            // Nothing more until a backend stays: what it resets before a byte is retried.
            wait_until("a backend has it", || good.accepted() - before > lengths.len());
            let (got, ending) = send_and_read(&mut stream, [&b"hello"[..]], true);
            assert!(got.ends_with(b"hello") && ending == Ending::Clean, "{got:?}, {ending:?}");
            assert!(version == "v2" || got == [HEADER, b"hello"].concat(), "{got:?}");
            lengths.push(got.len());
        }
        assert!(lengths.iter().all(|length| *length == lengths[0]), "one header each: {lengths:?}");
    }
}

#[test]
fn a_hash_of_the_client_is_of_the_headers_client() {
    let fleet = Fleet::start();
    let backends = ["127.0.0.2", "127.0.0.3", "127.0.0.4"].map(|host| format!("'{}'", fleet.at(host))).join(", ");
    let lb = Lb::with_config(&format!("listen: 127.0.0.1:0\nbackends: [{backends}]\npolicy: source_hash\n{REQUIRED}"))
        .start();
    let served_by = |host: u8, port: u16| {
        let mut stream = connect(lb.address());
        write!(stream, "PROXY TCP4 203.0.113.{host} 192.0.2.1 {port} 443\r\n").unwrap();
        short_read(&mut stream)
    };
    let mut used = BTreeSet::new();
    for host in 1..=30 {
        let first = served_by(host, 1);
        assert_eq!(served_by(host, 2), first, "203.0.113.{host} stays with its backend");
        used.insert(first);
    }
    assert_eq!(used.len(), 3, "clients are spread: {used:?}");
}

#[test]
fn a_header_is_wanted_from_the_reload_on_and_no_more_after_the_next() {
    let server = Server::echo();
    let yaml = |more: &str| format!("listen: 127.0.0.1:0\nbackends: ['{}']\n{more}", server.address());
    let assert_echoes = |stream: &mut TcpStream, first: &[u8]| {
        stream.write_all(&[first, b"hello"].concat()).unwrap();
        assert_eq!(short_read(stream), "hello");
    };
    let lb = Lb::with_config(&yaml("")).start();
    let mut before = connect(lb.address());
    assert_echoes(&mut before, b"");
    lb.reload_with(&yaml(REQUIRED));
    assert_eq!(send_and_read(&mut connect(lb.address()), [&b"hello"[..]], false), (Vec::new(), Ending::Reset));
    let mut told = connect(lb.address());
    assert_echoes(&mut told, HEADER);
    assert_echoes(&mut before, b"");
    lb.reload_with(&yaml(""));
    assert_echoes(&mut connect(lb.address()), b"");
    assert_echoes(&mut told, b"");
    drop((before, told));
    lb.wait_for_rejections("proxy_header", 1);
}
