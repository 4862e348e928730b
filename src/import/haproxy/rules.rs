//! Rules of `http-request` on the headers of requests.

use crate::config::file::listener::ListenerSpec;
use crate::import::headers::{EVERYBODY, Headers};
use crate::import::note::Notes;

use super::access::{is_rule_of_access, verb_and_condition};
use super::acl::{Acls, Test};
use super::tree::{Line, Proxy, Section};

/// Sets the headers that the proxies (the frontend, and the backend of its requests) set.
pub fn set_headers(listener: &mut ListenerSpec, proxies: &[&Proxy<'_>], is_tls: bool, notes: &mut Notes) {
    let mut headers = Headers::as_sent();
    for proxy in proxies {
        let mut passed = Passed::None;
        for section in proxy.sections() {
            set_of_section(&mut headers, section, &mut passed, is_tls, notes);
        }
    }
    // HAProxy adds it after all rules.
    let options: Vec<&Line> = proxies.iter().filter_map(|proxy| proxy.option("forwardfor")).collect();
    if let Some((last, others)) = options.split_last() {
        read_forwardfor(&mut headers, last, notes);
        for other in others.iter().filter(|other| other.text() != last.text()) {
            notes.changes(&other.place, &other.text(), "the backend's `option forwardfor` is taken");
        }
    }
    if headers.mention("$proxy_add_x_forwarded_for") {
        listener.http.forwarded_from = Some(EVERYBODY.map(str::to_owned).to_vec());
    }
    listener.http.set_headers = headers.into_map();
}

/// Whether all requests of a listener without TLS are redirected to https; that is noted.
pub fn redirects_to_https(proxy: &Proxy<'_>, is_tls: bool, notes: &mut Notes) -> bool {
    let mut redirects = false;
    for section in proxy.sections() {
        let acls = Acls::of(section, is_tls);
        for line in section.lines.iter().filter(|line| is_https_redirect(line)) {
            match &acls.condition(verb_and_condition(line).1)[..] {
                [all] if all[..] == [(false, Test::Never)] => {
                    line.see();
                    notes.harmless(&line.place, &line.text(), "its condition never holds here");
                }
                [all] if all[..] == [(false, Test::Always)] && !is_tls => {
                    line.see();
                    redirects = true;
                    let why = "lb answers with 308, with which clients keep the method";
                    notes.harmless(&line.place, &line.text(), why);
                }
                _ => {}
            }
        }
    }
    redirects
}

fn is_https_redirect(line: &Line) -> bool {
    line.begins_with(&["http-request", "redirect", "scheme", "https"])
        || line.begins_with(&["redirect", "scheme", "https"])
}

/// The requests for which `http-request allow` has ended the rules of a proxy.
#[derive(PartialEq, Eq)]
enum Passed {
    None,
    Some,
    All,
}

fn set_of_section(headers: &mut Headers, section: &Section, passed: &mut Passed, is_tls: bool, notes: &mut Notes) {
    let acls = Acls::of(section, is_tls);
    for line in section.all(&["http-request"]) {
        let (verb, condition) = verb_and_condition(line);
        let condition = acls.condition(condition);
        let is = |test: Test| matches!(&condition[..], [all] if all[..] == [(false, test.clone())]);
        let (is_never, is_always) = (is(Test::Never), is(Test::Always));
        if is_rule_of_access(line) {
            match verb {
                "allow" if is_always => *passed = Passed::All,
                "allow" if !is_never && *passed == Passed::None => *passed = Passed::Some,
                _ => {}
            }
        } else if is_never {
            notes.harmless(&line.place, &line.text(), "its condition never holds here");
        } else if *passed == Passed::All {
            notes.harmless(&line.place, &line.text(), "no request gets beyond the rule `allow` before it");
        } else if is_always && !is_tls && is_https_redirect(line) {
            // Said already.
        } else if !matches!(verb, "set-header" | "add-header" | "del-header") {
            notes.changes(&line.place, &line.text(), "lb decides nothing by a request's content");
        } else if *passed == Passed::Some || !is_always {
            notes.changes(&line.place, &line.text(), "a header is set on all requests alike");
        } else {
            read_header(headers, verb, line, notes);
        }
    }
}

fn read_forwardfor(headers: &mut Headers, option: &Line, notes: &mut Notes) {
    const NAME: &str = "X-Forwarded-For";
    let after = |name: &str| option.words.iter().skip_while(|word| *word != name).nth(1);
    let set = match (after("header"), headers.value(NAME)) {
        (Some(name), _) => headers.set(name, "$remote_addr"),
        (None, Some("$http_x_forwarded_for")) => headers.set(NAME, "$proxy_add_x_forwarded_for"),
        (None, None) => headers.set(NAME, "$remote_addr"),
        (None, Some(own)) => headers.set(NAME, &format!("{own}, $remote_addr")),
    };
    if set.is_err() || after("except").is_some() || option.words.iter().any(|word| word == "if-none") {
        notes.changes(&option.place, &option.text(), "the header is set for all clients alike");
    } else {
        let why = "as with HAProxy, what clients send of it is kept; `http.forwarded_from` can name your proxies alone";
        notes.harmless(&option.place, &option.text(), why);
    }
}

fn read_header(headers: &mut Headers, verb: &str, line: &Line, notes: &mut Notes) {
    let name = line.word(2);
    let value = if verb == "del-header" { Some(String::new()) } else { template(line.word(3)) };
    let set = match value {
        Some(value) => headers.set(name, &value).map_err(|invalid| invalid.to_string()),
        None => Err("lb has no such value".to_owned()),
    };
    match set {
        // What the client sent in its place would be taken for HAProxy's.
        Err(why) if verb == "set-header" && headers.set(name, "").is_ok() => {
            notes.changes(&line.place, &line.text(), format!("{why}: the header is removed"));
        }
        Err(why) => notes.changes(&line.place, &line.text(), why),
        Ok(()) if verb == "add-header" => {
            notes.harmless(&line.place, &line.text(), "it is set: what the client sent of it doesn't stay");
        }
        Ok(()) => {}
    }
}

/// A log format as lb's template; `None`: lb has no such variable.
fn template(format: &str) -> Option<String> {
    let mut template = String::new();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        template += &rest[..at].replace('$', "$$");
        let from = &rest[at + 1..];
        let (variable, after) = match from.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
            Some((expression, after)) => (expression_variable(expression)?, after),
            None if from.starts_with('%') => ("%".to_owned(), &from[1..]),
            None => {
                let variable = [
                    ("ci", "${remote_addr}"),
                    ("cp", "${remote_port}"),
                    ("fi", "${server_addr}"),
                    ("fp", "${server_port}"),
                ];
                let (name, own) = variable.iter().find(|(name, _)| from.starts_with(name))?;
                ((*own).to_owned(), &from[name.len()..])
            }
        };
        template += &variable;
        rest = after;
    }
    template += &rest.replace('$', "$$");
    Some(template)
}

fn expression_variable(expression: &str) -> Option<String> {
    let header = ["req.hdr(", "hdr(", "req.fhdr("].iter().find_map(|fetch| expression.strip_prefix(fetch));
    if let Some(name) = header.and_then(|rest| rest.strip_suffix(')')) {
        let is_plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let host = name.eq_ignore_ascii_case("host");
        return is_plain.then(|| {
            if host {
                "${http_host}".to_owned()
            } else {
                format!("${{http_{}}}", name.replace('-', "_").to_lowercase())
            }
        });
    }
    let variable = match expression {
        "src" => "remote_addr",
        "src_port" => "remote_port",
        "dst" => "server_addr",
        "dst_port" => "server_port",
        "uuid()" | "unique-id" => "request_id",
        _ => return expression.strip_prefix("str(")?.strip_suffix(')').map(|text| text.replace('$', "$$")),
    };
    Some(format!("${{{variable}}}"))
}
