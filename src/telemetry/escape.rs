//! Text from the network in a line of a log: it can add neither a line nor a field, nor change how the rest is shown.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

/// Whether a character shows itself and nothing else: no control or format character (such as those that change the
/// direction of text), no combining mark, no space but U+0020.
fn is_shown(c: char) -> bool {
    matches!(c, ' '..='~') || (!c.is_ascii() && c.escape_debug().len() == 1)
}

/// `text` with every character that doesn't show itself as an escape: `\n`, `\u{202e}`.
pub fn escaped(text: &str) -> Cow<'_, str> {
    escaped_by(text, |c, escaped| escaped.extend(c.escape_debug()))
}

/// JSON with the escapes of JSON instead: `\n`, `\u202e`. Its own syntax has only characters that are shown, so that
/// all others are within its strings.
pub fn escaped_json(json: &str) -> Cow<'_, str> {
    escaped_by(json, |c, escaped| {
        for unit in c.encode_utf16(&mut [0; 2]) {
            write!(escaped, "\\u{unit:04x}").expect("a String takes every text");
        }
    })
}

fn escaped_by(text: &str, escape: impl Fn(char, &mut String)) -> Cow<'_, str> {
    // Nearly every text is ASCII, which is looked through many bytes at a time.
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) || text.chars().all(is_shown) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if is_shown(c) { escaped.push(c) } else { escape(c, &mut escaped) }
    }
    Cow::Owned(escaped)
}

/// Text within quotes: these, and the backslash, are escaped too.
pub struct Unquoted<'a>(pub &'a str);

impl fmt::Display for Unquoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.bytes().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')) {
            return f.write_str(self.0);
        }
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                c if is_shown(c) => f.write_char(c)?,
                c => write!(f, "{}", c.escape_debug())?,
            }
        }
        Ok(())
    }
}

/// Text as one word: as it is where nothing in it could be taken for the end of the word or for a name, else in quotes.
pub struct Word<'a>(pub &'a str);

impl fmt::Display for Word<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_plain = |byte| matches!(byte, b'!'..=b'~') && !matches!(byte, b'"' | b'\\' | b'=');
        if !self.0.is_empty() && self.0.bytes().all(is_plain) {
            return f.write_str(self.0);
        }
        write!(f, "\"{}\"", Unquoted(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_show_itself_is_escaped() {
        assert_eq!(escaped("a\nb\u{1b}[31m"), "a\\nb\\u{1b}[31m");
        assert!(matches!(escaped("Grüße, \"世界\" \\ it's"), Cow::Borrowed(_)));
        for hidden in "\0\u{7f}\u{85}\u{9b}\u{a0}\u{ad}\u{61c}\u{200b}\u{200f}\u{2028}\u{202e}\u{2066}\u{3000}\u{feff}\
                       \u{301}\u{e0041}"
            .chars()
        {
            assert!(!is_shown(hidden), "{hidden:?}");
            assert!(escaped(&hidden.to_string()).is_ascii(), "{hidden:?}");
        }
    }

    #[test]
    fn escaped_json_says_the_same() {
        let said = "a\u{202e}b\u{e0041}\u{7f}\"\\ü";
        let json = serde_json::to_string(said).expect("a text");
        let escaped = escaped_json(&json);
        assert_eq!(escaped, "\"a\\u202eb\\udb40\\udc41\\u007f\\\"\\\\ü\"");
        assert_eq!(serde_json::from_str::<String>(&escaped).expect("JSON"), said);
    }

    #[test]
    fn a_word_ends_where_it_seems_to() {
        let word = |text: &str| Word(text).to_string();
        assert_eq!([word("/a?b%20c"), word("[::1]:80")], ["/a?b%20c", "[::1]:80"]);
        assert_eq!([word(""), word("a b"), word("in=1")], ["\"\"", "\"a b\"", "\"in=1\""]);
        assert_eq!([word("\"\\"), word("ü\u{202e}\n'")], ["\"\\\"\\\\\"", "\"ü\\u{202e}\\n'\""]);
    }
}
