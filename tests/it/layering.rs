//! The house rules of ARCHITECTURE.md, read from the sources: floors, unsafe code, length, what a file is for; and that the
//! tests that a document names are there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Every top-level module and its floor. A module imports only from lower floors, never from a neighbour.
const FLOORS: &[(&str, u8)] = &[
    ("main", 7),
    ("cli", 6),
    ("server", 5),
    ("admin", 4),
    ("proxy", 4),
    ("balancer", 3),
    ("backends", 2),
    ("relay", 2),
    ("access_log", 2),
    ("config", 1),
    ("protocol", 0),
    ("net", 0),
    ("lifecycle", 0),
    ("telemetry", 0),
    ("labels", 0),
];

/// Imports that break the rule, each with the reason why it is still there: (file, imported module, reason).
/// An entry that is no longer needed fails the test, so the table can only shrink.
const IMPORT_EXCEPTIONS: &[(&str, &str, &str)] = &[];

/// Lines that a file may have before its tests.
const MAX_LINES: usize = 400;

/// Files that are longer: (file, lines at most, reason).
const LENGTH_EXCEPTIONS: &[(&str, usize, &str)] = &[];

struct Source {
    /// From the repository's root.
    name: String,
    /// The modules that it is in: `["config", "file"]`.
    modules: Vec<String>,
    /// The text before its tests.
    text: String,
    /// All of it, comments and strings blanked.
    code: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    gather(&root.join("src"), &mut files);
    assert!(files.len() > 20, "the sources are under src/");
    files.iter().map(|file| read(root, file)).collect()
}

fn gather(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            gather(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn read(root: &Path, file: &Path) -> Source {
    let text = fs::read_to_string(file).unwrap();
    let name = file.strip_prefix(root).unwrap().display().to_string();
    let path = name.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    let modules = path.split('/').filter(|module| *module != "lib").map(str::to_owned).collect();
    let code = without_comments_and_strings(&text);
    let before_tests = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default().to_owned();
    Source { name, modules, code, text: before_tests }
}

/// Blanks comments, strings and character literals; line breaks stay.
fn without_comments_and_strings(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let blanked = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if first == '"' {
            1 + string_length(&rest[1..])
        } else if let Some(hashes) = raw_string_hashes(rest) {
            let closing = format!("\"{}", "#".repeat(hashes));
            let opening = hashes + 2;
            rest[opening..].find(&closing).map_or(rest.len(), |end| opening + end + closing.len())
        } else if ["'\"'", "'\\\"'", "'\\''", "'{'", "'/'"].iter().any(|literal| rest.starts_with(literal)) {
            rest[1..].find('\'').map_or(rest.len(), |end| end + 2)
        } else {
            0
        };
        if blanked == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            // Byte for byte, so that places in the code are places in the text.
            code.extend(rest[..blanked].bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }));
            rest = &rest[blanked..];
        }
    }
    code
}

fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn raw_string_hashes(text: &str) -> Option<usize> {
    let after_r = text.strip_prefix('r')?;
    let hashes = after_r.bytes().take_while(|byte| *byte == b'#').count();
    after_r[hashes..].starts_with('"').then_some(hashes)
}

/// The names that follow `prefix` wherever it stands: one, or those of a `{…}` list.
fn names_after<'a>(code: &'a str, prefix: &str) -> Vec<(usize, &'a str)> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for (at, _) in code.match_indices(prefix) {
        if code[..at].ends_with(is_name) {
            continue;
        }
        let line = code[..at].matches('\n').count() + 1;
        let rest = &code[at + prefix.len()..];
        match rest.strip_prefix('{') {
            Some(list) => found.extend(items_of(list).into_iter().map(|name| (line, name))),
            None => found.push((line, &rest[..rest.find(|c| !is_name(c)).unwrap_or(rest.len())])),
        }
    }
    found
}

/// The first name of each item of a `{…}` list, inner lists passed over.
fn items_of(list: &str) -> Vec<&str> {
    let mut depth = 0;
    let mut start = 0;
    let mut items = Vec::new();
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            ',' | '}' if depth == 0 => {
                items.push(list[start..at].trim().split("::").next().unwrap_or_default());
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    items.retain(|item| !item.is_empty());
    items
}

/// The top-level modules that a file names, with the line: by `crate::`, by `lb::`, and by enough `super::` to get there.
fn imports(source: &Source) -> Vec<(usize, &str)> {
    let mut found = names_after(&source.code, "crate::");
    found.extend(names_after(&source.code, "lb::"));
    let to_the_root = "super::".repeat(source.modules.len());
    if !source.modules.is_empty() {
        // Within `mod tests` one step more is needed: a match there is a path of this file's own parent.
        let before_tests = source.code.len().min(source.text.len());
        found.extend(names_after(&source.code[..before_tests], &to_the_root));
    }
    found
}

fn floor_of(module: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == module).map(|(_, floor)| *floor)
}

#[test]
fn modules_import_only_from_lower_floors() {
    let mut wrong = Vec::new();
    let mut unused: BTreeSet<_> = IMPORT_EXCEPTIONS.iter().map(|(file, module, _)| (*file, *module)).collect();
    let sources = sources();
    for source in &sources {
        let Some(home) = source.modules.first() else { continue };
        let floor = floor_of(home).unwrap_or_else(|| panic!("{} has no floor: give it one in FLOORS", source.name));
        for (line, module) in imports(source) {
            let excepted = (source.name.as_str(), module);
            let is_excepted = IMPORT_EXCEPTIONS.iter().any(|(file, module, _)| (*file, *module) == excepted);
            let breaks = floor_of(module).is_some_and(|other| other >= floor) && module != home;
            if breaks && is_excepted {
                unused.remove(&excepted);
            } else if breaks {
                wrong.push(format!("{}:{line}: `{home}` (floor {floor}) imports `{module}`", source.name));
            }
        }
    }
    assert!(wrong.is_empty(), "imports that point up or sideways:\n{}", wrong.join("\n"));
    assert!(unused.is_empty(), "exceptions that are no longer needed, remove them: {unused:?}");
}

#[test]
fn unsafe_code_stands_only_in_net() {
    for source in &sources() {
        let is_unsafe = names_after(&source.code, "unsafe").iter().any(|(_, rest)| !rest.starts_with('_'));
        let in_net = source.modules.first().is_some_and(|module| module == "net");
        assert!(in_net || !is_unsafe, "{}: `unsafe` may stand in src/net only", source.name);
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
fn every_file_says_what_it_is_for() {
    for source in &sources() {
        assert!(source.text.starts_with("//! "), "{}: starts without a `//!` that says its purpose", source.name);
    }
}

#[test]
fn every_test_that_a_document_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = fs::read_to_string(root.join("docs/faults.md")).unwrap();
    let names: Vec<_> = document.split('`').filter_map(|code| code.split_once("::")).collect();
    assert!(names.len() > 40, "{names:?}");
    for (file, test) in names {
        let text = fs::read_to_string(root.join(format!("tests/it/{file}.rs"))).unwrap();
        assert!(text.contains(&format!("#[test]\nfn {test}() {{")), "docs/faults.md: {file}.rs has no test {test}");
    }
}

#[test]
fn each_foreign_format_and_runtime_keeps_to_its_place() {
    for source in &sources() {
        let uses = |library: &str| !names_after(&source.code, &format!("{library}::")).is_empty();
        assert!(!uses("serde_yaml") || source.name == "src/config/yaml/tree.rs", "{} uses serde_yaml", source.name);
        if source.modules.first().is_some_and(|module| module == "protocol") {
            let impure = ["tokio", "hyper", "rustix", "socket2"].iter().find(|library| uses(library));
            assert!(impure.is_none(), "{} uses {impure:?}: protocol is bytes in, value out", source.name);
        }
    }
}

#[test]
fn the_reader_of_sources_sees_code_and_nothing_else() {
    let text = "//! crate::a\nuse crate::{b, c::{d, e}, f};\nlet s = \"crate::g \\\" crate::h\"; /* crate::i */ x(crate::j::K)";
    let code = without_comments_and_strings(text);
    let names: Vec<&str> = names_after(&code, "crate::").into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, ["b", "c", "f", "j"]);
    assert_eq!(names_after(&code, "crate::")[0].0, 2, "the line");
}
