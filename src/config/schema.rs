//! The JSON Schema of `lb.yaml`, made from the file's types, with which editors complete and check it.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::file::File;
use super::file::listener::ListenerSpec;
use super::file::pool::PoolSpec;
use super::yaml::is_short_form_key;

/// Draft 2020-12, for the short form and the long one.
pub fn schema() -> Value {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let long = object_of::<File>(&mut generator);
    let short = short_form(&mut generator, &long);
    let definitions = generator.take_definitions(true);
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "lb.yaml",
        "description":
            "Configuration of lb: a short form with one listener and one pool, or a long form with names for them.",
        "anyOf": [short, long],
        "$defs": definitions,
    })
}

/// A type's own schema, not a reference to it.
fn object_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Map<String, Value> {
    match T::json_schema(generator).to_value() {
        Value::Object(object) => object,
        other => unreachable!("a struct is an object, not {other}"),
    }
}

/// The long form's keys but for listeners and pools, and in their place the keys of both.
fn short_form(generator: &mut SchemaGenerator, long: &Map<String, Value>) -> Map<String, Value> {
    let (listener, pool) = (object_of::<ListenerSpec>(generator), object_of::<PoolSpec>(generator));
    let mut properties = properties_of(long);
    properties.retain(|key, _| !["listeners", "pools"].contains(&key.as_str()));
    if let Some(bind) = properties_of(&listener).remove("bind") {
        properties.insert("listen".to_owned(), bind);
    }
    // Of a key that both have, the listener's: `tls` is of that alone.
    let nested = properties_of(&pool).into_iter().chain(properties_of(&listener));
    properties.extend(nested.filter(|(key, _)| is_short_form_key(key)));
    let mut short = long.clone();
    short.insert("description".to_owned(), "Short form: one listener and one pool.".into());
    short.insert("properties".to_owned(), properties.into());
    short
}

fn properties_of(object: &Map<String, Value>) -> Map<String, Value> {
    object.get("properties").and_then(Value::as_object).cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_have_their_keys() {
        let schema = schema();
        let keys = |form: usize| schema["anyOf"][form]["properties"].as_object().expect("an object").clone();
        for key in ["listen", "backends", "mode", "policy", "timeouts", "http", "admin", "drain", "send_proxy"] {
            assert!(keys(0).contains_key(key), "{key}");
        }
        for key in ["listeners", "pools", "admin", "workers", "log"] {
            assert!(keys(1).contains_key(key), "{key}");
        }
        assert!(!keys(0).contains_key("listeners") && !keys(1).contains_key("listen"));
        assert_eq!(schema["anyOf"][0]["additionalProperties"], false, "a misspelt key is marked");
    }

    #[test]
    fn the_file_in_docs_is_this_one() {
        let documented: Value = serde_json::from_str(include_str!("../../docs/lb.schema.json")).expect("JSON");
        assert!(documented == schema(), "regenerate it: cargo run -- schema >docs/lb.schema.json");
    }
}
