//! The rules of a pool's `health_check:` block.

use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::path::Path;

use regex::bytes::{Regex, RegexBuilder};

use crate::config::file::health_check::{
    BodySpec, HealthCheckSpec, HttpCheckSpec, MysqlCheckSpec, PostgresCheckSpec, RedisCheckSpec, StepSpec,
};
use crate::config::file::pool::BackendSpec;
use crate::config::health_check::{
    CheckKind, HealthCheck, HttpCheck, MysqlCheck, Pattern, PostgresCheck, PostgresRole, RedisCheck, RedisLogin,
    Secret, Step,
};

#[cfg(test)]
use crate::config::yaml::Reporter;
use crate::protocol::http1::is_token;
use crate::tls::Sessions;

use super::block::Block;
use super::secret::{expanded, secret_of_file, unescaped};
use super::tls::build_tls;

/// Results in a row; more must be a mistake.
const MAX_RESULTS: usize = 1000;
/// A compiled regular expression may take so much memory.
const MAX_REGEX_BYTES: usize = 1 << 20;
/// Steps of an exchange; more must be a mistake.
const MAX_STEPS: usize = 100;

/// `backends` are those of the pool.
pub fn build_check(check: &HealthCheckSpec, backends: &[BackendSpec], block: &mut Block<'_>) -> HealthCheck {
    let interval = block.positive("interval", check.interval);
    HealthCheck {
        interval,
        interval_down: check.interval_down.map_or(interval, |it| block.positive("interval_down", it)),
        timeout: block.positive("timeout", check.timeout),
        rise: block.within("rise", check.rise, MAX_RESULTS),
        fall: block.within("fall", check.fall, MAX_RESULTS),
        port: check.port.and_then(|port| build_port(port, backends, block)),
        tls: build_tls(&check.tls, Sessions::Fresh, &mut block.inner("tls")),
        kind: build_kind(check, block),
    }
}

#[cfg(test)]
impl HealthCheck {
    /// With the file's defaults: an accepted connection is enough.
    pub fn example() -> Self {
        build_check(&HealthCheckSpec::default(), &[], &mut Block::root(&mut Reporter::default()))
    }
}

fn build_port(port: u16, backends: &[BackendSpec], block: &mut Block<'_>) -> Option<NonZeroU16> {
    let without = backends.iter().find(|backend| backend.check.is_none() && backend.address.starts_with("unix:"));
    if let Some(BackendSpec { address, .. }) = without {
        block.problem("port", format!("`{address}` has none; give that backend a `check: IP:port`, or leave port out"));
    }
    let port = NonZeroU16::new(port);
    if port.is_none() {
        block.problem("port", "must be from 1 to 65535");
    }
    port
}

fn build_kind(check: &HealthCheckSpec, block: &mut Block<'_>) -> CheckKind {
    let kinds = [
        check.http.as_ref().map(|http| ("http", build_http(http, &mut block.inner("http")))),
        check.exchange.as_ref().map(|steps| ("exchange", CheckKind::Exchange(build_steps(steps, block)))),
        check.redis.as_ref().map(|redis| ("redis", build_redis(redis, &mut block.inner("redis")))),
        check.postgres.as_ref().map(|it| ("postgres", build_postgres(it, &mut block.inner("postgres")))),
        check.mysql.as_ref().map(|mysql| ("mysql", build_mysql(mysql, &mut block.inner("mysql")))),
        check.smtp.as_ref().map(|smtp| ("smtp", build_smtp(&smtp.hello, &mut block.inner("smtp")))),
        check.ldap.as_ref().map(|_| ("ldap", CheckKind::Ldap)),
    ];
    let mut wanted: Vec<_> = kinds.into_iter().flatten().collect();
    if wanted.len() > 1 {
        let names: Vec<_> = wanted.iter().map(|(name, _)| *name).collect();
        block.problem(names[1], format!("is a second kind of check ({}); leave one", names.join(", ")));
    }
    wanted.pop().map_or(CheckKind::Connect, |(_, kind)| kind)
}

fn build_http(http: &HttpCheckSpec, block: &mut Block<'_>) -> CheckKind {
    if !is_token(&http.method) || http.method == "CONNECT" {
        block.problem("method", "must be a method, such as GET, HEAD or OPTIONS");
    }
    if !http.path.starts_with('/') || !http.path.bytes().all(|byte| byte.is_ascii_graphic()) {
        block.problem("path", "must start with `/` and have no spaces, such as /healthz");
    }
    if http.host.as_ref().is_some_and(|host| host.is_empty() || !host.bytes().all(|byte| byte.is_ascii_graphic())) {
        block.problem("host", "must be a host name, such as app.internal");
    }
    if http.method == "HEAD" && http.body.is_some() {
        block.problem("body", "can't be looked at: a response to HEAD has none; use GET");
    }
    let status = build_statuses("status", &http.status.0, block);
    let standby_status = build_statuses("standby_status", &http.standby_status.0, block);
    if status.is_empty() && http.status.0.is_empty() {
        block.problem("status", "is empty, which no answer passes; write 200-399, say");
    }
    let overlaps = |one: &RangeInclusive<u16>| {
        standby_status.iter().any(|other| one.start() <= other.end() && other.start() <= one.end())
    };
    if status.iter().any(overlaps) {
        block.problem("standby_status", "has a status that is in `status` too, which comes first; take it out of one");
    }
    let body = http.body.as_ref().and_then(|body| build_body(body, block));
    let headers = http.headers.iter();
    CheckKind::Http(HttpCheck {
        method: http.method.clone(),
        path: http.path.clone(),
        host: http.host.clone(),
        headers: headers.map(|(name, value)| build_header(name, value, &mut block.inner("headers"))).collect(),
        status,
        standby_status,
        body,
    })
}

/// Those that the check itself decides, as they say where it goes or how its messages are framed.
const OWN_HEADERS: [&str; 4] = ["host", "connection", "content-length", "transfer-encoding"];

fn build_header(name: &str, value: &str, block: &mut Block<'_>) -> (String, Secret) {
    if !is_token(name) {
        block.problem(name, "is not the name of a header");
    }
    if name.eq_ignore_ascii_case("host") {
        block.problem(name, "is set by `host`");
    } else if OWN_HEADERS.iter().any(|own| name.eq_ignore_ascii_case(own)) {
        block.problem(name, "can't be set: the check closes after one request without a body");
    }
    let value = expanded(name, value, block, |text, _| text.as_bytes().to_vec());
    if value.bytes.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
        block.problem(name, "must have no line break and no control character");
    }
    (name.to_owned(), value)
}

fn build_statuses(key: &str, texts: &[String], block: &mut Block<'_>) -> Vec<RangeInclusive<u16>> {
    let mut statuses = Vec::new();
    for text in texts {
        match parse_statuses(text) {
            Some(range) => statuses.push(range),
            None => block.problem(key, format!("`{text}` is not a range of statuses; write 200 or 200-399")),
        }
    }
    statuses
}

fn parse_statuses(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = first.trim().parse().ok()?..=last.trim().parse().ok()?;
    (*range.start() >= 200 && *range.end() <= 599 && !range.is_empty()).then_some(range)
}

fn build_body(body: &BodySpec, block: &mut Block<'_>) -> Option<Pattern> {
    match (&body.contains, &body.matches) {
        (Some(text), None) => {
            if text.is_empty() {
                block.problem("body.contains", "is in every body; write what it must hold");
            }
            Some(Pattern::Text { bytes: text.clone().into_bytes(), written: text.clone() })
        }
        (None, Some(regex)) => build_regex("body.matches", regex, block),
        _ => {
            block.problem("body", "needs `contains` or `matches`, and not both");
            None
        }
    }
}

fn build_regex(key: &str, text: &str, block: &mut Block<'_>) -> Option<Pattern> {
    let built: Result<Regex, _> = RegexBuilder::new(text).size_limit(MAX_REGEX_BYTES).build();
    match built {
        Ok(regex) if regex.is_match(b"") => {
            block.problem(key, format!("`{text}` matches an empty answer too; write what must be there"));
            None
        }
        Ok(regex) => Some(Pattern::Matches(regex)),
        Err(regex::Error::CompiledTooBig(_)) => {
            block.problem(key, format!("`{text}` takes too much memory; write a simpler one"));
            None
        }
        Err(error) => {
            // A syntax error is a drawing of several lines, the last of which says what is wrong.
            let error = error.to_string();
            let reason = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
            block.problem(key, format!("`{text}` is not a regular expression: {reason}"));
            None
        }
    }
}

fn build_steps(steps: &[StepSpec], block: &mut Block<'_>) -> Vec<Step> {
    if steps.is_empty() {
        block.problem("exchange", "is empty; write steps such as [{send: \"PING\\r\\n\"}, {expect: \"+PONG\"}]");
    }
    if steps.len() > MAX_STEPS {
        block.problem("exchange", format!("has {} steps; at most {MAX_STEPS}", steps.len()));
    }
    let steps = steps.iter().enumerate();
    steps.filter_map(|(index, step)| build_step(&format!("exchange[{index}]"), step, block)).collect()
}

fn build_step(key: &str, step: &StepSpec, block: &mut Block<'_>) -> Option<Step> {
    match (&step.send, &step.expect, &step.expect_matches) {
        (Some(text), None, None) => {
            let key = format!("{key}.send");
            Some(Step::Send(expanded(&key, text, block, |text, block| unescaped(&key, text, block))))
        }
        (None, Some(text), None) => {
            let key = format!("{key}.expect");
            if text.is_empty() {
                block.problem(&key, "is in every answer; write what it must hold");
            }
            Some(Step::Expect(Pattern::Text { bytes: unescaped(&key, text, block), written: text.clone() }))
        }
        (None, None, Some(regex)) => build_regex(&format!("{key}.expect_matches"), regex, block).map(Step::Expect),
        _ => {
            block.problem(key, "is one step: `send`, `expect` or `expect_matches`");
            None
        }
    }
}

fn build_redis(redis: &RedisCheckSpec, block: &mut Block<'_>) -> CheckKind {
    if redis.username.is_some() && redis.password_file.is_none() {
        block.problem("username", "needs a `password_file`");
    }
    let password = build_password(redis.password_file.as_deref(), block);
    let login = password.map(|password| RedisLogin { username: redis.username.clone(), password });
    CheckKind::Redis(RedisCheck { role: redis.role, login })
}

fn build_postgres(postgres: &PostgresCheckSpec, block: &mut Block<'_>) -> CheckKind {
    if postgres.role == PostgresRole::Any && postgres.password_file.is_some() {
        block.problem("password_file", "is not used without a `role`: primary or replica");
    }
    refuse_nul("user", &postgres.user, block);
    refuse_nul("database", postgres.database.as_deref().unwrap_or("none"), block);
    CheckKind::Postgres(PostgresCheck {
        role: postgres.role,
        user: postgres.user.clone(),
        database: postgres.database.clone(),
        password: build_password(postgres.password_file.as_deref(), block),
    })
}

fn build_mysql(mysql: &MysqlCheckSpec, block: &mut Block<'_>) -> CheckKind {
    refuse_nul("user", mysql.user.as_deref().unwrap_or("none"), block);
    CheckKind::Mysql(MysqlCheck { user: mysql.user.clone() })
}

fn build_smtp(hello: &str, block: &mut Block<'_>) -> CheckKind {
    if hello.is_empty() || !hello.bytes().all(|byte| byte.is_ascii_graphic()) {
        block.problem("hello", "must be a host name, such as lb.example.com");
    }
    CheckKind::Smtp { hello: hello.to_owned() }
}

fn build_password(file: Option<&Path>, block: &mut Block<'_>) -> Option<Secret> {
    file.and_then(|file| secret_of_file("password_file", file, block))
}

/// Both protocols end a text by a zero byte.
fn refuse_nul(key: &str, text: &str, block: &mut Block<'_>) {
    if text.is_empty() || text.contains('\0') {
        block.problem(key, "must be a name");
    }
}
