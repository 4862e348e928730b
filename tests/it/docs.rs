//! The documents are true: what they link to exists, what they show as a configuration is one, the commands in them are
//! commands, and the labels of metrics are those of a scrape.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Folder, Lb, get, greeter, greeting, run_to_end};

/// A block of code in a document.
struct Block {
    /// File and line, for messages.
    place: String,
    /// What follows the opening fence, such as `yaml`.
    language: String,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn shown(file: &Path) -> String {
    file.strip_prefix(root()).unwrap_or(file).display().to_string()
}

/// README and everything of the book, in the order of their names.
fn documents() -> Vec<PathBuf> {
    let mut found = vec![root().join("README.md")];
    let mut folders = vec![root().join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn blocks() -> Vec<Block> {
    let mut blocks = Vec::new();
    for file in documents() {
        let text = fs::read_to_string(&file).unwrap();
        let mut open: Option<(Block, usize)> = None;
        for (number, line) in (1..).zip(text.lines()) {
            let indent = line.len() - line.trim_start().len();
            let fence = line.trim_start().strip_prefix("```");
            match (&mut open, fence) {
                (None, Some(language)) => {
                    let place = format!("{}:{number}", shown(&file));
                    open = Some((Block { place, language: language.trim().to_owned(), text: String::new() }, indent));
                }
                (Some(_), Some(_)) => blocks.extend(open.take().map(|(block, _)| block)),
                (Some((block, indent)), None) => {
                    block.text += line.get(*indent..).unwrap_or_default();
                    block.text.push('\n');
                }
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{}: a block of code has no end", shown(&file));
    }
    blocks
}

/// Text without what is in backticks, which may look like a link.
fn without_code(text: &str) -> String {
    let mut is_block = false;
    let prose = text.lines().filter(|line| {
        let is_fence = line.trim_start().starts_with("```");
        is_block ^= is_fence;
        !is_block && !is_fence
    });
    prose.collect::<Vec<_>>().join("\n").split('`').step_by(2).collect()
}

/// The targets of links and pictures.
fn links(text: &str) -> impl Iterator<Item = String> {
    let text = without_code(text);
    let targets: Vec<_> =
        text.split("](").skip(1).filter_map(|rest| rest.split(')').next()).map(str::to_owned).collect();
    targets.into_iter()
}

/// The anchors of a document's headings, as GitHub makes them.
fn anchors(text: &str) -> Vec<String> {
    let headings =
        text.lines().filter_map(|line| line.strip_prefix('#')).map(|line| line.trim_start_matches('#').trim());
    let anchor = |heading: &str| -> String {
        let text = heading.to_lowercase().replace(' ', "-");
        text.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn what_documents_link_to_exists() {
    let others = ["ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "deploy/README.md"];
    let mut broken = Vec::new();
    for file in documents().into_iter().chain(others.iter().map(|name| root().join(name))) {
        let text = fs::read_to_string(&file).unwrap();
        for link in links(&text).filter(|link| !link.contains("://") && !link.starts_with("mailto:")) {
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if path.is_empty() { file.clone() } else { file.parent().unwrap().join(path) };
            let is_there = if anchor.is_empty() {
                target.exists()
            } else {
                fs::read_to_string(&target).is_ok_and(|text| anchors(&text).iter().any(|known| known == anchor))
            };
            if !is_there {
                broken.push(format!("{}: {link}", shown(&file)));
            }
        }
    }
    assert!(broken.is_empty(), "links that lead nowhere:\n{}", broken.join("\n"));
}

#[test]
fn the_book_has_every_page_and_the_readme_is_short() {
    let summary = root().join("docs/SUMMARY.md");
    let listed: Vec<_> =
        links(&fs::read_to_string(&summary).unwrap()).map(|link| root().join("docs").join(link)).collect();
    let docs = root().join("docs");
    for page in documents().iter().filter(|page| page.starts_with(&docs) && **page != summary) {
        assert!(listed.contains(page), "docs/SUMMARY.md has no {}", shown(page));
    }
    let lines = fs::read_to_string(root().join("README.md")).unwrap().lines().count();
    assert!(lines <= 150, "README.md has {lines} lines: the rest belongs into docs/");
}

/// `yaml` is a whole lb.yaml; `yaml fragment` a part of one, which is completed here; of `yaml alternatives` each line
/// is such a part. `yml` belongs to another program.
#[test]
fn each_configuration_that_documents_show_is_valid() {
    let mut configurations = Vec::new();
    for Block { place, language, text } in blocks() {
        match language.as_str() {
            "yaml" => configurations.push((place, text)),
            "yaml fragment" => configurations.push((place, completed(&text))),
            "yaml alternatives" => {
                configurations.extend(text.lines().map(|line| (place.clone(), completed(&format!("{line}\n")))));
            }
            _ => {}
        }
    }
    assert!(configurations.len() >= 30, "{} configurations", configurations.len());
    let mut wrong = Vec::new();
    for (place, text) in configurations {
        let folder = Folder::new();
        folder.write("lb.yaml", &text);
        let output = run_to_end(folder.path(), &["check"], &[]);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        let problems: Vec<_> = errors.lines().filter(|line| line.starts_with("error: ")).collect();
        let others = problems.iter().filter(|line| !is_lack_of_this_machine(line));
        wrong.extend(others.map(|line| format!("{place}: {line}")));
        assert_eq!(output.status.success(), problems.is_empty(), "{place}: {errors}");
    }
    assert!(wrong.is_empty(), "mark a part of a configuration as `yaml fragment`:\n{}", wrong.join("\n"));
}

/// The files and variables that a configuration names, such as certificates, need not be there.
fn is_lack_of_this_machine(problem: &str) -> bool {
    problem.contains("No such file or directory") || problem.contains("which the environment doesn't have")
}

/// A whole configuration that has this part: an address to listen on and a backend are added where they are missing.
fn completed(part: &str) -> String {
    let has = |key: &str| part.lines().any(|line| line.starts_with(&format!("{key}:")));
    let mut whole = part.to_owned();
    if !has("listen") && !has("listeners") {
        whole += if has("pools") { "listeners: {all: {bind: 127.0.0.1:8080}}\n" } else { "listen: 127.0.0.1:8080\n" };
    }
    if !has("backends") && !has("pools") {
        whole += if has("listeners") {
            "pools: {all: {backends: [127.0.0.1:3001]}}\n"
        } else {
            "backends: [127.0.0.1:3001]\n"
        };
    }
    whole
}

/// Those that need neither a running balancer nor a file of the user's are run; of the others, the flags are parsed:
/// clap reports an unknown one before it comes to `--help`.
#[test]
fn each_command_that_documents_show_is_one() {
    let folder = Folder::new();
    folder.write("lb.yaml", fs::read_to_string(root().join("lb.yaml")).unwrap());
    fs::create_dir(folder.path().join("bin")).unwrap();
    symlink(env!("CARGO_BIN_EXE_lb"), folder.path().join("bin/lb")).unwrap();
    let path = format!("{}:/usr/bin:/bin", folder.path().join("bin").display());
    let (mut count, mut wrong) = (0, Vec::new());
    for block in blocks().into_iter().filter(|block| block.language == "sh") {
        for line in block.text.lines().map(without_comment).filter(|line| is_lb(line)) {
            count += 1;
            let line = match line.split_once(" > ") {
                Some((command, _)) => command.to_owned(),
                None => line,
            };
            let is_run = ["lb check", "lb check --print", "lb schema"].contains(&line.as_str())
                || line.ends_with(" lb check --print")
                || line.starts_with("lb completions ");
            let line = if is_run { line } else { format!("{line} --help") };
            let output = Command::new("sh")
                .args(["-c", &line])
                .current_dir(folder.path())
                .env_clear()
                .env("PATH", &path)
                .output()
                .unwrap();
            if !output.status.success() {
                wrong.push(format!("{}: {line}\n{}", block.place, String::from_utf8_lossy(&output.stderr)));
            }
        }
    }
    assert!(count >= 20, "{count} commands");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn without_comment(line: &str) -> String {
    line.split("  #").next().unwrap_or_default().trim().to_owned()
}

/// Whether it starts `lb`, perhaps with variables before it.
fn is_lb(line: &str) -> bool {
    line == "lb" || line.starts_with("lb ") || line.starts_with("LB_") && line.contains(" lb ")
}

#[test]
fn the_labels_of_each_metric_are_those_of_a_scrape() {
    let page = fs::read_to_string(root().join("docs/reference/metrics.md")).unwrap();
    let documented: BTreeMap<String, Vec<String>> = page.lines().filter_map(documented_labels).collect();
    assert!(documented.len() > 30, "{} metrics", documented.len());
    let server = greeter("here");
    let checks = "health_check={interval: 50ms, timeout: 1s}";
    let lb = Lb::in_front_of(&[server.address()]).with(&["--set", checks]).start();
    assert_eq!(greeting(lb.address()), "here");
    let scrape = lb.ask("/metrics").body;
    let mut seen = 0;
    for line in scrape.lines().filter(|line| line.starts_with("lb_") && !line.starts_with("lb_process_")) {
        let (series, _) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        let known = documented.get(name).or_else(|| documented.get(base?));
        let known = known.unwrap_or_else(|| panic!("docs/reference/metrics.md has no {name}"));
        let mut found: Vec<_> = labels
            .trim_end_matches('}')
            .split(',')
            .filter_map(|label| label.split_once('='))
            .map(|(key, _)| key)
            .collect();
        found.retain(|key| *key != "le");
        let mut known: Vec<&str> = known.iter().map(String::as_str).collect();
        found.sort_unstable();
        known.sort_unstable();
        assert_eq!(found, known, "{name}");
        seen += 1;
    }
    assert!(seen > 50, "{seen} series");
    assert_eq!(get(lb.admin(), "/healthz").status, 200);
}

/// The name and labels of a row of the reference's table.
fn documented_labels(row: &str) -> Option<(String, Vec<String>)> {
    let mut cells = row.strip_prefix("| `lb_")?.split(" | ");
    let name = format!("lb_{}", cells.next()?.trim_end_matches('`'));
    let labels = cells.next()?.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    Some((name, labels))
}
