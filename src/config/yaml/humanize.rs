//! Rewrites serde's messages, which have names of Rust types, for users of the file.

/// serde's message as a problem and its remedy. `further` keys are valid too where an unknown one was found.
pub fn humanize(message: &str, further: &[&str]) -> String {
    if let Some(rest) = message.strip_prefix("unknown field ") {
        let words = quoted(rest);
        let Some((unknown, known)) = words.split_first() else { return message.to_owned() };
        let known: Vec<String> = further.iter().map(|key| (*key).to_owned()).chain(known.iter().cloned()).collect();
        return match nearest_word(unknown, &known) {
            Some(word) => format!("is an unknown key; did you mean `{word}`?"),
            None if known.is_empty() => "is an unknown key; this block has none".to_owned(),
            None => format!("is an unknown key; known here: {}", known.join(", ")),
        };
    }
    if let Some(rest) = message.strip_prefix("unknown variant ") {
        let words = quoted(rest);
        let Some((unknown, known)) = words.split_first() else { return message.to_owned() };
        return format!("`{unknown}` is unknown; choose one of: {}", known.join(", "));
    }
    if let Some(field) = message.strip_prefix(MISSING_FIELD) {
        return format!("has no {field}; add it");
    }
    let mismatch = message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "));
    match mismatch.and_then(|rest| rest.rsplit_once(", expected ")) {
        Some((found, expected)) => format!("is the {}; write {}", found.replace("sequence", "list"), remedy(expected)),
        None => message.to_owned(),
    }
}

/// The words that serde quotes.
fn quoted(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The start of serde's message about a missing key.
pub const MISSING_FIELD: &str = "missing field ";

/// What serde expected, in the terms of the file.
fn remedy(expected: &str) -> &str {
    match expected {
        "u16" | "usize" => "a whole number, 0 or more",
        "a boolean" => "true or false",
        "a sequence" => "a list, such as [one, two]",
        "a map" => "a block of `key: value` lines",
        "field identifier" => "a text as the key",
        "a Value::Tagged enum" => "one word",
        _ if expected.starts_with("struct ") => "a block of `key: value` lines",
        _ => expected,
    }
}

/// The one that was probably meant.
pub fn nearest_word<'a>(word: &str, known: &'a [String]) -> Option<&'a String> {
    let close = |candidate: &&String| strsim::damerau_levenshtein(word, candidate) <= 2;
    known.iter().filter(close).min_by_key(|candidate| strsim::damerau_levenshtein(word, candidate))
}
