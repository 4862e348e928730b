//! An upgrade (SIGUSR2): another process takes over the listening sockets while clients come, go and stay. And sockets
//! that a process is started with (`fd@N`).

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::process::Signal;

use crate::support::{
    Ending, Folder, Lb, Load, Pairs, Server, allow_open_files, connect, exchange, free_port, get, greeting, has_ended,
    has_keepalive_at_peer, is_listened_on, output_of, read_to_end, short_read, wait_until, wait_until_equal,
};

const FAILED: &str = "the upgrade failed; this process continues";

fn yaml(server: &Server) -> String {
    format!("listen: 127.0.0.1:0\nbackends: ['{}']\n", server.address())
}

#[test]
fn five_upgrades_under_load_are_noticed_by_nobody() {
    allow_open_files(2_000);
    let (one, two) = (Load::server(), Load::server());
    let mut lb = Lb::in_front_of(&[one.address(), two.address()])
        .with(&["--access-log", "off", "--drain-timeout", "5m"])
        .start();
    let mut load = Load::on(lb.address(), 4, 50);
    let mut former = Vec::new();
    for _ in 0..5 {
        load.goes_on(20);
        former.push(lb.upgrade());
        // The newest has sessions of its own when the next one comes.
        load.add_sessions(5);
    }
    load.goes_on(20);
    assert!(!has_ended(former[0]), "it has sessions");
    load.end();
    assert_eq!(lb.first_process_ended(), Some(0));
    wait_until("all former processes end", || former.iter().all(|pid| has_ended(*pid)));
    let stopped = lb.wait_for_log("stopped", 5);
    assert_eq!(stopped.len(), 5);
    assert!(stopped.iter().all(|line| line["forced"] == 0));
    assert_eq!(lb.metrics().sum("connections_rejected_total", &[]), 0.0);
    lb.assert_balanced();
    lb.signal(Signal::TERM);
    wait_until("the newest ends", || has_ended(lb.pid()));
}

#[test]
fn the_former_process_serves_its_connections_to_their_end_and_exits_with_0() {
    let pairs = Pairs::new();
    let mut lb = Lb::in_front_of(&[pairs.address()]).start();
    let mut held = pairs.connect(&lb);
    let former = lb.upgrade();
    held.ping(b"by the former process");
    let mut fresh = pairs.connect(&lb);
    fresh.ping(b"by the new process");
    assert!(!has_ended(former));
    assert_eq!(lb.metrics().sum("connections_accepted_total", &[]), 1.0);
    drop(held);
    assert_eq!(lb.first_process_ended(), Some(0));
    lb.only_access();
    fresh.ping(b"still");
    drop(fresh);
    lb.access_log(2);
}

#[test]
fn the_new_process_reads_the_configuration_anew_and_answers_for_the_admin_address() {
    let pairs = Pairs::new();
    let (one, two) = (Server::named("one"), Server::named("two"));
    let further = free_port();
    let config = |backend: std::net::SocketAddr, more: &str| {
        format!("listeners:\n  web: {{bind: '127.0.0.1:0'}}\n{more}pools:\n  app: {{backends: ['{backend}']}}\n")
    };
    let mut lb = Lb::with_config(&config(pairs.address(), "")).with(&["--workers", "1"]).start();
    let (admin, address) = (lb.admin(), lb.address());
    let mut held = pairs.connect(&lb);
    assert_eq!(lb.api("/api/v1/status")["connections"]["active"], 1);
    lb.rewrite(&config(one.address(), &format!("  more: {{bind: '{further}'}}\n")));
    lb.upgrade();
    assert_eq!((lb.admin(), lb.address_now("web")), (admin, address), "the kernel chose these ports");
    assert_eq!(lb.api("/api/v1/status")["connections"]["active"], 0, "the held one is not its own");
    assert_eq!([get(address, "/").body, get(further, "/").body], ["one", "one"]);
    held.ping(b"held");
    lb.reload_with(&config(two.address(), ""));
    assert_eq!(get(address, "/").body, "two");
    wait_until("nobody listens at the removed one", || !is_listened_on(further));
    assert_eq!(lb.reloads("success"), 1.0);
}

#[test]
fn what_fails_to_start_changes_nothing_and_is_said() {
    let (one, two) = (Server::greeting("one"), Server::greeting("two"));
    let mut lb = Lb::with_config(&yaml(&one)).start();
    let mut held = connect(lb.address());
    assert_eq!(short_read(&mut held), "one");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let broken =
        ["listen: nowhere\n".to_owned(), yaml(&two).replace("127.0.0.1:0", &taken.local_addr().unwrap().to_string())];
    for (index, yaml) in broken.iter().enumerate() {
        lb.rewrite(yaml);
        lb.signal(Signal::USR2);
        wait_until("the failure is said", || lb.log_lines_with(FAILED).len() == index + 1);
        let line = &lb.log_lines_with(FAILED)[index];
        assert_eq!(line["level"], "ERROR");
        assert!(line["error"].as_str().is_some_and(|why| why.contains("ended before it accepted")), "{line}");
        assert_eq!(greeting(lb.address()), "one");
        assert_eq!(lb.ask("/readyz").status, 200);
    }
    drop(held);
    lb.rewrite(&yaml(&two));
    lb.upgrade();
    assert_eq!(greeting(lb.address()), "two");
    assert_eq!(lb.first_process_ended(), Some(0));
}

#[test]
fn the_file_that_lies_where_the_program_was_is_started() {
    let server = Server::greeting("here");
    let mut lb = Lb::in_front_of(&[server.address()]).in_its_folder().start();
    let (program, copy) = (lb.folder().join("lb"), lb.folder().join("copy"));
    fs::hard_link(&program, &copy).unwrap();
    // By another process: while this one writes a file, a child that it forks elsewhere may hold it, and nobody can
    // execute it.
    let put = |script: &str| {
        let write = "printf %s \"$1\" >\"$0.fresh\" && chmod 755 \"$0.fresh\" && mv \"$0.fresh\" \"$0\"";
        output_of(Path::new("/bin/sh"), &["-c", write, &program.display().to_string(), script]);
    };
    put("#!/bin/sh\nexit 3\n");
    lb.signal(Signal::USR2);
    wait_until("the failure is said", || lb.log_lines_with(FAILED).len() == 1);
    assert!(lb.log_lines_with(FAILED)[0]["error"].as_str().unwrap().contains("exit status: 3"));
    put("no program at all");
    lb.signal(Signal::USR2);
    wait_until("the failure is said", || lb.log_lines_with(FAILED).len() == 2);
    assert_eq!(greeting(lb.address()), "here");
    // A new version that says so, and goes on as ever.
    put(&format!("#!/bin/sh\ntouch new-version\nexec '{}' \"$@\"\n", copy.display()));
    lb.upgrade();
    assert!(lb.folder().join("new-version").exists());
    assert_eq!(greeting(lb.address()), "here");
}

#[test]
fn while_the_new_process_takes_its_time_the_former_one_goes_on() {
    let (one, two) = (Server::greeting("one"), Server::greeting("two"));
    let lb = Lb::with_config(&yaml(&one)).in_its_folder().start();
    let program = lb.folder().join("lb").display().to_string();
    let write =
        "printf '#!/bin/sh\\nexec sleep 60\\n' >\"$0.fresh\" && chmod 755 \"$0.fresh\" && mv \"$0.fresh\" \"$0\"";
    output_of(Path::new("/bin/sh"), &["-c", write, &program]);
    lb.signal(Signal::USR2);
    let started = || lb.log_lines_with("upgrading: a new process was started");
    wait_until("it has begun", || started().len() == 1);
    lb.reload_with(&yaml(&two));
    assert_eq!(greeting(lb.address()), "two");
    lb.signal(Signal::USR2);
    wait_until("one at a time", || !lb.log_lines_with("an upgrade is under way already").is_empty());
    assert_eq!(started().len(), 1);
    // It would not reach the new process.
    let drain = format!("/api/v1/pools/default/backends/{}/drain", two.address());
    let (status, said) = lb.post(&drain);
    assert!(status == 503 && said.contains("ask again"), "{status} {said}");
    // Somebody loses patience with it.
    lb.signal_to(u32::try_from(started()[0]["pid"].as_u64().unwrap()).unwrap(), Signal::KILL);
    wait_until("the failure is said", || lb.log_lines_with(FAILED).len() == 1);
    assert_eq!(lb.ask("/readyz").status, 200);
    assert_eq!(greeting(lb.address()), "two");
    assert_eq!(lb.post(&drain).0, 200);
}

#[test]
fn sockets_that_are_taken_over_get_the_options_of_the_new_configuration() {
    let server = Server::greeting("here");
    let config = |keepalive: &str| {
        format!("listen: 127.0.0.1:0\nbackends: ['{}']\ntcp: {{keepalive: {keepalive}}}\n", server.address())
    };
    let mut lb = Lb::with_config(&config("1m")).start();
    let is_kept_alive_now = || {
        let mut client = connect(lb.address());
        short_read(&mut client);
        has_keepalive_at_peer(&client)
    };
    assert!(is_kept_alive_now());
    lb.reload_with(&config("0s"));
    assert!(!is_kept_alive_now(), "after a reload");
    lb.reload_with(&config("1m"));
    assert!(is_kept_alive_now());
    lb.rewrite(&config("0s"));
    lb.upgrade();
    let mut client = connect(lb.address());
    short_read(&mut client);
    assert!(!has_keepalive_at_peer(&client), "after an upgrade");
}

#[test]
fn a_stop_after_the_upgrade_takes_two_signals_to_cut_the_former_processes_connections() {
    let pairs = Pairs::new();
    let mut lb = Lb::in_front_of(&[pairs.address()]).with(&["--drain-timeout", "1h"]).start();
    let mut held = pairs.connect(&lb);
    let former = lb.upgrade();
    // A service manager sends it to every process of the service.
    lb.signal_to(former, Signal::TERM);
    wait_until("it has heard", || !lb.log_lines_with("stopping; a second signal stops at once").is_empty());
    held.ping(b"it ends by itself");
    lb.signal_to(former, Signal::TERM);
    assert_eq!(lb.first_process_ended(), Some(0));
    assert_eq!(read_to_end(&mut held.client), (Vec::new(), Ending::Reset));
    assert_eq!(lb.only_access()["cause"], "drain_forced");
    pairs.connect(&lb).ping(b"the new process goes on");
}

#[test]
fn the_drain_of_the_former_process_ends_by_force_when_its_time_is_over() {
    let pairs = Pairs::new();
    let lb = Lb::in_front_of(&[pairs.address()]).set("drain.upgrade_timeout", "300ms");
    let mut lb = lb.with(&["--drain-timeout", "1h"]).start();
    let mut held = pairs.connect(&lb);
    lb.upgrade();
    assert_eq!(read_to_end(&mut held.client), (Vec::new(), Ending::Reset));
    assert_eq!(lb.first_process_ended(), Some(0));
    assert_eq!(lb.wait_for_log("stopped", 1)[0]["forced"], 1);
    assert_eq!(greeting_of_pair(&pairs, &lb), "welcome");
}

#[test]
fn sessions_outlive_upgrades_and_former_processes_are_few_shown_and_can_be_ended() {
    let pairs = Pairs::new();
    let mut lb = Lb::in_front_of(&[pairs.address()]).with(&["--drain-timeout", "1ms"]).start();
    let mut held = Vec::new();
    let mut former = Vec::new();
    let shown = |lb: &Lb| lb.api("/api/v1/status")["former_processes"].clone();
    assert_eq!(shown(&lb), serde_json::json!([]));
    for _ in 0..4 {
        held.push(pairs.connect(&lb));
        former.push(lb.upgrade());
        assert_eq!(shown(&lb), serde_json::json!(former));
        held.iter_mut().for_each(|pair| pair.ping(b"longer than the drain timeout"));
    }
    // One more would be too many: the oldest is stopped, with its drain timeout.
    held.push(pairs.connect(&lb));
    former.push(lb.upgrade());
    assert_eq!(read_to_end(&mut held.remove(0).client), (Vec::new(), Ending::Reset));
    assert_eq!(lb.first_process_ended(), Some(0));
    wait_until_equal("those that are left", &serde_json::json!(former[1..]), || shown(&lb));
    held.iter_mut().for_each(|pair| pair.ping(b"no other is"));
    lb.signal_to(former[2], Signal::TERM);
    assert_eq!(read_to_end(&mut held.remove(1).client), (Vec::new(), Ending::Reset));
    wait_until("it has ended", || shown(&lb) == serde_json::json!([former[1], former[3], former[4]]));
    held.iter_mut().for_each(|pair| pair.ping(b"the others stay"));
}

fn greeting_of_pair(pairs: &Pairs, lb: &Lb) -> String {
    let mut pair = pairs.connect(lb);
    pair.backend.write_all(b"welcome").unwrap();
    short_read(&mut pair.client)
}

#[test]
fn other_worker_counts_take_over_all_sockets() {
    let server = Load::server();
    let config = |workers: usize| {
        format!("workers: {workers}\nlog: {{access: 'off'}}\nlisten: 127.0.0.1:0\nbackends: ['{}']\n", server.address())
    };
    let mut lb = Lb::with_config(&config(3)).start();
    let load = Load::on(lb.address(), 4, 8);
    for workers in [1, 4, 2] {
        lb.rewrite(&config(workers));
        lb.upgrade();
        assert_eq!(lb.api("/api/v1/status")["workers"], workers);
        // With 4 clients at a time every socket of the port gets some.
        load.goes_on(200);
    }
    load.end();
    assert_eq!(lb.first_process_ended(), Some(0));
}

fn by_file(path: &Path, message: &str) -> String {
    let mut client = UnixStream::connect(path).unwrap();
    client.write_all(message.as_bytes()).unwrap();
    let mut answer = vec![0; message.len()];
    client.read_exact(&mut answer).unwrap();
    String::from_utf8(answer).unwrap()
}

#[test]
fn unix_sockets_stay_through_upgrades_and_reloads() {
    let folder = Folder::new();
    let (web, admin) = (folder.path().join("web.sock"), folder.path().join("admin.sock"));
    let server = Server::echo();
    let config = |attempts: usize| {
        let web = web.display();
        format!("listen: ['unix:{web}', '127.0.0.1:0']\nattempts: {attempts}\nbackends: ['{}']\n", server.address())
    };
    let mut lb = Lb::with_config(&config(1)).start();
    let inode = fs::metadata(&web).unwrap().ino();
    let mut held = UnixStream::connect(&web).unwrap();
    let mut answer = [0; 4];
    for round in 2..4 {
        lb.upgrade();
        lb.reload_with(&config(round));
        assert_eq!(by_file(&web, "by file"), "by file");
        assert_eq!(fs::metadata(&web).unwrap().ino(), inode, "the same socket");
        held.write_all(b"held").unwrap();
        held.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"held");
    }
    drop(held);
    assert_eq!(lb.first_process_ended(), Some(0));
    // The admin server's own.
    let (backend, flag) = (server.address().to_string(), format!("unix:{}", admin.display()));
    let lb = Lb::with_arguments(&["--listen", "127.0.0.1:0", "--backend", &backend, "--admin", &flag]).start();
    let former = lb.pid();
    lb.signal(Signal::USR2);
    wait_until("the former process ends", || lb.log_lines_with("stopped").len() == 1 || has_ended(former));
    let answer = exchange(&mut UnixStream::connect(&admin).unwrap(), "/readyz").unwrap();
    assert_eq!(answer.status, 200);
}

#[test]
fn a_socket_that_the_process_is_started_with_is_served_through_reloads_and_upgrades() {
    let (one, two) = (Server::greeting("one"), Server::greeting("two"));
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let config = |server: &Server, bind: &str| format!("listen: [{bind}]\nbackends: ['{}']\n", server.address());
    let mut lb = Lb::with_config(&config(&one, "fd@3")).with_socket(socket).start();
    assert_eq!(lb.address(), address);
    assert_eq!(greeting(address), "one");
    lb.reload_with(&config(&two, "fd@3"));
    assert_eq!(greeting(address), "two");
    // Taken away, and wanted again.
    lb.reload_with(&config(&one, "'127.0.0.1:0'"));
    lb.reload_with(&config(&one, "fd@3"));
    assert_eq!(greeting(address), "one");
    for server in [&two, &one] {
        lb.rewrite(&config(server, "fd@3"));
        lb.upgrade();
        let name = greeting(address);
        lb.reload_with(&config(server, "fd@3, '127.0.0.1:0'"));
        assert_eq!(greeting(address), name);
    }
    assert_eq!(lb.first_process_ended(), Some(0));
    lb.access_log(7);
}

#[test]
fn a_started_with_socket_that_a_reload_gave_up_can_be_had_again_after_an_upgrade() {
    let server = Server::greeting("here");
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let config = |bind: &str| format!("listen: [{bind}]\nbackends: ['{}']\n", server.address());
    let mut lb = Lb::with_config(&config("fd@3")).with_socket(socket).start();
    lb.upgrade();
    lb.reload_with(&config("'127.0.0.1:0'"));
    lb.reload_with(&config("fd@3"));
    assert_eq!(greeting(address), "here");
}

#[test]
fn what_is_no_listening_socket_is_refused() {
    let server = Server::greeting("here");
    let folder = Folder::new();
    let file = folder.write("lb.yaml", format!("listen: fd@3\nbackends: ['{}']\n", server.address()));
    let output = crate::support::run_to_end(folder.path(), &["-c", &file.display().to_string(), "--admin", "off"], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("fd@3"), "{output:?}");
}
