//! What hands small sends to the kernel: many of a worker's at once by io_uring, or each by itself.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::Signal;

use crate::support::{
    Ending, Lb, LbBuilder, Pair, Pairs, Refusing, Server, connect, greeting, read_to_end, receive_pattern, required,
    reset, send_pattern, send_pattern_from, send_portions_until_stuck, wait_until_equal,
};

/// Far less than is collected, so that none of these goes by itself.
const SMALL: usize = 10_000;

/// The engine's name and why it was chosen, as every place tells them that has them.
#[track_caller]
fn told(lb: &Lb) -> (String, String) {
    let status = lb.api("/api/v1/status");
    let [name, reason] = ["name", "reason"].map(|key| status["engine"][key].as_str().unwrap().to_owned());
    let started = &lb.wait_for_log("accepting connections", 1)[0];
    assert_eq!((&started["engine"], &started["engine_reason"]), (&name.as_str().into(), &reason.as_str().into()));
    for engine in ["io_uring", "epoll"] {
        let is_used = lb.metrics().sum("relay_engine", &[("engine", engine)]);
        assert_eq!(is_used, f64::from(u8::from(engine == name)), "{engine} of {name}");
    }
    let workers = if name == "io_uring" { status["workers"].clone() } else { 0.into() };
    assert_eq!(status["engine"]["rings"], workers);
    (name, reason)
}

fn in_front_of(server: &Server) -> LbBuilder {
    Lb::in_front_of(&[server.address()]).with(&["--workers", "2"])
}

#[test]
fn what_was_chosen_and_why_is_told() {
    let server = Server::greeting("a");
    let lb = in_front_of(&server).set("relay.engine", "epoll").start();
    assert_eq!(told(&lb), ("epoll".to_owned(), "configured".to_owned()));
    let lb = in_front_of(&server).set("relay.engine", "auto").start();
    let (name, reason) = told(&lb);
    assert_eq!(name == "epoll", reason.starts_with("io_uring does not work here: "), "{reason}");
    assert_eq!(greeting(lb.address()), "a");
}

#[test]
fn where_io_uring_is_forbidden_auto_does_without_and_says_why() {
    let server = Server::greeting("a");
    let setup = "io_uring_setup";
    for (call, error) in [(setup, Errno::PERM), (setup, Errno::NOSYS), ("io_uring_enter", Errno::PERM)] {
        let lb = in_front_of(&server).set("relay.engine", "auto").without_call(call, error.raw_os_error()).start();
        let (name, reason) = told(&lb);
        assert!(name == "epoll" && reason.contains(&std::io::Error::from(error).to_string()), "{name}: {reason}");
        assert_eq!(greeting(lb.address()), "a");
    }
}

#[test]
fn all_works_under_the_seccomp_profile_for_containers() {
    const BULK: usize = 8 * 1024 * 1024;
    let server = Server::that(|mut stream| send_pattern(&mut stream, BULK));
    let yaml = format!("listen: 127.0.0.1:0\nbackends: ['{}']\n", server.address());
    let mut lb = Lb::with_config(&yaml).under_seccomp_profile().start();
    // io_uring may not be had here for other reasons.
    assert_eq!(told(&lb), told(&Lb::with_config(&yaml).start()));
    assert_eq!(receive_pattern(&mut connect(lb.address())), BULK);
    assert!(lb.metrics().sum("spliced_bytes_total", &[]) > 0.0);
    assert_eq!(lb.reload_with(&format!("{yaml}policy: random_two\n")), "configuration reloaded");
    lb.signal(Signal::TERM);
    assert_eq!(lb.wait_for_end().code(), Some(0));
}

#[test]
fn where_it_is_forbidden_and_required_the_start_fails_and_names_the_remedy() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/programs/without_call.py");
    let flags = ["--listen", "127.0.0.1:0", "--backend", "127.0.0.1:9", "--admin", "off", "--relay-engine", "io_uring"];
    let output = Command::new(required("python3"))
        .args([script, "io_uring_setup", &Errno::PERM.raw_os_error().to_string(), env!("CARGO_BIN_EXE_lb")])
        .args(flags)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("relay.engine") && said.contains("auto or epoll"), "{said}");
}

#[test]
fn small_messages_to_a_reader_that_stalls_arrive_whole_and_in_order() {
    let backends = Pairs::with_small_buffers();
    let lb = Lb::in_front_of(&[backends.address()]).with(&["--workers", "1"]).start();
    let Pair { mut client, mut backend } = backends.connect(&lb);
    let sent = send_portions_until_stuck(&lb, &mut client, SMALL);
    // Behind what waits: more of them, and the end.
    send_pattern_from(&mut client, sent, SMALL);
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(receive_pattern(&mut backend), sent + SMALL);
    backend.write_all(b"got it").unwrap();
    drop(backend);
    assert_eq!(read_to_end(&mut client), (b"got it".to_vec(), Ending::Clean));
    assert_eq!(lb.only_access()["bytes_in"], sent + SMALL);
}

#[test]
fn a_reset_that_comes_before_small_messages_were_taken_is_no_clean_end() {
    let backends = Pairs::with_small_buffers();
    let lb = Lb::in_front_of(&[backends.address()]).with(&["--workers", "1"]).start();
    let Pair { mut client, mut backend } = backends.connect(&lb);
    send_portions_until_stuck(&lb, &mut client, SMALL);
    reset(client);
    assert_eq!(lb.only_access()["cause"], "client_reset");
    assert_eq!(read_to_end(&mut backend).1, Ending::Reset);
}

#[test]
fn a_server_that_speaks_first_does_not_wait_for_a_delayed_acknowledgement() {
    /// Linux delays one by 40 ms at least, and here by 200 (TCP_DELACK_MAX).
    const CONNECTIONS: u32 = 40;
    let server = Server::greeting("welcome");
    let lb = in_front_of(&server).start();
    let began = Instant::now();
    for _ in 0..CONNECTIONS {
        assert_eq!(greeting(lb.address()), "welcome");
    }
    let each = began.elapsed() / CONNECTIONS;
    assert!(each < Duration::from_millis(100), "{each:?} a connection");
}

#[test]
fn a_server_that_speaks_first_greets_all_of_a_burst_that_is_larger_than_its_queues() {
    const CLIENTS: usize = 100;
    let backend = Refusing::new();
    let lb = Lb::in_front_of(&[backend.address()]).with(&["--connect-timeout", "15s"]).start();
    let listener = backend.listen_with_backlog(64);
    let mut clients: Vec<TcpStream> = (0..CLIENTS).map(|_| connect(lb.address())).collect();
    wait_until_equal("clients", &(CLIENTS as f64), || lb.metrics().sum("connections_accepted_total", &[]));
    thread::spawn(move || {
        for stream in listener.incoming().take(CLIENTS) {
            stream.unwrap().write_all(b"welcome").unwrap();
        }
    });
    for client in &mut clients {
        assert_eq!(read_to_end(client), (b"welcome".to_vec(), Ending::Clean));
    }
}
