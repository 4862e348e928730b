//! A pool that serves nobody is seen wherever an operator looks, and so are clients that fail.

use serde_json::Value;

use crate::support::{
    Ending, Folder, Lb, Refusing, Server, change_backend, connect_and_read, free_port, get, lb_command, run_to_end,
    wait_until, wait_until_equal,
};

fn pool(lb: &Lb) -> Value {
    lb.api("/api/v1/pools")["pools"][0].clone()
}

/// The kinds of its events, after one of this id.
fn events_after(lb: &Lb, id: u64) -> Vec<String> {
    let events = lb.api(&format!("/api/v1/events?after={id}"))["events"].as_array().unwrap().clone();
    events.iter().map(|event| event["event"].as_str().unwrap().to_owned()).collect()
}

fn status(lb: &Lb, arguments: &[&str]) -> (Option<i32>, String, String) {
    let admin = lb.admin().to_string();
    let arguments = [&["status"], arguments, &["--admin", &admin]].concat();
    let output = run_to_end(Folder::new().path(), &arguments, &[]);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Two drained backends, a dead backup, and one of weight 0: nobody is left.
#[test]
fn an_outage_is_seen_everywhere_and_so_is_its_end() {
    let (a, b, idle) = (Server::echo(), Server::echo(), Server::echo());
    let dead = Refusing::new();
    let lb = Lb::with_config(&format!(
        "listen: 127.0.0.1:0\nbackends: ['{}', '{}', {{address: '{}', backup: true}}, {{address: '{}', weight: 0}}]\n\
         failure_detection: {{failures: 1, ejection: 1m, max_ejection: 1m}}\n",
        a.address(),
        b.address(),
        dead.address(),
        idle.address()
    ))
    .start();
    assert_eq!(status(&lb, &["--strict", "-q"]).0, Some(0));
    change_backend(&lb, a.address(), "drain");
    change_backend(&lb, b.address(), "drain");
    for _ in 0..20 {
        assert_eq!(connect_and_read(lb.address()), (Vec::new(), Ending::Reset));
    }
    wait_until("it is an outage", || pool(&lb)["outage_since"].is_string());
    let shown = pool(&lb);
    assert_eq!((&shown["service"], &shown["usable"]), (&"ejected_tried".into(), &0.into()));
    assert_eq!((&shown["failed"], &shown["failures"]["connect_failed"]), (&20.into(), &20.into()), "{shown}");
    let listener = lb.api("/api/v1/status")["listeners"][0].clone();
    assert_eq!((&listener["failed"], &listener["failures"]), (&shown["failed"], &shown["failures"]));

    let (code, table, error) = status(&lb, &["--strict"]);
    assert_eq!((code, error.trim_end()), (Some(1), "error: no usable backend in: default"));
    assert!(table.contains("pool default: no backend is usable") && table.contains("20 connect_failed"), "{table}");
    assert_eq!(status(&lb, &["-q"]).0, Some(0), "it is ready all the same");
    let logged = lb.wait_for_log("no backend is usable: those that have failed are tried", 1);
    assert_eq!(logged[0]["states"], "1 up, 1 ejected, 2 draining", "one of weight 0 is no help");
    assert_eq!(lb.metrics().sum("pool_usable_backends", &[]), 0.0);
    for name in ["clients_failed_total", "pool_clients_failed_total"] {
        assert_eq!(lb.metrics().sum(name, &[("reason", "connect_failed")]), 20.0, "{name}");
    }
    let happened = events_after(&lb, 0);
    assert_eq!(happened[..3], ["started", "operator", "operator"]);
    // The pool's task may be quicker than the connection that has seen the failure.
    assert!(happened[3..].contains(&"ejected".to_owned()) && happened[3..].contains(&"pool_down".to_owned()));
    assert_eq!(happened.len(), 5, "{happened:?}");

    change_backend(&lb, a.address(), "enable");
    wait_until("it is over", || pool(&lb)["outage_since"].is_null());
    assert_eq!(status(&lb, &["--strict", "-q"]).0, Some(0));
    assert_eq!(lb.wait_for_log("clients are served again", 1).len(), 1);
    wait_until_equal("the last events", &vec!["operator".to_owned(), "pool_up".to_owned()], || {
        events_after(&lb, happened.len() as u64)
    });
    assert_eq!(lb.log_lines_with("no backend is usable: those that have failed are tried").len(), 1, "once");
}

#[test]
fn requests_that_the_balancer_itself_has_to_answer_are_failures() {
    let silent = Server::that(drop);
    let (well, dead) = (Server::named("here"), Refusing::new());
    let lb = Lb::with_config(&format!(
        "listeners:\n  a: {{bind: 127.0.0.1:0, mode: http, pool: well}}\n  \
         b: {{bind: 127.0.0.1:0, mode: http, pool: silent}}\n  c: {{bind: 127.0.0.1:0, mode: http, pool: dead}}\n\
         pools:\n  well: {{backends: ['{}']}}\n  silent: {{backends: ['{}']}}\n  dead: {{backends: ['{}']}}\n",
        well.address(),
        silent.address(),
        dead.address()
    ))
    .start();
    let codes = ["a", "b", "c"].map(|listener| get(lb.address_of(listener), "/").status);
    assert_eq!(codes, [200, 502, 503]);
    let metrics = lb.metrics();
    let failed = |labels: &[(&str, &str)]| metrics.sum("pool_clients_failed_total", labels);
    assert_eq!(failed(&[]), 2.0);
    assert_eq!(failed(&[("pool", "dead"), ("reason", "connect_failed")]), 1.0);
    assert_eq!(failed(&[("pool", "silent"), ("reason", "no_answer")]), 1.0);
    let by_origin = |origin: &str| metrics.sum("http_requests_total", &[("origin", origin)]);
    assert_eq!((by_origin("backend"), by_origin("lb")), (1.0, 2.0));
}

#[test]
fn commands_find_the_balancer_by_its_configuration_or_its_pages_url() {
    let (server, admin) = (Server::echo(), free_port());
    let folder = Folder::new();
    let yaml = format!("listen: 127.0.0.1:0\nbackends: ['{}']\nadmin: {{bind: '{admin}'}}\n", server.address());
    let file = folder.write("lb.yaml", yaml).display().to_string();
    let _lb = Lb::with_arguments(&["-c", &file]).start();
    for found in [["-c", &file], ["--admin", &format!("http://{admin}/")]] {
        let output = lb_command(folder.path()).args(["status", "-q"]).args(found).output().unwrap();
        assert!(output.status.success(), "{found:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let broken = folder.write("broken.yaml", "listen: 8080\nbogus: 1\n").display().to_string();
    let output = lb_command(folder.path()).args(["status", "-c", &broken]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("bogus"));
}
