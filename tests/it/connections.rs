//! Open connections as operators see them: listed, found by every filter, in pages, and ended.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpStream};

use serde_json::Value;

use crate::support::{
    Authority, Ending, Folder, Lb, Origin, Pairs, Refusing, Server, Terminal, TlsEnd, TlsEnding, allow_open_files,
    ask_from, assert_api_error, closed_for, connect, connect_from, greeting_unix_socket, lb_command, read_to_end,
    run_to_end, short_read, wait_for, wait_until, wait_until_equal,
};

const CONNECTIONS: &str = "/api/v1/connections";
const ENDED: &str = "an operator has ended connections";

/// The connections that fit a query.
#[track_caller]
fn list(lb: &Lb, query: &str) -> Vec<Value> {
    let report = lb.api(&format!("{CONNECTIONS}?{query}"));
    report["connections"].as_array().unwrap_or_else(|| panic!("{query}: {report}")).clone()
}

/// Ends those that fit a query: how many those were.
#[track_caller]
fn end(lb: &Lb, query: &str) -> u64 {
    let answer = ask_from(lb.admin(), "DELETE", &format!("{CONNECTIONS}?{query}"), &[]).unwrap();
    answer.json()["ended"].as_u64().unwrap_or_else(|| panic!("{query}: {answer:?}"))
}

#[track_caller]
fn assert_reset(client: &mut TcpStream) {
    assert_eq!(read_to_end(client), (Vec::new(), Ending::Reset));
}

fn texts<'a>(connections: &'a [Value], key: &str) -> Vec<&'a str> {
    connections.iter().map(|connection| connection[key].as_str().unwrap_or_default()).collect()
}

/// A listener before each of two pools, and one of mode http.
fn two_pools(raw: &Server, other: &Server, web: &Origin) -> Lb {
    let (raw, other, web) = (raw.address(), other.address(), web.address());
    Lb::with_config(&format!(
        "listeners:\n  raw: {{bind: 127.0.0.1:0, pool: raw}}\n  other: {{bind: 127.0.0.1:0, pool: other}}\n  \
         web: {{bind: 127.0.0.1:0, pool: web, mode: http}}\n\
         pools:\n  raw: {{backends: ['{raw}']}}\n  other: {{backends: ['{other}']}}\n  web: {{backends: ['{web}']}}\n"
    ))
    .start()
}

fn from(source: &str, address: SocketAddr) -> TcpStream {
    let mut client = connect_from(source.parse::<IpAddr>().unwrap(), address);
    client.write_all(b"12345").unwrap();
    assert_eq!(short_read(&mut client), "12345");
    client
}

#[test]
fn connections_are_listed_with_what_is_known_of_them_and_found_by_each_of_it() {
    let (raw, other, web) = (Server::echo(), Server::echo(), Origin::new());
    let lb = two_pools(&raw, &other, &web);
    let first = from("127.0.0.2", lb.address_of("raw"));
    let second = from("127.0.0.3", lb.address_of("other"));
    let third = from("127.0.1.4", lb.address_of("raw"));
    let all = list(&lb, "");
    let clients = [&third, &second, &first].map(|client| client.local_addr().unwrap().to_string());
    assert_eq!(texts(&all, "client"), clients, "the newest first");
    assert_eq!(texts(&all, "listener"), ["raw", "other", "raw"]);
    assert_eq!(texts(&all, "pool"), ["raw", "other", "raw"]);
    assert_eq!(texts(&all, "mode"), ["tcp"; 3]);
    assert_eq!(all[1]["backend"], other.address().to_string());
    assert_eq!((&all[1]["bytes_in"], &all[1]["bytes_out"], &all[1]["requests"]), (&5.into(), &5.into(), &0.into()));
    assert!(all[1]["age_seconds"].as_f64().unwrap() <= all[2]["age_seconds"].as_f64().unwrap(), "{all:?}");
    assert!(all[1]["server_name"].is_null());
    let id = all[1]["id"].as_str().unwrap();
    for (query, found) in [
        (format!("id={id}"), vec![1]),
        ("listener=other".to_owned(), vec![1]),
        ("pool=raw".to_owned(), vec![0, 2]),
        (format!("backend={}", raw.address()), vec![0, 2]),
        ("client=127.0.0.2".to_owned(), vec![2]),
        ("client=127.0.0.0%2F24".to_owned(), vec![1, 2]),
        (format!("client=127.0.0.0/24&backend={}", raw.address()), vec![2]),
        ("sort=oldest".to_owned(), vec![2, 1, 0]),
        ("pool=other&listener=raw".to_owned(), vec![]),
        ("client=fd00::/8".to_owned(), vec![]),
    ] {
        let expected: Vec<_> = found.iter().map(|index| all[*index]["id"].as_str().unwrap()).collect();
        assert_eq!(texts(&list(&lb, &query), "id"), expected, "{query}");
    }
    drop((first, second, third));
    wait_until("the list follows", || list(&lb, "").is_empty());
    // The same id as in the access log.
    let lines = lb.access_log(3);
    assert!(lines.iter().any(|line| line["connection"] == id && line["cause"] == "client_closed"), "{lines:?}");
}

#[test]
fn thousands_are_listed_in_pages_each_of_them_once() {
    const CLIENTS: usize = 2_500;
    allow_open_files(4 * CLIENTS as u64);
    // Nobody accepts: the kernel has them in its queue.
    let backend = Refusing::new().listen_with_backlog(4_096);
    let lb = Lb::in_front_of(&[backend.local_addr().unwrap()]).start();
    let clients: Vec<_> = (0..CLIENTS).map(|_| connect(lb.address())).collect();
    wait_until_equal("all are there", &(CLIENTS as u64), || {
        lb.api(&format!("{CONNECTIONS}?pool=default&limit=1"))["matched"].as_u64().unwrap()
    });
    for sort in ["newest", "oldest", "bytes", "idle"] {
        let (mut seen, mut ages, mut after) = (BTreeSet::new(), Vec::new(), String::new());
        for left in [2_500, 1_500, 500] {
            let page = lb.api(&format!("{CONNECTIONS}?sort={sort}&limit=1000{after}"));
            assert_eq!(page["matched"], left, "{sort}");
            let connections = page["connections"].as_array().unwrap();
            assert_eq!(connections.len(), left.min(1_000));
            seen.extend(connections.iter().map(|connection| connection["id"].to_string()));
            ages.extend(connections.iter().map(|connection| connection["age_seconds"].as_f64().unwrap()));
            after = page["next"].as_str().map_or(String::new(), |next| format!("&after={next}"));
        }
        assert_eq!(after, "", "there is no further page");
        assert_eq!(seen.len(), CLIENTS, "{sort}");
        // Of different workers, each asked at a time of its own.
        let youngest = *ages.first().unwrap() < *ages.last().unwrap();
        assert!(!["newest", "oldest"].contains(&sort) || youngest == (sort == "newest"), "{sort}");
    }
    // Those that moved bytes come first.
    let mut busy = &clients[7];
    busy.write_all(b"hello").unwrap();
    wait_until("its bytes are seen", || list(&lb, "sort=bytes&limit=1")[0]["bytes_in"] == 5);
    assert_eq!(end(&lb, "all=true"), CLIENTS as u64);
    for mut client in clients {
        assert_reset(&mut client);
    }
    assert_eq!(closed_for(&lb, "operator"), CLIENTS as f64);
}

#[test]
fn who_is_killed_is_reset_counted_and_logged_and_nobody_else() {
    let (raw, other, web) = (Server::echo(), Server::echo(), Origin::new());
    let lb = two_pools(&raw, &other, &web);
    let of_raw = |last: u8| from(&format!("127.0.0.{last}"), lb.address_of("raw"));
    let mut clients: Vec<_> = (1..=6).map(of_raw).collect();
    let mut survivor = from("127.0.0.9", lb.address_of("other"));
    let id = list(&lb, "client=127.0.0.1")[0]["id"].as_str().unwrap().to_owned();

    assert_eq!(end(&lb, &format!("id={id}")), 1);
    assert_reset(&mut clients[0]);
    let line = lb.only_access();
    assert_eq!((&line["cause"], &line["connection"]), (&"operator".into(), &id.as_str().into()), "{line}");
    assert_eq!((&line["backend"], &line["bytes_in"]), (&raw.address().to_string().into(), &5.into()), "{line}");
    assert_eq!(end(&lb, &format!("id={id}")), 0, "it is gone");
    assert_eq!(end(&lb, "client=127.0.0.2/31"), 2);
    clients[1..3].iter_mut().for_each(assert_reset);
    assert_eq!(end(&lb, &format!("backend={}", other.address())), 1);
    assert_reset(&mut survivor);
    let mut survivor = from("127.0.0.9", lb.address_of("other"));
    assert_eq!(end(&lb, "pool=raw"), 3);
    clients[3..].iter_mut().for_each(assert_reset);
    assert_eq!(closed_for(&lb, "operator"), 7.0);
    survivor.write_all(b"still here").unwrap();
    assert_eq!(short_read(&mut survivor), "still here");

    // Each order has a line that says what it was, and whose.
    let logged = lb.wait_for_log(ENDED, 5);
    assert_eq!(logged.iter().map(|line| line["ended"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 0, 2, 1, 3]);
    assert_eq!((&logged[0]["id"], &logged[2]["client"]), (&id.as_str().into(), &"127.0.0.2/31".into()));
    assert_eq!((&logged[3]["backend"], &logged[4]["pool"]), (&other.address().to_string().into(), &"raw".into()));
    assert!(logged.iter().all(|line| line["by"].as_str().unwrap().starts_with("127.0.0.1:")), "{logged:?}");
    let events = lb.api("/api/v1/events")["events"].as_array().unwrap().clone();
    let last = events.iter().rfind(|event| event["event"] == "connections_ended").unwrap();
    assert_eq!((&last["pool"], &last["message"]), (&"raw".into(), &ENDED.into()));
    assert!(last["detail"].as_str().unwrap().contains("ended 3"), "{last}");
}

#[test]
fn http_clients_are_reset_within_a_request_and_between_two() {
    let (raw, other, web) = (Server::echo(), Server::ignoring(), Origin::new());
    let lb = two_pools(&raw, &other, &web);
    let address = lb.address_of("web");
    let mut idle = connect(address);
    for _ in 0..2 {
        idle.write_all(b"GET /one HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert!(short_read(&mut idle).starts_with("HTTP/1.1 200"));
    }
    let between = list(&lb, "listener=web").remove(0);
    assert_eq!((&between["mode"], &between["requests"], &between["pool"]), (&"http".into(), &2.into(), &"web".into()));
    assert!(between["backend"].is_null() && between["bytes_out"].as_u64() > Some(0), "{between}");

    let mut busy = connect(address);
    busy.write_all(b"POST /two HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345").unwrap();
    let backend = web.address();
    let within = wait_for("its request is under way", || list(&lb, &format!("backend={backend}")).pop());
    assert_eq!(within["client"], busy.local_addr().unwrap().to_string());
    assert_eq!(end(&lb, &format!("backend={backend}")), 1, "the other one uses no backend now");
    assert_reset(&mut busy);
    let line = &lb.access_log(3)[2];
    assert_eq!((&line["cause"], &line["path"]), (&"operator".into(), &"/two".into()), "{line}");

    assert_eq!(end(&lb, "listener=web"), 1);
    assert_reset(&mut idle);
    assert_eq!(closed_for(&lb, "operator"), 2.0);
    assert_eq!(lb.metrics().sum("http_requests_total", &[("listener", "web")]), 3.0);
}

#[test]
fn whatever_a_connection_waits_for_it_can_be_ended() {
    let blackhole = Server::blackhole();
    let full = Server::echo();
    let lb = Lb::with_config(&format!(
        "listeners:\n  says: {{bind: 127.0.0.1:0, pool: full, routes: [{{starts_with: SSH, pool: dead}}]}}\n  \
         queues: {{bind: 127.0.0.1:0, pool: full}}\n  connects: {{bind: 127.0.0.1:0, pool: dead}}\npools:\n  \
         full:\n    backends: [{{address: '{}', max_connections: 1}}]\n    queue: {{length: 9, timeout: 1h}}\n  \
         dead:\n    backends: ['{}']\n    connect_timeout: 1h\n",
        full.address(),
        blackhole.address()
    ))
    .start();
    let holder = from("127.0.0.1", lb.address_of("queues"));
    for (listener, pool, backend) in [
        ("says", Value::Null, Value::Null),
        ("queues", "full".into(), Value::Null),
        ("connects", "dead".into(), blackhole.address().to_string().into()),
    ] {
        let mut client = connect(lb.address_of(listener));
        let query = format!("listener={listener}&client=127.0.0.1&limit=1");
        let mine = client.local_addr().unwrap().to_string();
        wait_until("it waits", || {
            let newest = list(&lb, &query);
            newest.first().is_some_and(|it| it["client"] == mine && (&it["pool"], &it["backend"]) == (&pool, &backend))
        });
        let id = list(&lb, &query)[0]["id"].as_str().unwrap().to_owned();
        assert_eq!(end(&lb, &format!("id={id}")), 1, "{listener}");
        assert_reset(&mut client);
    }
    wait_until_equal("they are counted", &3.0, || closed_for(&lb, "operator"));
    assert_eq!(lb.metrics().sum("pool_queue_length", &[]), 0.0);
    drop(holder);
}

#[test]
fn tls_clients_are_listed_with_the_name_that_they_asked_for_and_reset() {
    let authority = Authority::new();
    authority.signed("app", "DNS:localhost,IP:127.0.0.1", None);
    let server = Server::echo();
    let lb = Lb::in_front_of(&[server.address()])
        .set("tls", format!("{{certificates: [{}]}}", authority.pair("app")))
        .start();
    let mut shaken = TlsEnd::connect(lb.address(), &authority);
    let mut silent = connect(lb.address());
    wait_until_equal("both are there", &vec!["", "localhost"], || {
        let mut names: Vec<_> =
            list(&lb, "").iter().map(|it| it["server_name"].as_str().unwrap_or("").to_owned()).collect();
        names.sort();
        names.iter().map(|name| if name.is_empty() { "" } else { "localhost" }).collect()
    });
    assert_eq!(end(&lb, "all=true"), 2);
    assert_eq!(shaken.read_all(), (Vec::new(), TlsEnding::Reset));
    assert_reset(&mut silent);
    assert_eq!(closed_for(&lb, "operator"), 2.0);
}

#[test]
fn clients_of_unix_sockets_have_no_address() {
    let folder = Folder::new();
    let (ours, theirs) = (folder.path().join("lb.sock"), folder.path().join("app.sock"));
    greeting_unix_socket(&theirs, "hello");
    let lb = Lb::with_arguments(&["--admin", "127.0.0.1:0", "--listen", &format!("unix:{}", ours.display())])
        .with(&["--backend", &format!("unix:{}", theirs.display())])
        .start();
    let client = std::os::unix::net::UnixStream::connect(&ours).unwrap();
    let seen = wait_for("it is connected", || list(&lb, "").pop().filter(|it| it["bytes_out"] == 5));
    assert_eq!((&seen["client"], &seen["backend"]), (&"unix:".into(), &format!("unix:{}", theirs.display()).into()));
    assert!(list(&lb, "client=0.0.0.0/0").is_empty());
    drop(client);
}

#[test]
fn what_is_asked_amiss_ends_nothing() {
    let server = Server::echo();
    let lb = Lb::in_front_of(&[server.address()]).start();
    let client = from("127.0.0.1", lb.address());
    for (method, query, part) in [
        ("DELETE", "", "say which"),
        ("DELETE", "all=true&pool=default", "all=true alone"),
        ("DELETE", "pool=default&backnd=127.0.0.1:1", "backnd"),
        ("DELETE", "pool=default&limit=1", "limit"),
        ("DELETE", "client=127.0.0.1:80", "without a port"),
        ("DELETE", "id=xyz", "access log"),
        ("DELETE", "pool=a&pool=b", "twice"),
        ("DELETE", "all=no", "true"),
        ("GET", "limit=0", "1 to 1000"),
        ("GET", "limit=1001", "1 to 1000"),
        ("GET", "sort=size", "newest, oldest, bytes, idle"),
        ("GET", "after=last", "next"),
        ("GET", "all=true", "all"),
    ] {
        let answer = ask_from(lb.admin(), method, &format!("{CONNECTIONS}?{query}"), &[]).unwrap();
        assert_api_error(&answer, 400, part);
    }
    let answer = ask_from(lb.admin(), "POST", CONNECTIONS, &[]).unwrap();
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD, DELETE")));
    assert_eq!(list(&lb, "").len(), 1);
    drop(client);
}

#[test]
fn a_token_is_needed_to_end_and_none_to_list() {
    let (server, folder) = (Server::echo(), Folder::new());
    let token = folder.write("token", "secret\n");
    let socket = folder.path().join("admin.sock");
    let lb = Lb::in_front_of(&[server.address()])
        .set("admin.token_file", token.display())
        .set("admin.socket", format!("unix:{}", socket.display()))
        .start();
    let mut client = from("127.0.0.1", lb.address());
    let path = format!("{CONNECTIONS}?all=true");
    assert_eq!(ask_from(lb.admin(), "DELETE", &path, &[]).unwrap().status, 401);
    assert_eq!(list(&lb, "").len(), 1);
    assert_eq!(ask_from(lb.admin(), "DELETE", &path, &[("Authorization", "Bearer secret")]).unwrap().status, 200);
    assert_reset(&mut client);
    // By the unix socket the log says whose process it was.
    let mut admin = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    let answer = crate::support::request(&mut admin, "DELETE", &path, &[("Host", "localhost")], "").unwrap();
    assert_eq!(answer.json()["ended"], 0);
    let logged = lb.wait_for_log(ENDED, 2);
    let by = format!("unix socket, uid {}, pid {}", rustix::process::geteuid().as_raw(), std::process::id());
    assert_eq!(logged[1]["by"], by.as_str());
}

#[test]
fn nothing_is_left_of_clients_that_come_and_are_killed_all_the_time() {
    let pairs = Pairs::new();
    let lb = Lb::in_front_of(&[pairs.address()]).start();
    let mut ended = 0;
    for round in 0..20 {
        let mut some: Vec<_> = (0..10).map(|_| pairs.connect(&lb)).collect();
        some.iter_mut().for_each(|pair| pair.ping(b"ping"));
        ended += if round % 2 == 0 { end(&lb, "client=127.0.0.1") } else { end(&lb, "all=true") };
        for pair in &mut some {
            assert_reset(&mut pair.client);
            assert_reset(&mut pair.backend);
        }
    }
    assert_eq!((ended, closed_for(&lb, "operator")), (200, 200.0));
    assert_eq!(greeting_of(&lb, &pairs), "hello");
}

/// One more client is served.
fn greeting_of(lb: &Lb, pairs: &Pairs) -> String {
    let mut pair = pairs.connect(lb);
    pair.backend.write_all(b"hello").unwrap();
    short_read(&mut pair.client)
}

/// Runs a command that asks this balancer, without a terminal: its exit code, and what it printed and complained of.
fn command(lb: &Lb, arguments: &[&str]) -> (Option<i32>, String, String) {
    let admin = lb.admin().to_string();
    let output = run_to_end(Folder::new().path(), &[arguments, &["--admin", &admin]].concat(), &[]);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_commands_list_and_end_connections_and_ask_nobody_without_a_terminal() {
    let (raw, other, web) = (Server::echo(), Server::echo(), Origin::new());
    let lb = two_pools(&raw, &other, &web);
    let mut clients: Vec<_> = (1..=3).map(|last| from(&format!("127.0.0.{last}"), lb.address_of("raw"))).collect();
    let mut survivor = from("127.0.0.1", lb.address_of("other"));
    let (code, table, _) = command(&lb, &["connections", "--backend", &raw.address().to_string(), "--sort", "oldest"]);
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!((code, rows.len(), &rows[0][..3]), (Some(0), 4, &["ID", "CLIENT", "LISTENER"][..]), "{table}");
    let first = clients[0].local_addr().unwrap().to_string();
    assert_eq!(rows[1][1..5], [&first, "raw", "raw", &raw.address().to_string()], "{table}");

    let (code, table, _) = command(&lb, &["connections", "--limit", "2"]);
    assert_eq!((code, table.lines().last()), (Some(0), Some("2 of 4 connections; --limit N shows more")), "{table}");
    let (_, json, _) = command(&lb, &["connections", "--client", "127.0.0.1", "--json"]);
    let report: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&report["matched"], report["connections"].as_array().unwrap().len()), (&2.into(), 2));

    let killed = |arguments: &[&str]| command(&lb, arguments);
    assert_eq!(killed(&["kill", rows[1][0]]), (Some(0), "1 connection ended\n".to_owned(), String::new()));
    assert_reset(&mut clients[0]);
    let (code, _, error) = killed(&["kill", rows[1][0]]);
    assert_eq!(code, Some(1));
    assert!(error.contains("no such connection"), "{error}");
    assert_eq!(killed(&["kill", "--pool", "raw", "--client", "127.0.0.0/8"]).1, "2 connections ended\n");
    clients[1..].iter_mut().for_each(assert_reset);
    let (code, _, error) = killed(&["kill", "--pool", "raw", "--client", "192.0.2.1"]);
    assert_eq!((code, error.contains("no such connection")), (Some(1), true), "{error}");
    for arguments in [&["kill"][..], &["kill", "--all", "--pool", "raw"], &["connections", "--sort", "size"]] {
        assert_eq!(command(&lb, arguments).0, Some(2), "{arguments:?}");
    }
    let (code, _, error) = killed(&["kill", "--client", "localhost"]);
    assert_eq!(code, Some(1));
    assert!(error.contains("client is to be an address"), "{error}");
    survivor.write_all(b"still here").unwrap();
    assert_eq!(short_read(&mut survivor), "still here");
    assert_eq!(killed(&["kill", "--all"]).1, "1 connection ended\n");
    assert_reset(&mut survivor);
}

#[test]
fn a_person_is_asked_before_many_connections_end() {
    let server = Server::echo();
    let lb = Lb::in_front_of(&[server.address()]).start();
    let mut clients: Vec<_> = (1..=3).map(|last| from(&format!("127.0.0.{last}"), lb.address())).collect();
    let admin = lb.admin().to_string();
    let kill = |arguments: &[&str]| {
        let folder = Folder::new();
        let mut command = lb_command(folder.path());
        Terminal::of(command.args(["kill", "--admin", &admin]).args(arguments), 24, 80)
    };
    let mut asked = kill(&["--all"]);
    asked.wait_for("3 connections will be reset. Go on? [y/N]");
    asked.press("\n");
    asked.wait_for("nothing was done");
    assert_eq!((asked.wait_for_end().code(), list(&lb, "").len()), (Some(1), 3));
    let mut asked = kill(&["--client", "127.0.0.0/31"]);
    asked.wait_for("1 connection ended");
    assert_reset(&mut clients[0]);
    let mut asked_again = kill(&["--pool", "default"]);
    asked_again.wait_for("2 connections will be reset");
    asked_again.press("y\n");
    asked_again.wait_for("2 connections ended");
    clients[1..].iter_mut().for_each(assert_reset);
    assert_eq!([asked.wait_for_end().code(), asked_again.wait_for_end().code()], [Some(0), Some(0)]);
}
