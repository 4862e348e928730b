//! ACLs and the conditions that are made of them, as far as lb can judge connections: by the client's address and by
//! what it says first.

use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::import::access::{network, with_ipv4};
use crate::protocol::client_hello::ServerNamePattern;

use super::tree::Section;
use super::values::bytes_of_hex;

/// Of one condition: `unless` with several tests in each of its alternatives multiplies them.
const MAX_ALTERNATIVES: usize = 64;

/// What is asked of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// The client's address is in one of these.
    Source(Vec<IpNet>),
    /// The same of networks that aren't known: they are in a file, are names, or are made of the address.
    SomeSource,
    /// The server name fits one of these patterns.
    ServerName(Vec<String>),
    /// It offers one of these protocols by ALPN.
    Protocol(Vec<String>),
    /// The client has sent a ClientHello.
    IsTls,
    /// What it sends begins with one of these.
    FirstBytes(Vec<Vec<u8>>),
    /// It has sent nothing.
    IsSilent,
    Always,
    Never,
    /// What lb can't ask.
    Unknown,
}

impl Test {
    pub fn is_of_source(&self) -> bool {
        matches!(self, Self::Source(_) | Self::SomeSource)
    }
}

/// Tests that all must hold, or not hold where negated.
pub type All = Vec<(bool, Test)>;

/// The named ACLs of a section.
pub struct Acls<'a> {
    named: BTreeMap<&'a str, Test>,
    /// Whether the listener ends TLS: `ssl_fc`.
    is_tls: bool,
}

impl<'a> Acls<'a> {
    pub fn of(section: &'a Section, is_tls: bool) -> Self {
        let mut acls = BTreeMap::new();
        for line in section.all(&["acl"]) {
            let test = test(line.from(2), is_tls);
            // One that is defined again holds if any of its definitions does.
            let joined = match (acls.remove(line.word(1)), test) {
                (None, test) => test,
                (Some(Test::Source(one)), Test::Source(other)) => Test::Source([one, other].concat()),
                (Some(one), other) if one.is_of_source() || other.is_of_source() => Test::SomeSource,
                (Some(Test::ServerName(one)), Test::ServerName(other)) => Test::ServerName([one, other].concat()),
                (Some(Test::Protocol(one)), Test::Protocol(other)) => Test::Protocol([one, other].concat()),
                (Some(Test::FirstBytes(one)), Test::FirstBytes(other)) => Test::FirstBytes([one, other].concat()),
                _ => Test::Unknown,
            };
            acls.insert(line.word(1), joined);
        }
        Self { named: acls, is_tls }
    }

    /// The condition that these words are; without one, it always holds. Any of the results has to hold.
    pub fn condition(&self, words: &[String]) -> Vec<All> {
        let is_unless = words.first().is_some_and(|word| word == "unless");
        if !is_unless && words.first().is_none_or(|word| word != "if") {
            return vec![vec![(false, Test::Always)]];
        }
        let mut any = vec![All::new()];
        let mut is_negated = false;
        let mut words = words[1..].iter();
        while let Some(word) = words.next() {
            let (own_negation, word) = match word.strip_prefix('!') {
                Some(rest) => (true, rest),
                None => (false, word.as_str()),
            };
            is_negated ^= own_negation;
            let test = match word {
                "" => continue,
                "or" | "||" => {
                    any.push(All::new());
                    continue;
                }
                "{" => test(&words.by_ref().take_while(|word| *word != "}").cloned().collect::<Vec<_>>(), self.is_tls),
                name => self.named.get(name).cloned().unwrap_or_else(|| predefined(name)),
            };
            any.last_mut().expect("there is one").push((is_negated, test));
            is_negated = false;
        }
        let any = if is_unless { negated(&any) } else { any };
        let any: Vec<All> = any.into_iter().map(simplified).collect();
        let is = |all: &All, test: Test| all[..] == [(false, test)];
        match any.iter().find(|all| is(all, Test::Always)) {
            Some(always) => vec![always.clone()],
            None if any.iter().all(|all| is(all, Test::Never)) => vec![vec![(false, Test::Never)]],
            None => any.into_iter().filter(|all| !is(all, Test::Never)).collect(),
        }
    }
}

/// ACLs that HAProxy has by itself.
fn predefined(name: &str) -> Test {
    match name {
        "TRUE" => Test::Always,
        "FALSE" => Test::Never,
        "LOCALHOST" => Test::Source(["127.0.0.0/8", "::1"].into_iter().filter_map(network).collect()),
        _ => Test::Unknown,
    }
}

/// Not any of these: one test of each doesn't hold.
fn negated(any: &[All]) -> Vec<All> {
    let number = any.iter().try_fold(1_usize, |number, all| number.checked_mul(all.len()));
    if number.is_none_or(|number| number == 0 || number > MAX_ALTERNATIVES) {
        let is_of_source = any.iter().flatten().any(|(_, test)| test.is_of_source());
        return vec![vec![(false, if is_of_source { Test::SomeSource } else { Test::Unknown })]];
    }
    let mut alternatives = vec![All::new()];
    for all in any {
        let longer = |one: &All, (is_negated, test): &(bool, Test)| {
            one.iter().cloned().chain([(!is_negated, test.clone())]).collect::<All>()
        };
        match &all[..] {
            [(is_negated, test)] => {
                alternatives.iter_mut().for_each(|one| one.push((!is_negated, test.clone())));
            }
            _ => alternatives = alternatives.iter().flat_map(|one| all.iter().map(|test| longer(one, test))).collect(),
        }
    }
    alternatives
}

/// Without tests that always hold; with only `Never` if one never does. Tests of the address alone become one.
fn simplified(all: All) -> All {
    let mut kept = All::new();
    for (is_negated, test) in all {
        match (is_negated, test) {
            (false, Test::Always) | (true, Test::Never) => {}
            (true, Test::Always) | (false, Test::Never) => return vec![(false, Test::Never)],
            // Neither in these nor in those.
            (true, Test::Source(more)) => match kept.iter_mut().find(|one| one.0 && matches!(one.1, Test::Source(_))) {
                Some((_, Test::Source(networks))) => networks.extend(more),
                _ => kept.push((true, Test::Source(more))),
            },
            (is_negated, test) => kept.push((is_negated, test)),
        }
    }
    if kept.len() > 1 && kept.iter().all(|(_, test)| test.is_of_source()) {
        return vec![(false, Test::SomeSource)];
    }
    // Who sends a server name sends a ClientHello.
    if kept.iter().any(|(is_negated, test)| !is_negated && matches!(test, Test::ServerName(_) | Test::Protocol(_))) {
        kept.retain(|one| *one != (false, Test::IsTls));
    }
    if kept.is_empty() { vec![(false, Test::Always)] } else { kept }
}

/// An ACL's definition: what is fetched, flags, values.
fn test(words: &[String], is_tls: bool) -> Test {
    let fetch = words.first().map_or("", String::as_str);
    // Names are compared in lower case anyway; other converters make something else of what is fetched.
    let fetch = match split_converters(fetch) {
        Some((name @ ("req.ssl_sni" | "req_ssl_sni"), "lower")) => name,
        Some(("src", converter)) if !converter.contains("table") => return Test::SomeSource,
        Some(_) => return Test::Unknown,
        None => fetch,
    };
    let (mut matching, mut values) = ("", Vec::new());
    let mut rest = words.iter().skip(1).map(String::as_str);
    while let Some(word) = rest.next() {
        match word {
            "-i" | "-n" => {}
            "-m" => matching = rest.next().unwrap_or_default(),
            "-f" | "-M" if fetch == "src" => return Test::SomeSource,
            "-f" | "-M" | "-u" => return Test::Unknown,
            "--" => values.extend(rest.by_ref()),
            value => values.push(value),
        }
    }
    match (fetch, matching) {
        ("src", "" | "ip") => {
            let networks: Option<Vec<IpNet>> = values.iter().map(|value| network(value)).collect();
            // None at all would be everybody.
            let networks = networks.filter(|networks| !networks.is_empty());
            networks.map_or(Test::SomeSource, |networks| Test::Source(with_ipv4(networks)))
        }
        ("src" | "fc_src" | "src_is_local", _) => Test::SomeSource,
        ("req.ssl_sni" | "req_ssl_sni", "" | "str" | "end") => {
            let names: Option<Vec<String>> = values.iter().map(|value| server_name(value, matching == "end")).collect();
            names.filter(|names| !names.is_empty()).map_or(Test::Unknown, Test::ServerName)
        }
        ("req.ssl_alpn", "" | "str" | "sub") if !values.is_empty() => {
            Test::Protocol(values.iter().map(|value| (*value).to_owned()).collect())
        }
        ("req.len" | "req_len", "" | "int") if values == ["0"] => Test::IsSilent,
        ("req.ssl_hello_type" | "req_ssl_hello_type", "") if values == ["1"] => Test::IsTls,
        ("ssl_fc", "") if is_tls => Test::Always,
        ("ssl_fc", "") => Test::Never,
        ("always_true", _) => Test::Always,
        ("always_false", _) => Test::Never,
        _ => first_bytes(fetch, matching, &values).map_or(Test::Unknown, Test::FirstBytes),
    }
}

/// What is fetched, and what converts it. A comma between parentheses is one of its arguments.
fn split_converters(fetch: &str) -> Option<(&str, &str)> {
    let end = fetch.find([',', '('])?;
    let end = if fetch[end..].starts_with('(') { end + fetch[end..].find(')')? } else { end };
    let comma = end + fetch[end..].find(',')?;
    Some((&fetch[..comma], &fetch[comma + 1..]))
}

/// `payload(0,4) -m bin 5353482d` and the like: the first bytes that are compared with these values.
fn first_bytes(fetch: &str, matching: &str, values: &[&str]) -> Option<Vec<Vec<u8>>> {
    let range = fetch.strip_prefix("req.").unwrap_or(fetch).strip_prefix("payload(")?.strip_suffix(')')?;
    let length: usize = range.strip_prefix("0,")?.trim().parse().ok()?;
    let bytes = |value: &&str| match matching {
        "bin" => bytes_of_hex(value),
        // The lexer made a byte of `\xNN` the character of that number.
        "str" | "beg" => value.chars().map(|c| u8::try_from(c).ok()).collect(),
        _ => None,
    };
    let all = values.iter().map(bytes).collect::<Option<Vec<Vec<u8>>>>()?;
    let is_whole = |bytes: &Vec<u8>| !bytes.is_empty() && (bytes.len() == length || matching == "beg");
    (!all.is_empty() && all.iter().all(is_whole)).then_some(all)
}

/// `.example.org` as an end is `*.example.org`; other ends are no names.
fn server_name(value: &str, is_end: bool) -> Option<String> {
    let name = match (is_end, value.strip_prefix('.')) {
        (true, Some(rest)) => format!("*.{rest}"),
        (true, None) => return None,
        (false, _) => value.to_owned(),
    };
    let is_exact = is_end || !name.contains('*');
    (is_exact && name.parse::<ServerNamePattern>().is_ok()).then_some(name)
}
