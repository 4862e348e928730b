//! `lb schema`: the JSON Schema of lb.yaml.

use crate::config;

pub(super) fn schema() {
    println!("{}", serde_json::to_string_pretty(&config::schema()).expect("a schema has text keys only"));
}
