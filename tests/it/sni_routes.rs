//! Routes by the server name of TLS: which pool a ClientHello chooses, that none of its bytes is touched, and with real
//! TLS on both sides that the client meets the server it asked for.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::{
    Ending, Folder, Lb, Program, Server, Vector, Verdict, client_hellos, connect, free_port, output_of, read_to_end,
    required, send_and_read, wait_until,
};

/// A TLS server of many clients at once, with the files of its folder.
const PYTHON_SERVER: &str = "
import http.server, ssl, sys
class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(*arguments): pass
server = http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain('cert.pem', 'key.pem')
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
server.serve_forever()
";

/// A TLS server whose certificate is for `names`, with a file `name` that says its own.
struct TlsServer {
    program: Program,
    folder: PathBuf,
}

impl TlsServer {
    fn by_python(folder: &Folder, name: &str, names: &str) -> Self {
        let (at, address) = (certified(folder, name, names), free_port());
        let mut command = Command::new(required("python3"));
        command.args(["-c", PYTHON_SERVER, &address.port().to_string()]).current_dir(&at);
        Self { program: Program::serving_at(address, &mut command), folder: at }
    }

    fn by_openssl(folder: &Folder, name: &str, names: &str) -> Self {
        let (at, address) = (certified(folder, name, names), free_port());
        let mut command = Command::new(required("openssl"));
        command.args(["s_server", "-accept", &address.to_string(), "-cert", "cert.pem", "-key", "key.pem", "-WWW"]);
        Self { program: Program::serving_at(address, command.current_dir(&at)), folder: at }
    }

    fn address(&self) -> SocketAddr {
        self.program.address()
    }

    fn certificate(&self) -> PathBuf {
        self.folder.join("cert.pem")
    }
}

/// A folder with a self-made certificate and its key, and a file `name`.
fn certified(folder: &Folder, name: &str, names: &str) -> PathBuf {
    let at = folder.path().join(format!("server-{name}"));
    fs::create_dir(&at).unwrap();
    fs::write(at.join("name"), name).unwrap();
    let path = |file: &str| at.join(file).display().to_string();
    let (key, cert) = (path("key.pem"), path("cert.pem"));
    let alternatives: Vec<String> = names.split(' ').map(|name| format!("DNS:{name}")).collect();
    let alternatives = format!("subjectAltName={}", alternatives.join(","));
    let subject = format!("/CN={name}");
    let request = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
    let of = ["-keyout", &key, "-out", &cert, "-subj", &subject, "-addext", &alternatives];
    output_of(&required("openssl"), &[&request[..], &of].concat());
    at
}

/// curl for `https://name/file`, which trusts this server's certificate alone.
fn curl(lb: &Lb, name: &str, file: &str, trusted: &Path) -> Output {
    let port = lb.address().port();
    let mut command = Command::new(required("curl"));
    command.args(["--silent", "--show-error", "--max-time", "15", "--http1.1", "--noproxy", "*"]);
    command.args(["--resolve", &format!("{name}:{port}:127.0.0.1")]).arg("--cacert").arg(trusted);
    command.arg(format!("https://{name}:{port}/{file}")).stdin(Stdio::null()).output().unwrap()
}

/// The subject of the certificate that openssl's client is shown; nothing where there was none.
fn subject_shown(lb: &Lb, name: Option<&str>) -> Option<String> {
    let address = lb.address().to_string();
    let mut command = Command::new(required("openssl"));
    command.args(["s_client", "-connect", &address]).stdin(Stdio::null());
    match name {
        Some(name) => command.args(["-servername", name]),
        None => command.arg("-noservername"),
    };
    let output = command.output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = shown.lines().find_map(|line| line.strip_prefix("subject="))?;
    Some(line.rsplit('=').next().unwrap().trim().to_owned())
}

/// Routes of `listener` to pools; each pool has one backend.
fn routed(listener: &str, pools: &[(&str, SocketAddr)]) -> Lb {
    let pools: Vec<String> = pools.iter().map(|(name, at)| format!("  {name}: {{backends: ['{at}']}}\n")).collect();
    Lb::with_config(&format!("listeners:\n  tls:\n    bind: 127.0.0.1:0\n{listener}pools:\n{}", pools.concat())).start()
}

#[test]
fn a_client_meets_the_server_that_it_asked_for() {
    let folder = Folder::new();
    let exact = TlsServer::by_python(&folder, "exact", "shop.example.com");
    let wild = TlsServer::by_openssl(&folder, "wild", "*.example.com *.b.example.com");
    let rest = TlsServer::by_openssl(&folder, "rest", "example.com other.test");
    let routes =
        "    routes: [{sni: '*.example.com', pool: wild}, {sni: shop.example.com, pool: exact}]\n    pool: rest\n";
    let lb = routed(routes, &[("exact", exact.address()), ("wild", wild.address()), ("rest", rest.address())]);
    let names = [
        ("shop.example.com", "exact"),
        ("SHOP.Example.com", "exact"),
        ("www.example.com", "wild"),
        ("a.b.example.com", "wild"),
        ("notshop.example.com", "wild"),
        ("example.com", "rest"),
        ("other.test", "rest"),
        ("shop.example.com.evil.test", "rest"),
        ("myexample.com", "rest"),
    ];
    for ((name, server), number) in names.into_iter().zip(1..) {
        assert_eq!(subject_shown(&lb, Some(name)).as_deref(), Some(server), "{name}");
        let line = lb.access_log(number).pop().unwrap();
        assert_eq!([&line["pool"], &line["server_name"]], [server, &name.to_ascii_lowercase()], "{name}");
    }
    assert_eq!(subject_shown(&lb, None).as_deref(), Some("rest"), "without a name");
    for (name, server) in
        [("shop.example.com", &exact), ("www.example.com", &wild), ("a.b.example.com", &wild), ("other.test", &rest)]
    {
        let output = curl(&lb, name, "name", &server.certificate());
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let told = server.folder.display().to_string();
        assert!(output.status.success() && told.ends_with(&format!("server-{said}")), "{name}: {output:?}");
        // A certificate of another server would not do: curl has verified this one.
        let other = if server.address() == rest.address() { &exact } else { &rest };
        assert!(!curl(&lb, name, "name", &other.certificate()).status.success());
    }
}

#[test]
fn two_megabytes_through_tls_are_whole() {
    let folder = Folder::new();
    let servers = [TlsServer::by_python(&folder, "one", "one.test"), TlsServer::by_openssl(&folder, "two", "two.test")];
    let content: Vec<u8> =
        (0..500_000u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
    servers.iter().for_each(|server| fs::write(server.folder.join("large"), &content).unwrap());
    let routes = "    routes: [{sni: one.test, pool: one}, {sni: two.test, pool: two}]\n";
    let lb = routed(routes, &[("one", servers[0].address()), ("two", servers[1].address())]);
    for (name, server) in ["one.test", "two.test"].iter().zip(&servers) {
        let output = curl(&lb, name, "large", &server.certificate());
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        // As openssl's server answers, the headers say nothing of the length: the bytes themselves must be all.
        assert!(output.stdout == content, "{name}: {} bytes", output.stdout.len());
    }
}

#[test]
fn without_a_route_and_a_pool_a_client_is_refused() {
    let server = Server::mirror();
    let routes = "    routes: [{sni: a.example, pool: a}, {sni: '*.b.example', pool: b}]\n";
    let lb = routed(routes, &[("a", server.address()), ("b", server.address())]);
    let refused = ["python/TLS 1.2 and 1.3", "python/no server name", "small/one label", "small/IPv4 address"];
    for vector in client_hellos().iter().filter(|vector| refused.contains(&vector.name.as_str())) {
        let got = send_and_read(&mut connect(lb.address()), [&vector.bytes[..]], false);
        assert_eq!(got, (Vec::new(), Ending::Reset), "{}", vector.name);
    }
    assert_eq!(subject_shown(&lb, Some("c.example")), None);
    lb.wait_for_rejections("no_route", refused.len() + 1);
    assert_eq!(server.accepted(), 0);
    let lines = lb.access_log(refused.len() + 1);
    assert!(lines.iter().any(|line| line["server_name"] == "c.example"), "{lines:?}");
    let line = &lines[0];
    assert_eq!([&line["cause"], &line["reason"]], ["rejected", "no_route"]);
    assert!(line["pool"].is_null(), "{line}");
}

#[test]
fn what_is_no_client_hello_is_refused() {
    let server = Server::mirror();
    let lb = routed("    routes: [{sni: '*', pool: a}]\n    pool: a\n", &[("a", server.address())]);
    let mut refused = 0;
    for vector in client_hellos().iter().filter(|vector| vector.verdict == Verdict::Reject) {
        for length in [vector.bytes.len(), 1] {
            let got = send_and_read(&mut connect(lb.address()), vector.bytes.chunks(length), false);
            assert_eq!(got, (Vec::new(), Ending::Reset), "{} in pieces of {length}", vector.name);
            refused += 1;
        }
    }
    assert!(refused > 80);
    lb.wait_for_rejections("client_hello", refused);
    assert_eq!(server.accepted(), 0);
    assert!(lb.access_log(refused).iter().all(|line| line["reason"] == "client_hello"));
}

#[test]
fn half_a_hello_is_refused_when_its_time_is_over() {
    let server = Server::mirror();
    let lb = routed(
        "    routes: [{sni: '*', pool: a}]\n    timeouts: {client_header: 300ms}\n",
        &[("a", server.address()), ("b", server.address())],
    );
    let started = Instant::now();
    let halves = client_hellos().into_iter().filter(|vector| vector.verdict == Verdict::Incomplete);
    let waiting = halves.map(|vector| {
        let mut stream = connect(lb.address());
        stream.write_all(&vector.bytes).unwrap();
        (vector.name, stream)
    });
    let mut waiting: Vec<_> = waiting.collect();
    for (name, stream) in &mut waiting {
        assert_eq!(read_to_end(stream), (Vec::new(), Ending::Reset), "{name}");
        assert!(started.elapsed() >= Duration::from_millis(300), "{name}: after {:?}", started.elapsed());
    }
    lb.wait_for_rejections("client_hello", waiting.len());
    assert_eq!(server.accepted(), 0);
}

/// The pool that a hello is for, in [`bench`].
fn pool_of(vector: &Vector) -> &'static str {
    match vector.facts["server_name"].as_str() {
        Some("example.com") => "exact",
        Some(name) if name.ends_with(".example.com") => "wild",
        _ => "rest",
    }
}

/// Three pools, each of a server that sends back what it got.
fn bench(more: &str) -> (Vec<Server>, Lb) {
    let servers: Vec<Server> = (0..3).map(|_| Server::mirror()).collect();
    let pools: Vec<_> = ["exact", "wild", "rest"].into_iter().zip(servers.iter().map(Server::address)).collect();
    let routes = "    routes: [{sni: example.com, pool: exact}, {sni: '*.example.com', pool: wild}]\n    pool: rest\n";
    let lb = routed(&format!("{routes}{more}"), &pools);
    (servers, lb)
}

/// The handshake message of a sound hello in records of this length; what follows the hello stays.
fn in_records(bytes: &[u8], length: usize) -> Vec<u8> {
    let (mut message, mut rest) = (Vec::new(), bytes);
    let is_whole = |message: &[u8]| {
        message.len() >= 4 && message.len() >= 4 + u32::from_be_bytes([0, message[1], message[2], message[3]]) as usize
    };
    while !is_whole(&message) {
        let end = 5 + usize::from(u16::from_be_bytes([rest[3], rest[4]]));
        message.extend_from_slice(&rest[5..end]);
        rest = &rest[end..];
    }
    let record = |part: &[u8]| [&[22, 3, 1], &u16::try_from(part.len()).unwrap().to_be_bytes()[..], part].concat();
    [message.chunks(length).flat_map(record).collect(), rest.to_vec()].concat()
}

#[test]
fn every_hello_reaches_its_pool_untouched_however_it_is_cut() {
    /// Longer ones are refused: headers count.
    const MOST_BYTES: usize = 17 * 1024;
    let (servers, lb) = bench("");
    let mut connections = 0;
    let mut assert_reaches = |vector: &Vector, bytes: &[u8], length: usize, what: &str| {
        let got = send_and_read(&mut connect(lb.address()), bytes.chunks(length), true);
        assert!(got == (bytes.to_vec(), Ending::Clean), "{} {what}: {} bytes, {:?}", vector.name, got.0.len(), got.1);
        connections += 1;
        let line = lb.access_log(connections).pop().unwrap();
        assert_eq!(line["pool"], pool_of(vector), "{} {what}", vector.name);
        assert_eq!(line["bytes_in"], bytes.len(), "{} {what}", vector.name);
    };
    let vectors: Vec<Vector> = client_hellos().into_iter().filter(|vector| vector.verdict == Verdict::Accept).collect();
    assert!(vectors.len() > 30);
    for vector in &vectors {
        assert_reaches(vector, &vector.bytes, vector.bytes.len(), "whole");
        assert_reaches(vector, &vector.bytes, 1, "byte by byte");
        for length in [1, 5, 100] {
            let bytes = in_records(&vector.bytes, length);
            if bytes.len() <= MOST_BYTES {
                assert_reaches(vector, &bytes, bytes.len(), &format!("in records of {length}"));
            }
        }
    }
    // Segments of one byte that each are less than a record of one byte.
    let small = vectors.iter().find(|vector| vector.name == "small/name").unwrap();
    assert_reaches(small, &in_records(&small.bytes, 1), 1, "in records of 1, byte by byte");
    assert_eq!(servers.iter().map(Server::accepted).sum::<usize>(), connections);
}

#[test]
fn a_hello_behind_a_proxy_header_is_routed_and_told_on() {
    let (_servers, lb) = bench("    proxy_protocol: required\n    trusted_proxies: [127.0.0.1]\n");
    let header = b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\r\n";
    let hellos: Vec<Vector> = client_hellos().into_iter().filter(|vector| vector.verdict == Verdict::Accept).collect();
    for (number, vector) in hellos.iter().enumerate() {
        let bytes = [&header[..], &vector.bytes].concat();
        // In one segment, and with the hello's first bytes in the header's.
        for pieces in [vec![&bytes[..]], vec![&bytes[..header.len() + 3], &bytes[header.len() + 3..]]] {
            let got = send_and_read(&mut connect(lb.address()), pieces, true);
            assert!(got == (vector.bytes.clone(), Ending::Clean), "{}: {} bytes", vector.name, got.0.len());
        }
        let line = lb.access_log(2 * (number + 1)).pop().unwrap();
        assert_eq!([&line["pool"], &line["client"]], [pool_of(vector), "203.0.113.7:4711"], "{}", vector.name);
    }
}

#[test]
fn changed_routes_hold_for_the_next_connection() {
    let servers = [Server::mirror(), Server::mirror()];
    let yaml = |pool: &str| {
        format!(
            "listeners: {{tls: {{bind: '127.0.0.1:0', routes: [{{sni: example.com, pool: {pool}}}]}}}}\n\
             pools: {{a: {{backends: ['{}']}}, b: {{backends: ['{}']}}}}\n",
            servers[0].address(),
            servers[1].address()
        )
    };
    let hello = client_hellos().remove(0).bytes;
    let lb = Lb::with_config(&yaml("a")).start();
    let mut before = connect(lb.address());
    before.write_all(&hello).unwrap();
    wait_until("it is routed", || servers[0].accepted() == 1);
    lb.reload_with(&yaml("b"));
    let got = send_and_read(&mut connect(lb.address()), [&hello[..]], true);
    assert_eq!(got, (hello.clone(), Ending::Clean));
    assert_eq!([servers[0].accepted(), servers[1].accepted()], [1, 1]);
    assert_eq!(send_and_read(&mut before, [&b" and more"[..]], true).0, [&hello[..], b" and more"].concat());
    let pools: Vec<_> = lb.access_log(2).into_iter().map(|line| line["pool"].as_str().unwrap().to_owned()).collect();
    assert_eq!(pools, ["b", "a"]);
}
