//! Backends that fail: who is tried next, who is set aside, and who comes back.

use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::support::{
    Ending, Lb, Refusing, Server, connect, connect_and_read, cpu_time, get, get_from, short_read, wait_until,
};

/// How many of `count` GETs are answered.
fn answered(address: SocketAddr, count: usize) -> usize {
    (0..count).filter(|_| get_from(address, "/").is_ok_and(|answer| answer.status == 200)).count()
}

#[test]
fn retries_next_backend_when_connect_is_refused() {
    let (dead, good) = (Refusing::new(), Server::named("good"));
    let lb = Lb::in_front_of(&[dead.address(), good.address()]).start();
    assert_eq!(get(lb.address(), "/").body, "good");
    let line = lb.only_access();
    assert_eq!(line["attempts"][0]["backend"], dead.address().to_string());
    assert_eq!(line["attempts"][0]["outcome"], "refused");
    assert_eq!(line["attempts"][1]["backend"], good.address().to_string());
    assert_eq!(line["attempts"][1]["outcome"], "connected");
    assert_eq!(line["backend"], good.address().to_string());
    let metrics = lb.metrics();
    assert_eq!(metrics.sum("retries_total", &[]), 1.0);
    assert_eq!(metrics.sum("backend_connect_failures_total", &[("reason", "refused")]), 1.0);
}

#[test]
fn retries_next_backend_when_connect_times_out() {
    let (hole, good) = (Server::blackhole(), Server::named("good"));
    let lb = Lb::in_front_of(&[hole.address(), good.address()]).with(&["--connect-timeout", "200ms"]).start();
    let started = Instant::now();
    assert_eq!(get(lb.address(), "/").body, "good");
    assert!(started.elapsed() >= Duration::from_millis(200), "the first attempt had its time");
    let line = lb.only_access();
    assert_eq!(line["attempts"][0]["outcome"], "timeout");
}

#[test]
fn tries_no_more_backends_than_attempts_allows() {
    let dead: Vec<Refusing> = (0..5).map(|_| Refusing::new()).collect();
    let addresses: Vec<SocketAddr> = dead.iter().map(Refusing::address).collect();
    let lb = Lb::in_front_of(&addresses).set("attempts", 2).start();
    assert_eq!(connect_and_read(lb.address()).0, b"");
    assert_eq!(lb.only_access()["attempts"].as_array().map(Vec::len), Some(2));
}

#[test]
fn closes_the_client_promptly_when_all_backends_are_down() {
    let (one, two) = (Refusing::new(), Refusing::new());
    // Whoever had to wait for a connect would give up first.
    let lb = Lb::in_front_of(&[one.address(), two.address()]).with(&["--connect-timeout", "1m"]).start();
    let before = cpu_time(lb.pid());
    for _ in 0..20 {
        let (received, _) = connect_and_read(lb.address());
        assert!(received.is_empty());
    }
    for line in lb.access_log(20) {
        assert_eq!(line["cause"], "connect_failed");
        assert_eq!(line["backend"], serde_json::Value::Null);
    }
    // Nothing is to be done now, so nothing may be done: a spin would take the whole second.
    std::thread::sleep(Duration::from_secs(1));
    let used = cpu_time(lb.pid()) - before;
    assert!(used < Duration::from_millis(300), "used {used:?} of CPU time");
}

#[test]
fn uses_backups_only_when_no_primary_is_usable() {
    let (primary, backup) = (Server::named("primary"), Server::named("backup"));
    let backends = [format!("{},backup", backup.address()), primary.address().to_string()];
    let lb = Lb::with_backends(&backends.each_ref().map(String::as_str))
        .set("failure_detection.failures", 1)
        .set("failure_detection.ejection", "300ms")
        .start();
    for _ in 0..10 {
        assert_eq!(get(lb.address(), "/").body, "primary");
    }
    assert_eq!(backup.accepted(), 0);
    let stopped = primary.stop();
    for _ in 0..10 {
        assert_eq!(get(lb.address(), "/").body, "backup");
    }
    let _primary = Server::named_on(stopped, "primary");
    wait_until("the primary is used again", || get(lb.address(), "/").body == "primary");
    assert_eq!(get(lb.address(), "/").body, "primary");
}

#[test]
fn of_four_backends_one_good_one_serves_everybody_after_a_while() {
    let good = Server::named("good");
    let (resetting, closing) = (Server::resetting_on_accept(), Server::closing_after_first_bytes());
    let dead = Refusing::new();
    let addresses = [good.address(), resetting.address(), closing.address(), dead.address()];
    let lb = Lb::in_front_of(&addresses).start();
    answered(lb.address(), 60);
    assert_eq!(answered(lb.address(), 60), 60, "all of the second 60");
    assert_eq!(lb.state_of(good.address()), "up");
    for bad in [resetting.address(), closing.address(), dead.address()] {
        assert_eq!(lb.state_of(bad), "ejected", "{bad}");
    }
}

#[test]
fn an_early_close_ejects() {
    let (good, closing) = (Server::named("good"), Server::closing_after_first_bytes());
    let lb = Lb::in_front_of(&[good.address(), closing.address()]).start();
    // A few that end badly, with the good one's turns between them.
    answered(lb.address(), 12);
    wait_until("it is ejected", || lb.state_of(closing.address()) == "ejected");
    let report = lb.backend(closing.address());
    assert!((3..=5).contains(&report["failures"].as_u64().unwrap()), "{report}");
    let reason = report["reason"].as_str().expect("it says why");
    assert!(reason.ends_with("closed without an answer"), "{reason}");
    assert!(report["ejected_until"].as_str().is_some_and(|until| until.ends_with('Z')), "{report}");
    let metrics = lb.metrics();
    let of_it = [("backend", closing.address().to_string())];
    let of_it = of_it.each_ref().map(|(label, value)| (*label, value.as_str()));
    assert_eq!(metrics.sum("backend_ejections_total", &of_it), 1.0);
    assert_eq!(metrics.sum("backend_up", &of_it), 0.0);
    assert_eq!(lb.wait_for_log("backend ejected", 1).len(), 1);
}

#[test]
fn an_early_close_does_not_eject_where_that_is_switched_off() {
    let closing = Server::closing_after_first_bytes();
    let lb = Lb::in_front_of(&[closing.address()]).set("failure_detection.count_early_close", false).start();
    assert_eq!(answered(lb.address(), 6), 0);
    lb.access_log(6);
    assert_eq!(lb.state_of(closing.address()), "up");
}

#[test]
fn a_backend_that_answers_before_it_closes_is_never_ejected() {
    let good = Server::named("good");
    let lb = Lb::in_front_of(&[good.address()]).set("failure_detection.failures", 1).start();
    assert_eq!(answered(lb.address(), 20), 20);
    lb.access_log(20);
    assert_eq!(lb.backend(good.address())["failures"], 0);
    assert_eq!(lb.state_of(good.address()), "up");
}

#[test]
fn clients_that_leave_eject_nobody() {
    let silent = Server::echo();
    let lb = Lb::in_front_of(&[silent.address()]).set("failure_detection.failures", 1).start();
    for number in 0..20 {
        let mut client = connect(lb.address());
        if number % 2 == 0 {
            client.write_all(b"never mind").expect("the connection is open");
        }
        crate::support::reset(client);
    }
    lb.access_log(20);
    assert_eq!(lb.state_of(silent.address()), "up");
    assert_eq!(lb.backend(silent.address())["failures"], 0);
}

#[test]
fn tries_everybody_when_all_are_ejected() {
    let (one, two) = (Refusing::new(), Refusing::new());
    let lb = Lb::in_front_of(&[one.address(), two.address()])
        .set("failure_detection.failures", 1)
        .set("failure_detection.ejection", "1h")
        .set("failure_detection.max_ejection", "2h")
        .start();
    assert_eq!(answered(lb.address(), 3), 0);
    assert_eq!([lb.state_of(one.address()), lb.state_of(two.address())], ["ejected", "ejected"]);
    // No probe is due for an hour, but nobody is left to lose: the one that is back is found at once.
    let back = one.address();
    let _one = Server::named_on(one, "back");
    assert_eq!(get(lb.address(), "/").body, "back");
    assert_eq!(lb.state_of(back), "up");
    assert_eq!(answered(lb.address(), 10), 10);
}

#[test]
fn one_probe_at_a_time_finds_out_whether_a_backend_is_back() {
    let (good, flaky) = (Server::greeting("good"), Refusing::new());
    let address = flaky.address();
    let lb = Lb::in_front_of(&[good.address(), address])
        .set("failure_detection.failures", 1)
        .set("failure_detection.ejection", "200ms")
        // The probe's client leaves before its backend does.
        .set("timeouts.half_closed", "1s")
        .start();
    let greeting = |client: &mut std::net::TcpStream| short_read(client);
    while lb.state_of(address) != "ejected" {
        assert_eq!(greeting(&mut connect(lb.address())), "good", "a refused connect is nobody's loss");
    }
    // It takes connections again and says nothing: the probe hangs, and nobody else may be sent there.
    let ignoring = Server::ignoring_on(flaky);
    let mut clients = Vec::new();
    wait_until("a probe is under way", || {
        clients.push(connect(lb.address()));
        lb.state_of(address) == "probing"
    });
    for _ in 0..10 {
        assert_eq!(greeting(&mut connect(lb.address())), "good");
    }
    assert_eq!(ignoring.accepted(), 1, "the one probe");
}

#[test]
fn a_failed_probe_ejects_for_longer() {
    let (good, closing) = (Server::named("good"), Server::closing_after_first_bytes());
    let lb = Lb::in_front_of(&[good.address(), closing.address()])
        .set("failure_detection.failures", 1)
        .set("failure_detection.ejection", "100ms")
        .start();
    wait_until("ejected three times", || {
        answered(lb.address(), 1);
        lb.log_lines_with("backend ejected").len() >= 3
    });
    let seconds: Vec<f64> =
        lb.log_lines_with("backend ejected").iter().filter_map(|line| line["seconds"].as_f64()).take(3).collect();
    assert!(seconds[0] <= 0.2 && seconds[1] > seconds[0] && seconds[2] > seconds[1], "{seconds:?}");
}

#[test]
fn a_reset_on_accept_reaches_the_client_as_a_reset_when_nobody_else_is_there() {
    let resetting = Server::resetting_on_accept();
    let lb = Lb::in_front_of(&[resetting.address()]).start();
    let (received, ending) = connect_and_read(lb.address());
    assert_eq!((received.as_slice(), ending), (b"".as_slice(), Ending::Reset));
}
