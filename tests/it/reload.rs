//! A reload, the part that concerns listeners: they come, change and go while connections live; what can't be had as a
//! whole changes nothing.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;

use rustix::process::Signal;

use crate::support::{
    Ending, Folder, Lb, Pair, Pairs, Server, connect, connect_and_read, free_port, get, get_from, greeting,
    is_listened_on, read_to_end, run_to_end, short_read, wait_for, wait_until, wait_until_equal,
};

/// Listeners of these names, addresses and further keys, all in front of one backend.
fn yaml(listeners: &[(&str, SocketAddr, &str)], backend: SocketAddr) -> String {
    let listener = |(name, bind, more): &(&str, SocketAddr, &str)| format!("  {name}: {{bind: '{bind}'{more}}}\n");
    let listeners: String = listeners.iter().map(listener).collect();
    format!("listeners:\n{listeners}pools:\n  app: {{backends: ['{backend}']}}\n")
}

#[track_caller]
fn assert_refused(address: SocketAddr) {
    // Not by connecting: a connection that is let in would be one more.
    wait_until("nobody listens", || !is_listened_on(address));
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn a_listener_that_is_added_serves() {
    let server = Server::named("here");
    let (one, two) = (free_port(), free_port());
    let lb = Lb::with_config(&yaml(&[("one", one, "")], server.address())).start();
    let said = lb.reload_with(&yaml(&[("one", one, ""), ("two", two, "")], server.address()));
    assert_eq!(said, "configuration reloaded");
    assert_eq!([get(one, "/").body, get(two, "/").body], ["here", "here"]);
    assert_eq!(lb.address_now("two"), two);
    lb.access_log(2);
    assert_eq!(lb.metrics().sum("connections_accepted_total", &[("listener", "two")]), 1.0);
    assert_eq!(lb.reloads("success"), 1.0);
    assert_eq!(lb.metrics().sum("config_last_reload_successful", &[]), 1.0);
    assert_eq!(lb.api("/api/v1/status")["last_reload"]["result"], "success");
}

#[test]
fn a_listener_that_is_removed_refuses_while_its_connections_go_on() {
    let pairs = Pairs::new();
    let (stays, goes) = (free_port(), free_port());
    let both = yaml(&[("goes", goes, ""), ("stays", stays, "")], pairs.address());
    let only = yaml(&[("stays", stays, "")], pairs.address());
    let lb = Lb::with_config(&both).start();
    let mut pair = pairs.connect_to(goes);
    pair.ping(b"before");
    lb.reload_with(&only);
    assert_refused(goes);
    pair.ping(b"after");
    let of = |name| lb.metrics().sum(name, &[("listener", "goes")]);
    assert_eq!([of("connections_accepted_total"), of("connections_active"), of("bytes_total")], [1.0, 1.0, 22.0]);
    assert_eq!(lb.listener("goes")["active"], 1);
    pairs.connect_to(stays).ping(b"others");
    lb.access_log(1);
    let Pair { client, mut backend } = pair;
    drop(client);
    assert_eq!(read_to_end(&mut backend).1, Ending::Clean);
    drop(backend);
    let lines = lb.access_log(2);
    assert_eq!((&lines[1]["listener"], &lines[1]["cause"]), (&"goes".into(), &"client_closed".into()));
    lb.reload_with(&only);
    let known = lb.metrics().label_values("connections_accepted_total", "listener");
    assert_eq!(known, ["stays"], "its last connection has ended");
    lb.rewrite(&both);
    lb.reload_with(&both);
    pairs.connect_to(goes).ping(b"back again");
}

#[test]
fn a_listener_that_comes_back_goes_on_with_its_counts() {
    let pairs = Pairs::new();
    let (stays, goes) = (free_port(), free_port());
    let both = yaml(&[("goes", goes, ""), ("stays", stays, "")], pairs.address());
    let lb = Lb::with_config(&both).start();
    let mut pair = pairs.connect_to(goes);
    lb.reload_with(&yaml(&[("stays", stays, "")], pairs.address()));
    assert_refused(goes);
    lb.reload_with(&both);
    let mut another = pairs.connect_to(goes);
    another.ping(b"another");
    pair.ping(b"the first");
    assert_eq!(lb.metrics().sum("connections_accepted_total", &[("listener", "goes")]), 2.0);
    drop((pair, another));
    wait_until("none is active", || lb.metrics().sum("connections_active", &[]) == 0.0);
    assert_eq!(lb.metrics().sum("connections_closed_total", &[("listener", "goes")]), 2.0);
}

#[test]
fn a_listener_follows_its_new_settings_and_its_connections_their_old_ones() {
    let (one, two) = (Server::greeting("one"), Server::greeting("two"));
    let address = free_port();
    let config = |pool: &str, more: &str| {
        format!(
            "listeners:\n  web: {{bind: '{address}', pool: {pool}{more}}}\n\
             pools:\n  one: {{backends: ['{}']}}\n  two: {{backends: ['{}']}}\n",
            one.address(),
            two.address()
        )
    };
    let lb = Lb::with_config(&config("one", "")).start();
    let mut first = connect(address);
    let first_client = first.local_addr().unwrap();
    assert_eq!(short_read(&mut first), "one");
    lb.reload_with(&config("two", ""));
    assert_eq!(greeting(address), "two");
    lb.reload_with(&config("two", ", deny: [127.0.0.0/8]"));
    assert_eq!(connect_and_read(address), (Vec::new(), Ending::Reset));
    lb.reload_with(&config("one", ", timeouts: {idle: 1s}"));
    let mut idle = connect(address);
    assert_eq!(short_read(&mut idle), "one");
    assert_eq!(read_to_end(&mut idle).1, Ending::Reset, "idle for too long");
    assert_eq!(lb.access_of(idle.local_addr().unwrap())["cause"], "idle_timeout");
    drop(first);
    assert_eq!(lb.access_of(first_client)["cause"], "client_closed", "it was idle for longer, under its old settings");
}

#[test]
fn limits_of_connections_are_lowered_and_raised_while_connections_live() {
    let pairs = Pairs::new();
    let address = free_port();
    let config = |own: usize, all: usize| {
        format!("max_connections: {all}\n")
            + &yaml(&[("web", address, &format!(", max_connections: {own}"))], pairs.address())
    };
    let lb = Lb::with_config(&config(3, 100)).start();
    let mut held: Vec<_> = (0..3).map(|_| pairs.connect_to(address)).collect();
    assert_eq!(connect_and_read(address), (Vec::new(), Ending::Reset));
    lb.reload_with(&config(2, 100));
    held.iter_mut().for_each(|pair| pair.ping(b"those that live go on"));
    drop(held.pop());
    wait_until("one has ended", || lb.listener("web")["active"] == 2);
    assert_eq!(connect_and_read(address), (Vec::new(), Ending::Reset), "two are as many as may be now");
    lb.reload_with(&config(4, 100));
    held.extend((0..2).map(|_| pairs.connect_to(address)));
    let rejected = |reason| lb.metrics().sum("connections_rejected_total", &[("reason", reason)]);
    wait_until_equal("rejected", &2.0, || rejected("listener_max_connections"));
    lb.reload_with(&config(10, 4));
    assert_eq!(connect_and_read(address), (Vec::new(), Ending::Reset));
    wait_until_equal("rejected", &1.0, || rejected("max_connections"));
    assert_eq!(lb.metrics().sum("max_connections", &[]), 4.0);
    lb.reload_with(&config(10, 100));
    held.push(pairs.connect_to(address));
    held.iter_mut().for_each(|pair| pair.ping(b"all of them"));
}

#[test]
fn a_listener_moves_to_another_port_and_takes_its_counts_along() {
    let pairs = Pairs::new();
    let (here, there) = (free_port(), free_port());
    let lb = Lb::with_config(&yaml(&[("web", here, "")], pairs.address())).start();
    let mut pair = pairs.connect_to(here);
    lb.reload_with(&yaml(&[("web", there, "")], pairs.address()));
    assert_refused(here);
    pairs.connect_to(there).ping(b"there");
    pair.ping(b"here");
    assert_eq!(lb.metrics().sum("connections_accepted_total", &[("listener", "web")]), 2.0);
}

#[test]
fn two_listeners_exchange_their_ports_without_a_moment_closed() {
    let (one, two) = (Server::greeting("one"), Server::greeting("two"));
    let (first, second) = (free_port(), free_port());
    let config = |to_one: SocketAddr, to_two: SocketAddr| {
        format!(
            "listeners:\n  one: {{bind: '{to_one}', pool: one}}\n  two: {{bind: '{to_two}', pool: two}}\n\
             pools:\n  one: {{backends: ['{}']}}\n  two: {{backends: ['{}']}}\n",
            one.address(),
            two.address()
        )
    };
    let lb = Lb::with_config(&config(first, second)).start();
    assert_eq!([greeting(first), greeting(second)], ["one", "two"]);
    lb.reload_with(&config(second, first));
    assert_eq!([greeting(first), greeting(second)], ["two", "one"]);
    assert!(lb.log_lines_with("no longer listening").is_empty());
    lb.access_log(4);
}

#[test]
fn a_listener_widens_from_one_address_to_all_and_back() {
    let server = Server::greeting("here");
    let address = free_port();
    let config = |bind: &str| format!("listen: '{bind}'\nbackends: ['{}']\n", server.address());
    let (narrow, wide) = (config(&address.to_string()), config(&format!("0.0.0.0:{}", address.port())));
    let lb = Lb::with_config(&narrow).start();
    for yaml in [&wide, &narrow] {
        lb.reload_with(yaml);
        assert_eq!(greeting(address), "here");
    }
}

/// Everything shows that the last reload failed.
#[track_caller]
fn assert_failure_is_shown(lb: &Lb, failures: usize, part: &str) {
    assert_eq!(lb.reloads("failure"), failures as f64);
    assert_eq!(lb.metrics().sum("config_last_reload_successful", &[]), 0.0);
    let report = lb.api("/api/v1/status")["last_reload"].clone();
    assert_eq!(report["result"], "failure");
    assert!(report["message"].as_str().is_some_and(|message| message.contains(part)), "{part} in {report}");
    let lines = wait_for("a line of the log for each", || {
        let lines = lb.log_lines_with("the configuration was not reloaded; the previous one stays in use");
        Some(lines).filter(|lines| lines.len() >= failures)
    });
    assert_eq!(lines.len(), failures);
    let line = &lines[failures - 1];
    assert_eq!(line["level"], "ERROR");
    assert!(line["error"].as_str().is_some_and(|error| error.contains(part)), "{part} in {line}");
}

#[test]
fn what_is_broken_changes_nothing_is_shown_everywhere_and_is_recovered_from() {
    let (server, other) = (Server::greeting("here"), Server::greeting("there"));
    let (address, more) = (free_port(), free_port());
    let foreign = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = foreign.local_addr().unwrap();
    let good = yaml(&[("web", address, "")], server.address());
    let lb = Lb::with_config(&good).start();
    let mut held = connect(address);
    assert_eq!(short_read(&mut held), "here");
    // All but one thing is as could be, and would change something.
    let changed = yaml(&[("more", more, ""), ("web", address, "")], other.address());
    let broken = [
        (changed.clone() + "  : [", "test.yaml"),
        (changed.clone() + "worker: 2\n", "worker"),
        (changed.replace("backends", "backend"), "backend"),
        (yaml(&[("more", more, ""), ("web", taken, "")], other.address()), "another process has it"),
        (changed.clone() + "admin: {token_file: nowhere}\n", "nowhere"),
        (String::new(), ""),
    ];
    for (index, (yaml, part)) in broken.iter().enumerate() {
        let said = lb.fail_to_reload_with(yaml);
        assert!(said.contains(part), "{part} in {said}");
        assert_failure_is_shown(&lb, index + 1, part);
        assert_eq!(greeting(address), "here");
        assert!(TcpStream::connect(more).is_err());
        assert_eq!(lb.ask("/readyz").status, 200);
    }
    lb.signal(Signal::HUP);
    wait_until("SIGHUP fails as well", || lb.reloads("failure") == (broken.len() + 1) as f64);
    lb.rewrite(&changed);
    lb.signal(Signal::HUP);
    wait_until("SIGHUP reloads", || lb.reloads("success") == 1.0);
    assert_eq!(lb.metrics().sum("config_last_reload_successful", &[]), 1.0);
    assert_eq!([greeting(address), greeting(more)], ["there", "there"]);
    drop(held);
}

#[test]
fn a_missing_file_changes_nothing() {
    let server = Server::greeting("here");
    let lb = Lb::with_config(&format!("listen: 127.0.0.1:0\nbackends: ['{}']\n", server.address())).start();
    std::fs::remove_file(lb.config_file()).unwrap();
    let (status, said) = lb.post("/api/v1/reload");
    assert!(status == 422 && said.contains("test.yaml"), "{status} {said}");
    assert_failure_is_shown(&lb, 1, "test.yaml");
    assert_eq!(greeting(lb.address()), "here");
}

#[test]
fn what_is_no_file_is_not_waited_for() {
    let server = Server::greeting("here");
    let yaml = format!("listen: 127.0.0.1:0\nbackends: ['{}']\n", server.address());
    let lb = Lb::with_config(&yaml).start();
    std::fs::remove_file(lb.config_file()).unwrap();
    let made = Command::new("mkfifo").arg(lb.config_file()).status().unwrap();
    assert!(made.success());
    let (status, said) = lb.post("/api/v1/reload");
    assert!(status == 422 && said.contains("is not a file that can be read again"), "{status}: {said}");
    assert_eq!(greeting(lb.address()), "here");
    let pipe = lb.folder().join("token");
    std::fs::rename(lb.config_file(), &pipe).unwrap();
    let said = lb.fail_to_reload_with(&format!("{yaml}admin: {{token_file: {}}}\n", pipe.display()));
    assert!(said.contains("it is not a file"), "{said}");
    lb.reload_with(&yaml);
}

#[test]
fn says_what_needs_a_restart_and_does_the_rest() {
    let server = Server::greeting("here");
    let address = free_port();
    let lb = Lb::with_config(
        &yaml(&[], server.address()).replace("listeners:\n", "listeners: {a: {bind: '127.0.0.1:0'}}\n"),
    )
    .start();
    let config = format!(
        "workers: 1\nrelay: {{mode: copy}}\nlog: {{access: 'off'}}\n{}",
        yaml(&[("web", address, "")], server.address())
    );
    let said = lb.reload_with(&config);
    for key in ["workers", "relay", "log"] {
        assert!(said.contains(key), "{key} in {said}");
    }
    assert!(!said.contains("admin") && said.contains("restart"), "{said}");
    assert_eq!(greeting(address), "here");
    lb.only_access();
    assert_eq!(lb.reload_with(&config), "configuration reloaded");
}

#[test]
fn flags_still_win_after_a_reload() {
    let server = Server::greeting("here");
    let config =
        |max: usize| format!("max_connections: {max}\nlisten: 127.0.0.1:0\nbackends: ['{}']\n", server.address());
    let lb = Lb::with_config(&config(10)).with(&["--max-connections", "20"]).start();
    lb.reload_with(&config(30));
    assert_eq!(lb.metrics().sum("max_connections", &[]), 20.0);
    let without_file = Lb::in_front_of(&[server.address()]).start();
    assert_eq!(without_file.post("/api/v1/reload"), (200, "configuration reloaded".to_owned()));
    assert_eq!(greeting(without_file.address()), "here");
}

#[test]
fn listeners_come_and_go_in_quick_succession() {
    let server = Server::greeting("here");
    let (stays, comes) = (free_port(), free_port());
    let folder = Folder::new();
    let socket = folder.path().join("lb.sock");
    let only = yaml(&[("stays", stays, "")], server.address());
    let more = format!("  comes: {{bind: ['{comes}', 'unix:{}']}}\npools", socket.display());
    let both = only.replace("pools", &more);
    let lb = Lb::with_config(&only).start();
    for _ in 0..50 {
        lb.reload_with(&both);
        assert_eq!(greeting(comes), "here");
        assert!(UnixStream::connect(&socket).is_ok());
        lb.reload_with(&only);
    }
    assert_refused(comes);
    assert!(UnixStream::connect(&socket).is_err());
}

#[test]
fn a_token_is_wanted_from_the_next_change_on() {
    let server = Server::greeting("here");
    let folder = Folder::new();
    let token = folder.write("token", "first\n");
    let open = format!("listen: 127.0.0.1:0\nbackends: ['{}']\n", server.address());
    let lb = Lb::with_config(&open).start();
    lb.reload_with(&format!("{open}admin: {{token_file: '{}'}}\n", token.display()));
    assert_eq!(lb.post("/api/v1/reload").0, 401);
    let reload = |token: &std::path::Path| {
        let (admin, token) = (lb.admin().to_string(), token.display().to_string());
        run_to_end(folder.path(), &["reload", "--admin", &admin, "--token-file", &token], &[]).status.code()
    };
    assert_eq!(reload(&token), Some(0));
    let before = folder.write("before", "first\n");
    folder.write("token", "second\n");
    assert_eq!(reload(&before), Some(0), "the file is read at the reload");
    assert_eq!([reload(&before), reload(&token)], [Some(1), Some(0)]);
}

#[test]
fn a_reload_without_a_change_changes_nothing() {
    let names = ["a", "b", "c"];
    let servers = names.map(Server::greeting);
    let addresses = servers.each_ref().map(|server| server.address().to_string());
    let lb = Lb::with_config(&format!("listen: 127.0.0.1:0\nbackends: ['{}']\n", addresses.join("', '"))).start();
    let address = lb.address();
    let mut held = connect(address);
    assert_eq!(short_read(&mut held), "a");
    for name in ["b", "c", "a", "b"] {
        assert_eq!(lb.post("/api/v1/reload"), (200, "configuration reloaded".to_owned()));
        assert_eq!(greeting(address), name, "the turn goes on");
    }
    assert_eq!(lb.address_now("default"), address);
    let totals = servers.each_ref().map(|server| lb.backend(server.address())["total"].clone());
    assert_eq!(totals, [2, 2, 1]);
    lb.access_log(4);
    drop(held);
    lb.access_log(5);
}

#[test]
fn the_command_line_tells_by_its_exit_code_how_a_reload_went() {
    let server = Server::named("here");
    let good = format!("listen: 127.0.0.1:0\nbackends: ['{}']\n", server.address());
    let lb = Lb::with_config(&good).start();
    let folder = Folder::new();
    let reload = |admin: String| {
        let output = run_to_end(folder.path(), &["reload", "--admin", &admin], &[]);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, said, _) = reload(lb.admin().to_string());
    assert_eq!((code, said.trim()), (Some(0), "configuration reloaded"));
    lb.rewrite(&format!("{good}colour: blue\n"));
    let (code, said, wrong) = reload(lb.admin().to_string());
    assert_eq!((code, said.as_str()), (Some(1), ""));
    assert!(wrong.contains("colour"), "{wrong}");
    let (code, _, wrong) = reload(free_port().to_string());
    assert!(code == Some(1) && wrong.contains("is lb running?"), "{code:?} {wrong}");
    assert!(get_from(lb.address(), "/").is_ok());
}
