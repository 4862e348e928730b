//! Reads and edits `lb.yaml` as a tree, and prints the effective configuration. The only file that knows serde_yaml.
//!
//! A text becomes a tree, the short form is expanded to the long one, overrides are applied, and the tree is read into
//! `File`; all problems are gathered on the way.

use serde::Serialize;
use serde::de::{DeserializeOwned, IntoDeserializer};
use serde_path_to_error::Segment;
use serde_yaml::{Mapping, Value};

use crate::config::file::File;
use crate::config::file::health_check::{HealthCheckSpec, HttpCheckSpec};
use crate::config::file::listener::ListenerSpec;
use crate::config::file::off::means_off;
use crate::config::file::pool::{BackendSpec, PoolSpec};
use crate::config::file::tls::TlsClientSpec;
use crate::config::file::units::{TextOrBlock, UNREADABLE};
use crate::config::problem::{MAX_PROBLEMS, Problem};

use super::edit::{Edit, EditValue, Scope};
use super::humanize::{MISSING_FIELD, humanize};
use super::positions::Positions;
use super::report::{Reporter, duplicates};
use super::short_form::{DEFAULT_NAME, is_short_form_key, long_form_paths, short_form_keys};

/// The configuration as a tree that overrides can edit, with the origin of each part.
pub struct Tree {
    root: Mapping,
    report: Reporter,
}

impl Tree {
    /// Without a file: overrides have to give everything.
    pub fn empty() -> Self {
        Self::from_root(Mapping::new(), None, Positions::default())
    }

    /// Reads `text`, the content of `file`.
    ///
    /// # Errors
    /// The text is not YAML, or not a mapping.
    pub fn read(file: &str, text: &str) -> Result<Self, Vec<Problem>> {
        let positions = Positions::parse(text);
        let root = match serde_yaml::from_str::<Value>(text) {
            Ok(Value::Mapping(root)) => root,
            Ok(Value::Null) => Mapping::new(),
            Ok(_) => return Err(vec![Problem::at(format!("{file}:1:1"), "", "is not a block of `key: value` lines")]),
            // serde_yaml stops at the first duplicate and gives no place; `Positions` has them all.
            Err(_) if !positions.duplicates.is_empty() => return Err(duplicates(file, &positions)),
            Err(error) => {
                let at = error.location().map_or(String::new(), |at| format!(":{}:{}", at.line(), at.column()));
                let tab = error.location().and_then(|at| text.lines().nth(at.line().checked_sub(1)?));
                let is_tab = tab.is_some_and(|line| line.trim_start_matches(' ').starts_with('\t'));
                let remedy = if is_tab { "; write spaces in place of the tab that the line begins with" } else { "" };
                let message = format!("is not valid YAML: {error}{remedy}");
                return Err(vec![Problem::at(format!("{file}{at}"), "", message)]);
            }
        };
        Ok(Self::from_root(root, Some(file.to_owned()), positions))
    }

    fn from_root(root: Mapping, file: Option<String>, positions: Positions) -> Self {
        let mut tree = Self { root, report: Reporter { file, positions, ..Reporter::default() } };
        tree.expand_short_form();
        tree
    }

    /// Moves the keys of the short form to their places in the long form.
    fn expand_short_form(&mut self) {
        let long: Vec<&str> = ["listeners", "pools"].into_iter().filter(|key| self.root.contains_key(*key)).collect();
        let short: Vec<String> = self
            .root
            .keys()
            .filter_map(Value::as_str)
            .filter(|key| is_short_form_key(key))
            .map(str::to_owned)
            .collect();
        match (long.first(), short.first()) {
            (Some(long), Some(first)) => {
                let message = format!(
                    "is a key of the short form, and `{long}` of the long form: they can't be mixed; move `{first}` \
                     into the listener or pool that it is meant for"
                );
                let first = first.clone();
                self.report.problem(&first, message);
                for key in &short {
                    self.root.remove(key.as_str());
                }
            }
            (None, _) => {
                self.report.short_form = true;
                for key in &short {
                    let Some(value) = self.root.remove(key.as_str()) else { continue };
                    for path in long_form_paths(key) {
                        put(&mut self.root, &path, value.clone());
                    }
                }
            }
            (Some(_), None) => {}
        }
    }

    /// Applies overrides, later ones over earlier ones.
    pub fn apply(&mut self, edits: Vec<Edit>) {
        for edit in edits {
            if let Err(problem) = self.apply_one(edit) {
                self.report.problems.push(problem);
            }
        }
    }

    fn apply_one(&mut self, edit: Edit) -> Result<(), Problem> {
        let paths = self.absolute_paths(&edit)?;
        let Edit { path: written, value, origin, .. } = edit;
        let value = edit_value(value).map_err(|error| Problem::at(origin.clone(), &written, error))?;
        for path in paths {
            if !put(&mut self.root, &path, value.clone()) {
                return Err(Problem::at(origin, &written, "doesn't exist in the configuration"));
            }
            self.report.overridden.insert(path, origin.clone());
        }
        Ok(())
    }

    /// The paths from the root: a simple flag sets a key of the only listener or pool; `--set` may use the short form
    /// if the file does.
    fn absolute_paths(&self, edit: &Edit) -> Result<Vec<String>, Problem> {
        let section = match edit.scope {
            Scope::Global => {
                let first = edit.path.split(['.', '[']).next().unwrap_or_default();
                let long = if self.report.short_form { long_form_paths(first) } else { Vec::new() };
                if long.is_empty() {
                    return Ok(vec![edit.path.clone()]);
                }
                return Ok(long.into_iter().map(|path| path + &edit.path[first.len()..]).collect());
            }
            Scope::Listener => "listeners",
            Scope::Pool => "pools",
        };
        let names: Vec<&str> = match self.root.get(section) {
            Some(Value::Mapping(entries)) => entries.keys().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        match names[..] {
            [] => Ok(vec![format!("{section}.{DEFAULT_NAME}.{}", edit.path)]),
            [name] => Ok(vec![format!("{section}.{name}.{}", edit.path)]),
            [first, ..] => {
                let message = format!(
                    "sets a key of the only one of the {section}, but there are {}; choose one with --set, such as \
                     --set {section}.{first}.{}=VALUE",
                    names.len(),
                    edit.path
                );
                Err(Problem::at(edit.origin.clone(), "", message))
            }
        }
    }

    /// Reads the tree into `File`.
    pub fn into_file(self) -> (File, Reporter) {
        let further = if self.report.short_form { short_form_keys() } else { Vec::new() };
        let mut report = self.report;
        (read(self.root, &further, &mut report), report)
    }
}

/// Reads a block that is JSON as the file would be read.
///
/// # Errors
/// It is no block.
pub fn read_json<T: DeserializeOwned + Default>(json: &serde_json::Value) -> Result<(T, Reporter), Problem> {
    let Ok(Value::Mapping(root)) = serde_yaml::to_value(json) else {
        return Err(Problem::general("the body is no JSON object, such as {\"weight\": 2}"));
    };
    let mut report = Reporter::default();
    Ok((read(root, &[], &mut report), report))
}

/// A value that can't be read is reported, taken out of the tree and left at its default, and the tree is read again:
/// serde stops at the first error, which must not hide the others. `further` keys are known at the top.
fn read<T: DeserializeOwned + Default>(mut root: Mapping, further: &[&str], report: &mut Reporter) -> T {
    loop {
        let value = Value::Mapping(root.clone());
        match serde_path_to_error::deserialize::<_, T>(value.into_deserializer()) {
            Ok(read) => return read,
            Err(error) => {
                let path = error.path().to_string();
                let further = if path.contains(['.', '[']) { &[] } else { further };
                let message = error.inner().to_string();
                // A key that is missing because it could not be read was reported, and taken out, before.
                if !(message.starts_with(MISSING_FIELD) && report.knows_problem_in(&path)) {
                    report.problem(&path, humanize(&message, further));
                }
                let steps: Vec<&Segment> = error.path().iter().collect();
                if report.problems.len() >= MAX_PROBLEMS || !take_out(&mut root, &steps) {
                    return T::default();
                }
            }
        }
    }
}

/// The effective configuration as YAML, long form.
pub fn print(file: &File) -> String {
    serde_yaml::to_string(file).expect("`File` has text keys only, which YAML can hold")
}

/// The same without what is at its default; backends that have an address alone are written as texts.
pub fn print_compact(file: &File) -> String {
    let mut root = value_of(file);
    for (_, listener) in entries(&mut root, "listeners") {
        strip(listener, &value_of(&ListenerSpec::default()));
    }
    for (_, pool) in entries(&mut root, "pools") {
        for backend in pool.get_mut("backends").and_then(Value::as_sequence_mut).into_iter().flatten() {
            strip(backend, &value_of(&BackendSpec::from_text("")));
            let address = backend.as_mapping().filter(|block| block.len() == 1).and_then(|block| block.get("address"));
            if let Some(address) = address.cloned() {
                *backend = address;
            }
        }
        if let Some(check) = pool.get_mut("health_check").filter(|check| check.is_mapping()) {
            strip(check, &value_of(&HealthCheckSpec::default()));
            if let Some(http) = check.get_mut("http") {
                strip(http, &value_of(&HttpCheckSpec::default()));
            }
            if let Some(tls) = check.get_mut("tls").filter(|tls| tls.is_mapping()) {
                strip(tls, &value_of(&TlsClientSpec::default()));
                if tls.as_mapping().is_some_and(Mapping::is_empty) {
                    *tls = "on".into();
                }
            }
        }
        strip(pool, &value_of(&PoolSpec::default()));
    }
    strip(&mut root, &value_of(&File::default()));
    serde_yaml::to_string(&root).expect("it was made of a `File`")
}

fn value_of<T: Serialize>(value: &T) -> Value {
    serde_yaml::to_value(value).expect("the file's types have text keys only, which YAML can hold")
}

fn entries<'a>(root: &'a mut Value, section: &str) -> impl Iterator<Item = (&'a Value, &'a mut Value)> {
    let section = root.get_mut(section).and_then(Value::as_mapping_mut);
    section.into_iter().flat_map(|section| section.iter_mut())
}

/// Takes out what is as in `default`. `set_headers` has to say which defaults aren't wanted, so null stays there.
fn strip(value: &mut Value, default: &Value) {
    let (Value::Mapping(block), Value::Mapping(defaults)) = (value, default) else { return };
    block.retain(|key, own| match defaults.get(key) {
        Some(default) if own == default => false,
        Some(default) => {
            strip(own, default);
            true
        }
        None => true,
    });
}

fn edit_value(value: EditValue) -> Result<Value, String> {
    match value {
        EditValue::Text(text) => Ok(Value::String(text)),
        EditValue::Yaml(text) => serde_yaml::from_str(&text).map_err(|error| format!("`{text}` is not YAML: {error}")),
        EditValue::List(items) => Ok(Value::Sequence(items.into_iter().map(Value::String).collect())),
        EditValue::Backends(items) => {
            items.iter().map(|item| backend_value(item)).collect::<Result<_, _>>().map(Value::Sequence)
        }
    }
}

/// `ADDR[,weight=N][,backup[=N]]` as the file would have it.
fn backend_value(text: &str) -> Result<Value, String> {
    let mut parts = text.split(',');
    let mut block = Mapping::new();
    block.insert("address".into(), parts.next().unwrap_or_default().into());
    for part in parts {
        match part.split_once('=') {
            None if part == "backup" => block.insert("backup".into(), true.into()),
            Some(("backup", rank)) => {
                let rank: u8 = rank.parse().map_err(|_| format!("`{text}`: backup must be from 1 to 100"))?;
                block.insert("backup".into(), rank.into())
            }
            Some(("weight", number)) => {
                let weight: u16 = number.parse().map_err(|_| format!("`{text}`: weight must be from 0 to 256"))?;
                block.insert("weight".into(), weight.into())
            }
            _ => return Err(format!("`{text}`: `{part}` is unknown; write ADDR[,weight=N][,backup[=N]]")),
        };
    }
    Ok(Value::Mapping(block))
}

/// The steps of a path: `a.b[1]` is a, b, 1.
fn steps(path: &str) -> impl Iterator<Item = &str> {
    path.split(['.', '[']).map(|step| step.trim_end_matches(']'))
}

/// Puts `value` at `path`, making blocks on the way; `false`: the path leads through a value that is not a block.
fn put(root: &mut Mapping, path: &str, value: Value) -> bool {
    let mut slot: Option<&mut Value> = None;
    for step in steps(path) {
        if step.is_empty() {
            return false;
        }
        let next = match slot {
            None => Some(root.entry(step.into()).or_insert(Value::Null)),
            Some(Value::Sequence(items)) => step.parse().ok().and_then(|index: usize| items.get_mut(index)),
            Some(Value::Mapping(block)) => Some(block.entry(step.into()).or_insert(Value::Null)),
            Some(other) if is_no_block_yet(other) => {
                *other = Value::Mapping(Mapping::new());
                let Value::Mapping(block) = other else { return false };
                Some(block.entry(step.into()).or_insert(Value::Null))
            }
            Some(_) => None,
        };
        match next {
            Some(next) => slot = Some(next),
            None => return false,
        }
    }
    match slot {
        Some(slot) => *slot = value,
        None => return false,
    }
    true
}

/// Whether it is nothing, or switched off: setting one of its keys makes it a block.
fn is_no_block_yet(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => means_off(text),
        _ => false,
    }
}

/// Takes the value at the end of `steps` out of the tree, or the nearest one around it that exists. The tree gets
/// smaller each time, so that the reading comes to an end.
fn take_out(root: &mut Mapping, steps: &[&Segment]) -> bool {
    fn within(value: &mut Value, steps: &[&Segment]) -> bool {
        match (value, steps) {
            (Value::Mapping(block), [Segment::Map { key }, rest @ ..]) => {
                block.get_mut(key.as_str()).is_some_and(|inner| within(inner, rest))
                    || block.remove(key.as_str()).is_some()
            }
            // A key that isn't a text has no name in the path.
            (Value::Mapping(block), _) => {
                let wrong = block.keys().find(|key| !key.is_string()).cloned();
                wrong.is_some_and(|key| block.remove(key).is_some())
            }
            // An item that can't be read stays out by itself; the numbers of the others must not change.
            (Value::Sequence(items), [Segment::Seq { index }, rest @ ..]) => {
                let Some(item) = items.get_mut(*index).filter(|item| **item != UNREADABLE) else { return false };
                if !within(item, rest) {
                    *item = Value::String(UNREADABLE.to_owned());
                }
                true
            }
            (Value::Tagged(tagged), _) => within(&mut tagged.value, steps),
            _ => false,
        }
    }
    let mut value = Value::Mapping(std::mem::take(root));
    let done = within(&mut value, steps);
    if let Value::Mapping(mapping) = value {
        *root = mapping;
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_form_becomes_the_long_form() {
        let tree = Tree::read("lb.yaml", "listen: 127.0.0.1:1\nbackends: [127.0.0.1:2]\nattempts: 2\n").expect("reads");
        let (file, reporter) = tree.into_file();
        assert!(reporter.problems.is_empty(), "{:?}", reporter.problems);
        assert_eq!(file.listeners["default"].bind.0, ["127.0.0.1:1"]);
        assert_eq!(file.pools["default"].attempts, 2);
        assert_eq!(file.pools["default"].backends[0].address, "127.0.0.1:2");
    }

    fn paths(text: &str) -> Vec<String> {
        let (_, reporter) = Tree::read("lb.yaml", text).expect("reads").into_file();
        let mut paths: Vec<_> = reporter.problems.into_iter().map(|problem| problem.path).collect();
        paths.sort();
        paths
    }

    #[test]
    fn each_item_of_a_list_is_judged_by_itself() {
        let text = "listen: a\nroutes: [{sni: a, pool: 5, x: 1}, 7, {sni: b}, {sni: c, pool: d}, text]\n\
                    backends: [{address: [x], y: 1}, {adress: q}, 5, {weight: 1}]\n";
        let wrong = [
            "backends[0].address",
            "backends[0].y",
            "backends[1].adress",
            "backends[2]",
            "backends[3]",
            "routes[0].pool",
            "routes[0].x",
            "routes[1]",
            "routes[2]",
            "routes[4]",
        ];
        assert_eq!(paths(text), wrong);
    }

    #[test]
    fn keys_with_dots_and_keys_that_are_no_texts_hide_nothing() {
        assert_eq!(paths("\"a.b\": 1\n2: x\nlog: {\"c.d\": 1, [e]: 2, level: loud}\nworkers: many\n").len(), 6);
        assert_eq!(paths("pools: {\"a.b\": {x: 1}, c: {3: y, policy: z}}\n").len(), 3);
    }

    #[test]
    fn of_very_many_mistakes_the_first_are_reported() {
        let wrong = |lines: fn(usize) -> String| (0..5_000).map(lines).collect::<String>();
        assert_eq!(paths(&wrong(|number| format!("k{number}: 1\n"))).len(), MAX_PROBLEMS);
        let Err(problems) = Tree::read("lb.yaml", &wrong(|number| format!("k{}: 1\n", number / 2))) else {
            panic!("there are duplicate keys");
        };
        assert_eq!(problems.len(), MAX_PROBLEMS);
    }

    #[test]
    fn one_mistake_does_not_hide_the_next() {
        let text = "listn: x\nworkers: many\npools:\n  a:\n    attempts: -1\n    backends: [{adress: b}, 5]\n";
        let (_, reporter) = Tree::read("lb.yaml", text).expect("reads").into_file();
        let places: Vec<String> = reporter.problems.iter().filter_map(|problem| problem.place.clone()).collect();
        for place in ["lb.yaml:1:1", "lb.yaml:2:1", "lb.yaml:5:5", "lb.yaml:6:17", "lb.yaml:6:29"] {
            assert!(places.iter().any(|p| p == place), "{place} in {:#?}", reporter.problems);
        }
    }

    #[test]
    fn the_printed_form_reads_back_the_same() {
        let tree =
            Tree::read("lb.yaml", "listen: [a, b]\nbackends: [{address: c, weight: 5}]\nfailure_detection: off\n");
        let printed = print(&tree.expect("reads").into_file().0);
        let again = print(&Tree::read("printed", &printed).expect("reads").into_file().0);
        assert_eq!(printed, again);
        assert!(printed.contains("failure_detection: off"), "{printed}");
    }

    #[test]
    fn put_makes_blocks_and_refuses_to_go_through_a_text() {
        let mut root = Mapping::new();
        assert!(put(&mut root, "a.b.c", Value::from(1)));
        assert!(put(&mut root, "a.list", Value::Sequence(vec![Value::from(1)])));
        assert!(put(&mut root, "a.list[0]", Value::from(2)));
        assert!(!put(&mut root, "a.list[1]", Value::from(2)));
        assert!(!put(&mut root, "a.b.c.d", Value::from(2)));
    }
}
