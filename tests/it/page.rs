//! The status page, in a real browser: what it shows, what its buttons do, and what it can't be made to do.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::support::{
    Authority, Browser, Folder, Lb, Node, Server, connect, free_port, get, get_from, greeting_unix_socket, short_read,
    wait_for_within, wait_until, wait_until_equal,
};

/// Opens the page of a balancer, as it is on a desk.
#[track_caller]
fn open(lb: &Lb) -> Browser {
    let browser = Browser::open(&format!("http://{}/", lb.admin()), 1280, 800);
    wait_until("the page shows something", || browser.count("main:not([hidden])") == 1);
    browser
}

/// The selector of a backend's row.
fn row(address: impl std::fmt::Display) -> String {
    format!("[data-backend=\"{address}\"]")
}

/// What the console must not show.
#[track_caller]
fn assert_quiet(browser: &Browser) {
    assert_eq!(browser.console(), Vec::<String>::new(), "the console is empty");
}

#[test]
fn the_page_shows_listeners_pools_and_backends() {
    let (a, b) = (Server::echo(), Server::named("b"));
    let lb = Lb::with_config(&format!(
        "listeners:\n  web: {{bind: 127.0.0.1:0, pool: app}}\n  api: {{bind: 127.0.0.1:0, mode: http, pool: other}}\n\
         pools:\n  app: {{backends: ['{}'], policy: least_connections}}\n  \
         other: {{backends: [{{address: '{}', weight: 7, backup: true, max_connections: 9}}]}}\n",
        a.address(),
        b.address()
    ))
    .start();
    let mut live = connect(lb.address_of("web"));
    live.write_all(b"hello").unwrap();
    short_read(&mut live);
    assert_eq!(get(lb.address_of("api"), "/").body, "b");

    let browser = open(&lb);
    assert_eq!(browser.value("document.title"), "2 of 2 up – lb");
    let head = browser.text("header");
    for part in [env!("CARGO_PKG_VERSION"), "ready", "test.yaml", "none since the start"] {
        assert!(head.contains(part), "{part:?} in {head}");
    }
    assert_eq!(browser.count("#listeners tr"), 2);
    let listeners = browser.text("#listeners");
    for part in ["web", "api", "http", "tcp", &lb.address_of("web").to_string(), &lb.address_of("api").to_string()] {
        assert!(listeners.contains(part), "{part:?} in {listeners}");
    }
    assert_eq!(browser.count("#pools section"), 2);
    let pools = browser.text("#pools");
    assert!(pools.contains("least_connections, 1 of 1 up") && pools.contains("round_robin"), "{pools}");
    let (first, second) = (browser.text(&row(a.address())), browser.text(&row(b.address())));
    assert!(first.contains("up") && first.contains(&a.address().to_string()), "{first}");
    assert!(second.contains("backup 7") && second.contains("of 9"), "{second}");
    assert_eq!(browser.text(&format!("{} [data-field=active]", row(a.address()))), "1");
    assert_eq!(browser.text(&format!("{} [data-field=total]", row(b.address()))), "1");
    assert_quiet(&browser);
}

#[test]
fn the_page_shows_roles_and_that_clients_are_refused() {
    let (primary, replica) = (Node::new("primary", 200), Node::new("replica", 503));
    let lb = Lb::with_config(&format!(
        "listen: 127.0.0.1:0\nbackends: ['{}', {{address: '{}', backup: 2}}]\non_return: wait\n\
         health_check: {{interval: 100ms, timeout: 5s, rise: 1, fall: 1, \
         http: {{path: /role, status: 200, standby_status: 503}}}}\n",
        primary.address(),
        replica.address()
    ))
    .start();
    wait_until("it is in standby", || lb.state_of(replica.address()) == "standby");
    let browser = open(&lb);
    let of_replica = browser.text(&row(replica.address()));
    assert!(of_replica.contains("standby") && of_replica.contains("backup #2 1"), "{of_replica}");
    assert_eq!(browser.text(".service"), "");
    primary.answer(500);
    wait_until("clients are refused", || browser.text(".service") == "clients are refused");
    primary.answer(200);
    wait_until("it waits", || browser.text(&row(primary.address())).contains("waits for `lb backend enable`"));
    browser.click(&format!("{} .enable", row(primary.address())));
    wait_until("it is enabled", || lb.state_of(primary.address()) == "up");
    wait_until("clients are served", || browser.text(".service").is_empty());
    assert_quiet(&browser);
}

#[test]
fn the_page_may_load_what_is_its_own_only() {
    let server = Server::named("here");
    let lb = Lb::in_front_of(&[server.address()]).start();
    let page = lb.ask("/");
    let policy = page.header("content-security-policy").expect("the page has a policy");
    for part in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"] {
        assert!(policy.contains(part), "{part} in {policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    for path in ["/", "/style.css", "/page.js", "/api/v1/status", "/nowhere"] {
        assert_eq!(lb.ask(path).header("x-content-type-options"), Some("nosniff"), "{path}");
    }
    // The browser holds to it: what somebody smuggles in does not run.
    let browser = open(&lb);
    assert_quiet(&browser);
    browser.value("document.body.insertAdjacentHTML('beforeend', '<img src=/x onerror=\"document.title = 1\">')");
    browser.value(
        "document.head.append(Object.assign(document.createElement('script'), {textContent: 'window.smuggled = 1'}))",
    );
    wait_until("the browser complains", || {
        browser.console().iter().any(|line| line.contains("Content Security Policy"))
    });
    assert_eq!(browser.value("window.smuggled ?? null"), json!(null));
}

#[test]
fn a_backend_that_dies_turns_bad_and_comes_back() {
    let (a, b) = (Server::named("a"), Server::named("b"));
    let lb = Lb::in_front_of(&[a.address(), b.address()])
        .set("pools.default.health_check", "{interval: 200ms, timeout: 2s, rise: 1, fall: 2}")
        .start();
    let browser = open(&lb);
    let (dying, address) = (row(a.address()), a.address());
    assert_eq!(browser.count(&format!("{dying}[data-state=up]:not(.bad)")), 1);
    let gone = a.stop();
    wait_until("its row is bad", || browser.count(&format!("{dying}.bad[data-state=down]")) == 1);
    assert!(browser.text(&dying).contains("refused"), "it says why: {}", browser.text(&dying));
    assert_eq!(browser.value("document.title"), "1 of 2 up – lb");
    assert_eq!(browser.count(&format!("{}[data-state=up]:not(.bad)", row(b.address()))), 1);
    let _again = Server::named_on(gone, "a");
    wait_until("it is well again", || browser.count(&format!("{dying}[data-state=up]:not(.bad)")) == 1);
    assert_eq!(lb.state_of(address), "up");
    assert_quiet(&browser);
}

#[test]
fn buttons_drain_disable_and_enable() {
    let (a, b) = (Server::named("a"), Server::named("b"));
    let lb = Lb::in_front_of(&[a.address(), b.address()]).start();
    let browser = open(&lb);
    let (address, selector) = (a.address(), row(a.address()));
    let press = |button: &str, state: &str, said: &str| {
        browser.click(&format!("{selector} button.{button}"));
        wait_until_equal("the state in the API", &state.to_owned(), || lb.state_of(address));
        wait_until_equal("the state on the page", &1, || browser.count(&format!("{selector}[data-state={state}]")));
        wait_until("the page says so", || browser.text("#result").contains(said));
    };
    assert_eq!(browser.count(&format!("{selector} button.enable:not([hidden])")), 0, "nothing to enable");
    press("drain", "draining", &format!("{address} in default is draining"));
    for _ in 0..4 {
        assert_eq!(get(lb.address(), "/").body, "b");
    }
    press("enable", "up", "is enabled");
    press("disable", "disabled", "is disabled");
    press("enable", "up", "is enabled");
    assert_eq!(lb.metrics().sum("admin_refused_total", &[]), 0.0);
    assert_quiet(&browser);
}

#[test]
fn addresses_are_text_not_markup() {
    let folder = Folder::new();
    let path = folder.path().join("<img src=x onerror=alert(1)>&amp;\"'.sock");
    greeting_unix_socket(&path, "unix");
    let address = format!("unix:{}", path.display());
    let lb = Lb::with_backends(&[&address]).start();
    let browser = open(&lb);
    assert_eq!(browser.count("#pools img"), 0);
    assert_eq!(browser.text("#pools tbody th"), address);
    // Its button means this one, whatever is in its name.
    browser.click("#pools button.drain");
    wait_until("it is drained", || lb.api("/api/v1/pools")["pools"][0]["backends"][0]["state"] == "draining");
    wait_until("the page says so", || browser.text("#result").contains(&address));
    assert_eq!(browser.count("footer img"), 0);
    assert_quiet(&browser);
}

#[test]
fn a_broken_reload_shows_its_error_until_one_works() {
    let server = Server::named("here");
    let folder = Folder::new();
    let yaml = format!("listen: 127.0.0.1:0\nbackends: ['{}']\nadmin: {{bind: 127.0.0.1:0}}\n", server.address());
    let file = folder.write("lb.yaml", &yaml);
    let lb = Lb::with_arguments(&["-c", &file.display().to_string()]).start();
    let browser = open(&lb);
    assert_eq!(browser.count("#reload-failure[hidden]"), 1);
    folder.write("lb.yaml", format!("{yaml}bogus: '<b>bold</b>'\n"));
    browser.click("#reload");
    wait_until("the error is shown", || browser.text("#reload-failure").contains("bogus"));
    wait_until("the result is shown", || browser.text("#result.bad").contains("reload failed"));
    assert_eq!(browser.count("#reload-failure b"), 0);

    // One that the operator makes elsewhere shows as well.
    folder.write("lb.yaml", &yaml);
    lb.signal(Signal::HUP);
    wait_until("the error is gone", || browser.count("#reload-failure[hidden]") == 1);
    assert!(browser.text("header").contains("configuration reloaded"), "{}", browser.text("header"));
}

#[test]
fn without_the_right_to_change_there_are_no_buttons() {
    let server = Server::named("here");
    let folder = Folder::new();
    let token = folder.write("token", "secret");
    let lb = Lb::in_front_of(&[server.address()]).set("admin.token_file", token.display()).start();
    let browser = open(&lb);
    let shown = browser.value("[...document.querySelectorAll('button')].filter((b) => b.checkVisibility()).length");
    assert_eq!(shown, 0);
    assert!(browser.text(".readonly-note").contains("token"), "{}", browser.text(".readonly-note"));
}

#[test]
fn the_page_says_that_nobody_answers_and_recovers() {
    let server = Server::named("here");
    let admin = free_port();
    let backend = server.address().to_string();
    let start = || {
        let lb = Lb::with_arguments(&["--listen", "127.0.0.1:0", "--backend", &backend, "--admin", &admin.to_string()]);
        // The page is connected to the first until its end, and to the second from its start.
        lb.unwatched().start()
    };
    let first = start();
    let browser = open(&first);
    assert_eq!(browser.count("#offline[hidden]"), 1);
    drop(first);
    wait_until("it says so", || browser.text("#offline").contains("no answer from the balancer"));
    assert!(browser.text(&row(&backend)).contains(&backend), "the last values stay");
    let _second = start();
    wait_until("it is back", || browser.count("#offline[hidden]") == 1);
}

#[test]
fn nothing_sticks_out_of_a_phones_screen() {
    let (a, b) = (Server::named("a"), Server::named("b"));
    let long = format!("unix:/{}", "a-long-path/".repeat(8));
    let lb = Lb::with_backends(&[&a.address().to_string(), &b.address().to_string(), &long]).start();
    let browser = open(&lb);
    for width in [375, 320, 768, 1280] {
        browser.resize(width, 800);
        wait_until_equal("the width", &json!(width), || browser.value("innerWidth"));
        let needed = browser.value("document.documentElement.scrollWidth");
        assert!(needed.as_u64().unwrap() <= u64::from(width), "{needed} px at {width}");
    }
    browser.resize(375, 800);
    let selector = format!("{} button.drain", row(a.address()));
    browser.value(&format!("document.querySelector({}).scrollIntoView({{block: 'center'}})", json!(selector)));
    browser.click(&selector);
    wait_until_equal("the state", &"draining".to_owned(), || lb.state_of(a.address()));
    assert_quiet(&browser);
}

#[test]
fn a_thousand_backends_have_their_rows() {
    let list: Vec<String> = (0..1000).map(|n| format!("'127.9.{}.{}:9'", n / 250, 1 + n % 250)).collect();
    let lb = Lb::with_config(&format!("listen: 127.0.0.1:0\nbackends: [{}]\n", list.join(", "))).start();
    let browser = open(&lb);
    assert_eq!(browser.count("[data-backend]"), 1000);
    let uptime = browser.text("[data-field=uptime]");
    wait_until("it goes on", || browser.text("[data-field=uptime]") != uptime);
    // The filter finds one among them.
    browser.value(
        "(document.getElementById('filter').value = '127.9.3.17:9', \
         document.getElementById('filter').dispatchEvent(new Event('input')))",
    );
    wait_until_equal("rows in sight", &1, || browser.count("[data-backend]:not([hidden])"));
    assert!(browser.text("#matches").contains("1 of 1,000"), "{}", browser.text("#matches"));
    assert_quiet(&browser);
}

/// Keeps a few connections open and makes new ones until it is dropped.
struct Traffic(Arc<AtomicBool>);

impl Traffic {
    fn on(web: SocketAddr, bulk: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        for client in 0..4 {
            let stopped = stop.clone();
            thread::spawn(move || {
                while !stopped.load(Ordering::Relaxed) {
                    let _ = get_from(web, "/");
                    thread::sleep(Duration::from_millis(11 + 7 * client));
                }
            });
        }
        for client in 0..17 {
            let stopped = stop.clone();
            thread::spawn(move || {
                let mut stream = connect(bulk);
                let mut answer = [0; 16 * 1024];
                while !stopped.load(Ordering::Relaxed) {
                    let exchanged = stream.write_all(&answer).and_then(|()| stream.read_exact(&mut answer));
                    // Its backend is gone, or the balancer.
                    if exchanged.is_err() {
                        return;
                    }
                    thread::sleep(Duration::from_millis(20 + client));
                }
            });
        }
        Self(stop)
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn certificates_that_expire_or_can_not_be_used_are_shown() {
    let authority = Authority::new();
    authority.sign("soon", "DNS:soon.example").days(3).done();
    let server = Server::echo();
    let tls = format!("tls: {{certificates: [{}]}}", authority.pair("soon"));
    let lb = Lb::with_config(&format!("listen: 127.0.0.1:0\nbackends: ['{}']\n{tls}\n", server.address())).start();
    let browser = open(&lb);
    let shown = || browser.text("#certificates");
    wait_until("it says so", || shown().contains("listener default: soon.example expires on "));
    authority.folder.write("soon.pem", "nothing");
    wait_until("it says why", || shown().contains("soon.pem: has no certificate"));
    authority.sign("soon", "DNS:soon.example").done();
    wait_until("all is well", || browser.count("#certificates:not([hidden])") == 0);
    assert_quiet(&browser);
}

/// `LB_SCREENSHOT=docs/status-page.png cargo test --test it page::a_screenshot` makes the one of the README.
#[test]
fn a_screenshot_is_made_with_traffic_behind_it() {
    let folder = Folder::new();
    let asked = std::env::var_os("LB_SCREENSHOT").map(PathBuf::from);
    let (path, seconds) = asked.map_or_else(|| (folder.path().join("page.png"), 5), |path| (path, 50));
    let web: Vec<Server> = ["a", "b", "c"].map(Server::named).into();
    let database: Vec<Server> = (0..3).map(|_| Server::echo()).collect();
    let backends = |servers: &[Server]| {
        servers.iter().map(|server| format!("'{}'", server.address())).collect::<Vec<_>>().join(", ")
    };
    let yaml = format!(
        "listeners:\n  web: {{bind: 127.0.0.1:0, mode: http, pool: app}}\n  \
         database: {{bind: 127.0.0.1:0, pool: replicas}}\npools:\n  app:\n    backends: [{}]\n    \
         failure_detection: {{failures: 3, ejection: 1m, max_ejection: 1m}}\n  replicas:\n    \
         policy: least_connections\n    backends: [{}]\nadmin: {{bind: 127.0.0.1:0}}\n",
        backends(&web),
        backends(&database)
    );
    let lb = Lb::with_arguments(&["-c", "lb.yaml"]).with_file("lb.yaml", &yaml).start();
    let traffic = Traffic::on(lb.address_of("web"), lb.address_of("database"));
    let browser = Browser::open(&format!("http://{}/", lb.admin()), 1280, 800);
    let samples = || browser.value("document.querySelector('#sparkline polyline')?.points.length ?? 0").as_u64();
    wait_for_within(Duration::from_secs(90), "the line has some seconds", || {
        (samples() >= Some(seconds)).then_some(())
    });
    // One has died, and one is drained.
    let [_a, b, _c]: [Server; 3] = web.try_into().unwrap_or_else(|_| unreachable!("there are three"));
    let dead = b.address();
    let _gone = b.stop();
    wait_until("it is ejected", || browser.count(&format!("{}.bad", row(dead))) == 1);
    browser.click(&format!("{} button.drain", row(database[1].address())));
    wait_until("it drains", || browser.count(&format!("{}[data-state=draining]", row(database[1].address()))) == 1);
    let rate = format!("{} [data-field=rate]", row(dead));
    wait_until("its rate is of now", || browser.text(&rate) == "0.0");
    browser.value("scrollTo(0, 0)");
    browser.screenshot(&path);
    drop(traffic);
    let image = std::fs::read(&path).unwrap();
    assert!(image.starts_with(b"\x89PNG\r\n\x1a\n"), "a PNG");
    // IHDR is the first chunk: width and height stand at 16 and 20.
    let number = |at: usize| u32::from_be_bytes(image[at..at + 4].try_into().unwrap());
    assert_eq!((number(16), number(20)), (1280, 800));
    assert!(image.len() < 200 * 1024, "{} bytes", image.len());
}
