//! The house rules of ARCHITECTURE.md, read from the sources: floors, circles, unsafe code, lengths, what a file is
//! for; and that what documents name exists.

mod circles;
mod imports;
mod sources;

use std::collections::BTreeSet;
use std::fs;

use circles::circles;
use imports::{Arrow, Crate, Import};
use sources::{Source, files_under, name_of, root, sources};

/// Every top-level module and its floor. A module imports only from lower floors, never from a neighbour.
const FLOORS: &[(&str, u8)] = &[
    ("main", 8),
    ("reference", 8),
    ("cli", 7),
    ("server", 6),
    ("admin", 5),
    ("proxy", 5),
    ("balancer", 4),
    ("backends", 3),
    ("relay", 3),
    ("access_log", 3),
    ("import", 3),
    ("config", 2),
    ("protocol", 0),
    ("net", 1),
    ("lifecycle", 0),
    ("telemetry", 0),
    ("tls", 0),
    ("file_watch", 0),
    ("labels", 0),
];

/// Imports that break the rule, each with the reason why it is still there: (file, imported module, reason).
/// An entry that is no longer needed fails the test, so the table can only shrink.
const IMPORT_EXCEPTIONS: &[(&str, &str, &str)] = &[];

/// Folders with import circles between what they hold, each with the reason why they still exist.
/// An entry that is no longer needed fails the test here and in the tables below, so these can only shrink.
const CIRCLE_EXCEPTIONS: &[(&str, &str)] = &[];

/// Lines that a file may have before its tests.
const MAX_LINES: usize = 400;

/// Files that are longer: (file, lines at most, reason).
const LENGTH_EXCEPTIONS: &[(&str, usize, &str)] = &[];

/// Lines that a function may have outside tests, its signature included.
const MAX_FUNCTION_LINES: usize = 70;

/// Files, or folders, with functions that are longer.
const FUNCTION_EXCEPTIONS: &[(&str, &str)] = &[];

/// Columns that a line may have, as in rustfmt.toml.
const MAX_COLUMNS: usize = 120;

/// Files, or folders, with lines that are longer.
const COLUMN_EXCEPTIONS: &[(&str, &str)] = &[];

/// Documents with lines that are longer.
const COLUMN_EXCEPTIONS_OF_DOCUMENTS: &[(&str, &str)] = &[];

fn floor_of(module: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == module).map(|(_, floor)| *floor)
}

#[test]
fn modules_import_only_from_lower_floors() {
    let mut wrong = Vec::new();
    let mut unused: BTreeSet<_> = IMPORT_EXCEPTIONS.iter().map(|(file, module, _)| (*file, *module)).collect();
    let sources = sources();
    let all = Crate::new(&sources);
    for source in &sources {
        let Some(home) = source.module.first() else { continue };
        let floor = floor_of(home).unwrap_or_else(|| panic!("{} has no floor: give it one in FLOORS", source.name));
        for Import { line, path, .. } in all.imports(source) {
            let Some(module) = path.first() else { continue };
            let breaks = floor_of(module).is_some_and(|other| other >= floor) && module != home;
            let exception = IMPORT_EXCEPTIONS.iter().find(|(file, to, _)| *file == source.name && to == module);
            if let Some((file, to, _)) = exception.filter(|_| breaks) {
                unused.remove(&(*file, *to));
            } else if breaks {
                wrong.push(format!("{}:{line}: `{home}` (floor {floor}) imports `{module}`", source.name));
            }
        }
    }
    assert!(wrong.is_empty(), "imports that point up or sideways:\n{}", wrong.join("\n"));
    assert!(unused.is_empty(), "exceptions that are no longer needed, remove them: {unused:?}");
}

#[test]
fn no_imports_within_a_folder_make_a_circle() {
    let sources = sources();
    let arrows = Crate::new(&sources).arrows();
    let circles = circles(&arrows);
    let found: Vec<_> = circles.iter().map(|(folder, circle)| (folder.clone(), shown(circle))).collect();
    check_against_exceptions(&found, CIRCLE_EXCEPTIONS, "import circles");
}

fn shown(circle: &[&Arrow<'_>]) -> String {
    let arrows = circle.iter().map(|Arrow { from, line, to }| format!("{}:{line} -> {}", from.name, to.name));
    arrows.collect::<Vec<_>>().join("\n  ")
}

/// Each finding must have an exception of its folder or file, and each exception a finding.
fn check_against_exceptions(found: &[(String, String)], exceptions: &[(&str, &str)], what: &str) {
    let covers = |excepted: &str, place: &str| place == excepted || place.starts_with(&format!("{excepted}/"));
    let is_excepted = |place: &str| exceptions.iter().any(|(excepted, _)| covers(excepted, place));
    let is_used = |excepted: &str| found.iter().any(|(place, _)| covers(excepted, place));
    let wrong = found.iter().filter(|(place, _)| !is_excepted(place));
    let wrong: Vec<_> = wrong.map(|(place, finding)| format!("{place}\n  {finding}")).collect();
    let unused: Vec<_> = exceptions.iter().filter(|(excepted, _)| !is_used(excepted)).collect();
    assert!(wrong.is_empty(), "{what}:\n{}", wrong.join("\n"));
    assert!(unused.is_empty(), "exceptions that are no longer needed, remove them: {unused:?}");
}

#[test]
fn unsafe_code_stands_only_in_net() {
    for source in &sources() {
        let in_net = source.module.first().is_some_and(|module| module == "net");
        assert!(in_net || !source.uses("unsafe"), "{}: `unsafe` may stand in src/net only", source.name);
    }
}

#[test]
fn files_stay_short() {
    let mut wrong = Vec::new();
    for source in &sources() {
        let lines = source.text.lines().count();
        let exception = LENGTH_EXCEPTIONS.iter().find(|(file, ..)| *file == source.name);
        let most = exception.map_or(MAX_LINES, |(_, most, _)| *most);
        if lines > most {
            wrong.push(format!("{}: {lines} lines before its tests; at most {most}: split it", source.name));
        } else if exception.is_some() && lines <= MAX_LINES {
            wrong.push(format!("{}: short enough now; remove its exception", source.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn functions_stay_short() {
    let sources = sources();
    let functions = sources.iter().flat_map(|source| source.functions().into_iter().map(move |found| (source, found)));
    let long = functions.filter(|(_, (_, _, lines))| *lines > MAX_FUNCTION_LINES);
    let found =
        long.map(|(source, (name, line, lines))| (source.name.clone(), format!("{line}: {name}: {lines} lines")));
    check_against_exceptions(&found.collect::<Vec<_>>(), FUNCTION_EXCEPTIONS, "functions that are too long");
}

#[test]
fn lines_of_code_stay_narrow() {
    let files = ["src", "tests", "benches", "fuzz"].iter().flat_map(|folder| files_under(folder, "rs"));
    let mut found = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        found.extend(wide_lines(text.lines()).map(|finding| (name_of(&file), finding)));
    }
    check_against_exceptions(&found, COLUMN_EXCEPTIONS, "lines that are too wide");
}

/// In documents tables, blocks of code and single links can't be broken.
#[test]
fn lines_of_documents_stay_narrow() {
    let mut found = Vec::new();
    for file in files_under("", "md") {
        let text = fs::read_to_string(&file).unwrap();
        let mut is_code = false;
        let lines = text.lines().map(|line| {
            is_code ^= line.trim_start().starts_with("```");
            let is_link = line.starts_with(['[', '!']) && line.ends_with(')') && line.matches("](").count() == 1;
            if is_code || is_link || line.starts_with('|') { "" } else { line }
        });
        found.extend(wide_lines(lines).map(|finding| (name_of(&file), finding)));
    }
    check_against_exceptions(&found, COLUMN_EXCEPTIONS_OF_DOCUMENTS, "lines that are too wide");
}

fn wide_lines<'a>(lines: impl Iterator<Item = &'a str>) -> impl Iterator<Item = String> {
    let numbered = (1..).zip(lines.map(|line| line.chars().count()));
    let wide = numbered.filter(|(_, columns)| *columns > MAX_COLUMNS);
    wide.map(|(number, columns)| format!("{number}: {columns} columns"))
}

#[test]
fn every_file_says_what_it_is_for() {
    for source in &sources() {
        assert!(source.text.starts_with("//! "), "{}: starts without a `//!` that says its purpose", source.name);
    }
}

#[test]
fn every_test_that_a_document_names_is_there() {
    let document = fs::read_to_string(root().join("docs/internals/faults.md")).unwrap();
    let names: Vec<_> = document.split('`').filter_map(|code| code.split_once("::")).collect();
    assert!(names.len() > 40, "{names:?}");
    for (file, test) in names {
        let text = fs::read_to_string(root().join(format!("tests/it/{file}.rs"))).unwrap();
        assert!(
            text.contains(&format!("#[test]\nfn {test}() {{")),
            "docs/internals/faults.md: {file}.rs has no test {test}"
        );
    }
}

#[test]
fn architecture_has_every_module_on_its_floor() {
    let document = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    for (module, floor) in FLOORS {
        let exists = document.lines().any(|line| line.starts_with(&format!("{floor}  {module} ")));
        assert!(exists, "ARCHITECTURE.md: `{module}` is missing on floor {floor}");
    }
}

#[test]
fn everything_that_architecture_names_exists() {
    let document = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let sources = sources();
    let mut names = 0;
    // In backticks, one for words and three for blocks, is every second part.
    for code in document.split('`').skip(1).step_by(2) {
        let words = code.split(|c: char| !c.is_alphanumeric() && !"_:./".contains(c));
        for word in words.map(|word| word.trim_matches([':', '.', '/'])).filter(|word| !word.is_empty()) {
            let is_name =
                word == code || word.contains("::") || word.contains('_') || word.starts_with(char::is_uppercase);
            let exists = if word.contains(['.', '/']) {
                is_path(word, &sources)
            } else {
                // Other words of a block, and the kernel's names, are not ours.
                !is_name || !word.contains(char::is_lowercase) || is_used(word, &sources)
            };
            assert!(exists, "ARCHITECTURE.md names `{word}`, which is not in src/");
            names += usize::from(is_name);
        }
    }
    assert!(names > 100, "only {names} names");
}

/// Whether a file or folder has this path, or ends so: from the root, from `src/`, or within a folder that was named.
fn is_path(path: &str, sources: &[Source]) -> bool {
    let from = |folder: &str, extension: &str| root().join(format!("{folder}{path}{extension}")).exists();
    let ends_so = |source: &Source| source.name.ends_with(&format!("/{path}"));
    from("", "") || from("src/", "") || from("src/", ".rs") || sources.iter().any(ends_so)
}

/// Whether one file uses all names of `Type::function`, or is the module of `module::function`.
fn is_used(path: &str, sources: &[Source]) -> bool {
    let has = |source: &Source, name: &str| source.uses(name) || source.module.last().is_some_and(|last| last == name);
    sources.iter().any(|source| path.split("::").all(|name| has(source, name)))
}

#[test]
fn each_foreign_format_and_runtime_keeps_to_its_place() {
    for source in &sources() {
        assert!(
            !source.uses("serde_yaml") || source.name == "src/config/yaml/tree.rs",
            "{} uses serde_yaml",
            source.name
        );
        if source.module.first().is_some_and(|module| module == "protocol") {
            let impure = ["tokio", "hyper", "rustix", "socket2"].iter().find(|library| source.uses(library));
            assert!(impure.is_none(), "{} uses {impure:?}: protocol is bytes in, value out", source.name);
        }
    }
}
