//! Rules of `tcp-request` and `http-request` on who may connect, as `allow`, `deny` and `trusted_proxies`. What lb
//! can't say of them lets nobody in whom HAProxy refuses.
//!
//! HAProxy asks its stages one after the other: `accept` ends its own alone, and whoever gets through all is let in.

use ipnet::IpNet;

use crate::config::ProxyProtocol;
use crate::config::file::listener::ListenerSpec;
use crate::import::access::{Lists, Rule, everybody, texts, without};
use crate::import::note::Notes;

use super::acl::{Acls, All, Test};
use super::tree::{Line, Proxy};
use super::values::binds;

type Stage = [&'static str; 2];

const BEFORE_CONTENT: [Stage; 2] = [["tcp-request", "connection"], ["tcp-request", "session"]];
const OF_CONTENT: [Stage; 2] = [["tcp-request", "content"], ["http-request", ""]];

const TOO_LONG: &str = "nobody is let in: lists of those whom all rules let in would be too long";

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

/// What is known of a connection where a rule is asked.
#[derive(Clone, Copy)]
struct Facts {
    is_tls: bool,
    /// Another address than the client's own may have taken its place.
    is_source_set: bool,
}

/// Sets whom the rules let in, also those of the backends that its clients go to. Addresses at which lb would let in
/// whom they refuse are left out, perhaps all.
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
    let mut facts = Facts { is_tls, is_source_set: false };
    let [connection, session] = BEFORE_CONTENT.map(|stage| terms(stage, proxy, &mut facts, notes));
    let mut stages = vec![session];
    stages.extend(OF_CONTENT.map(|stage| terms(stage, proxy, &mut facts, notes)));
    let own: Vec<&Line> = stages.iter().flatten().map(|term| term.line).collect();
    for backend in backends.iter().filter(|backend| !std::ptr::eq(backend.section, proxy.section)) {
        let mut facts = facts;
        let of_backend = OF_CONTENT.map(|stage| terms(stage, backend, &mut facts, notes));
        let others = of_backend.iter().flatten().filter(|term| !own.iter().any(|line| std::ptr::eq(*line, term.line)));
        if backends.len() > 1 {
            note_all(others, "it holds for all clients of the listener, not for those of this backend alone", notes);
        }
        stages.extend(of_backend);
    }
    if stages.iter().chain([&connection]).any(|stage| refuses_clients_without_address(stage)) {
        leave_out_unix(listener, proxy, notes);
    }
    let mut is_closed = false;
    // Before the PROXY header, the client is who sends it.
    if listener.proxy_protocol == ProxyProtocol::Required {
        match merged(std::slice::from_ref(&connection)).and_then(|lists| lists.let_in()) {
            Some(trusted) if trusted.is_empty() => is_closed = true,
            Some(trusted) if trusted == everybody() => {}
            Some(trusted) => listener.trusted_proxies = texts(&trusted),
            None => {
                note_all(connection.iter(), TOO_LONG, notes);
                leave_out_unix(listener, proxy, notes);
                is_closed = true;
            }
        }
    } else {
        stages.insert(0, connection);
    }
    let lists = merged(&stages).unwrap_or_else(|| {
        note_all(stages.iter().flatten(), TOO_LONG, notes);
        leave_out_unix(listener, proxy, notes);
        Lists::nobody()
    });
    let lists = if is_closed { Lists::nobody() } else { lists };
    (listener.allow, listener.deny) = (texts(&lists.allow), texts(&lists.deny));
}

/// Whether the rules of a stage refuse who comes by a unix socket, and so is in no network.
fn refuses_clients_without_address(stage: &[Term<'_>]) -> bool {
    let decides = stage.iter().find(|term| term.is_negated || term.networks.is_empty());
    decides.is_some_and(|term| !term.allow)
}

/// lb lets in everybody who may open the file of a unix socket.
fn leave_out_unix(listener: &mut ListenerSpec, proxy: &Proxy<'_>, notes: &mut Notes) {
    let is_unix = |address: &String| address.starts_with("unix:");
    if !listener.bind.0.iter().any(is_unix) {
        return;
    }
    listener.bind.0.retain(|address| !is_unix(address));
    let lines = proxy.section.all(&["bind"]).map(|line| (line, line.word(1)));
    for (line, _) in lines
        .chain([(&proxy.section.head, proxy.section.head.word(2))])
        .filter(|(_, addresses)| binds(addresses, false).is_ok_and(|addresses| addresses.iter().any(is_unix)))
    {
        let why = "its unix sockets aren't served: rules refuse clients without an address, whom lb would let in";
        notes.changes(&line.place, &line.text(), why);
    }
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
fn terms<'a>(stage: Stage, proxy: &Proxy<'a>, facts: &mut Facts, notes: &mut Notes) -> Vec<Term<'a>> {
    let mut terms = Vec::new();
    let mut is_for_others_than_tls = false;
    let is_of_stage = |line: &&Line| line.word(0) == stage[0] && (stage[1].is_empty() || line.word(1) == stage[1]);
    let all = proxy.sections().flat_map(|section| section.lines.iter().filter(is_of_stage));
    let mut refusals = all.filter(|line| may_refuse(line)).count();
    for section in proxy.sections() {
        // A defaults section has ACLs of its own.
        let acls = Acls::of(section, facts.is_tls);
        for line in section.lines.iter().filter(is_of_stage) {
            let (verb, condition) = verb_and_condition(line);
            refusals -= usize::from(may_refuse(line));
            facts.is_source_set |= matches!(verb, "set-src" | "expect-proxy" | "expect-netscaler-cip");
            let any = acls.condition(condition);
            if is_rule_of_access(line) {
                line.see();
            } else if !is_refusal_by_source(line, &any) {
                continue;
            }
            let allow = matches!(verb, "accept" | "allow");
            if allow && refusals == 0 {
                // It ends a stage that would let in everybody anyway.
                continue;
            }
            for all in any {
                // That a client which speaks TLS is let in says nothing about the others.
                if allow && all[..] == [(false, Test::IsTls)] {
                    is_for_others_than_tls = true;
                    continue;
                }
                let whom = whom(&all, allow, is_for_others_than_tls, facts.is_source_set);
                if let Whom::Closed(why) | Whom::Nobody(why) = whom {
                    notes.changes(&line.place, &line.text(), why);
                }
                let (is_negated, networks) = match whom {
                    Whom::In(networks) => (false, networks),
                    Whom::NotIn(networks) => (true, networks),
                    Whom::Everybody | Whom::Closed(_) => (false, Vec::new()),
                    Whom::Never | Whom::Nobody(_) => continue,
                };
                terms.push(Term { line, allow, is_negated, networks });
            }
        }
    }
    terms
}

/// Whom tests of a rule fit.
enum Whom {
    In(Vec<IpNet>),
    NotIn(Vec<IpNet>),
    Everybody,
    Never,
    /// Fewer than everybody, who are taken for all.
    Closed(&'static str),
    /// Some, who are taken for none.
    Nobody(&'static str),
}

fn whom(all: &All, allow: bool, is_for_others_than_tls: bool, is_source_set: bool) -> Whom {
    const CLOSED: &str = "from here on nobody is let in: `lb import` reads networks alone";
    let is_of_source = all.iter().any(|(_, test)| test.is_of_source());
    match &all[..] {
        [(false, Test::Never)] => Whom::Never,
        _ if is_of_source && is_source_set && !allow => {
            Whom::Closed("from here on nobody is let in: a rule before it sets the address")
        }
        _ if is_of_source && is_source_set => Whom::Nobody("nobody is let in by it: a rule before it sets the address"),
        _ if is_for_others_than_tls && !allow && is_of_source => Whom::Closed(CLOSED),
        _ if is_for_others_than_tls && !allow => Whom::Nobody("it holds for clients alone that speak no TLS"),
        [(false, Test::Always)] => Whom::Everybody,
        [(false, Test::Source(networks))] => Whom::In(networks.clone()),
        [(true, Test::Source(networks))] => Whom::NotIn(networks.clone()),
        _ if is_of_source && !allow => Whom::Closed(CLOSED),
        _ if is_of_source => Whom::Nobody("nobody is let in by it: `lb import` reads networks alone"),
        _ => Whom::Nobody("clients are let in or refused by their address alone"),
    }
}

/// Whether a rule keeps some addresses out by an answer of HAProxy's own.
fn is_refusal_by_source(line: &Line, any: &[All]) -> bool {
    is_answer(line) && any.iter().flatten().any(|(_, test)| test.is_of_source())
}

fn is_answer(line: &Line) -> bool {
    line.word(0) == "http-request" && matches!(line.word(1), "auth" | "return")
}

/// Whether a rule keeps anybody out.
fn may_refuse(line: &Line) -> bool {
    is_answer(line) || (is_rule_of_access(line) && !matches!(verb_and_condition(line).0, "accept" | "allow"))
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
