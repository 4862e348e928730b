//! Http mode before real servers: what they see of requests of every kind is what was sent and what was logged, and
//! nothing of another request. The requests are made up, by a seed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use fastrand::Rng;
use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Folder, Lb, Program, Reader, connect_from, free_port, output_of, required, wait_until};

/// The address that all requests come from.
const CLIENT: &str = "127.0.0.9";
/// Said by clients of themselves. Nobody is to believe it, so it is to arrive nowhere.
const FORGED: &str = "6.6.6.6";
/// Names that some server takes for a header that lb sets, or that frames a message.
const LOOKALIKES: [&str; 13] = [
    "X-Real-IP",
    "x_real_ip",
    "X.Real.IP",
    "X~Real-IP",
    "X+Forwarded+For",
    "X_Forwarded_For",
    "X-Forwarded-For",
    "x-forwarded.proto",
    "X^Forwarded^Proto",
    "X-Forwarded-Proto",
    "Content.Length",
    "Content_Length",
    "Transfer_Encoding",
];
/// Names of which an origin must see what the request itself had, if anything.
const OWN: [&str; 4] = ["Cookie", "Authorization", "X-Test", "Accept-Language"];

/// A made-up request.
struct Made {
    id: String,
    bytes: Vec<u8>,
    method: &'static str,
    target: String,
    body: Vec<u8>,
    /// Names in lower case, and their values.
    own: BTreeMap<String, String>,
}

impl Made {
    fn new(number: usize, path: &str, random: &mut Rng) -> Self {
        let id = format!("r{number}");
        let target = format!("{path}/{id}?{}", random.u8(..));
        let method = random.choice(["GET", "POST", "PUT", "DELETE"]).unwrap();
        let mut lines = vec!["Host: example.com".to_owned(), format!("X-Request-ID: {id}")];
        let mut own = BTreeMap::new();
        for name in OWN {
            // The number shows where it belongs.
            if random.bool() {
                let value = format!("{name}={id}");
                lines.push(format!("{name}: {value}"));
                own.insert(name.to_lowercase(), value);
            }
        }
        for _ in 0..random.usize(0..4) {
            lines.push(format!("{}: {FORGED}", random.choice(LOOKALIKES).unwrap()));
        }
        let (mut body, mut coded) = (Vec::new(), Vec::new());
        match if method == "GET" { 0 } else { random.usize(0..4) } {
            0 => {}
            1 => {
                body = bytes(random);
                coded.clone_from(&body);
                lines.push(format!("Content-Length: {}", body.len()));
            }
            _ => {
                coded = chunks(&id, &mut body, random);
                lines.push("Transfer-Encoding: chunked".to_owned());
            }
        }
        random.shuffle(&mut lines);
        let head = format!("{method} {target} HTTP/1.1\r\n{}\r\n\r\n", lines.join("\r\n"));
        Self { id, bytes: [head.into_bytes(), coded].concat(), method, target, body, own }
    }
}

fn bytes(random: &mut Rng) -> Vec<u8> {
    let length = *random.choice(&[1, 7, 100, 5_000, 40_000]).unwrap();
    std::iter::repeat_with(|| random.u8(..)).take(length).collect()
}

/// A chunked body with its coding: extensions, and trailers that lie.
fn chunks(id: &str, body: &mut Vec<u8>, random: &mut Rng) -> Vec<u8> {
    let mut coded = Vec::new();
    for _ in 0..random.usize(0..4) {
        let chunk = bytes(random);
        let extension = *random.choice(&["", ";a", ";a=b;c=\"d;e\""]).unwrap();
        coded.extend_from_slice(format!("{:x}{extension}\r\n", chunk.len()).as_bytes());
        coded.extend_from_slice(&[&chunk[..], b"\r\n"].concat());
        body.extend_from_slice(&chunk);
    }
    coded.extend_from_slice(b"0\r\n");
    for _ in 0..random.usize(0..4) {
        let name = if random.bool() { *random.choice(&LOOKALIKES).unwrap() } else { *random.choice(&OWN).unwrap() };
        coded.extend_from_slice(format!("{name}: {FORGED}, trailer of {id}\r\n").as_bytes());
    }
    coded.extend_from_slice(b"\r\n");
    coded
}

/// Sends requests over several connections, some of them ahead of the answers, and gives those that were answered 200.
fn send_all(lb: &Lb, made: &[Made], random: &mut Rng) -> BTreeSet<String> {
    let mut answered = BTreeSet::new();
    let mut rest = made;
    while !rest.is_empty() {
        let (together, after) = rest.split_at(random.usize(1..=4).min(rest.len()));
        rest = after;
        let bytes = together.iter().map(|made| &made.bytes[..]).collect::<Vec<_>>().concat();
        let mut client = Reader::of(connect_from(CLIENT.parse().unwrap(), lb.address()));
        let mut stream = client.stream.try_clone().unwrap();
        let piece = *random.choice(&[usize::MAX, 3_000, 100, 17]).unwrap();
        let sending = thread::spawn(move || {
            use std::io::Write;
            // After a refusal nothing more need be taken.
            bytes.chunks(piece).all(|piece| stream.write_all(piece).is_ok())
        });
        for made in together {
            let Some(answer) = client.message(true) else { break };
            if answer.status() == 200 {
                assert!(answer.text().contains("seen"), "{answer:?}");
                answered.insert(made.id.clone());
            }
        }
        sending.join().unwrap();
    }
    answered
}

fn value_of<'a>(headers: &'a [Value], name: &str) -> Vec<&'a str> {
    headers.iter().filter(|header| header[0] == name).map(|header| header[1].as_str().unwrap()).collect()
}

fn sha256(folder: &Folder, body: &[u8]) -> String {
    let file = folder.write("body", body).display().to_string();
    output_of(&required("sha256sum"), &[&file])[..64].to_owned()
}

/// What was seen of one request is what was sent of it.
fn assert_seen_as_sent(seen: &Value, made: &Made, folder: &Folder) {
    let text = seen.to_string();
    assert_eq!((&seen["method"], &seen["target"]), (&made.method.into(), &made.target.as_str().into()), "{text}");
    assert_eq!(seen["bytes"], made.body.len(), "{text}");
    assert_eq!(seen["sha256"], sha256(folder, &made.body), "{text}");
    assert!(!text.contains(FORGED), "{text}");
    let headers = seen["headers"].as_array().unwrap();
    for (name, value) in [("x-real-ip", CLIENT), ("x-forwarded-for", CLIENT), ("x-forwarded-proto", "http")] {
        assert_eq!(value_of(headers, name), [value], "{text}");
    }
    assert_eq!(value_of(headers, "host"), ["example.com"], "{text}");
    for name in OWN.map(str::to_lowercase) {
        let own: Vec<&str> = made.own.get(&name).map(String::as_str).into_iter().collect();
        // A CGI program is not told who the client says it is (RFC 3875 section 4.1.18).
        let is_kept_back = name == "authorization" && value_of(headers, &name).is_empty();
        assert!(is_kept_back || value_of(headers, &name) == own, "{name} in {text}");
    }
    // uvicorn's own conclusion from the headers.
    assert!(seen["client"].is_null() || (&seen["client"], &seen["scheme"]) == (&CLIENT.into(), &"http".into()));
}

/// Sends made-up requests through lb to the server, which writes what it sees to `log`, and compares what was sent,
/// seen and logged.
fn assert_sees_what_is_sent(server: &Program, log: &Path, path: &str, count: usize) {
    let (folder, mut random) = (Folder::new(), Rng::with_seed(0x1b));
    let before = fs::read_to_string(log).unwrap_or_default().lines().count();
    // One worker: connections to the server are shared by as many clients as can be.
    let lb = Lb::in_front_of(&[server.address()]).with(&["--mode", "http", "--workers", "1"]).start();
    let made: Vec<Made> = (0..count).map(|number| Made::new(number, path, &mut random)).collect();
    let answered = send_all(&lb, &made, &mut random);
    assert!(answered.len() > count * 4 / 5, "{} of {count} were answered", answered.len());
    let text = fs::read_to_string(log).unwrap();
    let mut seen = BTreeMap::new();
    for line in text.lines().skip(before) {
        let line: Value = serde_json::from_str(line).unwrap();
        let ids = value_of(line["headers"].as_array().unwrap(), "x-request-id").concat();
        assert!(seen.insert(ids, line).is_none(), "none is seen twice");
    }
    wait_until("all have left", || lb.metrics().sum("connections_active", &[]) == 0.0);
    let requests = lb.metrics().sum("http_requests_total", &[]);
    wait_until("all is logged", || lb.output_lines() as f64 >= requests);
    let logged: BTreeMap<String, Value> = lb
        .access_log(lb.output_lines())
        .into_iter()
        .filter_map(|line| Some((line["request_id"].as_str()?.to_owned(), line)))
        .collect();
    for made in &made {
        let (seen, logged) = (seen.get(&made.id), logged.get(&made.id));
        assert_eq!(answered.contains(&made.id), logged.is_some_and(|line| line["status"] == 200), "{logged:?}");
        if answered.contains(&made.id) {
            assert!(seen.is_some(), "{} was answered and never seen", made.id);
        }
        if let Some(seen) = seen {
            assert_seen_as_sent(seen, made, &folder);
            let logged = logged.expect("what a server sees is logged");
            assert_eq!((&logged["method"], &logged["path"]), (&seen["method"], &seen["target"]));
        }
    }
    assert_eq!(seen.len(), seen.keys().filter(|id| logged.contains_key(*id)).count(), "all that was seen was sent");
}

fn origins() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/origins")
}

/// A server in Python, by the system's interpreter: it has the system's packages.
fn python_origin(script: &str, packages: &[&str], log: &Path) -> Program {
    packages.iter().for_each(|package| drop(required(&format!("/usr/lib/python3/dist-packages/{package}"))));
    let address = free_port();
    let mut command = Command::new("/usr/bin/python3");
    command.arg(origins().join(script)).arg(address.port().to_string()).arg(log).env("PYTHONDONTWRITEBYTECODE", "1");
    Program::serving_at(address, &mut command)
}

#[test]
fn aiohttp_sees_what_is_sent() {
    let folder = Folder::new();
    let log = folder.path().join("log");
    let server = python_origin("aiohttp_origin.py", &["aiohttp"], &log);
    assert_sees_what_is_sent(&server, &log, "", 200);
}

#[test]
fn uvicorn_sees_what_is_sent_and_concludes_who_the_client_is() {
    let folder = Folder::new();
    let log = folder.path().join("log");
    let server = python_origin("uvicorn_origin.py", &["uvicorn", "httptools"], &log);
    assert_sees_what_is_sent(&server, &log, "", 200);
}

/// The CGI program in this folder, and the file that it writes to.
fn cgi_program(folder: &Folder) -> PathBuf {
    fs::copy(origins().join("cgi_origin.py"), folder.path().join("origin.cgi")).unwrap();
    fs::copy(origins().join("seen.py"), folder.path().join("seen.py")).unwrap();
    folder.path().join("origin.cgi.log")
}

#[test]
fn a_cgi_program_of_lighttpd_sees_what_is_sent() {
    let folder = Folder::new();
    let (address, log, at) = (free_port(), cgi_program(&folder), folder.path().display());
    let config = folder.write(
        "lighttpd.conf",
        format!(
            "server.modules = (\"mod_cgi\")\nserver.document-root = \"{at}\"\nserver.bind = \"127.0.0.1\"\n\
             server.port = {}\nserver.upload-dirs = (\"{at}\")\ncgi.assign = (\".cgi\" => \"/usr/bin/python3\")\n",
            address.port()
        ),
    );
    let mut command = Command::new(required("lighttpd"));
    command.args(["-D", "-f", &config.display().to_string()]);
    let server = Program::serving_at(address, &mut command);
    assert_sees_what_is_sent(&server, &log, "/origin.cgi", 60);
}

#[test]
fn a_cgi_program_of_apache_sees_what_is_sent() {
    let folder = Folder::new();
    let (address, log, at) = (free_port(), cgi_program(&folder), folder.path().display());
    let modules = ["mpm_prefork", "authz_core", "alias", "cgi"];
    let load = |name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n");
    let modules = modules.map(load).concat();
    // Where root starts it, its processes are another user's, who must get at the folder.
    for path in [folder.path().to_owned(), folder.path().join("origin.cgi")] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let config = folder.write(
        "apache.conf",
        format!(
            "{modules}ServerName localhost\nListen {address}\nPidFile {at}/apache.pid\nErrorLog {at}/error.log\n\
             DefaultRuntimeDir {at}\nUser nobody\nGroup nogroup\nStartServers 2\n\
             ScriptAlias /origin.cgi {at}/origin.cgi\n<Directory {at}>\nRequire all granted\n</Directory>\n"
        ),
    );
    let mut command = Command::new(required("apache2"));
    command.args(["-X", "-f", &config.display().to_string()]);
    let server = Program::serving_at(address, &mut command).ended_by(Signal::TERM);
    assert_sees_what_is_sent(&server, &log, "/origin.cgi", 60);
}
