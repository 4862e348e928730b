//! What a reload changes, key by key: in its answer, in the log, and beforehand by `lb reload --dry-run`.

use std::fs;
use std::net::TcpListener;

use serde_json::{Value, json};

use crate::support::{Folder, Lb, Server, assert_api_error, free_port, get, post, run_to_end};

const RELOAD: &str = "/api/v1/reload";
const DRY_RUN: &str = "/api/v1/reload?dry_run=true";

fn yaml(server: &Server, keys: &str) -> String {
    format!("listen: 127.0.0.1:0\nbackends: ['{}']\n{keys}", server.address())
}

/// The changes of an answer, as `lb reload` shows them.
fn paths(answer: &Value) -> Vec<&str> {
    answer["changes"].as_array().unwrap().iter().map(|change| change["path"].as_str().unwrap()).collect()
}

#[test]
fn a_dry_run_says_what_a_reload_then_does() {
    let (server, other) = (Server::named("here"), Server::named("there"));
    let lb = Lb::with_config(&yaml(&server, "")).env("LB_LOG_LEVEL", "info").start();
    let none = post(lb.admin(), DRY_RUN, &[]).json();
    assert_eq!(none, json!({"result": "a reload would change nothing", "changes": [], "more": 0}));
    // The level is overridden by the environment of the running process: the file's changes nothing.
    let list = format!("['{}', {{address: '{}', weight: 2}}]", server.address(), other.address());
    let keys = format!("attempts: 2\nworkers: 1\nlog: {{level: debug}}\nbackends: {list}\n");
    let changed = format!("listen: 127.0.0.1:0\n{keys}");
    lb.rewrite(&changed);
    let told = post(lb.admin(), DRY_RUN, &[]).json();
    let added = format!("pools.default.backends[{}]", other.address());
    assert_eq!(paths(&told), ["pools.default.attempts", &added, "workers"]);
    assert_eq!(told["result"], "a reload would make 3 changes");
    let attempts = json!({
        "path": "pools.default.attempts", "kind": "changed", "before": "3", "now": "2", "needs_restart": false
    });
    assert_eq!((&told["changes"][0], &told["changes"][2]["needs_restart"]), (&attempts, &true.into()));
    // Nothing has changed yet.
    assert_eq!((lb.reloads("success"), get(lb.address(), "/").body.as_str()), (0.0, "here"));
    assert_eq!(lb.api("/api/v1/pools")["pools"][0]["backends"].as_array().unwrap().len(), 1);
    let command = |arguments: &[&str]| {
        let admin = lb.admin().to_string();
        let output = run_to_end(Folder::new().path(), &[arguments, &["--admin", &admin]].concat(), &[]);
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let lines = format!("  pools.default.attempts: 3 -> 2\n  +{added}\n  workers: auto -> 1 (needs a restart)\n");
    let expected = format!("a reload would make 3 changes\n{lines}");
    assert_eq!(command(&["reload", "--dry-run"]), (Some(0), expected));
    let (code, shown) = command(&["reload"]);
    assert!(
        code == Some(0) && shown.contains("changes of workers need a restart") && shown.ends_with(&lines),
        "{shown}"
    );
    assert_eq!(lb.api("/api/v1/pools")["pools"][0]["backends"].as_array().unwrap().len(), 2);
    let logged = lb.wait_for_log("configuration reloaded, but changes of workers need a restart or an upgrade", 1);
    let expected = format!("pools.default.attempts: 3 -> 2, +{added}, workers: auto -> 1 (needs a restart)");
    assert_eq!(logged[0]["changes"], expected.as_str());
    assert_eq!(post(lb.admin(), "/api/v1/reload?dry_run=maybe", &[]).status, 400);
}

#[test]
fn a_dry_run_refuses_an_address_that_is_listened_on_by_another_name() {
    let (server, port) = (Server::named("here"), free_port().port());
    let yaml = |more: &str| {
        let main = format!("main: {{bind: '127.0.0.1:{port}', pool: p}}");
        format!("listeners: {{{main}{more}}}\npools: {{p: {{backends: ['{}']}}}}\n", server.address())
    };
    let lb = Lb::with_config(&yaml("")).start();
    lb.rewrite(&yaml(&format!(", other: {{bind: 'localhost:{port}', pool: p}}")));
    for path in [DRY_RUN, "/api/v1/reload"] {
        assert_api_error(&post(lb.admin(), path, &[]), 422, "are the same address");
    }
}

#[test]
fn a_dry_run_names_what_stands_in_the_way() {
    let server = Server::named("here");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let lb = Lb::with_config(&yaml(&server, "")).start();
    let refused = |keys: &str| {
        lb.rewrite(&yaml(&server, keys));
        let (status, told) = lb.post(DRY_RUN);
        assert_eq!(status, 422, "{told}");
        told
    };
    assert!(refused("attempts: 0\n").contains("attempts must be from 1 to 16"));
    assert!(refused("admin: {token_file: /nope}\n").contains("/nope"));
    let address = taken.local_addr().unwrap();
    lb.rewrite(&yaml(&server, "").replace("127.0.0.1:0", &format!("['127.0.0.1:0', '{address}']")));
    let (status, told) = lb.post(DRY_RUN);
    assert!(status == 422 && told.contains("another process has it"), "{told}");
    assert_eq!((lb.reloads("failure"), get(lb.address(), "/").body.as_str()), (0.0, "here"));
    // An address that is free is left free.
    drop(taken);
    assert_eq!(lb.post(DRY_RUN).0, 200);
    TcpListener::bind(address).unwrap();
}

#[test]
fn secrets_are_shown_nowhere() {
    let server = Server::named("here");
    let folder = Folder::new();
    let password = folder.write("password", "first");
    let keys = |secret: &str| {
        format!(
            "health_check: {{interval: 1h, http: {{headers: {{Authorization: {secret}}}}}}}\nhttp: {{set_headers: \
             {{X-Key: {secret}}}}}\n"
        )
    };
    let lb = Lb::with_config(&yaml(&server, &keys("hidden-1"))).start();
    lb.rewrite(&yaml(&server, &keys("hidden-2")));
    let told = post(lb.admin(), RELOAD, &[]);
    let expected =
        ["listeners.default.http.set_headers.X-Key", "pools.default.health_check.http.headers.Authorization"];
    assert_eq!(paths(&told.json()), expected);
    lb.wait_for_log("configuration reloaded", 1);
    assert!(!told.body.contains("hidden") && !lb.log_text().contains("hidden"), "{}", lb.log_text());
    // What a file holds is told by the pool alone.
    let check = format!("health_check: {{interval: 1h, redis: {{password_file: {}}}}}\n", password.display());
    lb.reload_with(&yaml(&server, &check));
    fs::write(&password, "second").unwrap();
    let told = post(lb.admin(), RELOAD, &[]);
    assert_eq!(
        (told.json()["changes"][0]["kind"].as_str(), paths(&told.json())),
        (Some("files"), vec!["pools.default"])
    );
    assert!(!told.body.contains("second") && !lb.log_text().contains("second"));
}
