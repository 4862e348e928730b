//! docs/reference/import.md, made from the tables by which the importers decide.

use std::fmt::Write;

use super::treatment::{Row, Treatment};
use super::{haproxy, nginx};

const INTRODUCTION: &str = include_str!("introduction.md");

const TABLES: [(&str, &[Row]); 6] = [
    ("nginx: directives", nginx::DIRECTIVES),
    ("nginx: parameters of `server` in an upstream", nginx::SERVER_PARAMETERS),
    ("nginx: parameters of `listen`", nginx::LISTEN_PARAMETERS),
    ("HAProxy: keywords", haproxy::KEYWORDS),
    ("HAProxy: parameters of `server`", haproxy::SERVER_PARAMETERS),
    ("HAProxy: parameters of `bind`", haproxy::BIND_PARAMETERS),
];

/// The page, as Markdown.
fn reference() -> String {
    let mut page = INTRODUCTION.to_owned();
    for (title, table) in TABLES {
        write_table(&mut page, title, table);
    }
    page
}

fn write_table(page: &mut String, title: &str, table: &[Row]) {
    let mut line = |text: &str| writeln!(page, "{text}").expect("a String takes every text");
    line(&format!("\n## {title}\n"));
    line("| Directive | Is | Into, or why |\n|---|---|---|");
    for row in table {
        let names: Vec<String> = row.names().map(|name| format!("`{name}`")).collect();
        let (what, why) = match row.treatment {
            Treatment::Translated(into) => ("translated", into.to_owned()),
            Treatment::Partly(into, why) => ("translated in part", format!("{into}; else {why}")),
            Treatment::Harmless(why) => ("harmless", why.to_owned()),
            Treatment::Changes(why) => ("changes traffic", why.to_owned()),
        };
        line(&format!("| {} | {what} | {why} |", names.join(" ")));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_page_in_docs_is_this_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/import.md");
        if std::env::var_os("LB_WRITE_REFERENCE").is_some() {
            std::fs::write(path, reference()).expect("docs can be written");
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(written == reference(), "write it anew: LB_WRITE_REFERENCE=1 cargo test --lib the_page_in_docs");
    }

    #[test]
    fn no_directive_stands_in_a_table_twice() {
        for (title, table) in TABLES {
            let mut seen = BTreeSet::new();
            for name in table.iter().flat_map(Row::names) {
                assert!(seen.insert(name), "{title}: {name}");
            }
        }
    }
}
