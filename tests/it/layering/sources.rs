//! Source files as the house rules see them: their text, their tokens, and which of these belong to tests.

use std::fs;
use std::path::{Path, PathBuf};

/// One file of `src/`.
pub struct Source {
    /// Its path from the repository's root.
    pub name: String,
    /// The module that it defines: `["config", "file"]`; empty for `lib.rs`.
    pub module: Vec<String>,
    /// The text before its tests.
    pub text: String,
    /// All of its code, comments and literals left out.
    pub tokens: Vec<Token>,
}

/// A name, a number, `::`, or one other character.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub text: String,
    pub line: usize,
    /// Part of an item under `#[cfg(test)]`, or of a file that such an item declares.
    pub in_test: bool,
}

/// All of `src/`.
pub fn sources() -> Vec<Source> {
    let mut sources: Vec<Source> = files_under("src", "rs").iter().map(|file| Source::read(file)).collect();
    assert!(sources.len() > 20, "the sources are under src/");
    let test_files: Vec<_> = sources.iter().flat_map(test_modules).collect();
    for source in sources.iter_mut().filter(|source| test_files.contains(&source.module)) {
        source.tokens.iter_mut().for_each(|token| token.in_test = true);
    }
    sources
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files of one type in a folder and below, what builds leave behind aside.
pub fn files_under(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|found| found == extension) {
                files.push(path);
            } else if path.is_dir() && !["target", ".git"].iter().any(|skipped| path.ends_with(skipped)) {
                folders.push(path);
            }
        }
    }
    files.sort();
    files
}

/// A file's path from the repository's root.
pub fn name_of(file: &Path) -> String {
    file.strip_prefix(root()).unwrap().display().to_string()
}

impl Source {
    fn read(file: &Path) -> Self {
        Self::new(name_of(file), &fs::read_to_string(file).unwrap())
    }

    /// A file of this name and text.
    pub fn new(name: String, text: &str) -> Self {
        let before_tests = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default().to_owned();
        Self { module: module_of(&name), tokens: tokens(text), text: before_tests, name }
    }

    /// Whether the code has this name.
    pub fn uses(&self, name: &str) -> bool {
        self.tokens.iter().any(|token| token.text == name)
    }

    /// Name, first line and length of each function outside tests.
    pub fn functions(&self) -> Vec<(&str, usize, usize)> {
        let mut functions = Vec::new();
        for (at, pair) in self.tokens.windows(2).enumerate() {
            let [keyword, name] = pair else { continue };
            // `fn(` is a type.
            if keyword.text == "fn" && name.text != "(" && !keyword.in_test {
                let last = &self.tokens[end_of_item(&self.tokens, at)];
                functions.push((&*name.text, keyword.line, last.line + 1 - keyword.line));
            }
        }
        functions
    }
}

fn module_of(name: &str) -> Vec<String> {
    let path = name.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    path.split('/').filter(|module| *module != "lib").map(str::to_owned).collect()
}

/// The modules that a file declares for tests alone.
fn test_modules(source: &Source) -> Vec<Vec<String>> {
    let declared = source.tokens.windows(3).filter(|tokens| {
        let [keyword, _, end] = tokens else { return false };
        keyword.text == "mod" && keyword.in_test && end.text == ";"
    });
    declared.map(|tokens| [&source.module[..], &[tokens[1].text.clone()]].concat()).collect()
}

/// The tokens of a source text.
fn tokens(text: &str) -> Vec<Token> {
    let code = without_comments_and_literals(text);
    let mut tokens = Vec::new();
    for (line, code) in code.lines().enumerate() {
        let mut rest = code.trim_start();
        while !rest.is_empty() {
            let name = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            let length = match name {
                0 if rest.starts_with("::") => 2,
                0 => rest.chars().next().map_or(0, char::len_utf8),
                name => name,
            };
            tokens.push(Token { text: rest[..length].to_owned(), line: line + 1, in_test: false });
            rest = rest[length..].trim_start();
        }
    }
    mark_tests(&mut tokens);
    tokens
}

fn mark_tests(tokens: &mut [Token]) {
    const ATTRIBUTE: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    for at in 0..tokens.len().saturating_sub(ATTRIBUTE.len()) {
        if tokens[at..].iter().map(|token| &token.text).zip(ATTRIBUTE).all(|(token, expected)| token == expected) {
            let end = end_of_item(tokens, at + ATTRIBUTE.len());
            tokens[at..=end].iter_mut().for_each(|token| token.in_test = true);
        }
    }
}

/// Where the item that begins here ends: at its semicolon, or at the brace that closes its first block.
fn end_of_item(tokens: &[Token], start: usize) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(start) {
        match &*token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" => depth -= 1,
            "}" if depth == 1 => return at,
            "}" => depth -= 1,
            ";" if depth == 0 => return at,
            _ => {}
        }
    }
    tokens.len() - 1
}

/// Blanks comments, strings and character literals; line breaks stay.
fn without_comments_and_literals(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let blanked = length_of_comment_or_literal(rest);
        if blanked == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            code.extend(rest[..blanked].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = &rest[blanked..];
        }
    }
    code
}

/// Of the one that `text` begins with; 0: it begins with code.
fn length_of_comment_or_literal(text: &str) -> usize {
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return text.find("*/").map_or(text.len(), |end| end + 2);
    }
    if let Some(string) = text.strip_prefix('"') {
        return 1 + length_to_quote(string, b'"');
    }
    if let Some(hashes) = raw_string_hashes(text) {
        let closing = format!("\"{}", "#".repeat(hashes));
        let opening = hashes + 2;
        return text[opening..].find(&closing).map_or(text.len(), |end| opening + end + closing.len());
    }
    // A quote is a lifetime's unless one character, or an escape, and another quote follow.
    let Some(character) = text.strip_prefix('\'') else { return 0 };
    let is_literal = character.starts_with('\\') || character.chars().nth(1) == Some('\'');
    if is_literal { 1 + length_to_quote(character, b'\'') } else { 0 }
}

/// Up to the quote, and with it.
fn length_to_quote(text: &str, quote: u8) -> usize {
    let mut is_escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            byte if byte == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn raw_string_hashes(text: &str) -> Option<usize> {
    let after_r = text.strip_prefix('r')?;
    let hashes = after_r.bytes().take_while(|byte| *byte == b'#').count();
    after_r[hashes..].starts_with('"').then_some(hashes)
}

#[test]
fn the_reader_sees_code_and_nothing_else() {
    let text =
        "//! a\nlet s = \"b \\\" c\"; /* d */ x::<'e>('f', '\\'', b'{', r#\"g\"#);\n#[cfg(test)]\nfn h() { [0; 1] }\ni";
    let tokens = tokens(text);
    let code: Vec<&str> = tokens.iter().filter(|token| !token.in_test).map(|token| &*token.text).collect();
    assert_eq!(code.join(" "), "let s = ; x :: < ' e > ( , , b , ) ; i");
    assert_eq!(tokens.last().map(|token| token.line), Some(5));
}
