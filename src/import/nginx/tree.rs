//! An nginx.conf as a tree of directives, with the files that it includes. Knows no directive but `include`.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;

use crate::import::note::{Notes, Place, Unreadable};
use crate::import::surroundings::Surroundings;

use super::lexer::{Lexer, Token};

/// Blocks within blocks; nginx's own nest five deep, `location` and `if` aside.
const MAX_DEPTH: usize = 32;
/// Includes within includes.
const MAX_INCLUDE_DEPTH: usize = 10;
/// Bounds time and memory.
const MAX_DIRECTIVES: usize = 200_000;

/// A directive: its name, its other words, and its block.
#[derive(Debug)]
pub struct Directive {
    pub name: String,
    pub args: Vec<String>,
    pub place: Place,
    pub block: Option<Vec<Directive>>,
    /// Whether the translation has looked at it.
    seen: Cell<bool>,
}

impl Directive {
    pub fn arg(&self, index: usize) -> &str {
        self.args.get(index).map_or("", String::as_str)
    }

    /// Its block; empty if it has none.
    pub fn inner(&self) -> &[Self] {
        self.block.as_deref().unwrap_or_default()
    }

    pub fn is_seen(&self) -> bool {
        self.seen.get()
    }

    /// Notes that the translation has looked at it.
    pub fn see(&self) -> &Self {
        self.seen.set(true);
        self
    }

    /// The same for all that is in its block: the block is left out as a whole.
    pub fn see_all(&self) {
        self.see();
        self.inner().iter().for_each(Self::see_all);
    }

    /// As it was written, but for quotes.
    pub fn text(&self) -> String {
        let words: Vec<&str> = std::iter::once(&self.name).chain(&self.args).map(String::as_str).collect();
        words.join(" ") + if self.block.is_some() { " { … }" } else { "" }
    }
}

/// Reads `text`, the content of `file`, and what it includes.
///
/// # Errors
/// It breaks the grammar, or a limit.
pub fn read(
    file: &str,
    text: &str,
    surroundings: &mut Surroundings<'_>,
    notes: &mut Notes,
) -> Result<Vec<Directive>, Unreadable> {
    let mut reader = Reader { surroundings, notes, directives: 0, include_depth: 0 };
    reader.read_file(&Arc::from(file), text)
}

struct Reader<'a, 'b> {
    surroundings: &'a mut Surroundings<'b>,
    notes: &'a mut Notes,
    directives: usize,
    include_depth: usize,
}

impl Reader<'_, '_> {
    fn read_file(&mut self, file: &Arc<str>, text: &str) -> Result<Vec<Directive>, Unreadable> {
        self.read_block(&mut Lexer::new(file, text), 0)
    }

    fn read_block(&mut self, lexer: &mut Lexer<'_>, depth: usize) -> Result<Vec<Directive>, Unreadable> {
        let opened = lexer.place();
        let mut directives = Vec::new();
        loop {
            let (name, place) = match lexer.next()? {
                Some((Token::Word(name), place)) => (name, place),
                Some((Token::Close, _)) if depth > 0 => return Ok(directives),
                None if depth == 0 => return Ok(directives),
                None => return Err(Unreadable { place: opened, message: "this block has no `}`".to_owned() }),
                Some((token, place)) => return Err(Unreadable { place, message: misplaced(&token) }),
            };
            self.directives += 1;
            if self.directives > MAX_DIRECTIVES {
                return Err(Unreadable { place, message: format!("more than {MAX_DIRECTIVES} directives") });
            }
            let directive = self.read_directive(name, place, lexer, depth)?;
            if directive.name == "include" && directive.block.is_none() {
                directives.extend(self.include(&directive)?);
            } else {
                directives.push(directive);
            }
        }
    }

    fn read_directive(
        &mut self,
        name: String,
        place: Place,
        lexer: &mut Lexer<'_>,
        depth: usize,
    ) -> Result<Directive, Unreadable> {
        let mut args = Vec::new();
        let block = loop {
            match lexer.next()? {
                Some((Token::Word(word), _)) => args.push(word),
                Some((Token::End, _)) => break None,
                Some((Token::Open, _)) if name.ends_with("_by_lua_block") => {
                    lexer.skip_lua()?;
                    break Some(Vec::new());
                }
                Some((Token::Open, place)) if depth == MAX_DEPTH => {
                    return Err(Unreadable { place, message: format!("more than {MAX_DEPTH} blocks in each other") });
                }
                Some((Token::Open, _)) => break Some(self.read_block(lexer, depth + 1)?),
                Some((Token::Close, _)) | None => {
                    return Err(Unreadable { place, message: format!("`{}` has no `;`", name.escape_debug()) });
                }
            }
        };
        Ok(Directive { name, args, place, block, seen: Cell::new(false) })
    }

    /// The directives of the files that match; a file that isn't there is noted, as the file was perhaps moved alone.
    fn include(&mut self, directive: &Directive) -> Result<Vec<Directive>, Unreadable> {
        let error = |message: String| Unreadable { place: directive.place.clone(), message };
        if self.include_depth == MAX_INCLUDE_DEPTH {
            return Err(error(format!("more than {MAX_INCLUDE_DEPTH} includes in each other")));
        }
        let pattern = directive.arg(0);
        let files = match (self.surroundings.files)(pattern) {
            Ok(files) => files,
            Err(why) if is_of_no_traffic(pattern) => {
                self.notes.harmless(&directive.place, &directive.text(), format!("types of static files ({why})"));
                return Ok(Vec::new());
            }
            Err(why) => {
                self.notes.changes(&directive.place, &directive.text(), why);
                return Ok(Vec::new());
            }
        };
        let mut directives = Vec::new();
        self.include_depth += 1;
        for (file, text) in files {
            directives.extend(self.read_file(&Arc::from(file), &text)?);
        }
        self.include_depth -= 1;
        Ok(directives)
    }
}

/// Files that come with nginx, and have nothing that `lb` could do.
fn is_of_no_traffic(pattern: &str) -> bool {
    pattern.ends_with("mime.types") || pattern.contains("modules-enabled") || pattern.ends_with("fastcgi_params")
}

fn misplaced(token: &Token) -> String {
    match token {
        Token::Close => "this `}` closes nothing".to_owned(),
        Token::Open => "this `{` has no name before it".to_owned(),
        _ => "this `;` ends nothing".to_owned(),
    }
}

/// A block, and the blocks around it, whose settings it inherits.
pub struct Scope<'a> {
    outer: Option<&'a Scope<'a>>,
    pub own: &'a [Directive],
    /// Where the directives of a name are in `own`: a block may have thousands, and is asked for each of its servers.
    places: HashMap<&'a str, Vec<usize>>,
}

impl<'a> Scope<'a> {
    pub fn of(own: &'a [Directive]) -> Self {
        let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
        for (place, directive) in own.iter().enumerate() {
            places.entry(&directive.name).or_default().push(place);
        }
        Self { outer: None, own, places }
    }

    /// A block within it.
    pub fn within(&'a self, own: &'a [Directive]) -> Self {
        Self { outer: Some(self), ..Self::of(own) }
    }

    /// The directives `name` of the innermost block that has one; those of outer blocks are overridden by them.
    pub fn all(&self, name: &str) -> Vec<&'a Directive> {
        self.all_of(&[name])
    }

    /// The same for directives that override each other.
    pub fn all_of(&self, names: &[&str]) -> Vec<&'a Directive> {
        let of_outer = self.outer.map(|outer| outer.all_of(names)).unwrap_or_default();
        let mut places: Vec<usize> = names.iter().filter_map(|name| self.places.get(name)).flatten().copied().collect();
        places.sort_unstable();
        if places.is_empty() { of_outer } else { places.iter().map(|place| self.own[*place].see()).collect() }
    }

    /// The directive `name`, its own or inherited.
    pub fn one(&self, name: &str) -> Option<&'a Directive> {
        self.all(name).pop()
    }

    /// The last directive for which this holds, in the innermost block that has one.
    pub fn find(&self, fits: impl Fn(&Directive) -> bool) -> Option<&'a Directive> {
        let mut scope = Some(self);
        while let Some(block) = scope {
            if let Some(found) = block.own.iter().rfind(|directive| fits(directive)) {
                return Some(found);
            }
            scope = block.outer;
        }
        None
    }

    /// The first word after it; empty if there is none.
    pub fn word(&self, name: &str) -> &'a str {
        self.one(name).map_or("", |directive| directive.arg(0))
    }
}
