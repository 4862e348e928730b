//! What systemd is told (sd_notify(3)): ready, reloading, stopping, alive, and which process counts.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{Folder, Lb, Notifications, Pairs, Server, get, wait_until};

fn yaml(server: &Server) -> String {
    format!("listen: 127.0.0.1:0\nbackends: ['{}']\n", server.address())
}

#[test]
fn it_is_told_of_the_start_and_of_the_stop() {
    let systemd = Notifications::new();
    let pairs = Pairs::new();
    let mut lb = Lb::in_front_of(&[pairs.address()]).env("NOTIFY_SOCKET", &systemd.path()).start();
    let (next, ready) = systemd.wait_for(0, "READY", "1");
    assert_eq!(ready["MAINPID"], lb.pid().to_string());
    assert_eq!(next, 1, "the first message");
    let held = pairs.connect(&lb);
    lb.signal(Signal::TERM);
    systemd.wait_for(next, "STOPPING", "1");
    assert_eq!(lb.ask("/healthz").status, 200, "told before the drain is over");
    drop(held);
    assert_eq!(lb.wait_for_end().code(), Some(0));
    assert_eq!(systemd.heard().len(), 2, "nothing else: {:?}", systemd.heard());
}

#[test]
fn it_is_told_of_every_reload_whatever_came_of_it() {
    let systemd = Notifications::new();
    let server = Server::named("here");
    let lb = Lb::with_config(&yaml(&server)).env("NOTIFY_SOCKET", &systemd.path()).start();
    let (mut next, _) = systemd.wait_for(0, "READY", "1");
    for yaml in [yaml(&server), "listen: nowhere\n".to_owned(), yaml(&server)] {
        lb.rewrite(&yaml);
        lb.signal(Signal::HUP);
        let (after, reloading) = systemd.wait_for(next, "RELOADING", "1");
        // Type=notify-reload needs it (systemd.service(5)).
        assert!(reloading["MONOTONIC_USEC"].parse::<u64>().is_ok_and(|usec| usec > 0), "{reloading:?}");
        let (after, _) = systemd.wait_for(after, "READY", "1");
        assert_eq!(after, next + 2, "nothing else: {:?}", systemd.heard());
        next = after;
    }
    assert_eq!((lb.reloads("success"), lb.reloads("failure")), (2.0, 1.0));
}

#[test]
fn the_watchdog_hears_from_it_twice_in_its_time() {
    const ROUNDS: u32 = 6;
    let systemd = Notifications::new();
    let server = Server::named("here");
    let began = Instant::now();
    let lb =
        Lb::with_config(&yaml(&server)).env("NOTIFY_SOCKET", &systemd.path()).env("WATCHDOG_USEC", "1000000").start();
    let mut next = 0;
    for _ in 0..ROUNDS {
        (next, _) = systemd.wait_for(next, "WATCHDOG", "1");
    }
    let took = began.elapsed();
    // The first comes at once.
    assert!(took >= Duration::from_millis(500) * (ROUNDS - 2), "it spoke too often: {took:?}");
    assert!(took < Duration::from_secs(1) * ROUNDS, "it spoke too rarely: {took:?}");
    lb.signal(Signal::HUP);
    wait_until("it is reloaded", || lb.reloads("success") == 1.0);
    systemd.wait_for(next, "WATCHDOG", "1");
}

#[test]
fn without_a_watchdog_and_for_another_process_it_stays_silent() {
    let systemd = Notifications::new();
    let server = Server::named("here");
    let lb = Lb::with_config(&yaml(&server))
        .env("NOTIFY_SOCKET", &systemd.path())
        .env("WATCHDOG_USEC", "20000")
        .env("WATCHDOG_PID", "1")
        .start();
    lb.signal(Signal::HUP);
    wait_until("it is reloaded", || lb.reloads("success") == 1.0);
    assert!(systemd.heard().iter().all(|message| !message.contains_key("WATCHDOG")));
}

#[test]
fn a_service_manager_that_does_not_listen_holds_nothing_up() {
    let folder = Folder::new();
    let path = folder.path().join("notify");
    let deaf = UnixDatagram::bind(&path).unwrap();
    let server = Server::named("here");
    let lb = Lb::with_config(&yaml(&server))
        .env("NOTIFY_SOCKET", &path.display().to_string())
        .env("WATCHDOG_USEC", "20000")
        .start();
    // Until a further message doesn't fit in its queue.
    let another = UnixDatagram::unbound().unwrap();
    another.set_nonblocking(true).unwrap();
    wait_until("its queue is full", || another.send_to(b"X=1", &path).is_err());
    for _ in 0..5 {
        assert_eq!(lb.ask("/readyz").status, 200);
        lb.post("/api/v1/reload");
    }
    assert_eq!(get(lb.address(), "/").body, "here");
    drop(deaf);
}

#[test]
fn an_upgrade_names_the_new_process_and_the_former_one_falls_silent() {
    let systemd = Notifications::new();
    let pairs = Pairs::new();
    let mut lb = Lb::in_front_of(&[pairs.address()])
        .env("NOTIFY_SOCKET", &systemd.path())
        .env("WATCHDOG_USEC", "200000")
        .start();
    let (next, ready) = systemd.wait_for(0, "READY", "1");
    assert_eq!(ready["MAINPID"], lb.pid().to_string());
    let held = pairs.connect(&lb);
    lb.upgrade();
    let (next, ready) = systemd.wait_for(next, "READY", "1");
    assert_eq!(ready["MAINPID"], lb.pid().to_string());
    systemd.wait_for(next, "WATCHDOG", "1");
    drop(held);
    assert_eq!(lb.first_process_ended(), Some(0));
    assert!(systemd.heard().iter().all(|message| !message.contains_key("STOPPING")), "the service goes on");
    let (_, now) = systemd.wait_for(systemd.heard().len(), "WATCHDOG", "1");
    assert_eq!(now.len(), 1);
    lb.signal(Signal::TERM);
    systemd.wait_for(next, "STOPPING", "1");
}

#[test]
fn an_upgrade_that_fails_leaves_the_process_that_counts() {
    let systemd = Notifications::new();
    let server = Server::named("here");
    let lb = Lb::with_config(&yaml(&server)).env("NOTIFY_SOCKET", &systemd.path()).start();
    systemd.wait_for(0, "READY", "1");
    lb.rewrite("listen: nowhere\n");
    lb.signal(Signal::USR2);
    wait_until("the failure is said", || lb.log_text().contains("the upgrade failed"));
    assert_eq!(systemd.heard().len(), 1, "{:?}", systemd.heard());
}
