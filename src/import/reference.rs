//! docs/reference/import.md, made from the tables by which the importers decide.

use std::fmt::Write;

use super::treatment::{Row, Treatment};
use super::{haproxy, nginx};

const INTRODUCTION: &str = include_str!("reference.md");

/// The page, as Markdown.
pub fn reference() -> String {
    let mut page = INTRODUCTION.to_owned();
    let tables: [(&str, &[Row]); 6] = [
        ("nginx: directives", nginx::DIRECTIVES),
        ("nginx: parameters of `server` in an upstream", nginx::SERVER_PARAMETERS),
        ("nginx: parameters of `listen`", nginx::LISTEN_PARAMETERS),
        ("HAProxy: keywords", haproxy::KEYWORDS),
        ("HAProxy: parameters of `server`", haproxy::SERVER_PARAMETERS),
        ("HAProxy: parameters of `bind`", haproxy::BIND_PARAMETERS),
    ];
    for (title, table) in tables {
        write_table(&mut page, title, table);
    }
    page
}

fn write_table(page: &mut String, title: &str, table: &[Row]) {
    let mut line = |text: &str| writeln!(page, "{text}").expect("a String takes every text");
    line(&format!("\n## {title}\n"));
    line("| Directive | Is | Into, or why |\n|---|---|---|");
    for row in table {
        let names: Vec<String> = row.names().map(|name| format!("`{}`", name.replace('_', "_"))).collect();
        let (what, why) = match row.treatment {
            Treatment::Translated(into) => ("translated", into.to_owned()),
            Treatment::Partly(into, why) => ("translated in part", format!("{into}; else {why}")),
            Treatment::Harmless(why) => ("harmless", why.to_owned()),
            Treatment::Changes(why) => ("changes traffic", why.to_owned()),
        };
        line(&format!("| {} | {what} | {why} |", names.join(" ")));
    }
}
