//! docs/reference/configuration.md, from the types of lb.yaml by way of their schema.

use std::collections::{BTreeMap, VecDeque};

use serde_json::{Map, Value};

use super::markdown::{Page, code, link};
use super::schemas::{Schemas, spoken};

/// A block of settings, and every path at which it may stand.
struct Block<'a> {
    paths: Vec<String>,
    schema: &'a Value,
}

pub(super) fn page() -> String {
    let schema = crate::config::schema();
    let definitions = schema["$defs"].as_object().expect("the schema has definitions");
    let long = schema["anyOf"].as_array().and_then(|forms| forms.last()).expect("the long form comes last");
    let schemas = Schemas(definitions);
    let mut page = Page::new(
        "Configuration",
        "Every key of lb.yaml in its long form, with its type and default. In the short form (one listener and one \
         pool, both called `default`) `listen`, in place of `bind`, and every other key of a listener or a pool stand \
         at the top level; `tls` there is the listener's. `*` stands for a name, `[]` for each entry of a list. \
         Wherever `off` is a value, `false` and `no` mean the same. `lb check --print` shows the effective values of \
         all keys.",
    );
    let blocks = blocks(long, &schemas);
    for block in &blocks {
        write_block(&mut page, block, &blocks, &schemas);
    }
    write_values(&mut page, definitions);
    page.finish()
}

/// In the order of their first paths.
fn blocks<'a>(root: &'a Value, schemas: &Schemas<'a>) -> Vec<Block<'a>> {
    let mut blocks = vec![Block { paths: vec![String::new()], schema: root }];
    let mut known: BTreeMap<&str, usize> = BTreeMap::new();
    let mut waiting = VecDeque::from([0]);
    while let Some(index) = waiting.pop_front() {
        let (path, schema) = (blocks[index].paths[0].clone(), blocks[index].schema);
        for (key, value) in properties(schema) {
            for (suffix, name) in schemas.blocks(value) {
                let path = joined(&path, key) + &suffix;
                if let Some(known) = known.get(name) {
                    blocks[*known].paths.push(path);
                    continue;
                }
                known.insert(name, blocks.len());
                waiting.push_back(blocks.len());
                blocks.push(Block { paths: vec![path], schema: &schemas.0[name] });
            }
        }
    }
    blocks.sort_by(|one, other| one.paths[0].cmp(&other.paths[0]));
    blocks
}

fn write_block(page: &mut Page, block: &Block<'_>, blocks: &[Block<'_>], schemas: &Schemas<'_>) {
    page.heading(&title(&block.paths));
    if let [_, others @ ..] = &block.paths[..]
        && !others.is_empty()
    {
        page.paragraph(&format!("Also at {}.", others.iter().map(|path| code(path)).collect::<Vec<_>>().join(", ")));
    }
    let required: Vec<&str> = block
        .schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let row = |(key, value): (&String, &Value)| {
        let path = joined(&block.paths[0], key);
        let held = schemas.blocks(value);
        let kind = held.iter().fold(schemas.kind(value), |kind, (suffix, _)| {
            let path = format!("{path}{suffix}");
            let block = blocks.iter().find(|block| block.paths.contains(&path)).expect("it was found by its path");
            kind.replacen("block", &link("block", &title(&block.paths)), 1)
        });
        let default = match value.get("default") {
            _ if required.contains(&key.as_str()) => "required".to_owned(),
            None | Some(Value::Null) => String::new(),
            // Its keys have their own.
            Some(Value::Object(_)) if !held.is_empty() => String::new(),
            Some(Value::String(text)) => code(text),
            Some(other) => code(&other.to_string()),
        };
        [code(key), kind, default, meaning(value, schemas)]
    };
    page.table(["Key", "Type", "Default", "Meaning"], properties(block.schema).map(row));
}

fn meaning(value: &Value, schemas: &Schemas<'_>) -> String {
    let mut text = value.get("description").and_then(Value::as_str).unwrap_or_default().to_owned();
    for (word, meaning) in schemas.meanings(value) {
        text += &format!(" {}: {meaning}", code(word));
    }
    text
}

/// The types of values that are no block, and how they are written.
fn write_values(page: &mut Page, definitions: &Map<String, Value>) {
    page.heading("Values");
    let described = definitions.iter().filter(|(_, definition)| {
        definition.get("properties").is_none()
            && definition.get("enum").is_none()
            && definition.get("type").is_some_and(|kind| kind == "string" || kind.is_array())
    });
    let rows = described
        .filter_map(|(name, definition)| Some([spoken(name), definition.get("description")?.as_str()?.to_owned()]));
    page.table(["Type", "Is written as"], rows);
}

fn title(paths: &[String]) -> String {
    if paths[0].is_empty() { "Top level".to_owned() } else { code(&paths[0]) }
}

fn joined(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema.get("properties").and_then(Value::as_object).into_iter().flatten()
}
