//! `option httpchk` and `http-check`: the request, and which answers are good.

use regex::Regex;

use crate::config::file::health_check::{BodySpec, HealthCheckSpec, HttpCheckSpec};
use crate::config::file::units::OneOrMany;
use crate::import::note::Notes;
use crate::protocol::http1::is_token;

use super::check_connect::read_connect;
use super::server::Server;
use super::tree::{Line, Proxy};

/// Statuses of answers.
const STATUSES: std::ops::RangeInclusive<u16> = 200..=599;

/// The check that `option httpchk` begins, with the `http-check` lines.
pub fn http_check(
    option: &Line,
    proxy: &Proxy<'_>,
    check: &mut HealthCheckSpec,
    server: &Server<'_>,
    notes: &mut Notes,
) -> HttpCheckSpec {
    let mut http = HttpCheckSpec { method: "OPTIONS".to_owned(), ..HttpCheckSpec::default() };
    match option.from(2) {
        [] => {}
        [path] => set_path(&mut http, path, option, notes),
        [method, path, version @ ..] => {
            set_method(&mut http, method, option, notes);
            set_path(&mut http, path, option, notes);
            // Before `http-check send`, headers were written behind the version.
            let version = version.join(" ");
            for header in version.split("\r\n").skip(1) {
                if let Some((name, value)) = header.split_once(':') {
                    set_header(&mut http, name.trim(), value.trim(), option, notes);
                }
            }
        }
    }
    for line in proxy.all_lines(&["http-check"]) {
        match line.word(1) {
            "send" => read_send(&mut http, line, notes),
            "expect" => read_expect(&mut http, line, notes),
            "connect" => read_connect(check, line, server, notes),
            // It gets no new connections, and isn't failed.
            "disable-on-404" => http.standby_status = OneOrMany(vec!["404".to_owned()]),
            "send-state" | "comment" => notes.harmless(&line.place, &line.text(), "it only tells the server more"),
            _ => notes.changes(&line.place, &line.text(), "lb's check is one request and its answer"),
        }
    }
    let is_good = |status: u16| http.status.0.iter().any(|range| contains(range, status));
    if is_good(404) {
        http.standby_status = OneOrMany::default();
    }
    http
}

fn set_method(http: &mut HttpCheckSpec, method: &str, line: &Line, notes: &mut Notes) {
    if is_token(method) && method != "CONNECT" {
        method.clone_into(&mut http.method);
    } else {
        notes.changes(&line.place, &line.text(), "that is not a method");
    }
}

fn set_path(http: &mut HttpCheckSpec, path: &str, line: &Line, notes: &mut Notes) {
    if path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic()) {
        path.clone_into(&mut http.path);
    } else {
        notes.changes(&line.place, &line.text(), "a check's path begins with `/` and has no spaces");
    }
}

fn set_header(http: &mut HttpCheckSpec, name: &str, value: &str, line: &Line, notes: &mut Notes) {
    let is_host = name.eq_ignore_ascii_case("host");
    if is_host && !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_graphic()) {
        http.host = Some(value.to_owned());
        return;
    }
    let is_own = ["connection", "content-length", "transfer-encoding"].iter().any(|own| name.eq_ignore_ascii_case(own));
    if is_own && !value.is_empty() {
        notes.harmless(&line.place, &line.text(), "the check closes after one request");
    } else if is_host || !is_token(name) || value.chars().any(char::is_control) || value.contains("%[") {
        notes.changes(&line.place, &line.text(), format!("the check can't send this header `{}`", name.escape_debug()));
    } else {
        http.headers.insert(name.to_owned(), value.replace("${", "$${"));
    }
}

/// `http-check send meth GET uri / ver HTTP/1.1 hdr NAME VALUE …`
fn read_send(http: &mut HttpCheckSpec, line: &Line, notes: &mut Notes) {
    let mut words = line.from(2).iter();
    while let Some(word) = words.next() {
        let mut next = || words.next().map_or("", String::as_str);
        match word.as_str() {
            "meth" => set_method(http, next(), line, notes),
            "uri" => set_path(http, next(), line, notes),
            "ver" | "comment" => drop(next()),
            "hdr" => {
                let (name, value) = (next(), next());
                set_header(http, name, value, line, notes);
            }
            _ => return notes.changes(&line.place, &line.text(), "the check's request has no body, and a fixed path"),
        }
    }
}

/// `http-check expect [!] status 200-399`, `string x` …
fn read_expect(http: &mut HttpCheckSpec, line: &Line, notes: &mut Notes) {
    let words = line.from(2);
    let is_negated = words.iter().any(|word| word == "!");
    const KINDS: [&str; 6] = ["status", "rstatus", "string", "rstring", "hdr", "fhdr"];
    let at = words.iter().position(|word| KINDS.contains(&word.as_str()));
    let (kind, pattern) = at.map_or(("", String::new()), |at| (words[at].as_str(), words[at + 1..].join(" ")));
    let statuses = match kind {
        "status" => {
            let ranges: Vec<&str> = pattern.split(',').collect();
            Some(matching(|status| ranges.iter().any(|range| contains(range, status)) != is_negated))
        }
        "rstatus" => {
            Regex::new(&pattern).ok().map(|regex| matching(|status| regex.is_match(&status.to_string()) != is_negated))
        }
        _ => None,
    };
    match (kind, statuses) {
        (_, Some(statuses)) if !statuses.is_empty() => http.status = OneOrMany(statuses),
        ("string", _) if !is_negated && !pattern.is_empty() && http.method != "HEAD" => {
            http.body = Some(BodySpec { contains: Some(pattern), matches: None });
        }
        ("rstring", _) if !is_negated && is_regex(&pattern) && http.method != "HEAD" => {
            http.body = Some(BodySpec { contains: None, matches: Some(pattern) });
        }
        _ => notes.changes(&line.place, &line.text(), "the check looks at the status, or for a text in the body"),
    }
}

/// Whether `config` takes it.
pub fn is_regex(text: &str) -> bool {
    let regex = regex::bytes::RegexBuilder::new(text).size_limit(1 << 20).build();
    regex.is_ok_and(|regex| !regex.is_match(b""))
}

fn contains(range: &str, status: u16) -> bool {
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    matches!((first.trim().parse(), last.trim().parse()), (Ok(first), Ok(last)) if (first..=last).contains(&status))
}

/// The ranges of all statuses that are good.
fn matching(is_good: impl Fn(u16) -> bool) -> Vec<String> {
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for status in STATUSES.filter(|status| is_good(*status)) {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == status => *last = status,
            _ => ranges.push((status, status)),
        }
    }
    let shown = |(first, last): &(u16, u16)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    ranges.iter().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_ranges_of_those_that_match() {
        let regex = Regex::new("^(2|3)[0-9][0-9]").expect("a regex");
        assert_eq!(matching(|status| regex.is_match(&status.to_string())), ["200-399"]);
        assert_eq!(matching(|status| contains("200", status) || contains("404-405", status)), ["200", "404-405"]);
        assert_eq!(matching(|status| !contains("500", status)), ["200-499", "501-599"]);
    }
}
