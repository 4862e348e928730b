//! A JSON Schema in words: the type of a value, its default, and the named definitions that it leads to.

use serde_json::{Map, Value};

use super::markdown::code;

/// Definitions by name.
pub(super) struct Schemas<'a>(pub(super) &'a Map<String, Value>);

impl<'a> Schemas<'a> {
    /// The blocks that a value may be or hold, each with what its path gets: nothing, `[]` or `.*`.
    pub(super) fn blocks(&self, value: &'a Value) -> Vec<(String, &'a str)> {
        if let Some((name, definition)) = self.definition(value) {
            if definition.get("properties").is_some() {
                return vec![(String::new(), name)];
            }
            return self.blocks(definition);
        }
        let inner = |key: &str, suffix: &str| {
            let blocks = value.get(key).map(|inner| self.blocks(inner)).unwrap_or_default();
            blocks.into_iter().map(|(rest, name)| (format!("{suffix}{rest}"), name)).collect::<Vec<_>>()
        };
        let choices = choices(value).iter().flat_map(|choice| self.blocks(choice));
        let mut blocks: Vec<_> =
            choices.chain(inner("items", "[]")).chain(inner("additionalProperties", ".*")).collect();
        blocks.dedup();
        blocks
    }

    /// What a value is, in words.
    pub(super) fn kind(&self, value: &'a Value) -> String {
        if let Some((name, definition)) = self.definition(value) {
            return match words(definition) {
                _ if definition.get("properties").is_some() => "block".to_owned(),
                words if words.is_empty() && choices(definition).is_empty() => spoken(name),
                words if words.is_empty() => self.kind(definition),
                words => words.iter().map(|(word, _)| code(word)).collect::<Vec<_>>().join(", "),
            };
        }
        let mut kinds: Vec<String> = Vec::new();
        // `false` is read as `off` everywhere.
        for choice in choices(value).iter().filter(|choice| choice.get("const") != Some(&Value::Bool(false))) {
            let kind = self.kind(choice);
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        if !kinds.is_empty() {
            return kinds.join(" or ");
        }
        let words = words(value);
        if !words.is_empty() {
            return words.iter().map(|(word, _)| code(word)).collect::<Vec<_>>().join(", ");
        }
        let of = |kind: &str| match kind {
            "array" => self.many("list of", value.get("items")),
            "object" => self.many("map of", value.get("additionalProperties")),
            other => plain(other).to_owned(),
        };
        match value.get("type") {
            Some(Value::String(kind)) => of(kind),
            Some(Value::Array(kinds)) => {
                kinds.iter().filter_map(Value::as_str).map(of).collect::<Vec<_>>().join(" or ")
            }
            _ => "any".to_owned(),
        }
    }

    fn many(&self, what: &str, inner: Option<&'a Value>) -> String {
        let inner = inner.map_or_else(|| "any".to_owned(), |inner| self.kind(inner));
        format!("{what} {inner}")
    }

    /// The words that a value may be, each with its meaning, where they have one.
    pub(super) fn meanings(&self, value: &'a Value) -> Vec<(&'a str, &'a str)> {
        let definition = self.definition(value).map_or(value, |(_, definition)| definition);
        let inner = choices(value).iter().flat_map(|choice| self.meanings(choice));
        words(definition).into_iter().filter(|(_, meaning)| !meaning.is_empty()).chain(inner).collect()
    }

    fn definition(&self, value: &'a Value) -> Option<(&'a str, &'a Value)> {
        let name = value.get("$ref")?.as_str()?.rsplit('/').next()?;
        Some((name, self.0.get(name)?))
    }
}

fn choices(value: &Value) -> &[Value] {
    let all = value.get("anyOf").or_else(|| value.get("oneOf").filter(|_| words(value).is_empty()));
    all.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The constants of an enum, each with its description.
fn words(value: &Value) -> Vec<(&str, &str)> {
    let text = |value: &'static str| value;
    let constants = value.get("enum").and_then(Value::as_array).into_iter().flatten();
    let plain = constants.filter_map(Value::as_str).map(|word| (word, text("")));
    let described = value.get("oneOf").and_then(Value::as_array).into_iter().flatten().filter_map(|choice| {
        Some((choice.get("const")?.as_str()?, choice.get("description").and_then(Value::as_str).unwrap_or_default()))
    });
    let single = value.get("const").and_then(Value::as_str).map(|word| (word, text("")));
    plain.chain(described).chain(single).collect()
}

fn plain(kind: &str) -> &str {
    match kind {
        "string" => "text",
        "boolean" => "`true`, `false`",
        "null" => "null",
        other => other,
    }
}

/// `DurationText` as `duration`.
pub(super) fn spoken(name: &str) -> String {
    let name = name.strip_suffix("Text").or_else(|| name.strip_suffix("Spec")).unwrap_or(name);
    let mut words = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.extend(letter.to_lowercase());
    }
    words
}
