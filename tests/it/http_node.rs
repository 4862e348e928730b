//! Http mode between real applications: node's servers, its client with kept connections, WebSocket, events.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::support::{
    Folder, Lb, Program, Reader, connect, free_port, get, output_of, read_to_end, required, short_read, wait_until,
};

fn script(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/node").join(name)
}

fn node() -> PathBuf {
    required("node")
}

/// A node server that logs what it gets.
struct NodeServer {
    program: Program,
    log: PathBuf,
}

impl NodeServer {
    fn named(name: &str, folder: &Folder) -> Self {
        let (address, log) = (free_port(), folder.write(name, ""));
        let mut command = Command::new(node());
        command.arg(script("server.js")).args([&address.port().to_string(), name]).arg(&log);
        Self { program: Program::serving_at(address, &mut command), log }
    }

    fn address(&self) -> SocketAddr {
        self.program.address()
    }

    fn requests(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.log).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn lb_before(servers: &[&NodeServer]) -> Lb {
    let addresses: Vec<SocketAddr> = servers.iter().map(|server| server.address()).collect();
    Lb::in_front_of(&addresses).with(&["--mode", "http"]).start()
}

fn client(lb: &Lb, arguments: &[&str]) -> Value {
    let (script, port) = (script("client.js").display().to_string(), lb.address().port().to_string());
    let text = output_of(&node(), &[&[script.as_str(), &port], arguments].concat());
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text:?}"))
}

#[test]
fn two_node_servers_get_five_of_ten_gets_each_with_the_headers_however_the_client_connects() {
    let folder = Folder::new();
    let (one, two) = (NodeServer::named("one", &folder), NodeServer::named("two", &folder));
    let lb = lb_before(&[&one, &two]);
    let url = format!("http://{}/", lb.address());
    let curl = required("curl");
    for _ in 0..10 {
        output_of(&curl, &["-sSf", "--max-time", "10", &url]);
    }
    output_of(&curl, &[&["-sSf", "--max-time", "10"], &[url.as_str(); 10][..]].concat());
    let names = client(&lb, &["agent", "10", "1"]);
    let ones = names.as_array().unwrap().iter().filter(|name| **name == "one").count();
    assert_eq!(ones, 5, "{names}");
    assert_eq!((one.requests().len(), two.requests().len()), (15, 15));
    for request in one.requests().iter().chain(&two.requests()) {
        for (header, value) in [
            ("host", "127.0.0.1"),
            ("x-real-ip", "127.0.0.1"),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-proto", "http"),
        ] {
            assert_eq!(request["headers"][header], value, "{request}");
            let names = request["names"].as_array().unwrap();
            let copies = names.iter().filter(|name| name.as_str().unwrap().eq_ignore_ascii_case(header)).count();
            assert_eq!(copies, 1, "{header} in {request}");
        }
    }
    assert_eq!(lb.metrics().sum("connections_accepted_total", &[]), 12.0, "ten, one of curl, one of node");
}

#[test]
fn nodes_agent_with_many_connections_loses_nothing() {
    let folder = Folder::new();
    let (one, two) = (NodeServer::named("one", &folder), NodeServer::named("two", &folder));
    let lb = lb_before(&[&one, &two]);
    assert_eq!(client(&lb, &["agent", "400", "16"]).as_array().unwrap().len(), 400);
    assert_eq!((one.requests().len(), two.requests().len()), (200, 200));
    assert_eq!(lb.metrics().sum("http_requests_total", &[("code", "200")]), 400.0);
}

#[test]
fn trailers_of_a_request_arrive_where_they_are_wanted() {
    let folder = Folder::new();
    let server = NodeServer::named("one", &folder);
    for (wish, sum) in [("drop", Value::Null), ("pass", "3".into())] {
        let lb = Lb::in_front_of(&[server.address()]).with(&["--mode", "http"]).set("http.request_trailers", wish);
        let answer = client(&lb.start(), &["trailers"]);
        let answer: Value = serde_json::from_str(answer.as_str().unwrap()).unwrap();
        assert_eq!((&answer["bytes"], &answer["trailers"]["x-sum"]), (&3.into(), &sum), "{answer}");
        let announced = server.requests().last().unwrap()["headers"]["trailer"].clone();
        assert_eq!(announced.is_null(), sum.is_null(), "a trailer is announced where it comes");
    }
}

#[test]
fn curl_gets_what_node_sends_and_node_what_curl_sends() {
    let folder = Folder::new();
    let server = NodeServer::named("one", &folder);
    let lb = lb_before(&[&server]);
    let url = |path: &str| format!("http://{}{path}", lb.address());
    let curl =
        |arguments: &[&str]| output_of(&required("curl"), &[&["-sSf", "-i", "--max-time", "10"], arguments].concat());
    let upload: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251).to_le_bytes()[0]).collect();
    let file = folder.write("upload", &upload).display().to_string();
    let sum = output_of(&required("sha256sum"), &[&file]);
    let sum = sum.split(' ').next().unwrap();

    let seen = curl(&["--http1.0", &url("/trailers")]);
    assert!(seen.contains("Connection: close\r\n") && seen.ends_with("\r\n\r\nabc"), "no chunks for 1.0: {seen}");
    let seen = curl(&["-T", &file, &url("/hash")]);
    assert!(seen.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"), "curl waits for the 100: {seen}");
    assert!(seen.contains(sum), "{seen}");
    let seen = curl(&["-T", &file, "-H", "Transfer-Encoding: chunked", "-H", "Expect:", &url("/hash")]);
    assert!(!seen.contains("100 Continue") && seen.contains(sum), "{seen}");
    assert_eq!(server.requests().last().unwrap()["headers"]["transfer-encoding"], "chunked");
    let seen = curl(&["--http1.0", "-T", &file, &url("/hash")]);
    assert!(seen.contains(sum), "{seen}");
    let seen = curl(&["-I", &url("/"), &url("/"), "-w", "new connections: %{num_connects}"]);
    assert!(seen.ends_with("new connections: 0"), "a HEAD's answer leaves the connection usable: {seen}");
    let seen =
        curl(&["-H", "If-None-Match: \"a\"", &url("/unchanged"), &url("/"), "-w", "new connections: %{num_connects}"]);
    assert!(seen.starts_with("HTTP/1.1 304 ") && seen.ends_with("onenew connections: 0"), "{seen}");
    let seen = curl(&[&url("/trailers")]);
    assert!(seen.contains("abc") && seen.contains("X-Sum: 3"), "{seen}");
}

#[test]
fn curl_uploads_from_a_pipe_and_reads_the_echo_meanwhile() {
    let folder = Folder::new();
    let server = NodeServer::named("one", &folder);
    let lb = lb_before(&[&server]);
    // Its standard input is a file, whose length it does not ask for: it sends chunks.
    let text = "a line of text that comes back\n".repeat(100_000);
    let file = std::fs::File::open(folder.write("upload", &text)).unwrap();
    let mut command = Command::new(required("curl"));
    command.args(["-sSf", "--max-time", "10", "-T", "-", &format!("http://{}/echo", lb.address())]).stdin(file);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(output.stdout == text.as_bytes(), "{} bytes came back", output.stdout.len());
    assert_eq!(server.requests()[0]["headers"]["transfer-encoding"], "chunked");
}

#[test]
fn pythons_client_keeps_its_connection_through_all_kinds_of_requests() {
    let folder = Folder::new();
    let server = NodeServer::named("one", &folder);
    let lb = lb_before(&[&server]);
    let program = "
import http.client, sys
connection = http.client.HTTPConnection('127.0.0.1', int(sys.argv[1]), timeout=10)
def ask(method, path, **more):
    connection.request(method, path, **more)
    answer = connection.getresponse()
    return answer.status, answer.read()
for _ in range(20):
    assert ask('GET', '/') == (200, b'one')
    assert ask('HEAD', '/') == (200, b'')
    assert ask('POST', '/echo', body=b'abc') == (200, b'abc')
    assert b':70001,' in ask('POST', '/hash', body=(b'x' * n for n in (1, 70000)), encode_chunked=True)[1]
    assert ask('GET', '/unchanged', headers={'If-None-Match': 'a'}) == (304, b'')
    assert ask('DELETE', '/') == (200, b'one')
";
    output_of(&required("python3"), &["-c", program, &lb.address().port().to_string()]);
    assert_eq!(server.requests().len(), 120);
    assert_eq!(lb.metrics().sum("connections_accepted_total", &[]), 1.0);
}

/// A masked frame of less than 64 KiB (RFC 6455 section 5.2).
fn masked_frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = frame_head(opcode, 0x80, payload.len());
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

fn frame_head(opcode: u8, mask_bit: u8, length: usize) -> Vec<u8> {
    match u8::try_from(length) {
        Ok(short @ ..126) => vec![0x80 | opcode, mask_bit | short],
        _ => [&[0x80 | opcode, mask_bit | 126][..], &u16::try_from(length).unwrap().to_be_bytes()].concat(),
    }
}

fn read_frame(stream: &mut TcpStream, opcode: u8, payload: &[u8]) {
    let expected = [frame_head(opcode, 0, payload.len()), payload.to_vec()].concat();
    let mut seen = vec![0; expected.len()];
    stream.read_exact(&mut seen).unwrap();
    assert!(seen == expected, "{} bytes come back as they were", payload.len());
}

#[test]
fn a_websocket_echoes_messages_until_either_closes() {
    let folder = Folder::new();
    let server = NodeServer::named("one", &folder);
    let lb = lb_before(&[&server]);
    // The handshake of RFC 6455 section 1.3, after another request on the same connection.
    let mut client = Reader::of(connect(lb.address()));
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(client.message(true).unwrap().text(), "one");
    client.send(
        "GET /chat HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    );
    let answer = client.message(false).unwrap();
    assert_eq!((answer.status(), answer.header("upgrade")), (101, Some("websocket")));
    assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    let stream = &mut client.stream;
    for length in [0, 1, 125, 126, 5_000, 65_535] {
        let payload = vec![b'm'; length];
        stream.write_all(&masked_frame(2, &payload)).unwrap();
        read_frame(stream, 2, &payload);
    }
    let many: Vec<u8> = (0..500_u32).flat_map(|number| masked_frame(1, number.to_string().as_bytes())).collect();
    stream.write_all(&many).unwrap();
    for number in 0..500_u32 {
        read_frame(stream, 1, number.to_string().as_bytes());
    }
    stream.write_all(&masked_frame(8, &1000_u16.to_be_bytes())).unwrap();
    read_frame(stream, 8, &1000_u16.to_be_bytes());
    assert_eq!(read_to_end(stream).0, b"");
    drop(client);
}

#[test]
fn each_event_arrives_before_the_next_is_sent() {
    let folder = Folder::new();
    let server = NodeServer::named("one", &folder);
    let lb = lb_before(&[&server]);
    let mut stream = connect(lb.address());
    stream.write_all(b"GET /events HTTP/1.1\r\nHost: h\r\nAccept: text/event-stream\r\n\r\n").unwrap();
    let mut seen = String::new();
    for number in 0..20 {
        while !seen.contains(&format!("data: {number}\n\n")) {
            seen.push_str(&short_read(&mut stream));
        }
        assert!(!seen.contains(&format!("data: {}\n", number + 1)));
        assert_eq!(get(lb.address(), "/next").status, 200);
    }
    assert!(seen.contains("text/event-stream"), "{seen}");
    // Its end alone could be one of its sending side only; the next events tell.
    drop(stream);
    wait_until("the client's leaving is noticed", || {
        assert_eq!(get(lb.address(), "/next").status, 200);
        lb.metrics().sum("backend_connections_active", &[]) == 0.0
    });
}
