//! docs/reference/api.md, from the OpenAPI description that the admin server gives out.

use serde_json::{Map, Value};

use super::markdown::{Page, code, link};
use super::schemas::Schemas;

pub(super) fn page() -> String {
    let description: Value = serde_json::from_str(include_str!("../admin/openapi.json")).expect("it is JSON");
    let mut page = Page::new("Admin API", text(&description["info"], "description"));
    page.paragraph("`GET /api/v1/openapi.json` has all of this as OpenAPI, for programs.");
    let paths = description["paths"].as_object().expect("it describes paths");
    let operations = paths.iter().flat_map(|(path, item)| {
        item.as_object().into_iter().flatten().filter(|(_, operation)| operation.get("responses").is_some()).map(
            move |(method, operation)| {
                let call = code(&format!("{} {path}", method.to_uppercase()));
                let what = format!("{}. {}", text(operation, "summary"), text(operation, "description"));
                [call, what.trim_end().to_owned(), answers(operation)]
            },
        )
    });
    page.table(["Call", "Does", "Answers"], operations);
    let schemas = description["components"]["schemas"].as_object().expect("it has schemas");
    for (name, schema) in schemas.iter().filter(|(_, schema)| schema.get("properties").is_some()) {
        write_object(&mut page, name, schema, schemas);
    }
    page.finish()
}

fn answers(operation: &Value) -> String {
    let of = |(status, response): (&String, &Value)| {
        let reference = response.pointer("/content/application~1json/schema/$ref").and_then(Value::as_str);
        match reference.and_then(|reference| reference.rsplit('/').next()) {
            Some(name) => format!("{status}: {}", link(name, name)),
            None => status.clone(),
        }
    };
    operation["responses"].as_object().into_iter().flatten().map(of).collect::<Vec<_>>().join(", ")
}

fn write_object(page: &mut Page, name: &str, schema: &Value, all: &Map<String, Value>) {
    let schemas = Schemas(all);
    page.heading(name);
    let properties = schema["properties"].as_object().into_iter().flatten();
    page.table(
        ["Key", "Type", "Meaning"],
        properties.map(|(key, value)| {
            let kind = schemas
                .blocks(value)
                .iter()
                .fold(schemas.kind(value), |kind, (_, block)| kind.replacen("block", &link(block, block), 1));
            [code(key), kind, text(value, "description").to_owned()]
        }),
    );
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}
