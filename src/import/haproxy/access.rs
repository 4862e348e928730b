//! Rules of `tcp-request` and `http-request` on who may connect, as `allow`, `deny` and `trusted_proxies`. What lb
//! can't say of them lets nobody in whom HAProxy refuses.
//!
//! HAProxy asks its stages one after the other: `accept` ends its own alone, and whoever gets through all is let in.

use ipnet::IpNet;

use crate::config::ProxyProtocol;
use crate::config::file::listener::ListenerSpec;
use crate::import::access::{Lists, Rule, everybody, texts, without};
use crate::import::note::Notes;

use super::acl::{Acls, Test};
use super::tree::{Line, Proxy};

type Stage = [&'static str; 2];

const BEFORE_CONTENT: [Stage; 2] = [["tcp-request", "connection"], ["tcp-request", "session"]];
const OF_CONTENT: [Stage; 2] = [["tcp-request", "content"], ["http-request", ""]];

/// One term of a rule's condition.
#[derive(Clone)]
struct Term<'a> {
    line: &'a Line,
    allow: bool,
    /// Whether those are meant that are in none of the networks.
    is_negated: bool,
    /// Empty: everybody.
    networks: Vec<IpNet>,
}

/// Sets whom the rules let in, also those of the backends that its clients go to.
pub fn set_access(
    listener: &mut ListenerSpec,
    proxy: &Proxy<'_>,
    backends: &[&Proxy<'_>],
    is_tls: bool,
    notes: &mut Notes,
) {
    for line in proxy.sections().flat_map(|section| section.all(&["tcp-request", "inspect-delay"])) {
        notes.harmless(&line.place, &line.text(), "lb waits for a ClientHello where routes need it");
    }
    let [connection, session] = BEFORE_CONTENT.map(|stage| terms(stage, proxy, is_tls, notes));
    let mut stages = vec![session];
    stages.extend(OF_CONTENT.map(|stage| terms(stage, proxy, is_tls, notes)));
    let own: Vec<&Line> = stages.iter().flatten().map(|term| term.line).collect();
    for backend in backends.iter().filter(|backend| !std::ptr::eq(backend.section, proxy.section)) {
        let of_backend = OF_CONTENT.map(|stage| terms(stage, backend, is_tls, notes));
        let others = of_backend.iter().flatten().filter(|term| !own.iter().any(|line| std::ptr::eq(*line, term.line)));
        if backends.len() > 1 {
            note_all(others, "it holds for all clients of the listener, not for those of this backend alone", notes);
        }
        stages.extend(of_backend);
    }
    // Before the PROXY header, the client is who sends it.
    if listener.proxy_protocol == ProxyProtocol::Required {
        match merged(std::slice::from_ref(&connection)).and_then(|lists| lists.let_in()) {
            Some(trusted) if trusted == everybody() => {}
            Some(trusted) if !trusted.is_empty() => listener.trusted_proxies = texts(&trusted),
            _ => stages.push(connection.iter().map(|term| Term { networks: Vec::new(), ..term.clone() }).collect()),
        }
    } else {
        stages.insert(0, connection);
    }
    let lists = merged(&stages).unwrap_or_else(|| {
        let why = "nobody is let in: lists of those whom all rules let in would be too long";
        note_all(stages.iter().flatten(), why, notes);
        Lists::nobody()
    });
    (listener.allow, listener.deny) = (texts(&lists.allow), texts(&lists.deny));
}

fn note_all<'a>(terms: impl Iterator<Item = &'a Term<'a>>, why: &str, notes: &mut Notes) {
    for term in terms {
        notes.changes(&term.line.place, &term.line.text(), why);
    }
}

/// The lists that let in whom all stages let in. `None`: they would be too long.
fn merged(stages: &[Vec<Term<'_>>]) -> Option<Lists> {
    let mut all = Lists::default();
    for stage in stages {
        // Where nothing is accepted, each term refuses by itself.
        let parts = if stage.iter().any(|term| term.allow) { vec![&stage[..]] } else { stage.chunks(1).collect() };
        for part in parts {
            all = all.and(Lists::of(&rules(part)?)?);
        }
    }
    Some(all)
}

/// The terms as rules, of which the first that fits decides. `None`: they would be too long.
fn rules(terms: &[Term<'_>]) -> Option<Vec<Rule>> {
    let mut rules = Vec::new();
    for (index, Term { allow, is_negated, networks, .. }) in terms.iter().enumerate() {
        let rule = |allow: bool, networks: &[IpNet]| Rule { allow, networks: networks.to_vec() };
        let is_last = index + 1 == terms.len();
        match (is_negated, allow) {
            (false, _) => rules.push(rule(*allow, networks)),
            // Whom no rule fits is let in anyway.
            (true, true) if is_last => {}
            (true, false) if is_last => rules.extend([rule(true, networks), rule(false, &[])]),
            (true, _) => {
                let others = without(&everybody(), networks)?;
                rules.extend((!others.is_empty()).then(|| rule(*allow, &others)));
            }
        }
    }
    Some(rules)
}

/// The terms of a stage, those of the defaults first. Notes those that depend on more than the client's address.
fn terms<'a>(stage: Stage, proxy: &Proxy<'a>, is_tls: bool, notes: &mut Notes) -> Vec<Term<'a>> {
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
            let mut say = |why: &str| notes.changes(&line.place, &line.text(), why);
            for all in acls.condition(condition) {
                let (is_negated, networks) = match (&all[..], allow) {
                    ([(false, Test::Never)], _) => continue,
                    // That a client which speaks TLS is let in says nothing about the others.
                    ([(false, Test::IsTls)], true) => {
                        is_for_others_than_tls = true;
                        continue;
                    }
                    _ if is_for_others_than_tls && !allow => {
                        say("it holds for clients alone that speak no TLS");
                        continue;
                    }
                    ([(false, Test::Always)], _) => (false, Vec::new()),
                    ([(is_negated, Test::Source(networks))], _) => (*is_negated, networks.clone()),
                    ([(_, Test::SomeSource)], false) => {
                        say("from here on nobody is let in: `lb import` reads networks alone");
                        (false, Vec::new())
                    }
                    ([(_, Test::SomeSource)], true) => {
                        say("nobody is let in by it: `lb import` reads networks alone");
                        continue;
                    }
                    _ => {
                        say("clients are let in or refused by their address alone");
                        continue;
                    }
                };
                terms.push(Term { line, allow, is_negated, networks });
            }
        }
    }
    terms
}

pub fn is_rule_of_access(line: &Line) -> bool {
    let verb = match line.word(0) {
        "tcp-request" if matches!(line.word(1), "connection" | "content" | "session") => line.word(2),
        "http-request" => line.word(1),
        _ => return false,
    };
    matches!(verb, "accept" | "allow" | "deny" | "reject" | "silent-drop" | "tarpit")
}

/// What the rule does, and the words of its condition.
pub fn verb_and_condition(line: &Line) -> (&str, &[String]) {
    let verb = if line.word(0) == "tcp-request" { line.word(2) } else { line.word(1) };
    let at = line.words.iter().position(|word| word == "if" || word == "unless").unwrap_or(line.words.len());
    (verb, line.from(at))
}
