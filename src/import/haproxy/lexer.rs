//! The words of a line of haproxy.cfg: quotes, escapes, comments, variables of the environment. After parse_line of
//! HAProxy's src/tools.c, and "2.2. Quoting and escaping" and "2.3. Environment variables" of its manual.

use std::iter::Peekable;
use std::str::Chars;

/// Words of a line; more must be a mistake.
const MAX_WORDS: usize = 4096;

/// What a line is made of.
#[derive(Debug, Default)]
pub struct Words {
    pub words: Vec<String>,
    /// Variables that the environment doesn't have.
    pub missing: Vec<String>,
}

/// Splits a line into words.
///
/// # Errors
/// A quote or a variable isn't closed, or there are too many words.
pub fn words(line: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<Words, String> {
    let mut reader = Reader { rest: line.chars().peekable(), word: None, words: Words::default(), variable };
    reader.read()?;
    Ok(reader.words)
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    /// The word so far; `None`: between words.
    word: Option<String>,
    words: Words,
    variable: &'a dyn Fn(&str) -> Option<String>,
}

impl Reader<'_> {
    fn read(&mut self) -> Result<(), String> {
        while let Some(c) = self.rest.next() {
            match c {
                '#' => break,
                '\'' => self.strong_quotes()?,
                '"' => self.weak_quotes()?,
                '\\' => self.escape(),
                c if c.is_ascii_whitespace() => self.end_word()?,
                c => self.push(c),
            }
        }
        self.end_word()
    }

    fn push(&mut self, c: char) {
        self.word.get_or_insert_default().push(c);
    }

    fn end_word(&mut self) -> Result<(), String> {
        self.words.words.extend(self.word.take());
        if self.words.words.len() > MAX_WORDS { Err(format!("more than {MAX_WORDS} words")) } else { Ok(()) }
    }

    fn strong_quotes(&mut self) -> Result<(), String> {
        self.word.get_or_insert_default();
        loop {
            match self.rest.next() {
                None => return Err("this ' is not closed".to_owned()),
                Some('\'') => return Ok(()),
                Some(c) => self.push(c),
            }
        }
    }

    fn weak_quotes(&mut self) -> Result<(), String> {
        self.word.get_or_insert_default();
        loop {
            match self.rest.next() {
                None => return Err("this \" is not closed".to_owned()),
                Some('"') => return Ok(()),
                Some('\\') => self.escape(),
                Some('$') => self.variable()?,
                Some(c) => self.push(c),
            }
        }
    }

    fn escape(&mut self) {
        let c = match self.rest.next() {
            Some('r') => '\r',
            Some('n') => '\n',
            Some('t') => '\t',
            Some('x') => self.hex(),
            Some(c) => c,
            None => '\\',
        };
        self.push(c);
    }

    /// `\xNN`. Bytes above 127 become the character of that number, as lb's texts can't hold them otherwise.
    fn hex(&mut self) -> char {
        let mut number = 0;
        for _ in 0..2 {
            let Some(digit) = self.rest.peek().and_then(|c| c.to_digit(16)) else { break };
            self.rest.next();
            number = number * 16 + digit;
        }
        char::from_u32(number).unwrap_or('?')
    }

    /// `$NAME`, `${NAME}` or `${NAME-default}`.
    fn variable(&mut self) -> Result<(), String> {
        let is_braced = self.rest.next_if_eq(&'{').is_some();
        let mut name = String::new();
        while let Some(c) = self.rest.next_if(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.')) {
            name.push(c);
        }
        let mut default = None;
        if is_braced {
            let mut rest = String::new();
            loop {
                match self.rest.next() {
                    None => return Err(format!("`${{{name}` has no `}}`")),
                    Some('}') => break,
                    Some(c) => rest.push(c),
                }
            }
            default = rest.strip_prefix('-').map(str::to_owned);
        }
        match (self.variable)(&name).or(default) {
            Some(value) => value.chars().for_each(|c| self.push(c)),
            None => self.words.missing.push(name),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Vec<String> {
        let variable = |name: &str| (name == "HOST").then(|| "db".to_owned());
        words(line, &variable).expect("it is well-formed").words
    }

    #[test]
    fn words_are_as_haproxy_reads_them() {
        assert_eq!(of("  server a b:1 # a comment"), ["server", "a", "b:1"]);
        assert_eq!(
            of(r#"send PING\r\n a\ b 'c $HOST' "${HOST}:1" "$HOST" x"y"z"#),
            ["send", "PING\r\n", "a b", "c $HOST", "db:1", "db", "xyz"]
        );
        assert_eq!(of(r#""${PORT-80}" "" '#' \# \x41"#), ["80", "", "#", "#", "A"]);
        assert_eq!(of("$HOST"), ["$HOST"], "only within double quotes");
        let missing = words(r#""$NOBODY""#, &|_| None).expect("it is well-formed");
        assert_eq!((missing.words, missing.missing), (vec![String::new()], vec!["NOBODY".to_owned()]));
    }

    #[test]
    fn open_quotes_are_errors() {
        for line in ["'a", "\"a", "\"${A", "\"a\\\""] {
            assert!(words(line, &|_| None).is_err(), "{line}");
        }
    }
}
