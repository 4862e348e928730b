//! Http mode: nothing of a client is taken for the balancer's word, whatever the client calls it and wherever it says
//! it.

use std::os::unix::net::UnixStream;
use std::thread;

use crate::support::{Folder, Lb, Message, Origin, Reader, connect, exchange, free_port, nginx, request};

/// The names that say who the client is.
const TOLD: [&str; 3] = ["X-Real-IP", "X-Forwarded-For", "X-Forwarded-Proto"];

/// What a client may put in a name beside letters and digits (RFC 9110 section 5.6.2).
const MARKS: &str = "!#$%&'*+-.^_`|~";

/// A balancer with these lines in its file, behind which one origin shows what arrives.
struct Bench {
    lb: Lb,
    origin: Origin,
}

impl Bench {
    fn with(yaml: &str) -> Self {
        let origin = Origin::new();
        let start = "listen: 127.0.0.1:0\nmode: http\nworkers: 1\n";
        let lb = Lb::with_config(&format!("{start}backends: ['{}']\n{yaml}", origin.address())).start();
        Self { lb, origin }
    }

    /// What arrives of a request that is sent in pieces of this length.
    fn arrives(&self, request: impl AsRef<[u8]>, piece: usize) -> Message {
        let before = self.origin.requests().len();
        let mut client = Reader::of(connect(self.lb.address()));
        client.stream.set_nodelay(true).unwrap();
        for piece in request.as_ref().chunks(piece) {
            client.send(piece);
            thread::yield_now();
        }
        assert_eq!(client.response().status(), 200);
        let mut arrived = self.origin.requests().split_off(before);
        assert_eq!(arrived.len(), 1, "{arrived:?}");
        arrived.remove(0)
    }

    /// What arrives of a GET with these header lines, after `first`.
    fn arrives_after(&self, first: &[u8], lines: &str) -> Message {
        self.arrives([first, get(lines).as_bytes()].concat(), usize::MAX)
    }
}

fn get(lines: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: h\r\n{lines}\r\n")
}

fn names(message: &Message) -> Vec<&str> {
    message.head.lines().skip(1).filter_map(|line| line.split_once(':')).map(|(name, _)| name).collect()
}

/// Of a forged request: what lb says, and nothing of the forgery.
#[track_caller]
fn assert_unforged(arrived: &Message, client: &str) {
    assert_eq!(TOLD.map(|name| arrived.header(name)), [Some(client), Some(client), Some("http")], "{}", arrived.head);
    assert!(!arrived.head.contains("6.6.6.6"), "{}", arrived.head);
    assert!(!arrived.text().contains("6.6.6.6"), "{}", arrived.text());
}

/// All names that a CGI program takes for one of lb's own, each with a forged value.
fn forgeries() -> String {
    let spelt = |name: &str, mark: char| name.replace('-', &mark.to_string());
    let forge = |name: String| format!("{name}: 6.6.6.6\r\n{}: 6.6.6.6\r\n", name.to_lowercase());
    MARKS.chars().flat_map(|mark| TOLD.map(|name| forge(spelt(name, mark)))).collect()
}

#[test]
fn a_name_that_a_backend_could_take_for_a_set_header_does_not_arrive() {
    let bench = Bench::with("http: {max_headers: 200}\n");
    let arrived = bench.arrives_after(b"", &format!("{}A.B: 1\r\nContent.Length: 3\r\n", forgeries()));
    assert_unforged(&arrived, "127.0.0.1");
    // Host stands first, and lb's own lines after all of the client's: the last of two copies is what most take.
    let names = names(&arrived);
    assert_eq!(names[..2], ["Host", "A.B"]);
    assert_eq!(names[2..], ["X-Forwarded-For", "X-Forwarded-Proto", "X-Real-IP"]);
}

#[test]
fn the_trailers_of_a_request_do_not_arrive() {
    let bench = Bench::with("");
    let head = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTrailer: Cookie\r\n\r\n";
    let trailers = format!("Cookie: session=attacker\r\n{}Content-Length: 7\r\nDigest: x\r\n", forgeries());
    let request = format!("{head}3;a=b\r\nabc\r\n0\r\n{trailers}\r\n");
    for piece in [usize::MAX, 100, 1] {
        let arrived = bench.arrives(&request, piece);
        assert_eq!(arrived.text(), "3;a=b\r\nabc\r\n0\r\n\r\n", "in pieces of {piece}");
        assert_unforged(&arrived, "127.0.0.1");
        assert_eq!(arrived.header("Trailer"), None, "none is announced");
    }
    assert_eq!(bench.origin.connections(), 1, "the connection goes on to others");
}

#[test]
fn trailers_that_are_wanted_arrive_without_those_that_mean_something_in_a_head() {
    let bench = Bench::with("http: {request_trailers: pass, set_headers: {X-Own: a}}\n");
    let head = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTrailer: Digest\r\n\r\n";
    let denied = "Cookie: a\r\nAuthorization: b\r\nx_own: c\r\nCache-Control: d\r\nHost: e\r\nContent.Length: 7\r\n";
    let request = format!("{head}3\r\nabc\r\n0\r\nDigest: x\r\n{denied}{}Server-Timing: y\r\n\r\n", forgeries());
    for piece in [usize::MAX, 100, 1] {
        let arrived = bench.arrives(&request, piece);
        assert_eq!(arrived.text(), "3\r\nabc\r\n0\r\nDigest: x\r\nServer-Timing: y\r\n\r\n", "in pieces of {piece}");
        assert_eq!(arrived.header("Trailer"), Some("Digest"));
    }
}

#[test]
fn a_backend_learns_that_the_client_takes_trailers() {
    let bench = Bench::with("");
    let arrived = bench.arrives_after(b"", "TE: trailers, gzip\r\nConnection: te\r\n");
    assert_eq!((arrived.header("TE"), arrived.header("Connection")), (Some("trailers"), Some("TE")));
    let arrived = bench.arrives_after(b"", "TE: gzip\r\nConnection: te\r\n");
    assert_eq!((arrived.header("TE"), arrived.header("Connection")), (None, None));
}

#[test]
fn a_header_that_is_not_to_be_set_is_not_the_clients_to_set() {
    let bench = Bench::with("http: {set_headers: {X-Forwarded-For: null, x-real-ip: '', Cookie: null, Host: null}}\n");
    let arrived = bench.arrives_after(b"", &format!("Cookie: a\r\n{}", forgeries()));
    assert_eq!(arrived.header("Host"), Some("h"), "the client's own stays");
    assert_eq!(names(&arrived), ["Host", "X-Forwarded-Proto"]);
}

#[test]
fn a_proxy_header_that_names_nobody_makes_nobody_believed() {
    let bench = Bench::with(
        "proxy_protocol: required\ntrusted_proxies: [127.0.0.0/8]\n\
         http: {forwarded_from: [127.0.0.0/8, 203.0.113.0/24]}\n",
    );
    let v2 = |rest: &[u8]| [&b"\r\n\r\n\0\r\nQUIT\n"[..], rest].concat();
    let forged = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n";
    // UNKNOWN, LOCAL, UNSPEC: the peer is the proxy then, which has not looked into the request.
    for header in [b"PROXY UNKNOWN\r\n".to_vec(), v2(b"\x20\0\0\0"), v2(b"\x21\0\0\0")] {
        assert_unforged(&bench.arrives_after(&header, forged), "127.0.0.1");
    }
    assert_unforged(&bench.arrives_after(&v2(&[&b"\x21\x31\0\xd8"[..], &[0; 216]].concat()), forged), "unix:");
    let arrived = bench.arrives_after(b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\r\n", forged);
    assert_eq!(arrived.header("X-Forwarded-For"), Some("6.6.6.6, 203.0.113.7"), "it is listed");
    assert_eq!(arrived.header("X-Forwarded-Proto"), Some("https"));
}

#[test]
fn who_may_send_a_header_is_not_thereby_who_may_tell_of_other_clients() {
    let forged = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n";
    let networks = "trusted_proxies: [127.0.0.0/8, 203.0.113.0/24]\n";
    let named = b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\r\n";
    let bench = Bench::with(&format!("proxy_protocol: required\n{networks}http: {{forwarded_from: []}}\n"));
    assert_unforged(&bench.arrives_after(named, forged), "203.0.113.7");
    let bench = Bench::with(&format!("proxy_protocol: required\n{networks}"));
    let arrived = bench.arrives_after(named, forged);
    assert_eq!(arrived.header("X-Forwarded-For"), Some("6.6.6.6, 203.0.113.7"), "without a list, one is for both");
    let bench = Bench::with(&format!("{networks}http: {{forwarded_from: []}}\n"));
    assert_unforged(&bench.arrives_after(b"", forged), "127.0.0.1");
    let bench = Bench::with(networks);
    let arrived = bench.arrives_after(b"", "X-Forwarded-For: 192.0.2.5\r\nX-Forwarded-Proto: https,https\r\n");
    assert_eq!(arrived.header("X-Forwarded-For"), Some("192.0.2.5, 127.0.0.1"));
    assert_eq!(arrived.header("X-Forwarded-Proto"), Some("https"), "the first proxy's word is about the client");
}

#[test]
fn peers_of_a_unix_socket_are_trusted_by_its_files_permissions_alone() {
    let (folder, origin) = (Folder::new(), Origin::new());
    let [believed, doubted] = ["believed", "doubted"].map(|name| folder.path().join(name));
    let lb = Lb::with_config(&format!(
        "listeners:\n  believed: {{bind: 'unix:{}', mode: http}}\n  \
         doubted: {{bind: 'unix:{}', mode: http, http: {{forwarded_from: [192.0.2.0/24]}}}}\n\
         pools:\n  app: {{backends: ['{}']}}\n",
        believed.display(),
        doubted.display(),
        origin.address()
    ))
    .start();
    for (path, expected) in [(believed, ["192.0.2.5, unix:", "https"]), (doubted, ["unix:", "http"])] {
        let mut stream = UnixStream::connect(path).unwrap();
        let told = [("Host", "h"), ("X-Forwarded-For", "192.0.2.5"), ("X-Forwarded-Proto", "https")];
        assert_eq!(request(&mut stream, "GET", "/", &told, "").unwrap().status, 200);
        let requests = origin.requests();
        let arrived = requests.last().unwrap();
        assert_eq!(["X-Forwarded-For", "X-Forwarded-Proto"].map(|name| arrived.header(name).unwrap()), expected);
    }
    drop(lb);
}

#[test]
fn an_ipv4_client_is_one_however_the_header_writes_it() {
    let bench = Bench::with(
        "proxy_protocol: required\ntrusted_proxies: [127.0.0.0/8]\n\
         http: {set_headers: {X-Server: '$server_addr:$server_port', X-Port: $remote_port}}\n",
    );
    for server in ["2001:db8::1", "::ffff:192.0.2.1"] {
        let header = format!("PROXY TCP6 ::ffff:198.51.100.1 {server} 4711 443\r\n");
        let arrived = bench.arrives_after(header.as_bytes(), "");
        assert_unforged(&arrived, "198.51.100.1");
        let server = server.trim_start_matches("::ffff:");
        // Where the client connected to, not where the proxy did.
        assert_eq!(arrived.header("X-Server"), Some(format!("{server}:443").as_str()));
        assert_eq!(arrived.header("X-Port"), Some("4711"));
    }
    bench.lb.access_log(2).iter().for_each(|line| assert_eq!(line["client"], "198.51.100.1:4711", "{line}"));
    let arrived = bench.arrives_after(b"PROXY UNKNOWN\r\n", "");
    assert_eq!(arrived.header("X-Server"), Some(bench.lb.address().to_string().as_str()), "the socket's own");
}

#[test]
fn a_value_may_repeat_what_the_client_sent() {
    let set = "{Host: $http_host, X-Real-IP: $http_x_real_ip, X-Agent: '<$http_user_agent>'}";
    let bench = Bench::with(&format!("http: {{set_headers: {set}}}\n"));
    let arrived = bench.arrives("GET / HTTP/1.1\r\nHost: Example.COM:81\r\nx-real-ip: 192.0.2.9\r\n\r\n", usize::MAX);
    let values = ["Host", "X-Real-IP", "X-Agent"].map(|name| arrived.header(name));
    assert_eq!(values, [Some("Example.COM:81"), Some("192.0.2.9"), Some("<>")]);
}

#[test]
fn a_request_of_http_1_0_needs_no_host() {
    let folder = Folder::new();
    let origin = free_port();
    let site = format!("http {{ $TEMP server {{ listen {origin}; location / {{ return 200 nginx; }} }} }}");
    let nginx = nginx(&folder, origin, &site);
    let second = Lb::in_front_of(&[nginx.address()]).with(&["--mode", "http"]).start();
    let first = Lb::in_front_of(&[second.address()]).with(&["--mode", "http"]).start();
    for lb in [&second, &first] {
        for connection in ["", "Connection: keep-alive\r\n"] {
            let mut client = Reader::of(connect(lb.address()));
            client.send(format!("GET / HTTP/1.0\r\n{connection}\r\n"));
            let answer = client.response();
            assert_eq!((answer.status(), answer.text().as_str()), (200, "nginx"), "{answer:?}");
        }
        // Another request gets a connection that lives.
        assert_eq!(exchange(&mut connect(lb.address()), "/").unwrap().body, "nginx");
    }
    let bench = Bench::with("");
    let arrived = bench.arrives("POST / HTTP/1.0\r\nContent-Length: 1\r\n\r\na", usize::MAX);
    assert!(arrived.head.starts_with("POST / HTTP/1.0\r\nContent-Length: 1\r\n"), "{}", arrived.head);
    let bench = Bench::with("http: {set_headers: {Host: example.com}}\n");
    let arrived = bench.arrives("GET / HTTP/1.0\r\n\r\n", usize::MAX);
    assert!(arrived.head.starts_with("GET / HTTP/1.1\r\nHost: example.com\r\n"), "{}", arrived.head);
}
