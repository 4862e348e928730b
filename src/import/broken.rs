//! Broken input: cut at every byte, and changed at random. Each text is refused with a line, or becomes an lb.yaml that
//! is valid; nothing panics, and no directive goes without a word.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use crate::config::Source;

use super::{Format, Import, Surroundings};

/// For each file.
const MUTATIONS: usize = 1_000;

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/import");
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).expect("it is there").map(|file| file.expect("read").path()).collect();
    files.sort();
    files
}

fn import(text: &str) -> Option<Result<Import, super::Unreadable>> {
    let mut surroundings =
        Surroundings { files: &mut |pattern| Err(format!("{pattern} is not there")), variable: &|_| None };
    let format = Format::of(text)?;
    Some(Import::of(format, "file", text, &mut surroundings))
}

/// Fails unless the text is refused with one of its lines, or its translation reads back as it is.
fn assert_handled(text: &str, yaml: &Path) {
    let import = match import(text) {
        None => return,
        Some(Err(error)) => {
            let lines = text.lines().count().max(1);
            assert!((1..=lines).contains(&error.place.line) && !error.message.is_empty(), "{error:?} in:\n{text}");
            return;
        }
        Some(Ok(import)) => import,
    };
    let written = import.to_yaml("file");
    fs::write(yaml, &written).expect("the folder is writable");
    let loaded = Source { file: Some(yaml.to_owned()), ..Source::default() }.load();
    // Certificates and their authorities are on the machine where the file comes from.
    let is_of_tls = |problem: &crate::config::Problem| problem.path.contains(".tls");
    if loaded.as_ref().is_err_and(|problems| problems.0.iter().all(is_of_tls)) {
        return;
    }
    let loaded = loaded.unwrap_or_else(|problems| panic!("{problems} in:\n{written}\nfrom:\n{text}"));
    assert_eq!(loaded.printed(), crate::config::print(&import.file), "{written}");
}

#[test]
fn every_file_cut_at_every_byte_is_refused_or_translated() {
    let folder = tempfile::tempdir().expect("the temporary directory is writable");
    let yaml = folder.path().join("lb.yaml");
    for file in files() {
        let text = fs::read_to_string(&file).expect("it is a text");
        for end in (0..=text.len()).filter(|end| text.is_char_boundary(*end)) {
            assert_handled(&text[..end], &yaml);
        }
    }
}

#[test]
fn every_file_changed_at_random_is_refused_or_translated() {
    let folder = tempfile::tempdir().expect("the temporary directory is writable");
    thread::scope(|scope| {
        for (seed, file) in files().into_iter().enumerate() {
            let yaml = folder.path().join(format!("{seed}.yaml"));
            scope.spawn(move || {
                let text = fs::read_to_string(&file).expect("it is a text");
                let mut random = fastrand::Rng::with_seed(seed as u64);
                for _ in 0..MUTATIONS {
                    assert_handled(&mutated(&text, &mut random), &yaml);
                }
            });
        }
    });
}

/// With a few bytes, words or lines replaced, removed or repeated.
fn mutated(text: &str, random: &mut fastrand::Rng) -> String {
    const TOKENS: [&str; 16] =
        ["{", "}", ";", "\"", "'", "\\", "#", "$", "\n", "0", "-1", "999999999999", "\u{e9}", "*", ":", " "];
    let mut text = text.to_owned();
    for _ in 0..random.usize(1..4) {
        let place = |random: &mut fastrand::Rng, text: &str| {
            (0..).map(|_| random.usize(0..=text.len())).find(|at| text.is_char_boundary(*at)).expect("0 is one")
        };
        let (one, other) = (place(random, &text), place(random, &text));
        let (start, end) = (one.min(other), one.max(other));
        match random.usize(0..4) {
            0 => text.insert_str(start, TOKENS[random.usize(0..TOKENS.len())]),
            1 => {
                let near =
                    (start..=end).rev().find(|at| *at <= start + 8 && text.is_char_boundary(*at)).unwrap_or(start);
                text.replace_range(start..near, "");
            }
            2 => text.insert_str(start, &text.clone()[start..end]),
            _ => {
                let words: Vec<&str> = text.split_whitespace().collect();
                let word = words[random.usize(0..words.len().max(1)).min(words.len().saturating_sub(1))].to_owned();
                text.insert_str(start, &format!(" {word} "));
            }
        }
    }
    text
}

#[test]
fn what_is_nested_or_repeated_without_end_is_refused_in_little_time() {
    let deep = |open: &str| format!("http {{{}", open.repeat(100_000));
    for text in [
        deep("server {"),
        format!("http {{ {} }}", "a b;".repeat(300_000)),
        format!("global\n{}", "  log x\n".repeat(300_000)),
        format!("defaults\n  {}\n", "word ".repeat(10_000)),
    ] {
        assert!(import(&text).expect("its first word is known").is_err());
    }
}

/// The lines of the notes on what changes traffic.
fn changing_lines(text: &str) -> Vec<usize> {
    let import = import(text).expect("its first word is known").unwrap_or_else(|error| panic!("{error:?}\n{text}"));
    let changes = import.notes.iter().filter(|note| note.impact == super::Impact::ChangesTraffic);
    changes.map(|note| note.place.line).collect()
}

/// The names of a table that are left out because that changes traffic.
fn changing_names(table: &[super::treatment::Row]) -> Vec<&'static str> {
    let rows = table.iter().filter(|row| matches!(row.treatment, super::treatment::Treatment::Changes(_)));
    rows.flat_map(super::treatment::Row::names).filter(|name| !name.contains('*')).collect()
}

#[test]
fn every_directive_of_nginx_that_changes_traffic_is_said_to_wherever_it_stands() {
    for name in changing_names(super::nginx::DIRECTIVES).into_iter().chain(["nobody_knows_this"]) {
        if name == "internal" {
            // Nothing that clients reach would pass requests on, which is an error.
            continue;
        }
        let block = if name.ends_with("_by_lua_block") { "{ x }" } else { "x;" };
        for (line, [main, http, server, location]) in [
            (1, [name, "#", "#", "#"]),
            (3, ["#", name, "#", "#"]),
            (5, ["#", "#", name, "#"]),
            (7, ["#", "#", "#", name]),
        ] {
            let text = format!(
                "{main} {block}\nhttp {{\n{http} {block}\nserver {{ listen 1;\n{server} {block}\nlocation / {{\n\
                 {location} {block}\nproxy_pass http://127.0.0.1:2;\n}}}}}}\n"
            );
            let text = if line == 1 { format!("events {{}} {text}") } else { text };
            assert_eq!(changing_lines(&text), [line], "{text}");
        }
    }
}

#[test]
fn every_keyword_of_haproxy_that_changes_traffic_is_said_to_wherever_it_stands() {
    let names = changing_names(super::haproxy::KEYWORDS).into_iter().chain(["nobody_knows_this", "http-request"]);
    for name in names.filter(|name| !super::haproxy::SECTIONS.contains(name)) {
        let written = match name.strip_prefix("option_") {
            Some(option) => format!("option {option}"),
            None => name.to_owned(),
        };
        for line in [2, 5, 9] {
            let at = |own: usize| if line == own { format!("{written} x y") } else { String::new() };
            let text = format!(
                "defaults\n  {}\n  mode http\nfrontend a\n  {}\n  bind :1\n  default_backend b\nbackend b\n  {}\n  \
                 server s 127.0.0.1:2 check\n",
                at(2),
                at(5),
                at(9)
            );
            assert_eq!(changing_lines(&text), [line], "{text}");
        }
    }
}
