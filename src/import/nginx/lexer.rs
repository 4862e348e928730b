//! The words of an nginx.conf: quotes, escapes, comments, and blocks of Lua. After ngx_conf_read_token of
//! src/core/ngx_conf_file.c, whose rules these are.

use std::sync::Arc;

use crate::import::note::{Place, Unreadable};

/// What an nginx.conf is made of.
#[derive(Debug, PartialEq, Eq)]
pub enum Token {
    Word(String),
    /// `;`
    End,
    /// `{`
    Open,
    /// `}`
    Close,
}

pub struct Lexer<'a> {
    file: Arc<str>,
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    line: usize,
}

impl<'a> Lexer<'a> {
    pub fn new(file: &Arc<str>, text: &'a str) -> Self {
        Self { file: file.clone(), rest: text.chars().peekable(), line: 1 }
    }

    /// Where it is.
    pub fn place(&self) -> Place {
        Place { file: self.file.clone(), line: self.line }
    }

    pub fn error(&self, message: impl Into<String>) -> Unreadable {
        Unreadable { place: self.place(), message: message.into() }
    }

    /// The next token and the line where it begins; `None`: the end of the text.
    ///
    /// # Errors
    /// A quote isn't closed, or something stands where it can't.
    pub fn next(&mut self) -> Result<Option<(Token, Place)>, Unreadable> {
        self.skip_space();
        let place = self.place();
        let Some(first) = self.rest.peek().copied() else { return Ok(None) };
        let token = match first {
            ';' => self.single(Token::End),
            '{' => self.single(Token::Open),
            '}' => self.single(Token::Close),
            '"' | '\'' => Token::Word(self.quoted(first)?),
            _ => Token::Word(self.bare()),
        };
        Ok(Some((token, place)))
    }

    /// Skips the rest of a block of Lua, whose `{` was read already.
    ///
    /// # Errors
    /// The block isn't closed.
    pub fn skip_lua(&mut self) -> Result<(), Unreadable> {
        let opened = self.place();
        let mut depth = 1usize;
        while let Some(c) = self.advance() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                '"' | '\'' => self.skip_lua_string(c),
                '-' if self.rest.peek() == Some(&'-') => while self.rest.next_if(|c| *c != '\n').is_some() {},
                _ => {}
            }
            if depth == 0 {
                return Ok(());
            }
        }
        Err(Unreadable { place: opened, message: "this block of Lua has no `}`".to_owned() })
    }

    fn skip_lua_string(&mut self, quote: char) {
        while let Some(c) = self.advance() {
            match c {
                '\\' => drop(self.advance()),
                _ if c == quote || c == '\n' => return,
                _ => {}
            }
        }
    }

    fn advance(&mut self) -> Option<char> {
        let c = self.rest.next()?;
        self.line += usize::from(c == '\n');
        Some(c)
    }

    fn single(&mut self, token: Token) -> Token {
        self.advance();
        token
    }

    fn skip_space(&mut self) {
        while let Some(c) = self.rest.peek().copied() {
            if c == '#' {
                while self.rest.next_if(|c| *c != '\n').is_some() {}
            } else if c.is_ascii_whitespace() || c == '\u{feff}' {
                self.advance();
            } else {
                return;
            }
        }
    }

    fn quoted(&mut self, quote: char) -> Result<String, Unreadable> {
        let opened = self.place();
        self.advance();
        let mut word = String::new();
        loop {
            match self.advance() {
                None => return Err(Unreadable { place: opened, message: format!("this {quote} is not closed") }),
                Some('\\') => self.escape(&mut word),
                Some(c) if c == quote => break,
                Some(c) => word.push(c),
            }
        }
        match self.rest.peek().copied() {
            // `)` ends the condition of an `if`, which is one of its words.
            None | Some(';' | '{' | '}') => Ok(word),
            Some(')') => {
                word.push_str(&self.bare());
                Ok(word)
            }
            Some(c) if c.is_ascii_whitespace() => Ok(word),
            Some(c) => Err(self.error(format!("`{}` can't follow a closing quote", c.escape_debug()))),
        }
    }

    fn bare(&mut self) -> String {
        let mut word = String::new();
        while let Some(c) = self.rest.peek().copied() {
            match c {
                ';' => break,
                // `${name}` is a variable.
                '{' if !word.ends_with('$') => break,
                c if c.is_ascii_whitespace() => break,
                _ => {}
            }
            self.advance();
            if c == '\\' { self.escape(&mut word) } else { word.push(c) }
        }
        word
    }

    /// What follows a backslash: nginx keeps the backslash before what it doesn't know, as regular expressions need it.
    fn escape(&mut self, word: &mut String) {
        match self.advance() {
            Some(c @ ('"' | '\'' | '\\')) => word.push(c),
            Some('t') => word.push('\t'),
            Some('r') => word.push('\r'),
            Some('n') => word.push('\n'),
            Some(c) => word.extend(['\\', c]),
            None => word.push('\\'),
        }
    }
}
