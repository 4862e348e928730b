//! nginx.conf: read as nginx reads it (`lexer`, `tree`), and translated block by block. `directives` has all that are
//! known; what no translation has asked for in the end is noted by it.

mod directives;
mod headers;
mod http;
mod lexer;
mod listen;
#[cfg(test)]
mod meaning;
mod pages;
mod pool;
mod routes;
mod stream;
mod tls;
mod tree;
mod values;

pub use directives::DIRECTIVES;
#[cfg(test)]
pub use directives::{LISTEN_PARAMETERS, SERVER_PARAMETERS};

use crate::config::file::units::AutoOr;

use super::draft::Draft;
use super::note::{Notes, Unreadable};
use super::surroundings::Surroundings;
use super::treatment::{note_left_out, treatment_of};
use super::values::positive;

use tree::{Directive, Scope};

/// The most workers that `config` takes.
const MAX_WORKERS: usize = 1024;

/// Translates `text`, the content of `file`.
///
/// # Errors
/// nginx itself couldn't read it.
pub fn translate(
    file: &str,
    text: &str,
    surroundings: &mut Surroundings<'_>,
    draft: &mut Draft,
) -> Result<(), Unreadable> {
    let tree = tree::read(file, text, surroundings, &mut draft.notes)?;
    let main = Scope::of(&tree);
    set_process(&main, draft);
    for block in &tree {
        match block.name.as_str() {
            "http" => http::translate(&main.within(block.see().inner()), draft),
            "stream" => stream::translate(&main.within(block.see().inner()), draft),
            _ => {}
        }
    }
    // A file for conf.d has what stands in `http` or `stream`, without this block.
    if tree.iter().any(|directive| directive.name == "server") {
        if is_of_stream(&tree) { stream::translate(&main, draft) } else { http::translate(&main, draft) }
    }
    tree.iter().for_each(|directive| note_unseen(directive, &mut draft.notes));
    Ok(())
}

fn is_of_stream(tree: &[Directive]) -> bool {
    let mut servers = tree.iter().filter(|directive| directive.name == "server");
    servers.all(|server| server.inner().iter().any(|inner| inner.name == "proxy_pass"))
}

fn set_process(main: &Scope<'_>, draft: &mut Draft) {
    let processes = main.one("worker_processes");
    let workers = processes.and_then(|directive| directive.arg(0).parse::<usize>().ok());
    if let Some(workers) = workers.filter(|workers| *workers > 0) {
        draft.file.workers = AutoOr::Number(workers.min(MAX_WORKERS));
    }
    let events = main.one("events");
    let connections = events.and_then(|events| Scope::of(events.inner()).one("worker_connections"));
    if let Some(directive) = connections {
        // nginx runs one worker, unless it is told otherwise.
        match (directive.arg(0).parse::<usize>(), processes, workers) {
            (Ok(connections @ 1..), None, _) => draft.file.max_connections = AutoOr::Number(connections),
            (Ok(connections @ 1..), Some(_), Some(workers @ 1..)) => {
                draft.file.max_connections = AutoOr::Number(connections.saturating_mul(workers));
            }
            _ => {
                let why =
                    "the limit is of a worker, whose number isn't given; lb takes what open files and memory allow";
                draft.notes.harmless(&directive.place, &directive.text(), why);
            }
        }
    }
    if let Some(timeout) = values::time(main.word("worker_shutdown_timeout")) {
        draft.file.drain.timeout = positive(timeout);
    }
}

/// What lb has on always: `off` is what it can't do.
const ALWAYS_ON: [&str; 3] = ["proxy_pass_request_body", "proxy_pass_request_headers", "mirror_request_body"];

/// Notes what no translation has asked for.
fn note_unseen(directive: &Directive, notes: &mut Notes) {
    if !directive.is_seen() {
        let (place, text) = (&directive.place, directive.text());
        let is = |values: &[&str]| directive.args.len() == 1 && values.contains(&directive.arg(0));
        match ALWAYS_ON.contains(&directive.name.as_str()) {
            true if is(&["on"]) => notes.harmless(place, &text, "it is on"),
            is_always_on => {
                let treatment = treatment_of(DIRECTIVES, &directive.name);
                note_left_out(treatment, !is_always_on && is(&["off", "0"]), place, &text, notes);
            }
        }
        directive.see_all();
    }
    directive.inner().iter().for_each(|inner| note_unseen(inner, notes));
}
