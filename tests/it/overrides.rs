//! Where values come from: file, then environment, then flags.

use std::process::Output;

use crate::support::{Folder, Lb, Server, get, run_to_end};

const FILE: &str = "listen: 127.0.0.1:8080\nbackends: [127.0.0.1:3001]\nconnect_timeout: 1s\nattempts: 5\n";

/// The effective configuration of `lb check --print`, in a folder with this lb.yaml.
#[track_caller]
fn printed(file: Option<&str>, arguments: &[&str], environment: &[(&str, &str)]) -> serde_yaml::Value {
    let output = print(file, arguments, environment);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_yaml::from_slice(&output.stdout).unwrap()
}

fn print(file: Option<&str>, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let folder = Folder::new();
    if let Some(file) = file {
        folder.write("lb.yaml", file);
    }
    run_to_end(folder.path(), &[&["check", "--print"], arguments].concat(), environment)
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let timeout = |arguments: &[&str], environment: &[(&str, &str)]| {
        printed(Some(FILE), arguments, environment)["pools"]["default"]["connect_timeout"].clone()
    };
    assert_eq!(timeout(&[], &[]), "1s");
    assert_eq!(timeout(&[], &[("LB_CONNECT_TIMEOUT", "2s")]), "2s");
    assert_eq!(timeout(&["--connect-timeout", "3s"], &[("LB_CONNECT_TIMEOUT", "2s")]), "3s");
}

#[test]
fn every_simple_flag_and_its_variable_set_the_same_key() {
    for (flag, value, path) in [
        ("--listen", "127.0.0.1:8081", "listeners.default.bind[0]"),
        ("--backend", "127.0.0.1:3009", "pools.default.backends[0].address"),
        ("--mode", "tcp", "listeners.default.mode"),
        ("--policy", "round_robin", "pools.default.policy"),
        ("--admin", "127.0.0.1:9901", "admin.bind"),
        ("--admin", "off", "admin.bind"),
        ("--workers", "3", "workers"),
        ("--max-connections", "77", "max_connections"),
        ("--connect-timeout", "250ms", "pools.default.connect_timeout"),
        ("--idle-timeout", "3m", "listeners.default.timeouts.idle"),
        ("--drain-timeout", "4s", "drain.timeout"),
        ("--log-level", "debug", "log.level"),
        ("--log-format", "json", "log.format"),
        ("--access-log", "stderr", "log.access"),
    ] {
        let variable = format!("LB_{}", flag.trim_start_matches("--").replace('-', "_").to_uppercase());
        for config in [printed(Some(FILE), &[flag, value], &[]), printed(Some(FILE), &[], &[(&variable, value)])] {
            assert_eq!(text_at(&config, path), value, "{flag} and {variable}");
        }
    }
}

/// What stands at `a.b[0].c`, as text.
fn text_at(config: &serde_yaml::Value, path: &str) -> String {
    let mut value = config;
    for step in path.split(['.', '[']).map(|step| step.trim_end_matches(']')) {
        value = match step.parse::<usize>() {
            Ok(index) => &value[index],
            Err(_) => &value[step],
        };
    }
    serde_yaml::to_string(value).unwrap().trim().trim_matches('\'').to_owned()
}

#[test]
fn set_reaches_any_key_by_its_path_in_either_form() {
    let config = printed(
        Some(FILE),
        &["--set", "attempts=2", "--set", "drain.grace=7s", "--set", "pools.default.failure_detection=off"],
        &[("LB_SET", "timeouts.idle=9m; tcp.nodelay=false")],
    );
    assert_eq!(config["pools"]["default"]["attempts"], 2);
    assert_eq!(config["drain"]["grace"], "7s");
    assert_eq!(config["pools"]["default"]["failure_detection"], "off");
    assert_eq!(config["listeners"]["default"]["timeouts"]["idle"], "9m");
    assert_eq!(config["pools"]["default"]["tcp"]["nodelay"], false);
}

#[test]
fn set_may_replace_lists_and_change_one_of_their_items() {
    let whole = printed(Some(FILE), &["--set", "backends=[127.0.0.1:4001, 127.0.0.1:4002]"], &[]);
    assert_eq!(whole["pools"]["default"]["backends"][1]["address"], "127.0.0.1:4002");
    let file = "listen: 127.0.0.1:8080\nbackends: [{address: 127.0.0.1:3001}, {address: 127.0.0.1:3002}]\n";
    let item = printed(Some(file), &["--set", "backends[1].weight=9"], &[]);
    assert_eq!(item["pools"]["default"]["backends"][1]["weight"], 9);
    assert_eq!(item["pools"]["default"]["backends"][0]["weight"], 1);
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    let names = ["LISTEN", "BACKEND", "MODE", "POLICY", "ADMIN", "WORKERS", "CONNECT_TIMEOUT", "SET", "CONFIG"];
    let variables: Vec<String> = names.iter().map(|name| format!("LB_{name}")).collect();
    let environment: Vec<(&str, &str)> = variables.iter().map(|name| (name.as_str(), "")).collect();
    assert_eq!(printed(Some(FILE), &[], &environment), printed(Some(FILE), &[], &[]));
}

#[test]
fn a_simple_flag_is_refused_where_it_could_mean_two_pools() {
    let file = "listeners:\n  web: {bind: 127.0.0.1:8080, pool: a}\npools:\n  a: {backends: [127.0.0.1:3001]}\n  \
                b: {backends: [127.0.0.1:3002]}\n";
    let output = print(Some(file), &["--policy", "round_robin"], &[]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(errors.contains("--policy: ") && errors.contains("--set pools.a.policy=VALUE"), "{errors}");
    let config = printed(Some(file), &["--set", "pools.b.attempts=4", "--idle-timeout", "1m"], &[]);
    assert_eq!(config["pools"]["b"]["attempts"], 4);
    assert_eq!(config["listeners"]["web"]["timeouts"]["idle"], "1m", "there is only one listener");
}

#[test]
fn listen_and_backend_need_no_file_and_read_none() {
    let arguments = ["--listen", "127.0.0.1:8081", "--backend", "127.0.0.1:3002,weight=5,backup"];
    let config = printed(Some("this: is not: yaml"), &arguments, &[]);
    assert_eq!(config["listeners"]["default"]["bind"][0], "127.0.0.1:8081");
    let backend = &config["pools"]["default"]["backends"][0];
    assert_eq!((&backend["weight"], &backend["backup"]), (&5.into(), &true.into()));
    let by_variables = printed(None, &[], &[("LB_LISTEN", "127.0.0.1:1 [::1]:1"), ("LB_BACKEND", "127.0.0.1:2")]);
    assert_eq!(by_variables["listeners"]["default"]["bind"][1], "[::1]:1");
}

#[test]
fn the_file_is_the_flags_else_the_variables_else_the_one_in_this_folder() {
    let folder = Folder::new();
    for (name, attempts) in [("lb.yaml", 1), ("variable.yaml", 2), ("flag.yaml", 3)] {
        folder.write(name, format!("listen: 127.0.0.1:8080\nbackends: [127.0.0.1:3001]\nattempts: {attempts}\n"));
    }
    let attempts = |arguments: &[&str], environment: &[(&str, &str)]| {
        let output = run_to_end(folder.path(), &[&["check", "--print"], arguments].concat(), environment);
        let config: serde_yaml::Value = serde_yaml::from_slice(&output.stdout).unwrap();
        config["pools"]["default"]["attempts"].as_u64()
    };
    assert_eq!(attempts(&[], &[]), Some(1));
    assert_eq!(attempts(&[], &[("LB_CONFIG", "variable.yaml")]), Some(2));
    assert_eq!(attempts(&["-c", "flag.yaml"], &[("LB_CONFIG", "variable.yaml")]), Some(3));
    assert_eq!(attempts(&["--config", "flag.yaml"], &[]), Some(3));
}

#[test]
fn what_is_printed_is_a_configuration_that_prints_the_same() {
    let arguments = ["--set", "failure_detection.window=90s", "--backend", "[::1]:3001,weight=0", "--workers", "2"];
    let output = print(Some(FILE), &arguments, &[]);
    let first = String::from_utf8(output.stdout).unwrap();
    let again = print(Some(&first), &[], &[]);
    assert_eq!(String::from_utf8(again.stdout).unwrap(), first);
}

#[test]
fn it_runs_with_what_the_environment_says() {
    let server = Server::named("by environment");
    let builder = Lb::with_arguments(&["run"]);
    let lb = builder
        .env("LB_LISTEN", "127.0.0.1:0")
        .env("LB_BACKEND", &server.address().to_string())
        .env("LB_ADMIN", "127.0.0.1:0")
        .env("LB_WORKERS", "1")
        .start();
    assert_eq!(get(lb.address(), "/").body, "by environment");
    assert_eq!(lb.api("/api/v1/status")["workers"], 1);
}
