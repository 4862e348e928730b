//! Health checks: when, where, and what is asked.

use crate::config::OnReturn;
use crate::config::file::health_check::{
    HealthCheckSpec, LdapCheckSpec, MysqlCheckSpec, PostgresCheckSpec, RedisCheckSpec, SmtpCheckSpec,
};
use crate::config::file::off::{OffOr, OnOff, OnOffOr};
use crate::config::file::pool::PoolSpec;
use crate::config::file::tls::TlsClientSpec;
use crate::import::note::Notes;
use crate::import::values::positive;

use super::check_http::http_check;
use super::check_tcp::exchange;
use super::server::Server;
use super::tls;
use super::tree::{Line, Proxy};
use super::values::{port_of, server, time};

/// Results in a row that `config` takes.
const MAX_RESULTS: usize = 1000;

/// Sets the pool's health check. `servers` are those of its backends, in the same order.
pub fn health_check(pool: &mut PoolSpec, proxy: &Proxy<'_>, servers: &[Server<'_>], notes: &mut Notes) {
    let kind = kind_line(proxy);
    let Some(first) = servers.iter().find(|server| server.parameters.has("check")) else {
        for line in kind.into_iter().chain(http_and_tcp_lines(proxy)) {
            notes.harmless(&line.place, &line.text(), "no server has a `check`");
        }
        return;
    };
    for other in servers.iter().filter(|server| !server.parameters.has("check")) {
        notes.changes(&other.line.place, &other.line.text(), "all servers of a pool are checked, this one too");
    }
    let mut check = HealthCheckSpec::default();
    set_times(&mut check, pool, proxy, first);
    set_places(&mut check, pool, servers, notes);
    check.tls = tls_of(first);
    set_kind(&mut check, kind, proxy, first, notes);
    for other in servers.iter().filter(|other| other.parameters.has("check") && is_checked_otherwise(other, first)) {
        let why = format!("all servers of a pool are checked alike: as that of line {}", first.line.place.line);
        notes.changes(&other.line.place, &other.line.text(), why);
    }
    pool.health_check = OffOr::On(check);
}

/// TLS of a check. One at another place is without, unless it is said to have it.
fn tls_of(server: &Server<'_>) -> OnOffOr<TlsClientSpec> {
    let has = |name: &str| server.parameters.has(name);
    let is_elsewhere = has("port") || has("addr");
    if has("check-ssl") || has("ssl") && !is_elsewhere && !has("no-check-ssl") {
        OnOffOr::On(tls::of_check(&server.parameters, None))
    } else {
        OnOffOr::Off
    }
}

/// Whether a check of this server would have other times, or another kind of TLS.
fn is_checked_otherwise(server: &Server<'_>, other: &Server<'_>) -> bool {
    const TIMES: [&str; 5] = ["inter", "fastinter", "downinter", "rise", "fall"];
    TIMES.iter().any(|name| server.parameters.value(name) != other.parameters.value(name))
        || format!("{:?}", tls_of(server)) != format!("{:?}", tls_of(other))
}

fn set_times(check: &mut HealthCheckSpec, pool: &mut PoolSpec, proxy: &Proxy<'_>, server: &Server<'_>) {
    let value = |name: &str| server.parameters.value(name);
    let duration = |name: &str| value(name).and_then(time).filter(|time| !time.is_zero());
    if let Some(interval) = duration("inter") {
        check.interval = positive(interval);
    }
    check.interval_down = duration("downinter").or_else(|| duration("fastinter")).map(positive);
    // For the connect a check has the shorter of these two; for an answer `timeout check` more, if there is one.
    let limit = |name: &str| proxy.value(&["timeout", name]).and_then(time).filter(|timeout| !timeout.is_zero());
    let connect = limit("connect").map_or(check.interval.0, |connect| connect.min(check.interval.0));
    let answer = limit("check").filter(|_| kind_line(proxy).is_some());
    check.timeout = match (answer, limit("check")) {
        (Some(answer), _) => positive(connect.saturating_add(answer)),
        (None, Some(_)) => positive(connect),
        (None, None) => check.interval,
    };
    let results = |name: &str| value(name).and_then(|text| text.parse::<usize>().ok()).filter(|results| *results > 0);
    check.fall = results("fall").unwrap_or(check.fall).min(MAX_RESULTS);
    match results("rise") {
        // So many successes never come: the server is to stay out.
        Some(rise) if rise > MAX_RESULTS => pool.on_return = OnReturn::Wait,
        Some(rise) => check.rise = rise,
        None => {}
    }
}

/// The port for all servers, or an address for each that has one of its own.
fn set_places(check: &mut HealthCheckSpec, pool: &mut PoolSpec, servers: &[Server<'_>], notes: &mut Notes) {
    let port = |server: &Server<'_>| server.parameters.value("port").and_then(|port| port.parse::<u16>().ok());
    let has_address = |server: &Server<'_>| server.parameters.has("addr");
    let first = servers.first().and_then(port).filter(|port| *port > 0);
    let is_unix = pool.backends.iter().any(|backend| backend.address.starts_with("unix:"));
    if !is_unix && servers.iter().all(|server| port(server) == first && !has_address(server)) {
        check.port = first;
        return;
    }
    for (one, backend) in servers.iter().zip(&mut pool.backends) {
        let own = port(one).or_else(|| port_of(&backend.address));
        let host = one.parameters.value("addr").or_else(|| backend.address.rsplit_once(':').map(|(host, _)| host));
        if port(one).is_none() && !has_address(one) {
            continue;
        }
        match server(host.unwrap_or_default(), own).map(|at| with_port(&at, own)) {
            Ok(address) if !address.starts_with("srv:") => backend.check = Some(address),
            _ => notes.changes(&one.line.place, &one.line.text(), "its check goes to the server itself"),
        }
    }
}

fn with_port(address: &str, port: Option<u16>) -> String {
    match (address.rsplit_once(':'), port) {
        (Some((host, _)), Some(port)) if !address.starts_with("unix:") => format!("{host}:{port}"),
        _ => address.to_owned(),
    }
}

/// The line that chooses what is asked: the last of them.
fn kind_line<'a>(proxy: &Proxy<'a>) -> Option<&'a Line> {
    const KINDS: [&str; 9] = [
        "httpchk",
        "tcp-check",
        "mysql-check",
        "pgsql-check",
        "redis-check",
        "smtpchk",
        "ldap-check",
        "ssl-hello-chk",
        "external-check",
    ];
    let own = |line: &Line| proxy.section.lines.iter().any(|one| std::ptr::eq(one, line));
    let mut lines: Vec<&Line> = KINDS.iter().filter_map(|kind| proxy.option(kind)).collect();
    // Its own wins over that of its defaults.
    lines.sort_by_key(|line| (own(line), line.place.line));
    lines.pop()
}

fn http_and_tcp_lines<'a>(proxy: &Proxy<'a>) -> Vec<&'a Line> {
    [proxy.all_lines(&["http-check"]), proxy.all_lines(&["tcp-check"])].concat()
}

/// Sets what is asked; `server` is the first that is checked.
fn set_kind(
    check: &mut HealthCheckSpec,
    line: Option<&Line>,
    proxy: &Proxy<'_>,
    server: &Server<'_>,
    notes: &mut Notes,
) {
    let Some(line) = line else { return };
    // `option x-check user NAME`
    let user = || line.from(2).iter().skip_while(|word| *word != "user").nth(1).cloned();
    match line.word(1) {
        "httpchk" => check.http = Some(http_check(line, proxy, check, server, notes)),
        "tcp-check" => check.exchange = exchange(proxy, check, server, notes),
        "mysql-check" => check.mysql = Some(MysqlCheckSpec { user: user().filter(|user| !user.is_empty()) }),
        "pgsql-check" => {
            let mut postgres = PostgresCheckSpec::default();
            postgres.user = user().filter(|user| !user.is_empty()).unwrap_or(postgres.user);
            check.postgres = Some(postgres);
        }
        "redis-check" => check.redis = Some(RedisCheckSpec::default()),
        "smtpchk" => {
            let mut smtp = SmtpCheckSpec::default();
            let is_name = |name: &&str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic());
            smtp.hello = Some(line.word(3)).filter(is_name).map_or(smtp.hello, str::to_owned);
            check.smtp = Some(smtp);
        }
        "ldap-check" => check.ldap = Some(LdapCheckSpec {}),
        // A greeting of TLS that is answered.
        "ssl-hello-chk" if matches!(check.tls, OnOffOr::Off) => {
            check.tls = OnOffOr::On(TlsClientSpec { verify: OnOff(false), ..TlsClientSpec::default() });
        }
        "ssl-hello-chk" => {}
        _ => notes.changes(&line.place, &line.text(), "lb runs no programs: an accepted connection is enough"),
    }
}
