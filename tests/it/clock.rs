//! A wall clock that jumps: time limits, ejections and durations go by one that doesn't.

use std::fs;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::Signal;

use crate::support::{Ending, Lb, Pairs, Refusing, Server, greeting, read_to_end, required, wait_until_equal};

/// What the library reads the clock's distance from the true one from.
const FILE: &str = "clock";

#[test]
fn a_jump_of_the_wall_clock_ends_nothing_and_keeps_nothing() {
    let (server, pairs, dead) = (Server::greeting("here"), Pairs::new(), Refusing::new());
    let library = required("/usr/lib/*/faketime/libfaketime.so.1");
    let mut lb = Lb::with_config(&format!(
        "listeners:\n  short: {{bind: '127.0.0.1:0', pool: short, timeouts: {{idle: 1h}}}}\n\
         \x20 long: {{bind: '127.0.0.1:0', pool: long, access_log: false, timeouts: {{idle: 1h}}}}\n\
         \x20 brief: {{bind: '127.0.0.1:0', pool: long, access_log: false, timeouts: {{idle: 500ms}}}}\n\
         pools:\n  long: {{backends: ['{}']}}\n\
         \x20 short: {{backends: ['{}', '{}'], failure_detection: {{failures: 1, ejection: 1h, max_ejection: 1h}}}}\n",
        pairs.address(),
        server.address(),
        dead.address(),
    ))
    .with_file(FILE, "+0\n")
    .env("LD_PRELOAD", library.to_str().unwrap())
    .env("FAKETIME_TIMESTAMP_FILE", FILE)
    .env("FAKETIME_NO_CACHE", "1")
    .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
    .start();
    let state = || {
        let pool = lb.api("/api/v1/pools")["pools"][1].clone();
        (pool["name"] == "short").then(|| pool["backends"][1]["state"].as_str().unwrap().to_owned())
    };
    let mut session = pairs.connect_to(lb.address_of("long"));
    assert_eq!([greeting(lb.address_of("short")), greeting(lb.address_of("short"))], ["here", "here"]);
    wait_until_equal("the dead backend's state", &Some("ejected".to_owned()), state);
    for (number, jump) in ["+400d", "-400d", "-50y", "+0"].into_iter().enumerate() {
        fs::write(lb.folder().join(FILE), format!("{jump}\n")).unwrap();
        // Its sweeps go on meanwhile, and end what has been idle for long enough: neither sooner nor, by much, later.
        let began = Instant::now();
        let mut brief = pairs.connect_to(lb.address_of("brief"));
        assert_eq!(read_to_end(&mut brief.client), (Vec::new(), Ending::Reset), "{jump}");
        assert!(began.elapsed() >= Duration::from_millis(500), "{jump}: idle for {:?}", began.elapsed());
        session.ping(b"still here");
        assert_eq!(greeting(lb.address_of("short")), "here", "{jump}");
        assert_eq!(state().as_deref(), Some("ejected"), "{jump}");
        assert!(lb.api("/api/v1/status")["uptime_seconds"].as_f64().unwrap() < 600.0, "{jump}");
        let line = lb.access_log(3 + number).pop().unwrap();
        assert!(line["duration_ms"].as_f64().unwrap() < 60_000.0, "{line}");
        let time = line["time"].as_str().unwrap();
        let is_true_year = time[..4] == humantime::format_rfc3339(SystemTime::now()).to_string()[..4];
        assert_eq!(is_true_year, jump == "+0", "{jump} was to move the clock: {line}");
    }
    assert_eq!(lb.metrics().sum("connections_closed_total", &[("reason", "idle_timeout")]), 4.0, "the brief ones");
    drop(session);
    lb.assert_balanced();
    // Killed, it would leave the library's shared memory behind.
    lb.signal(Signal::TERM);
    assert!(lb.wait_for_end().success());
}
