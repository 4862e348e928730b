//! What an upgrade carries on: what operators set, what was learnt of backends, whose turn it is.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    Dns, Lb, Load, Node, Refusing, Server, allow_open_files, greeting, has_ended, of_one_rank, wait_for_state,
    wait_until, wait_until_equal,
};

#[test]
fn ten_upgrades_under_load_keep_what_operators_set_and_what_was_learnt_of_backends() {
    allow_open_files(2_000);
    let [one, two, drained, disabled, added] = [(); 5].map(|()| Load::server());
    let dead = Refusing::new();
    let addresses = [&one, &two, &drained, &disabled].map(Server::address);
    let mut lb = Lb::in_front_of(&[addresses[0], addresses[1], addresses[2], addresses[3], dead.address()])
        .set("failure_detection", "{failures: 1, ejection: 1h, max_ejection: 1h}")
        .with(&["--access-log", "off", "--drain-timeout", "5m"])
        .start();
    lb.drain_backend(drained.address());
    assert_eq!(lb.post(&format!("/api/v1/pools/default/backends/{}/disable", disabled.address())).0, 200);
    let mut load = Load::on(lb.address(), 4, 20);
    lb.add_backend(&json!({"address": added.address(), "weight": 2}));
    lb.patch_backend(two.address(), &json!({"weight": 3, "max_connections": 5_000}));
    wait_for_state(&lb, dead.address(), "ejected");
    let until = lb.backend(dead.address())["ejected_until"].as_str().unwrap()[..13].to_owned();
    let mut former = Vec::new();
    for _ in 0..10 {
        load.goes_on(20);
        former.push(lb.upgrade());
        load.add_sessions(2);
        load.goes_on(20);
        let states = [&drained, &disabled].map(|server| lb.backend(server.address()));
        assert_eq!(states.each_ref().map(|state| state["state"].as_str().unwrap()), ["draining", "disabled"]);
        assert_eq!(states.each_ref().map(|state| state["total"].as_u64()), [Some(0); 2]);
        let weights = [&one, &two, &added].map(|server| lb.backend(server.address())["weight"].clone());
        assert_eq!(weights, [1, 3, 2]);
        assert_eq!(lb.backend(two.address())["max_connections"], 5_000);
        let ejected = lb.backend(dead.address());
        assert_eq!((&ejected["state"], &ejected["failures"]), (&"ejected".into(), &0.into()), "nobody tried it again");
        assert!(ejected["reason"].as_str().unwrap().contains("refused"), "{ejected}");
        // By the hour: the rest is the jitter of its clock.
        assert_eq!(ejected["ejected_until"].as_str().unwrap()[..13], until);
    }
    load.end();
    assert!(added.accepted() > 20, "it had its share all the while: {}", added.accepted());
    assert_eq!(lb.log_lines_with("backend ejected").len(), 1);
    wait_until("all former processes end", || former.iter().all(|pid| has_ended(*pid)));
    assert_eq!(lb.first_process_ended(), Some(0));
    let stopped = lb.wait_for_log("stopped", 10);
    assert!(stopped.iter().all(|line| line["forced"] == 0), "{stopped:?}");
    lb.signal(Signal::TERM);
    wait_until("the newest ends", || has_ended(lb.pid()));
}

#[test]
fn the_turns_go_on_where_they_were() {
    let (one, two, three) = (Server::greeting("one"), Server::greeting("two"), Server::greeting("three"));
    let mut lb = Lb::in_front_of(&[one.address(), two.address(), three.address()]).start();
    let mut got = Vec::new();
    for _ in 0..4 {
        got.push(greeting(lb.address()));
        lb.upgrade();
    }
    assert_eq!(got, ["one", "two", "three", "one"]);
}

#[test]
fn what_health_checks_have_found_is_carried_on() {
    let (node, other) = (Node::new("node", 500), Node::new("other", 200));
    let mut lb = of_one_rank(&[&node, &other]).set("health_check.interval", "1h").set("health_check.rise", 3).start();
    wait_for_state(&lb, node.address(), "down");
    node.answer(200);
    // Each process checks at its start.
    for well in 1..3 {
        lb.upgrade();
        wait_until("it was checked", || lb.backend(node.address())["last_check"]["result"] == "success");
        assert_eq!(lb.state_of(node.address()), "down", "after {well} of 3");
        assert_eq!(lb.backend(node.address())["reason"], "health check: GET /role answered 500");
    }
    lb.upgrade();
    wait_for_state(&lb, node.address(), "up");
    assert_eq!(lb.state_of(other.address()), "up");
}

#[test]
fn a_backend_goes_on_waiting_for_an_operator() {
    let (node, other) = (Node::new("node", 200), Node::new("other", 200));
    let mut lb = of_one_rank(&[&node, &other]).set("on_return", "wait").start();
    let was_checked = |lb: &Lb| lb.backend(node.address())["last_check"]["result"] == "success";
    wait_until("it was checked", || was_checked(&lb));
    for (status, state) in [(500, "down"), (200, "waiting")] {
        node.answer(status);
        wait_for_state(&lb, node.address(), state);
    }
    lb.upgrade();
    wait_until("it was checked", || was_checked(&lb));
    assert_eq!(lb.state_of(node.address()), "waiting");
    assert_eq!(lb.post(&format!("/api/v1/pools/default/backends/{}/enable", node.address())).0, 200);
    assert_eq!(lb.state_of(node.address()), "up");
}

#[test]
fn what_finds_no_place_in_the_new_configuration_is_said() {
    let (stays, goes) = (Server::named("stays"), Server::named("goes"));
    let config = |pool: &str, backends: &[&Server]| {
        let backends: Vec<_> = backends.iter().map(|server| server.address().to_string()).collect();
        format!(
            "listeners: {{web: {{bind: '127.0.0.1:0', pool: app}}}}\npools:\n  app: {{backends: {backends:?}}}\n{pool}"
        )
    };
    let mut lb = Lb::with_config(&config("  more: {backends: ['127.0.0.1:1']}\n", &[&stays, &goes])).start();
    lb.rewrite(&config("", &[&stays]));
    lb.upgrade();
    let of_pool = lb.wait_for_log("the old process had this pool, and it is not here", 1);
    assert_eq!(of_pool[0]["pool"], "more");
    let of_backend = lb.wait_for_log("the old process had this backend, and it is not here, or not yet", 1);
    assert_eq!(of_backend[0]["backend"], goes.address().to_string());
}

#[test]
fn an_upgrade_while_no_name_resolves_leaves_the_old_process_in_service() {
    let server = Server::greeting("here");
    let records = [("app.test", "127.0.0.1")];
    let dns = Dns::with_hosts(&records);
    let yaml = |name_server| {
        let port = server.address().port();
        format!("listen: 127.0.0.1:0\nbackends: ['app.test:{port}']\nresolve: {{nameservers: ['{name_server}']}}\n")
    };
    let mut lb = Lb::with_config(&yaml(dns.address())).start();
    assert_eq!(greeting(lb.address()), "here");
    let place = dns.stop();
    lb.signal(Signal::USR2);
    lb.wait_for_log("the upgrade failed; this process continues", 1);
    assert!(lb.log_text().contains("upgrade when name servers answer again"), "{}", lb.log_text());
    assert_eq!(greeting(lb.address()), "here");
    let _dns = Dns::back_at(place, &records);
    lb.upgrade();
    assert_eq!(greeting(lb.address()), "here");
}

#[test]
fn a_pool_may_have_given_up_its_backends_for_those_that_clients_name() {
    let server = Server::greeting("here");
    let config = |listener: &str, pool: &str| {
        format!("listeners:\n  main: {{bind: '127.0.0.1:0', {listener}}}\npools:\n  p: {{{pool}}}\n")
    };
    let mut lb = Lb::with_config(&config("pool: p", &format!("backends: ['{}']", server.address()))).start();
    assert_eq!(greeting(lb.address()), "here");
    lb.rewrite(&config("routes: [{sni: '*.example.com', to: server_name, pool: p}]", ""));
    lb.upgrade();
    assert_eq!(lb.first_process_ended(), Some(0));
}

#[test]
fn the_history_goes_on() {
    let server = Server::greeting("here");
    let mut lb = Lb::in_front_of(&[server.address()]).start();
    (0..3).for_each(|_| assert_eq!(greeting(lb.address()), "here"));
    let counted = |lb: &Lb| {
        let of = |query: &str| {
            let report = lb.api(&format!("/api/v1/history?{query}"));
            let series = report["series"].as_array().expect("a list").clone();
            let sum =
                |one: &Value| one["connections"].as_array().expect("a list").iter().filter_map(Value::as_u64).sum();
            series.iter().map(sum).collect::<Vec<u64>>()
        };
        [of(""), of("pool=default")].concat()
    };
    let all = vec![3; 4];
    wait_until_equal("listener, pool; pool, backend", &all, || counted(&lb));
    lb.upgrade();
    wait_until_equal("the same in the new process", &all, || counted(&lb));
}
