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
    Authority, Browser, Ending, Folder, Lb, Node, Server, change_backend, closed_for, connect, free_port, get,
    get_from, greeting_unix_socket, knock, read_to_end, short_read, wait_for_within, wait_until, wait_until_equal,
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
fn the_connections_of_a_backend_are_shown_and_killed_after_a_question() {
    let (a, b) = (Server::echo(), Server::echo());
    let lb = Lb::in_front_of(&[a.address(), b.address()]).start();
    let mut clients: Vec<_> = (0..6).map(|_| connect(lb.address())).collect();
    wait_until("all have a backend", || {
        lb.backend(a.address())["active"] == 3 && lb.backend(b.address())["active"] == 3
    });
    let browser = open(&lb);
    let of_a = row(a.address());
    browser.click(&format!("{of_a} button.connections"));
    wait_until("they are shown", || browser.count("#connection-rows tr") == 3);
    assert_eq!(browser.text("#connections-title"), format!("Connections of {} in default", a.address()));
    assert_eq!(browser.text("#connections-note"), "3 connections");
    let first = browser.text("#connection-rows tr [data-field=client]");
    let killed = clients.iter().position(|client| client.local_addr().unwrap().to_string() == first).unwrap();

    browser.click("#connection-rows tr button");
    browser.click("#cancel");
    browser.click("#connection-rows tr button");
    assert!(browser.text("#question").contains(&first), "{}", browser.text("#question"));
    browser.click("#proceed");
    wait_until("it is gone", || browser.count("#connection-rows tr") == 2);
    assert_eq!(read_to_end(&mut clients.remove(killed)).1, Ending::Reset);
    // Others come and go meanwhile.
    clients.push(connect(lb.address()));
    clients.push(connect(lb.address()));
    wait_until("one more is shown", || browser.text("#connections-note") == "3 connections");
    browser.click("#kill-all");
    assert!(browser.text("#question").contains("all 3 connections"), "{}", browser.text("#question"));
    browser.click("#proceed");
    wait_until("all are gone", || browser.text("#connections-note") == "0 connections");
    wait_until_equal("they are counted", &4.0, || closed_for(&lb, "operator"));
    browser.click("#close-connections");
    assert_eq!(lb.backend(b.address())["active"], 4);
    assert_eq!(browser.text("#result"), format!("killed all 3 connections of {} in default", a.address()));
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
    let scripts =
        ["page", "pools", "connections", "members", "confirm", "rows", "format"].map(|name| format!("/{name}.js"));
    for path in ["/", "/style.css", "/api/v1/status", "/nowhere"].into_iter().chain(scripts.iter().map(String::as_str))
    {
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
    assert_eq!(browser.text("#pools tbody th [data-field=address]"), address);
    // Its button means this one, whatever is in its name.
    browser.click("#pools button.drain");
    assert!(browser.text("#question").contains(&address), "{}", browser.text("#question"));
    assert_eq!(browser.count("dialog img"), 0);
    browser.click("#proceed");
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
    let changes = "[...document.querySelectorAll('.actions button, #reload')].filter((b) => b.checkVisibility())";
    let shown = browser.value(&format!("{changes}.length"));
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
    // What is well takes one line there, and is opened for the rest.
    let height = || browser.value(&format!("document.querySelector({}).offsetHeight", json!(row(a.address()))));
    assert!(height().as_u64() < Some(50), "{} px", height());
    let more = format!("{} .more", row(a.address()));
    browser.value(&format!("document.querySelector({}).scrollIntoView({{block: 'center'}})", json!(more)));
    browser.click(&more);
    browser.value(&format!("document.querySelector({}).scrollIntoView({{block: 'center'}})", json!(selector)));
    browser.click(&selector);
    wait_until_equal("the state", &"draining".to_owned(), || lb.state_of(a.address()));
    assert_quiet(&browser);
}

/// Types into a field, or chooses.
fn enter(browser: &Browser, field: &str, value: &str) {
    browser.value(&format!(
        "(document.getElementById('{field}').value = {}, \
         document.getElementById('{field}').dispatchEvent(new Event('input')))",
        json!(value)
    ));
}

/// The DOM stays small, however many there are, and what is bad is in it. How long its script takes for a poll, the
/// page notes itself: the measure `show`.
#[test]
fn the_page_carries_three_two_hundred_and_five_thousand_backends() {
    for (all, most_elements) in [(3, 500), (200, 4000), (5000, 4000)] {
        let list: Vec<String> = (0..all).map(|n| format!("'127.9.{}.{}:9'", n / 250, 1 + n % 250)).collect();
        let lb = Lb::with_config(&format!("listen: 127.0.0.1:0\nbackends: [{}]\n", list.join(", "))).start();
        let last = list[all - 1].trim_matches('\'').to_owned();
        change_backend(&lb, &last, "drain");
        let browser = open(&lb);
        assert_eq!(browser.count("[data-backend]"), all.min(100) as u64);
        assert_eq!(browser.text("#pools tbody th [data-field=address]"), last, "what is not up comes first");
        let elements = browser.count("*");
        assert!(elements < most_elements, "{elements} elements for {all} backends");
        let uptime = browser.text("[data-field=uptime]");
        wait_until("it goes on", || browser.text("[data-field=uptime]") != uptime);
        let took = browser.value("performance.getEntriesByName('show')[0].duration");
        assert!(took.as_f64() > Some(0.0), "{took}");
        // The filter finds one among them.
        enter(&browser, "filter", "127.9.0.2:9");
        wait_until_equal("rows in sight", &1, || browser.count("[data-backend]"));
        assert!(browser.text("#matches").starts_with("1 of "), "{}", browser.text("#matches"));
        enter(&browser, "filter", "");
        if all > 100 {
            browser.value("document.querySelector('.all').click()");
            wait_until_equal("all rows", &(all as u64), || browser.count("[data-backend]"));
        }
        assert_quiet(&browser);
    }
}

#[test]
fn an_outage_is_red_and_drains_that_cause_one_are_asked_for() {
    let (a, b) = (Server::echo(), Server::echo());
    let lb = Lb::in_front_of(&[a.address(), b.address()]).start();
    let browser = open(&lb);
    browser.click(&format!("{} button.drain", row(a.address())));
    wait_until_equal("the state", &"draining".to_owned(), || lb.state_of(a.address()));
    wait_until("the page knows", || browser.count(&format!("{}[data-state=draining]", row(a.address()))) == 1);
    assert_eq!(browser.count("dialog[open]"), 0, "nobody loses by that");
    assert_eq!(browser.count("#outage[hidden]"), 1);

    let drain_last = format!("{} button.drain", row(b.address()));
    browser.click(&drain_last);
    assert!(
        browser.text("#question").contains("the last usable backend of pool default"),
        "{}",
        browser.text("dialog")
    );
    browser.click("#cancel");
    assert_eq!((browser.count("dialog[open]"), lb.state_of(b.address())), (0, "up".to_owned()));
    browser.click(&drain_last);
    browser.click("#proceed");
    wait_until_equal("the state", &"draining".to_owned(), || lb.state_of(b.address()));
    wait_until("it is red", || browser.text("#outage:not([hidden])").contains("pool default, since "));
    assert_eq!(browser.value("document.title"), "DOWN: default – lb");
    assert_eq!((browser.count("section.down"), browser.count("#ups.bad")), (1, 1));
    // Clients fail from then on, and that is counted in sight.
    wait_until("failures are shown", || {
        knock(lb.address());
        browser.text("#failing.bad").contains("so far") && browser.text("#listeners .failed").contains("no_backend")
    });
    assert!(browser.text("#event-list li").contains("no backend may be used"), "{}", browser.text("#event-list"));
    browser.click(&format!("{} button.enable", row(a.address())));
    wait_until("it is over", || browser.count("#outage[hidden]") == 1 && browser.count("section.down") == 0);
    wait_until("nobody fails", || browser.count("#failing.bad") == 0);
    assert_quiet(&browser);
}

#[test]
fn the_slowest_comes_first_where_that_is_asked_for() {
    let slow = Server::that(|mut stream| {
        let mut request = [0; 1024];
        if stream.read(&mut request).is_ok_and(|length| length > 0) {
            thread::sleep(Duration::from_millis(400));
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    let (a, b) = (Server::named("a"), Server::named("b"));
    let lb = Lb::in_front_of(&[a.address(), b.address(), slow.address()]).with(&["--mode", "http"]).start();
    // The first point of the history is none of these.
    wait_until("there is a point", || lb.api("/api/v1/history")["until"].is_string());
    (0..6).for_each(|_| assert_eq!(get(lb.address(), "/").status, 200));
    let browser = open(&lb);
    let first = || browser.text("#pools tbody th [data-field=address]");
    assert_eq!(first(), a.address().to_string(), "in the order of the configuration");
    wait_until("its time is shown", || browser.text(&format!("{} .p99", row(slow.address()))).contains("ms"));
    browser.click("thead button[value=p99]");
    assert_eq!(first(), slow.address().to_string());
    assert_eq!(browser.count("th[aria-sort=descending]"), 1);
    enter(&browser, "sort", "address");
    assert_eq!(browser.count("th[aria-sort=ascending] button[value=address]"), 1);
    assert!(browser.text(&row(slow.address())).contains('2'), "its requests: {}", browser.text(&row(slow.address())));
    // What was before comes from the balancer, also after a reload of the page.
    browser.value("location.reload()");
    wait_until("the hour is drawn", || browser.count(&format!("{} .hour polyline", row(slow.address()))) == 1);
    let drawn =
        || browser.value("document.querySelector('[data-chart=p99] svg').ariaLabel").as_str().unwrap().to_owned();
    assert!(drawn().contains("slowest p99 4"), "{}", drawn());
    assert_quiet(&browser);
}

#[test]
fn a_token_that_is_entered_is_used() {
    let (a, b) = (Server::named("a"), Server::named("b"));
    let folder = Folder::new();
    let token = folder.write("token", "secret");
    let lb = Lb::in_front_of(&[a.address(), b.address()]).set("admin.token_file", token.display()).start();
    let browser = open(&lb);
    enter(&browser, "token", "wrong");
    browser.click(&format!("{} button.drain", row(a.address())));
    wait_until("it is refused", || browser.text("#result.bad").contains("can't drain"));
    enter(&browser, "token", "secret");
    browser.click(&format!("{} button.drain", row(a.address())));
    wait_until_equal("the state", &"draining".to_owned(), || lb.state_of(a.address()));
    let stored = "localStorage.length + sessionStorage.length + document.cookie.length";
    assert_eq!(browser.value(stored), 0, "it is in memory alone");
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
