//! `lb top` in a terminal: what it shows, what its keys do, and that it fits.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::support::{
    Ending, Folder, Lb, Refusing, Server, Terminal, change_backend, connect, get, greeter, lb_command, read_to_end,
    short_read, wait_until, wait_until_equal,
};

fn top_of(lb: &Lb, rows: u16, columns: u16) -> Terminal {
    let folder = Folder::new();
    let mut command = lb_command(folder.path());
    Terminal::of(command.args(["top", "--admin", &lb.admin().to_string()]), rows, columns)
}

#[test]
fn top_shows_what_is_bad_first_and_changes_it_by_keys() {
    let (a, b, dead) = (Server::named("a"), Server::named("b"), Refusing::new());
    let lb = Lb::in_front_of(&[a.address(), b.address(), dead.address()])
        .with(&["--mode", "http"])
        .set("pools.default.failure_detection", "{failures: 1, ejection: 1m, max_ejection: 1m}")
        .start();
    (0..6).for_each(|_| assert_eq!(get(lb.address(), "/").status, 200));
    let mut terminal = top_of(&lb, 24, 80);
    terminal.wait_for("▲ ejected");
    terminal.wait_for("● ready");
    terminal.wait_for("2 of 3 backends up");
    let first = || terminal.text().lines().nth(3).unwrap_or_default().to_owned();
    assert!(first().contains(&dead.address().to_string()), "{}", terminal.text());
    assert!(terminal.text().lines().all(|line| line.chars().count() <= 80));

    // The second row is the first that is up.
    terminal.press("\x1b[B");
    terminal.press("d");
    wait_until_equal("the state", &"draining".to_owned(), || lb.state_of(a.address()));
    terminal.wait_for("◐ draining");
    // It stays selected, wherever it goes.
    terminal.press("e");
    wait_until_equal("the state", &"up".to_owned(), || lb.state_of(a.address()));
    terminal.press("/");
    terminal.press(&b.address().to_string());
    terminal.press("\r");
    wait_until("the others are gone", || !terminal.text().contains(&a.address().to_string()));
    change_backend(&lb, a.address(), "drain");
    terminal.wait_for("1 of 3 backends up");
    // The last one is asked for.
    terminal.press("x");
    terminal.wait_for("y / n? disable");
    terminal.press("n");
    wait_until("it isn't asked any more", || !terminal.text().contains("y / n?"));
    assert_eq!(lb.state_of(b.address()), "up");
    terminal.press("x");
    terminal.wait_for("y / n?");
    terminal.press("y");
    wait_until_equal("the state", &"disabled".to_owned(), || lb.state_of(b.address()));
    terminal.wait_for("✖ DOWN: pool default has no usable backend");

    terminal.press("q");
    assert_eq!(terminal.wait_for_end().code(), Some(0));
}

#[test]
fn top_sorts_by_slowness_and_follows_the_size_of_the_screen() {
    let slow = Server::that(|mut stream| {
        let mut request = [0; 1024];
        if stream.read(&mut request).is_ok_and(|length| length > 0) {
            thread::sleep(Duration::from_millis(400));
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    let mut addresses: Vec<String> = (1..150).map(|n| format!("127.9.0.{n}:9")).collect();
    addresses.push(slow.address().to_string());
    let list: Vec<String> = addresses.iter().map(|address| format!("{{address: '{address}', weight: 0}}")).collect();
    let yaml = format!("listen: 127.0.0.1:0\nmode: http\nbackends: [{}]\n", list.join(", "));
    let lb =
        Lb::with_config(&yaml.replace(&format!("'{}', weight: 0", slow.address()), &format!("'{}'", slow.address())))
            .start();
    wait_until("there is a point", || lb.api("/api/v1/history")["until"].is_string());
    (0..3).for_each(|_| assert_eq!(get(lb.address(), "/").status, 200));
    let mut terminal = top_of(&lb, 60, 200);
    terminal.wait_for("127.9.0.50:9");
    assert!(terminal.text().contains("TOTAL") && terminal.text().contains("p50 ms"), "{}", terminal.text());
    assert!(!terminal.text().contains(&slow.address().to_string()), "150 rows are more than fit");
    terminal.press("s");
    terminal.wait_for("sorted by slow");
    wait_until("it comes first", || {
        terminal.text().lines().nth(3).unwrap_or_default().contains(&slow.address().to_string())
    });
    let row = terminal.line(&slow.address().to_string());
    let p99: f64 = row.split_whitespace().nth(9).unwrap_or_default().parse().unwrap_or_default();
    assert!((350.0..5000.0).contains(&p99), "{row:?}");
    terminal.resize(24, 80);
    wait_until("columns give way", || !terminal.text().contains("TOTAL") && terminal.text().contains("127.9.0.15:9"));
    assert_eq!(terminal.text().lines().count(), 24);
    terminal.press("\x1b[F");
    terminal.wait_for("127.9.0.149:9");
    terminal.press("\x03");
    terminal.wait_for_end();
}

/// A client that has had an answer.
fn echoed(address: SocketAddr) -> TcpStream {
    let mut client = connect(address);
    client.write_all(b"hello").unwrap();
    assert_eq!(short_read(&mut client), "hello");
    client
}

#[test]
fn top_shows_the_connections_of_a_backend_and_kills_them() {
    let (quiet, busy) = (Server::echo(), Server::echo());
    let lb = Lb::in_front_of(&[busy.address()])
        .set(
            "pools.default.backends",
            format!("['{}', {{address: '{}', backup: true}}]", busy.address(), quiet.address()),
        )
        .start();
    // Each is accepted before the next comes: workers take theirs in any order.
    let mut clients: Vec<_> = (0..3).map(|_| echoed(lb.address())).collect();
    let mut terminal = top_of(&lb, 24, 120);
    terminal.wait_for("2 of 2 backends up");
    terminal.press("/");
    terminal.press(&busy.address().to_string());
    terminal.press("\r");
    wait_until("the other one is gone", || !terminal.text().contains(&quiet.address().to_string()));
    terminal.press("c");
    terminal.wait_for(&format!("3 connections of {} in default", busy.address()));
    let newest = clients.pop().unwrap();
    let newest_address = newest.local_addr().unwrap().to_string();
    wait_until("the newest comes first", || {
        terminal.text().lines().nth(3).unwrap_or_default().contains(&newest_address)
    });

    // The second one, after a question that may be denied.
    terminal.press("\x1b[Bk");
    terminal.wait_for("y / n? kill connection");
    terminal.press("n");
    wait_until("it isn't asked any more", || !terminal.text().contains("y / n?"));
    terminal.press("k");
    terminal.wait_for("y / n?");
    terminal.press("y");
    terminal.wait_for("1 ended");
    assert_eq!(read_to_end(&mut clients[1]).1, Ending::Reset);
    terminal.wait_for("2 connections of");
    terminal.press("K");
    terminal.wait_for("(2 now): clients are reset");
    terminal.press("y");
    terminal.wait_for("0 connections of");
    assert_eq!(read_to_end(&mut clients[0]).1, Ending::Reset);
    drop(newest);
    terminal.press("\x1b");
    terminal.wait_for("2 of 2 backends up");
}

#[test]
fn top_restores_the_terminal_when_a_signal_ends_it() {
    let server = Server::echo();
    let lb = Lb::in_front_of(&[server.address()]).start();
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut terminal = top_of(&lb, 24, 80);
        terminal.wait_for("● ready");
        assert!(!terminal.reads_lines() && terminal.is_taken());
        terminal.signal(signal);
        terminal.wait_for_end();
        assert!(terminal.reads_lines(), "{signal:?}");
        wait_until("the screen is as before", || !terminal.is_taken());
    }
}

#[test]
fn top_says_what_is_missing() {
    let folder = Folder::new();
    let output = lb_command(folder.path()).args(["top"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("needs a terminal"), "{output:?}");
    let mut command = lb_command(folder.path());
    let terminal = Terminal::of(command.args(["top", "--admin", "127.0.0.1:1"]), 24, 80);
    terminal.wait_for("no answer from the admin server");
}

#[test]
fn top_adds_weighs_and_removes_backends_by_keys() {
    let (a, b) = (greeter("a"), greeter("b"));
    let lb = Lb::in_front_of(&[a.address()]).start();
    let mut terminal = top_of(&lb, 24, 120);
    terminal.wait_for("● up");
    terminal.press("a");
    terminal.wait_for("add to default, ADDRESS [WEIGHT]");
    terminal.press(&format!("{} 3\r", b.address()));
    wait_until_equal("backends", &vec![a.address().to_string(), b.address().to_string()], || lb.backends());
    assert_eq!(lb.backend(b.address())["weight"], 3);
    terminal.wait_for("a restart forgets it");
    terminal.wait_for(&b.address().to_string());
    terminal.press("w");
    terminal.wait_for(&format!("weight of {} in default", a.address()));
    terminal.press("12\x7f1\r");
    wait_until_equal("the weight", &json!(11), || lb.backend(a.address())["weight"].clone());
    terminal.press("w300\r");
    terminal.wait_for("weight must be from 0 to 256");

    let mut live = connect(lb.address());
    assert_eq!(short_read(&mut live), "a");
    wait_until("the screen has it", || terminal.line(&a.address().to_string()).contains(" 1 "));
    terminal.press("R");
    terminal.wait_for("once its 1 connections have ended");
    terminal.press("n");
    terminal.press("R");
    terminal.wait_for("y / n? remove");
    assert_eq!(lb.state_of(a.address()), "up");
    terminal.press("y");
    wait_until_equal("its state", &"draining".to_owned(), || lb.state_of(a.address()));
    drop(live);
    wait_until_equal("backends", &vec![b.address().to_string()], || lb.backends());
}
