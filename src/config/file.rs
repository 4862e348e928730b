//! The YAML mirror of the configuration: the shape of `lb.yaml`, its keys and their defaults.
//!
//! The only file that knows serde_yaml. It reads a text into a tree, brings the short form into the long one, applies
//! overrides, and reads the tree into [`File`], gathering every problem on the way. Whether the values make sense
//! together is `build`'s to say.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde::de::{self, Deserializer, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_yaml::{Mapping, Value};

use super::locate::Positions;
use super::overrides::{Edit, EditValue, Scope};
use super::units::{AutoOr, DurationText, OffOr, OneOrMany, Percent};
use super::{AccessLog, LogFormat, LogLevel, Mode, PolicyKind, Problem, RelayMode};

/// The name of the listener and of the pool in the short form.
pub const DEFAULT_NAME: &str = "default";
/// Problems listed for one file at most; the rest would be noise.
const MAX_PROBLEMS: usize = 100;

/// `lb.yaml`, long form, with the defaults filled in.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct File {
    pub listeners: BTreeMap<String, ListenerFile>,
    pub pools: BTreeMap<String, PoolFile>,
    pub admin: AdminFile,
    pub workers: AutoOr,
    pub max_connections: AutoOr,
    pub drain: DrainFile,
    pub relay: RelayFile,
    pub log: LogFile,
}

/// One listener.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListenerFile {
    pub bind: OneOrMany,
    pub mode: Mode,
    pub pool: Option<String>,
    pub max_connections: usize,
    pub timeouts: ListenerTimeoutsFile,
    pub access_log: bool,
}

impl Default for ListenerFile {
    fn default() -> Self {
        Self {
            bind: OneOrMany::default(),
            mode: Mode::Tcp,
            pool: None,
            max_connections: 0,
            timeouts: ListenerTimeoutsFile::default(),
            access_log: true,
        }
    }
}

/// A listener's time limits.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListenerTimeoutsFile {
    pub idle: DurationText,
    pub half_closed: DurationText,
}

impl Default for ListenerTimeoutsFile {
    fn default() -> Self {
        Self { idle: DurationText::seconds(600), half_closed: DurationText::seconds(60) }
    }
}

/// One pool of backends.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct PoolFile {
    pub policy: PolicyKind,
    pub backends: Vec<BackendFile>,
    pub connect_timeout: DurationText,
    pub attempts: usize,
    pub retry_budget: Percent,
    pub queue: QueueFile,
    pub failure_detection: OffOr<FailureDetectionFile>,
    pub health_check: OffOr<HealthCheckFile>,
    pub slow_start: DurationText,
    pub source: OneOrMany,
    pub resolve: ResolveFile,
    pub tcp: TcpFile,
}

impl Default for PoolFile {
    fn default() -> Self {
        Self {
            policy: PolicyKind::RoundRobin,
            backends: Vec::new(),
            connect_timeout: DurationText::seconds(2),
            attempts: 3,
            retry_budget: Percent(20),
            queue: QueueFile::default(),
            failure_detection: OffOr::On(FailureDetectionFile::default()),
            health_check: OffOr::Off,
            slow_start: DurationText::seconds(0),
            source: OneOrMany::default(),
            resolve: ResolveFile::default(),
            tcp: TcpFile::default(),
        }
    }
}

/// One backend: `host:port`, or a block with an address.
#[derive(Clone, Debug, Serialize)]
pub struct BackendFile {
    pub address: String,
    pub weight: u16,
    pub backup: bool,
    pub max_connections: usize,
}

/// Clients that may wait for room.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueueFile {
    pub length: usize,
    pub timeout: DurationText,
}

impl Default for QueueFile {
    fn default() -> Self {
        Self { length: 0, timeout: DurationText::seconds(1) }
    }
}

/// Active health checks.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct HealthCheckFile {
    pub interval: DurationText,
    pub timeout: DurationText,
    pub rise: usize,
    pub fall: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCheckFile>,
}

impl Default for HealthCheckFile {
    fn default() -> Self {
        Self { interval: DurationText::seconds(2), timeout: DurationText::seconds(1), rise: 2, fall: 3, http: None }
    }
}

/// A health check by GET.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpCheckFile {
    pub path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    pub status: OneOrMany,
}

impl Default for HttpCheckFile {
    fn default() -> Self {
        Self { path: "/".to_owned(), host: None, status: OneOrMany(vec!["200-399".to_owned()]) }
    }
}

/// How names of backends are resolved.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResolveFile {
    pub min_ttl: DurationText,
    pub max_ttl: DurationText,
    pub nameservers: OneOrMany,
}

impl Default for ResolveFile {
    fn default() -> Self {
        let nameservers = OneOrMany::default();
        Self { min_ttl: DurationText::seconds(1), max_ttl: DurationText::seconds(60), nameservers }
    }
}

/// Passive failure detection.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct FailureDetectionFile {
    pub failures: usize,
    pub window: DurationText,
    pub ejection: DurationText,
    pub max_ejection: DurationText,
    pub count_early_close: bool,
}

impl Default for FailureDetectionFile {
    fn default() -> Self {
        Self {
            failures: 3,
            window: DurationText::seconds(10),
            ejection: DurationText::seconds(10),
            max_ejection: DurationText::seconds(300),
            count_early_close: true,
        }
    }
}

/// Socket options towards clients and backends.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TcpFile {
    pub keepalive: DurationText,
    pub nodelay: bool,
    pub user_timeout: DurationText,
}

impl Default for TcpFile {
    fn default() -> Self {
        Self { keepalive: DurationText::seconds(60), nodelay: true, user_timeout: DurationText::seconds(0) }
    }
}

/// The admin server.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminFile {
    pub bind: String,
}

impl Default for AdminFile {
    fn default() -> Self {
        Self { bind: "127.0.0.1:9900".to_owned() }
    }
}

/// How it stops.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct DrainFile {
    pub grace: DurationText,
    pub timeout: DurationText,
}

impl Default for DrainFile {
    fn default() -> Self {
        Self { grace: DurationText::seconds(0), timeout: DurationText::seconds(30) }
    }
}

/// The relay.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RelayFile {
    pub mode: RelayMode,
}

/// Logs.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogFile {
    pub level: LogLevel,
    pub format: LogFormat,
    pub access: AccessLog,
}

impl<'de> Deserialize<'de> for BackendFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Block {
            address: String,
            #[serde(default = "one")]
            weight: u16,
            #[serde(default)]
            backup: bool,
            #[serde(default)]
            max_connections: usize,
        }
        fn one() -> u16 {
            1
        }
        struct AddressOrBlock;
        impl<'de> Visitor<'de> for AddressOrBlock {
            type Value = BackendFile;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "an address such as 127.0.0.1:3001, or a block such as {address: 127.0.0.1:3001, weight: 2}",
                )
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<BackendFile, E> {
                Ok(BackendFile { address: text.to_owned(), weight: 1, backup: false, max_connections: 0 })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<BackendFile, A::Error> {
                let block = Block::deserialize(de::value::MapAccessDeserializer::new(map))?;
                let Block { address, weight, backup, max_connections } = block;
                Ok(BackendFile { address, weight, backup, max_connections })
            }
        }
        deserializer.deserialize_any(AddressOrBlock)
    }
}

/// The configuration as a tree that overrides can edit, with the origin of each part.
pub struct Tree {
    root: Mapping,
    /// The file's name, for messages.
    file: Option<String>,
    positions: Positions,
    /// Paths that an override set, and what the user typed.
    overridden: HashMap<String, String>,
    short_form: bool,
    problems: Vec<Problem>,
}

impl Tree {
    /// A tree without a file: all is to come from overrides.
    pub fn empty() -> Self {
        Self::from_root(Mapping::new(), None, Positions::default())
    }

    /// Reads `text`, the content of `file`.
    ///
    /// # Errors
    /// The text is not YAML, or not a mapping.
    pub fn read(file: &str, text: &str) -> Result<Self, Vec<Problem>> {
        let positions = Positions::of(text);
        let root = match serde_yaml::from_str::<Value>(text) {
            Ok(Value::Mapping(root)) => root,
            Ok(Value::Null) => Mapping::new(),
            Ok(_) => return Err(vec![Problem::at(format!("{file}:1:1"), "", "is not a block of `key: value` lines")]),
            // serde_yaml stops at the first duplicate and gives no place; `Positions` has them all.
            Err(_) if !positions.duplicates.is_empty() => return Err(duplicates(file, &positions)),
            Err(error) => {
                let at = error.location().map_or(String::new(), |at| format!(":{}:{}", at.line(), at.column()));
                return Err(vec![Problem::at(format!("{file}{at}"), "", format!("is not valid YAML: {error}"))]);
            }
        };
        Ok(Self::from_root(root, Some(file.to_owned()), positions))
    }

    fn from_root(root: Mapping, file: Option<String>, positions: Positions) -> Self {
        let mut tree =
            Self { root, file, positions, overridden: HashMap::new(), short_form: false, problems: Vec::new() };
        tree.lengthen();
        tree
    }

    /// Brings the short form into the long one.
    fn lengthen(&mut self) {
        let long: Vec<&str> = ["listeners", "pools"].into_iter().filter(|key| self.root.contains_key(*key)).collect();
        let short: Vec<String> = self
            .root
            .keys()
            .filter_map(Value::as_str)
            .filter(|key| home_of(key).is_some())
            .map(str::to_owned)
            .collect();
        match (long.first(), short.first()) {
            (Some(long), Some(first)) => {
                let message = format!(
                    "is a key of the short form, and `{long}` of the long form: they can't be mixed; move `{first}` \
                     into the listener or pool that it is meant for"
                );
                let first = first.clone();
                self.problem(&first, &message);
                for key in &short {
                    self.root.remove(key.as_str());
                }
            }
            (None, _) => {
                self.short_form = true;
                for key in &short {
                    if let (Some(value), Some(path)) = (self.root.remove(key.as_str()), home_of(key)) {
                        put(&mut self.root, &path, value);
                    }
                }
            }
            (Some(_), None) => {}
        }
    }

    /// Applies overrides, later ones over earlier ones.
    pub fn apply(&mut self, edits: Vec<Edit>) {
        for edit in edits {
            match self.absolute_path(&edit) {
                Ok(path) => match edit_value(edit.value) {
                    Ok(value) => {
                        if put(&mut self.root, &path, value) {
                            self.overridden.insert(path, edit.origin);
                        } else {
                            let message = "names a place that doesn't exist in the configuration";
                            self.problems.push(Problem::at(edit.origin, &edit.path, message));
                        }
                    }
                    Err(error) => self.problems.push(Problem::at(edit.origin, &edit.path, error)),
                },
                Err(problem) => self.problems.push(problem),
            }
        }
    }

    /// Simple flags stand for a key of the only listener or pool; `--set` may use the short form where the file does.
    fn absolute_path(&self, edit: &Edit) -> Result<String, Problem> {
        let section = match edit.scope {
            Scope::Global => {
                let first = edit.path.split(['.', '[']).next().unwrap_or_default();
                return Ok(match home_of(first) {
                    Some(home) if self.short_form => format!("{home}{}", &edit.path[first.len()..]),
                    _ => edit.path.clone(),
                });
            }
            Scope::Listener => "listeners",
            Scope::Pool => "pools",
        };
        let names: Vec<&str> = match self.root.get(section) {
            Some(Value::Mapping(entries)) => entries.keys().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        match names[..] {
            [] => Ok(format!("{section}.{DEFAULT_NAME}.{}", edit.path)),
            [name] => Ok(format!("{section}.{name}.{}", edit.path)),
            [first, ..] => {
                let message = format!(
                    "stands for a key of the only one of the {section}, but there are {}; say which with --set, such \
                     as --set {section}.{first}.{}=VALUE",
                    names.len(),
                    edit.path
                );
                Err(Problem::at(edit.origin.clone(), "", message))
            }
        }
    }

    /// Reads the tree into the mirror. What can't be read is reported, taken out of the tree and left at its default,
    /// so that one mistake doesn't hide the next.
    pub fn into_file(mut self) -> (File, Reporter) {
        let mut root = std::mem::take(&mut self.root);
        let file = loop {
            let value = Value::Mapping(root.clone());
            match serde_path_to_error::deserialize::<_, File>(value.into_deserializer()) {
                Ok(file) => break file,
                Err(error) => {
                    let path = error.path().to_string();
                    let is_top = !path.contains(['.', '[']);
                    let further = if is_top && self.short_form { short_form_keys() } else { Vec::new() };
                    self.problem(&path, &reworded(&error.inner().to_string(), &further));
                    if self.problems.len() >= MAX_PROBLEMS || !take_out(&mut root, &path) {
                        break File::default();
                    }
                }
            }
        };
        let Self { file: name, positions, overridden, short_form, problems, .. } = self;
        (file, Reporter { file: name, positions, overridden, short_form, problems })
    }

    fn problem(&mut self, path: &str, message: &str) {
        let problem = locate(self.file.as_deref(), &self.positions, &self.overridden, self.short_form, path, message);
        self.problems.push(problem);
    }
}

/// Gathers problems, each with the place that the user can mend.
pub struct Reporter {
    file: Option<String>,
    positions: Positions,
    overridden: HashMap<String, String>,
    short_form: bool,
    /// What was found so far.
    pub problems: Vec<Problem>,
}

impl Reporter {
    /// Adds a problem with the key at `path`; what follows from one that is known already is not told again.
    pub fn problem(&mut self, path: &str, message: impl AsRef<str>) {
        let problem =
            locate(self.file.as_deref(), &self.positions, &self.overridden, self.short_form, path, message.as_ref());
        if !self.problems.iter().any(|known| known.path == problem.path) {
            self.problems.push(problem);
        }
    }

    /// `path` as the user writes it.
    pub fn shown(&self, path: &str) -> String {
        if self.short_form { shortened(path) } else { path.to_owned() }
    }
}

/// The effective configuration as YAML, long form.
pub fn print(file: &File) -> String {
    serde_yaml::to_string(file).expect("the mirror has text keys only, which YAML can hold")
}

fn locate(
    file: Option<&str>,
    positions: &Positions,
    overridden: &HashMap<String, String>,
    short_form: bool,
    path: &str,
    message: &str,
) -> Problem {
    let shown = if short_form { shortened(path) } else { path.to_owned() };
    let mut around = path;
    let origin = loop {
        if let Some(origin) = overridden.get(around) {
            break Some(origin.clone());
        }
        match around.rfind(['.', '[']) {
            Some(end) => around = &around[..end],
            None => break None,
        }
    };
    let place = origin.or_else(|| {
        file.map(|file| match positions.nearest(&shown) {
            Some(at) => format!("{file}:{}:{}", at.line, at.column),
            None => file.to_owned(),
        })
    });
    Problem { place, path: shown, message: message.to_owned() }
}

fn duplicates(file: &str, positions: &Positions) -> Vec<Problem> {
    let problem = |(path, first, again): &(String, super::locate::Position, super::locate::Position)| {
        let message = format!("stands twice (first in line {}); remove one", first.line);
        Problem::at(format!("{file}:{}:{}", again.line, again.column), path, message)
    };
    positions.duplicates.iter().map(problem).collect()
}

/// Where a key of the short form stands in the long form.
fn home_of(key: &str) -> Option<String> {
    if key == "listen" {
        Some(format!("listeners.{DEFAULT_NAME}.bind"))
    } else if field_names::<File>().contains(&key) {
        None
    } else if field_names::<ListenerFile>().contains(&key) && key != "bind" && key != "pool" {
        Some(format!("listeners.{DEFAULT_NAME}.{key}"))
    } else if field_names::<PoolFile>().contains(&key) {
        Some(format!("pools.{DEFAULT_NAME}.{key}"))
    } else {
        None
    }
}

/// The keys that stand at the top level in the short form only.
fn short_form_keys() -> Vec<&'static str> {
    let nested = field_names::<ListenerFile>().iter().chain(field_names::<PoolFile>());
    ["listen", "backends"]
        .into_iter()
        .chain(nested.copied().filter(|key| *key != "backends" && home_of(key).is_some()))
        .collect()
}

fn shortened(path: &str) -> String {
    let prefixes = [format!("listeners.{DEFAULT_NAME}."), format!("pools.{DEFAULT_NAME}.")];
    match prefixes.iter().find_map(|prefix| path.strip_prefix(prefix)) {
        Some("bind") => "listen".to_owned(),
        Some(rest) => rest.replacen("bind[", "listen[", usize::from(rest.starts_with("bind["))),
        None => path.to_owned(),
    }
}

/// The keys of a mirror type, as serde knows them.
fn field_names<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    struct Names<'a>(&'a mut &'static [&'static str]);
    impl<'de> Deserializer<'de> for Names<'_> {
        type Error = de::value::Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(de::Error::custom("only asks for the names"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            visitor: V,
        ) -> Result<V::Value, Self::Error> {
            *self.0 = fields;
            self.deserialize_any(visitor)
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }
    let mut names: &'static [&'static str] = &[];
    // Always an error: the names were all that it was asked for.
    let _ = T::deserialize(Names(&mut names));
    names
}

fn edit_value(value: EditValue) -> Result<Value, String> {
    let texts = |items: Vec<String>| Value::Sequence(items.into_iter().map(Value::String).collect());
    match value {
        EditValue::Text(text) => Ok(Value::String(text)),
        EditValue::Yaml(text) => serde_yaml::from_str(&text).map_err(|error| format!("`{text}` is not YAML: {error}")),
        EditValue::List(items) => Ok(texts(items)),
        EditValue::Backends(items) => {
            items.iter().map(|item| backend_value(item)).collect::<Result<_, _>>().map(Value::Sequence)
        }
    }
}

/// `ADDR[,weight=N][,backup]` as the file would have it.
fn backend_value(text: &str) -> Result<Value, String> {
    let mut parts = text.split(',');
    let mut block = Mapping::new();
    block.insert("address".into(), parts.next().unwrap_or_default().into());
    for part in parts {
        match part.split_once('=') {
            None if part == "backup" => block.insert("backup".into(), true.into()),
            Some(("weight", number)) => {
                let weight: u16 = number.parse().map_err(|_| format!("`{text}`: weight must be from 0 to 256"))?;
                block.insert("weight".into(), weight.into())
            }
            _ => return Err(format!("`{text}`: `{part}` is unknown; write ADDR[,weight=N][,backup]")),
        };
    }
    Ok(Value::Mapping(block))
}

/// The steps of a path: `a.b[1]` is a, b, 1.
fn steps(path: &str) -> impl Iterator<Item = &str> {
    path.split(['.', '[']).map(|step| step.trim_end_matches(']'))
}

/// Puts `value` at `path`, making blocks on the way; false where the path leads through something that is no block.
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
            Some(other @ Value::Null) => {
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

/// Takes what stands at `path` out of the tree, or the nearest thing around it that is there.
fn take_out(root: &mut Mapping, path: &str) -> bool {
    fn within(value: &mut Value, steps: &[&str]) -> bool {
        let [step, rest @ ..] = steps else { return false };
        match value {
            Value::Mapping(block) => {
                block.get_mut(*step).is_some_and(|inner| within(inner, rest)) || block.remove(*step).is_some()
            }
            Value::Sequence(items) => match step.parse::<usize>() {
                // An item that can't be read stays out by itself; the numbers of the others must not change.
                Ok(index) if index < items.len() => {
                    within(&mut items[index], rest) || {
                        items[index] = Value::String(UNREADABLE.to_owned());
                        true
                    }
                }
                _ => false,
            },
            _ => false,
        }
    }
    let mut value = Value::Mapping(std::mem::take(root));
    let done = within(&mut value, &steps(path).collect::<Vec<_>>());
    if let Value::Mapping(mapping) = value {
        *root = mapping;
    }
    done
}

/// Stands in a list for an item that was reported already; `build` passes over it.
pub(super) const UNREADABLE: &str = "\u{0}unreadable";

/// serde's words, made a remedy. `further` keys are known where an unknown one was found.
fn reworded(message: &str, further: &[&str]) -> String {
    let quoted = |text: &str| -> Vec<String> { text.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    if let Some(rest) = message.strip_prefix("unknown field ") {
        let words = quoted(rest);
        let Some((unknown, known)) = words.split_first() else { return message.to_owned() };
        let known: Vec<String> = further.iter().map(|key| (*key).to_owned()).chain(known.iter().cloned()).collect();
        return match nearest_word(unknown, &known) {
            Some(word) => format!("is an unknown key; did you mean `{word}`?"),
            None => format!("is an unknown key; known here: {}", known.join(", ")),
        };
    }
    if let Some(rest) = message.strip_prefix("unknown variant ") {
        let words = quoted(rest);
        let Some((unknown, known)) = words.split_first() else { return message.to_owned() };
        return format!("`{unknown}` is unknown; choose one of: {}", known.join(", "));
    }
    if let Some(field) = message.strip_prefix("missing field ") {
        return format!("has no {field}; add it");
    }
    let mismatch = message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "));
    match mismatch.and_then(|rest| rest.rsplit_once(", expected ")) {
        Some((found, expected)) => format!("is the {}; write {}", found.replace("sequence", "list"), remedy(expected)),
        None => message.to_owned(),
    }
}

/// What serde expected, in words that need no Rust.
fn remedy(expected: &str) -> &str {
    match expected {
        "u16" | "usize" => "a whole number, 0 or more",
        "a boolean" => "true or false",
        "a sequence" => "a list, such as [one, two]",
        "a map" => "a block of `key: value` lines",
        _ if expected.starts_with("struct ") => "a block of `key: value` lines",
        _ => expected,
    }
}

fn nearest_word<'a>(word: &str, known: &'a [String]) -> Option<&'a String> {
    let close = |candidate: &&String| strsim::damerau_levenshtein(word, candidate) <= 2;
    known.iter().filter(close).min_by_key(|candidate| strsim::damerau_levenshtein(word, candidate))
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

    #[test]
    fn one_mistake_does_not_hide_the_next() {
        let text = "listn: x\nworkers: many\npools:\n  a:\n    attempts: -1\n    backends: [{adress: b}, 5]\n";
        let (_, reporter) = Tree::read("lb.yaml", text).expect("reads").into_file();
        let places: Vec<String> = reporter.problems.iter().filter_map(|problem| problem.place.clone()).collect();
        for place in ["lb.yaml:1:1", "lb.yaml:2:1", "lb.yaml:5:5", "lb.yaml:6:16", "lb.yaml:6:29"] {
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
