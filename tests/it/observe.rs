//! Numbers that must be right: under load, against the access log, through a real Prometheus, with a thousand backends.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::support::{
    Folder, Lb, Metrics, Program, Refusing, Server, connect, cpu_time, free_port, get, post, read_to_end, required,
    resident_bytes, wait_for_within, wait_until, wait_until_equal,
};

/// Answers what it is asked, twice, and ends first: no local port of the balancer stays taken.
fn doubling() -> Server {
    Server::that(|mut stream| {
        let mut asked = Vec::new();
        if stream.read_to_end(&mut asked).is_ok() {
            let _ = stream.write_all(&asked);
            let _ = stream.write_all(&asked);
        }
    })
}

/// One short connection; gives the bytes sent and received.
fn ask_for_double(address: SocketAddr, length: usize) -> (u64, u64) {
    let mut client = connect(address);
    client.write_all(&vec![b'x'; length]).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let (answer, _) = read_to_end(&mut client);
    assert_eq!(answer.len(), 2 * length);
    (length as u64, answer.len() as u64)
}

#[test]
#[allow(clippy::cast_precision_loss, reason = "a float holds such numbers exactly")]
fn twenty_thousand_connections_add_up_in_metrics_log_and_test() {
    const CLIENTS: u64 = 8;
    const CONNECTIONS: u64 = 20_000;
    const SCRAPES: u64 = 50;
    let folder = Folder::new();
    let log = folder.path().join("access.log");
    let (a, b) = (doubling(), doubling());
    let lb = Lb::in_front_of(&[a.address(), b.address()]).with(&["--access-log", &log.display().to_string()]).start();
    let (sent, received, done) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let address = lb.address();
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (sent, received, done) = (&sent, &received, &done);
            scope.spawn(move || {
                for round in 0..CONNECTIONS / CLIENTS {
                    let length = 1 + (client * 131 + round * 17) % 600;
                    let (out, back) = ask_for_double(address, usize::try_from(length).unwrap());
                    sent.fetch_add(out, Ordering::Relaxed);
                    received.fetch_add(back, Ordering::Relaxed);
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut last = 0.0;
        for scrape in 1..=SCRAPES {
            let due = CONNECTIONS * scrape / (SCRAPES + 1);
            wait_for_within(Duration::from_secs(120), "the clients go on", || {
                (done.load(Ordering::Relaxed) >= due).then_some(())
            });
            // `metrics` asserts accepted = closed + active + rejected.
            let accepted = lb.metrics().sum("connections_accepted_total", &[]);
            assert!(accepted >= due as f64 && accepted > last, "{accepted} accepted, {due} done, {last} before");
            last = accepted;
        }
    });
    lb.assert_balanced();
    let metrics = lb.metrics();
    let (sent, received) = (sent.into_inner(), received.into_inner());
    assert_eq!(metrics.sum("connections_accepted_total", &[]), CONNECTIONS as f64);
    assert_eq!(metrics.sum("backend_connections_total", &[]), CONNECTIONS as f64);
    for name in ["bytes_total", "backend_bytes_total"] {
        assert_eq!(metrics.sum(name, &[("direction", "in")]), sent as f64, "{name}");
        assert_eq!(metrics.sum(name, &[("direction", "out")]), received as f64, "{name}");
    }
    assert_eq!(metrics.sum("access_log_dropped_total", &[]), 0.0);
    let count = || fs::read(&log).unwrap().iter().filter(|byte| **byte == b'\n').count() as u64;
    wait_until_equal("lines in the access log", &CONNECTIONS, count);
    let text = fs::read_to_string(&log).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let logged = lines.fold((0, 0), |(inward, outward), line| {
        (inward + line["bytes_in"].as_u64().unwrap(), outward + line["bytes_out"].as_u64().unwrap())
    });
    assert_eq!(logged, (sent, received));
    let status = lb.api("/api/v1/status")["listeners"][0].clone();
    assert_eq!((&status["bytes_in"], &status["bytes_out"]), (&sent.into(), &received.into()));
    let backends = lb.api("/api/v1/pools")["pools"][0]["backends"].as_array().unwrap().clone();
    let of_backends = |key: &str| backends.iter().map(|backend| backend[key].as_u64().unwrap()).sum::<u64>();
    assert_eq!((of_backends("bytes_in"), of_backends("bytes_out")), (sent, received));
}

/// A Prometheus that scrapes one balancer every other second as the job `lb`.
struct Prometheus {
    program: Program,
    _folder: Folder,
}

impl Prometheus {
    /// With these rules, if any.
    fn that_scrapes(lb: &Lb, rules: Option<&str>) -> Self {
        let folder = Folder::new();
        let mut config = format!(
            "global: {{scrape_interval: 2s, scrape_timeout: 2s, evaluation_interval: 1s}}\n\
             scrape_configs:\n  - job_name: lb\n    \
             static_configs: [{{targets: ['{}']}}]\n",
            lb.admin()
        );
        if let Some(rules) = rules {
            let path = folder.write("rules.yaml", rules);
            writeln!(config, "rule_files: ['{}']", path.display()).unwrap();
        }
        let file = folder.write("prometheus.yml", config);
        let address = free_port();
        let mut command = Command::new(required("prometheus"));
        command.current_dir(folder.path());
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
        command.arg(format!("--web.listen-address={address}"));
        let program = Program::serving_at(address, &mut command);
        let prometheus = Self { program, _folder: folder };
        wait_until("Prometheus is ready", || get(prometheus.program.address(), "/-/ready").status == 200);
        prometheus
    }

    /// The first value of an instant query; `None`: no series.
    fn value(&self, query: &str) -> Option<f64> {
        let query = utf8_percent_encode(query, NON_ALPHANUMERIC);
        let answer = get(self.program.address(), &format!("/api/v1/query?query={query}")).json();
        assert_eq!(answer["status"], "success", "{answer}");
        answer["data"]["result"][0]["value"][1].as_str().map(|value| value.parse().unwrap())
    }

    fn api(&self, path: &str) -> Value {
        get(self.program.address(), path).json()["data"].clone()
    }

    /// The state of an alert about this backend: `pending`, `firing`, or none.
    fn alert(&self, name: &str, backend: SocketAddr) -> Option<String> {
        self.alert_about(name, "backend", &backend.to_string())
    }

    /// The same about what this label names.
    fn alert_about(&self, name: &str, label: &str, value: &str) -> Option<String> {
        let alerts = self.api("/api/v1/alerts")["alerts"].as_array().unwrap().clone();
        let is_it = |alert: &&Value| alert["labels"]["alertname"] == name && alert["labels"][label] == value;
        alerts.iter().find(is_it).map(|alert| alert["state"].as_str().unwrap().to_owned())
    }
}

/// A client that connects at a steady pace until it is dropped.
struct SteadyLoad {
    stop: Arc<AtomicBool>,
    /// When it connected.
    times: Arc<Mutex<Vec<Instant>>>,
}

impl SteadyLoad {
    fn on(address: SocketAddr, pause: Duration) -> Self {
        let load = Self { stop: Arc::default(), times: Arc::default() };
        let (stop, times) = (load.stop.clone(), load.times.clone());
        thread::spawn(move || {
            let (began, mut made) = (Instant::now(), 0);
            while !stop.load(Ordering::Relaxed) {
                // It may not be served.
                let _ = TcpStream::connect(address).and_then(|mut client| client.write_all(b"hello"));
                times.lock().unwrap().push(Instant::now());
                made += 1;
                // By the clock, so that a slow connect doesn't slow the pace.
                thread::sleep((pause * made).saturating_sub(began.elapsed()));
            }
        });
        load
    }

    /// Connections a second, over the time until now.
    #[allow(clippy::cast_precision_loss, reason = "it is a few thousand")]
    fn rate(&self, time: Duration) -> f64 {
        let recent = self.times.lock().unwrap().iter().filter(|at| at.elapsed() < time).count();
        recent as f64 / time.as_secs_f64()
    }
}

impl Drop for SteadyLoad {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_real_prometheus_sees_the_right_rate() {
    let server = Server::echo();
    let lb = Lb::in_front_of(&[server.address()]).start();
    let prometheus = Prometheus::that_scrapes(&lb, None);
    let load = SteadyLoad::on(lb.address(), Duration::from_millis(25));
    // There was load during the whole window.
    let early = "lb_connections_accepted_total offset 31s > 0";
    wait_for_within(Duration::from_secs(50), "half a minute of samples", || prometheus.value(early));
    // One scrape may be late on a busy machine.
    wait_until_equal("up", &Some(1.0), || prometheus.value("up{job=\"lb\"}"));
    let seen = prometheus.value("rate(lb_connections_accepted_total[30s])").unwrap();
    let closed = prometheus.value("sum(rate(lb_connections_closed_total[30s]))").unwrap();
    let made = load.rate(Duration::from_secs(30));
    for rate in [seen, closed] {
        // A busy machine makes fewer of them in one second than in another, and scrapes late.
        assert!((rate / made - 1.0).abs() < 0.2, "Prometheus sees {rate} a second, {made} were made");
    }
    let metadata = prometheus.api("/api/v1/metadata?metric=lb_connections_accepted_total");
    assert_eq!(metadata["lb_connections_accepted_total"][0]["type"], "counter");
}

#[test]
fn the_shipped_alert_fires_when_a_backend_dies() {
    let shipped = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/prometheus/alerts.yaml")).unwrap();
    // The same rules, less patient.
    let rules: String =
        shipped
            .lines()
            .map(|line| {
                if line.trim_start().starts_with("for: ") {
                    "        for: 2s\n".to_owned()
                } else {
                    format!("{line}\n")
                }
            })
            .collect();
    let (a, b) = (Server::echo(), Server::echo());
    let dying = a.address();
    let lb = Lb::in_front_of(&[dying, b.address()]).start();
    let prometheus = Prometheus::that_scrapes(&lb, Some(&rules));
    let groups = prometheus.api("/api/v1/rules")["groups"].as_array().unwrap().clone();
    let loaded: usize = groups.iter().map(|group| group["rules"].as_array().unwrap().len()).sum();
    assert_eq!(loaded, shipped.matches("- alert: ").count());
    let _load = SteadyLoad::on(lb.address(), Duration::from_millis(25));
    let up = format!("lb_backend_up{{backend=\"{dying}\"}}");
    wait_until_equal("Prometheus sees the backend up", &Some(1.0), || prometheus.value(&up));
    assert_eq!(prometheus.alert("LbBackendDown", dying), None);

    let gone = a.stop();
    wait_until("the alert is there", || prometheus.alert("LbBackendDown", dying).is_some());
    wait_until_equal("the alert", &Some("firing".to_owned()), || prometheus.alert("LbBackendDown", dying));
    assert_eq!(prometheus.alert("LbBackendDown", b.address()), None, "the other one is well");
    assert_eq!(prometheus.value(&up), Some(0.0));
    // Without the other one the pool serves nobody, and clients get nothing.
    for name in ["LbPoolDown", "LbClientsFail"] {
        assert_eq!(prometheus.alert_about(name, "pool", "default"), None, "{name}");
    }
    let _both_gone = b.stop();
    for name in ["LbPoolDown", "LbClientsFail"] {
        let firing = Some("firing".to_owned());
        wait_until_equal(name, &firing, || prometheus.alert_about(name, "pool", "default"));
    }
    // No rule is broken by what the balancer really shows.
    for group in prometheus.api("/api/v1/rules")["groups"].as_array().unwrap() {
        for rule in group["rules"].as_array().unwrap() {
            assert_eq!((&rule["health"], &rule["lastError"]), (&"ok".into(), &Value::Null), "{rule}");
        }
    }
    drop(gone);
}

/// Every expression of the shipped dashboard, with its variables filled in.
fn expressions_of_the_dashboard() -> Vec<String> {
    fn collect(node: &Value, found: &mut Vec<String>) {
        match node {
            Value::Object(object) => {
                found.extend(object.get("expr").and_then(Value::as_str).map(str::to_owned));
                object.values().for_each(|child| collect(child, found));
            }
            Value::Array(array) => array.iter().for_each(|child| collect(child, found)),
            _ => {}
        }
    }
    let shipped = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/grafana/lb.json")).unwrap();
    let mut found = Vec::new();
    collect(&serde_json::from_str(&shipped).unwrap(), &mut found);
    let known = [("$__rate_interval", "30s"), ("$__range", "1h"), ("$__interval", "10s")];
    let own = ["$instance", "$listener", "$pool"].map(|name| (name, ".*"));
    let filled = |text: &String| known.iter().chain(&own).fold(text.clone(), |text, (name, by)| text.replace(name, by));
    found.iter().map(filled).collect()
}

#[test]
fn the_dashboard_finds_what_it_asks_for() {
    let (a, dead) = (Server::named("a"), Refusing::new());
    let lb = Lb::in_front_of(&[a.address(), dead.address()]).with(&["--mode", "http"]).start();
    let prometheus = Prometheus::that_scrapes(&lb, None);
    let requests = "sum(rate(lb_backend_requests_total[30s])) > 0";
    wait_for_within(Duration::from_secs(50), "two scrapes with requests", || {
        assert_eq!(get(lb.address(), "/").status, 200);
        prometheus.value(requests)
    });
    let expressions = expressions_of_the_dashboard();
    assert!(expressions.len() > 40, "{}", expressions.len());
    // Each is answered, which `value` asserts. Without a value are those of what doesn't happen here.
    let is_of_trouble = |expr: &&String| expr.ends_with("> 0") || expr.contains("origin=\"lb\"");
    let others = expressions.iter().filter(|expr| !is_of_trouble(expr));
    let empty: Vec<&String> = others.filter(|expr| prometheus.value(expr).is_none()).collect();
    assert!(empty.is_empty(), "{empty:#?}");
    for expr in expressions.iter().filter(is_of_trouble) {
        let _ = prometheus.value(expr);
    }
    assert!(expressions.iter().all(|expr| !expr.contains('$')), "{expressions:#?}");
}

#[test]
#[allow(clippy::cast_precision_loss, reason = "a float holds such numbers exactly")]
fn the_process_shows_what_it_uses() {
    let server = doubling();
    let lb = Lb::in_front_of(&[server.address()]).open_files_at_most(5000).start();
    for _ in 0..200 {
        ask_for_double(lb.address(), 1000);
    }
    let metrics = lb.metrics();
    let value = |name: &str| metrics.sum(&format!("process_{name}"), &[]);
    let near = |name: &str, seen: f64, share: f64| {
        let shown = value(name);
        assert!((shown / seen - 1.0).abs() < share, "lb_process_{name} is {shown}, proc(5) says {seen}");
    };
    assert_eq!(value("max_fds"), 5000.0);
    near("resident_memory_bytes", resident_bytes(lb.pid()) as f64, 0.2);
    near("open_fds", fs::read_dir(format!("/proc/{}/fd", lb.pid())).unwrap().count() as f64, 0.2);
    let used = cpu_time(lb.pid()).as_secs_f64();
    // proc(5) counts in hundredths, and was asked a little later.
    assert!((used - 0.5..=used + 0.02).contains(&value("cpu_seconds_total")), "{used} s were used");
    assert!(value("cpu_seconds_total") % 1.0 > 0.0, "in fractions");
    for name in ["cpu_seconds_total", "resident_memory_bytes", "open_fds", "start_time_seconds"] {
        assert!(metrics.samples.iter().any(|sample| sample.name == format!("process_{name}")), "process_{name}");
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((now - value("start_time_seconds")).abs() < 60.0, "{}", value("start_time_seconds"));
}

/// The short form, with this many backends that nobody asks.
fn yaml_of(backends: impl Iterator<Item = u16>) -> String {
    let list: Vec<String> = backends.map(|n| format!("'127.9.{}.{}:9'", n / 250, 1 + n % 250)).collect();
    format!("listen: 127.0.0.1:0\nbackends: [{}]\nadmin: {{bind: 127.0.0.1:0}}\n", list.join(", "))
}

#[test]
fn a_thousand_backends_are_shown() {
    let lb = Lb::with_config(&yaml_of(0..1000)).start();
    assert_eq!(lb.metrics().label_values("backend_up", "backend").len(), 1000);
    assert_eq!(lb.api("/api/v1/pools")["pools"][0]["backends"].as_array().unwrap().len(), 1000);
    assert_eq!(lb.ask("/api/v1/status").status, 200);
}

#[test]
fn backends_that_go_leave_no_series_behind() {
    let folder = Folder::new();
    let file = folder.write("lb.yaml", yaml_of(0..100));
    let lb = Lb::with_arguments(&["-c", &file.display().to_string()]).start();
    let series_of = |metrics: &Metrics| {
        let mut names: Vec<String> = metrics.samples.iter().map(|s| format!("{} {:?}", s.name, s.labels)).collect();
        names.sort();
        names
    };
    let count = series_of(&lb.metrics()).len();
    for round in 1..=10 {
        folder.write("lb.yaml", yaml_of(round * 100..round * 100 + 100));
        assert_eq!(post(lb.admin(), "/api/v1/reload", &[]).status, 200);
        let metrics = lb.metrics();
        assert_eq!(series_of(&metrics).len(), count, "round {round}");
        assert!(!metrics.text.contains("127.9.0.1:9"), "a backend of the first round is still there");
    }
    folder.write("lb.yaml", yaml_of(0..1));
    assert_eq!(post(lb.admin(), "/api/v1/reload", &[]).status, 200);
    let metrics = lb.metrics();
    for sample in metrics.samples.iter().filter(|sample| sample.name.starts_with("lb_backend")) {
        assert_eq!(sample.labels["backend"], "127.9.0.1:9", "{sample:?}");
    }
    // The same on the next one.
    assert_eq!(series_of(&lb.metrics()), series_of(&metrics));
}

#[test]
fn a_connections_number_joins_the_log_and_the_access_log() {
    let (dead, server) = (Refusing::new(), Server::named("here"));
    let lb = Lb::in_front_of(&[dead.address(), server.address()])
        .with(&["--log-level", "debug"])
        .set("pools.default.failure_detection.failures", 1)
        .start();
    get(lb.address(), "/");
    get(lb.address(), "/");
    let lines = lb.access_log(2);
    let refused = lines.iter().find(|line| line["attempts"][0]["outcome"] == "refused").expect("one was refused first");
    for message in ["connect failed", "backend ejected"] {
        let logged = lb.wait_for_log(message, 1);
        assert_eq!(logged.len(), 1, "{message}");
        assert_eq!(logged[0]["span"]["id"], refused["connection"], "{message}: {:?}", logged[0]);
        assert_eq!(logged[0]["span"]["client"], refused["client"], "{message}");
    }
    assert_ne!(lines[0]["connection"], lines[1]["connection"]);
}
