//! Rules of `tcp-request` and `http-request`: who may connect, which headers are set.

use crate::config::file::listener::ListenerSpec;
use crate::import::access::{Rule, lists};
use crate::import::headers::{EVERYBODY, Headers};
use crate::import::note::Notes;

use super::acl::{Acls, Test};
use super::tree::{Line, Proxy};

/// Sets whom the rules let in.
pub fn set_access(listener: &mut ListenerSpec, proxy: &Proxy<'_>, acls: &Acls<'_>, notes: &mut Notes) {
    let mut rules = Vec::new();
    let mut lines = Vec::new();
    for line in proxy.section.lines.iter().filter(|line| is_rule_of_access(line)) {
        line.see();
        let (verb, condition) = verb_and_condition(line);
        if verb == "inspect-delay" {
            notes.harmless(&line.place, &line.text(), "lb waits for a ClientHello where routes need it");
            continue;
        }
        match access_rules(matches!(verb, "accept" | "allow"), &acls.condition(condition)) {
            Some(of_line) => {
                rules.extend(of_line);
                lines.push(line);
            }
            None => notes.changes(&line.place, &line.text(), "clients are let in or refused by their address alone"),
        }
    }
    match lists(&rules) {
        Some(lists) => (listener.allow, listener.deny) = (lists.allow, lists.deny),
        None => {
            for line in lines {
                let why = "in lb `deny` wins over `allow`, whatever their order: write both lists anew";
                notes.changes(&line.place, &line.text(), why);
            }
        }
    }
}

fn is_rule_of_access(line: &Line) -> bool {
    match line.word(0) {
        "tcp-request" => {
            line.begins_with(&["tcp-request", "inspect-delay"])
                || matches!(line.word(1), "connection" | "content" | "session")
                    && matches!(line.word(2), "accept" | "reject")
        }
        "http-request" => matches!(line.word(1), "deny" | "allow" | "reject"),
        _ => false,
    }
}

/// What the rule does, and the words of its condition.
fn verb_and_condition(line: &Line) -> (&str, &[String]) {
    let verb =
        if line.word(0) == "tcp-request" && line.word(1) != "inspect-delay" { line.word(2) } else { line.word(1) };
    let at = line.words.iter().position(|word| word == "if" || word == "unless").unwrap_or(line.words.len());
    (verb, line.from(at))
}

/// `None`: it depends on more than the client's address.
fn access_rules(allow: bool, condition: &[Vec<(bool, Test)>]) -> Option<Vec<Rule>> {
    let mut rules = Vec::new();
    for all in condition {
        let [(is_negated, test)] = &all[..] else { return None };
        match (test, is_negated) {
            (Test::Always, false) => rules.push(Rule { allow, networks: Vec::new() }),
            (Test::Never, false) => {}
            // That a client which speaks TLS is let in says nothing about the others.
            (Test::IsTls, false) if allow => {}
            (Test::Source(networks), false) => rules.push(Rule { allow, networks: networks.clone() }),
            // Whoever is not one of these: the others go on to be let in.
            (Test::Source(networks), true) => {
                rules.push(Rule { allow: !allow, networks: networks.clone() });
                rules.push(Rule { allow, networks: Vec::new() });
            }
            _ => return None,
        }
    }
    Some(rules)
}

/// Sets the headers that the proxies (the frontend, and the backend of its requests) set.
pub fn set_headers(listener: &mut ListenerSpec, proxies: &[(&Proxy<'_>, &Acls<'_>)], notes: &mut Notes) {
    let mut headers = Headers::as_sent();
    for (proxy, acls) in proxies {
        if let Some(option) = proxy.option("forwardfor") {
            read_forwardfor(&mut headers, option, notes);
        }
        for line in proxy.all_lines(&["http-request"]) {
            let (verb, condition) = verb_and_condition(line);
            if std::ptr::eq(*proxy, proxies[0].0) && is_rule_of_access(line) {
                continue;
            }
            if !matches!(verb, "set-header" | "add-header" | "del-header") {
                notes.changes(&line.place, &line.text(), "lb decides nothing by a request's content");
                continue;
            }
            match acls.condition(condition)[..] {
                [ref all] if all[..] == [(false, Test::Never)] => {
                    notes.harmless(&line.place, &line.text(), "its condition never holds here");
                }
                [ref all] if all[..] == [(false, Test::Always)] => read_header(&mut headers, verb, line, notes),
                _ => notes.changes(&line.place, &line.text(), "a header is set on all requests alike"),
            }
        }
    }
    if headers.mention("$proxy_add_x_forwarded_for") {
        listener.http.forwarded_from = Some(EVERYBODY.map(str::to_owned).to_vec());
    }
    listener.http.set_headers = headers.into_map();
}

fn read_forwardfor(headers: &mut Headers, option: &Line, notes: &mut Notes) {
    let after = |name: &str| option.words.iter().skip_while(|word| *word != name).nth(1);
    let set = match after("header") {
        Some(name) => headers.set(name, "$remote_addr"),
        None => headers.set("X-Forwarded-For", "$proxy_add_x_forwarded_for"),
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
