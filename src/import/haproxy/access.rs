//! Rules of `tcp-request` and `http-request` on who may connect, as `allow`, `deny` and `trusted_proxies`.
//!
//! HAProxy asks its stages one after the other: `accept` ends its own alone, and whoever gets through all is let in.

use crate::config::ProxyProtocol;
use crate::config::file::listener::ListenerSpec;
use crate::import::access::{Lists, Rule, lists};
use crate::import::note::Notes;

use super::acl::{Acls, Test};
use super::tree::{Line, Proxy};

const STAGES: [[&str; 2]; 4] =
    [["tcp-request", "connection"], ["tcp-request", "session"], ["tcp-request", "content"], ["http-request", ""]];
const BY_ADDRESS: &str = "clients are let in or refused by their address alone";

/// One term of a rule's condition.
struct Term<'a> {
    line: &'a Line,
    allow: bool,
    /// Whether those are meant that are in none of the networks.
    is_negated: bool,
    rule: Rule,
}

/// Sets whom the rules let in.
pub fn set_access(listener: &mut ListenerSpec, proxy: &Proxy<'_>, is_tls: bool, notes: &mut Notes) {
    for line in proxy.sections().flat_map(|section| section.all(&["tcp-request", "inspect-delay"])) {
        notes.harmless(&line.place, &line.text(), "lb waits for a ClientHello where routes need it");
    }
    let [connection, session, content, requests] = STAGES.map(|stage| terms(stage, proxy, is_tls, notes));
    let inner = [session, content, requests];
    // Before the PROXY header, the client is who sends it.
    if listener.proxy_protocol == ProxyProtocol::Required {
        match merged(&[&connection]) {
            Some(Lists { allow, deny }) if deny.is_empty() => {
                if !allow.is_empty() {
                    listener.trusted_proxies = allow;
                }
            }
            _ => note_all(&connection, "before a PROXY header, lb can only let in its senders by address", notes),
        }
        set_lists(listener, &inner.iter().collect::<Vec<_>>(), notes);
    } else {
        set_lists(listener, &[&connection].into_iter().chain(&inner).collect::<Vec<_>>(), notes);
    }
}

fn set_lists(listener: &mut ListenerSpec, stages: &[&Vec<Term<'_>>], notes: &mut Notes) {
    match merged(stages) {
        Some(lists) => (listener.allow, listener.deny) = (lists.allow, lists.deny),
        None => {
            let why = "in lb a client has to be in `allow` and not in `deny`, whatever the order: write both anew";
            stages.iter().for_each(|stage| note_all(stage, why, notes));
        }
    }
}

fn note_all(terms: &[Term<'_>], why: &str, notes: &mut Notes) {
    for term in terms {
        notes.changes(&term.line.place, &term.line.text(), why);
    }
}

/// The lists that let in whom all stages let in. `None`: there are none.
fn merged(stages: &[&Vec<Term<'_>>]) -> Option<Lists> {
    let mut all = Lists::default();
    let mut parts = Vec::new();
    for stage in stages {
        // Where nothing is accepted, each term refuses by itself.
        match stage.iter().any(|term| term.allow) {
            true => parts.push(&stage[..]),
            false => parts.extend(stage.chunks(1)),
        }
    }
    for part in parts {
        let Lists { allow, deny } = lists(&rules(part)?)?;
        all.deny.extend(deny.into_iter().filter(|one| !all.deny.contains(one)).collect::<Vec<_>>());
        if all.allow.is_empty() {
            all.allow = allow;
        } else if !allow.is_empty() && allow != all.allow {
            return None;
        }
    }
    Some(all)
}

/// The terms, of which the first that fits decides. Of a negated one, the others go on: it has to be the last.
fn rules(terms: &[Term<'_>]) -> Option<Vec<Rule>> {
    let mut rules = Vec::new();
    for (index, term) in terms.iter().enumerate() {
        match (term.is_negated, term.allow) {
            (false, _) => rules.push(term.rule.clone()),
            (true, _) if index + 1 < terms.len() => return None,
            // Whom no rule fits is let in anyway.
            (true, true) => {}
            (true, false) => {
                rules.push(Rule { allow: true, ..term.rule.clone() });
                rules.push(Rule { allow: false, networks: Vec::new() });
            }
        }
    }
    Some(rules)
}

/// The terms of a stage, those of the defaults first. Notes those that depend on more than the client's address.
fn terms<'a>(stage: [&str; 2], proxy: &Proxy<'a>, is_tls: bool, notes: &mut Notes) -> Vec<Term<'a>> {
    let mut terms = Vec::new();
    let mut is_for_others_than_tls = false;
    for section in proxy.sections() {
        // A defaults section has ACLs of its own.
        let acls = Acls::of(section, is_tls);
        let lines = section.lines.iter().filter(|line| is_rule_of_access(line));
        for line in lines.filter(|line| line.word(0) == stage[0] && (stage[1].is_empty() || line.word(1) == stage[1])) {
            line.see();
            let (verb, condition) = verb_and_condition(line);
            let allow = matches!(verb, "accept" | "allow");
            for all in acls.condition(condition) {
                match (&all[..], allow) {
                    ([(false, Test::Never)], _) => {}
                    // That a client which speaks TLS is let in says nothing about the others.
                    ([(false, Test::IsTls)], true) => is_for_others_than_tls = true,
                    _ if is_for_others_than_tls && !allow => {
                        notes.changes(&line.place, &line.text(), "it holds for clients alone that speak no TLS");
                    }
                    ([(false, Test::Always)], _) => {
                        terms.push(Term { line, allow, is_negated: false, rule: Rule { allow, networks: Vec::new() } });
                    }
                    ([(is_negated, Test::Source(networks))], _) => {
                        let rule = Rule { allow, networks: networks.clone() };
                        terms.push(Term { line, allow, is_negated: *is_negated, rule });
                    }
                    _ => notes.changes(&line.place, &line.text(), BY_ADDRESS),
                }
            }
        }
    }
    terms
}

pub fn is_rule_of_access(line: &Line) -> bool {
    match line.word(0) {
        "tcp-request" => {
            matches!(line.word(1), "connection" | "content" | "session") && matches!(line.word(2), "accept" | "reject")
        }
        "http-request" => matches!(line.word(1), "deny" | "allow" | "reject"),
        _ => false,
    }
}

/// What the rule does, and the words of its condition.
pub fn verb_and_condition(line: &Line) -> (&str, &[String]) {
    let verb = if line.word(0) == "tcp-request" { line.word(2) } else { line.word(1) };
    let at = line.words.iter().position(|word| word == "if" || word == "unless").unwrap_or(line.words.len());
    (verb, line.from(at))
}
