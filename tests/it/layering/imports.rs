//! Which file of `src/` uses which other one: every path in the code, resolved through modules and re-exports to the
//! file that defines what it names.

use std::collections::{BTreeMap, BTreeSet};

use super::sources::{Source, Token};

/// A module's path from the crate's root.
pub type ModulePath = Vec<String>;

/// A path in the code, from the crate's root: `["config", "file", "File"]`.
pub struct Import {
    pub line: usize,
    pub path: Vec<String>,
    pub in_test: bool,
}

/// One file needs another.
pub struct Arrow<'a> {
    pub from: &'a Source,
    pub line: usize,
    pub to: &'a Source,
}

/// All files, and what the paths in them are.
pub struct Crate<'a> {
    sources: &'a [Source],
    /// Every module's names for things of other modules, and their paths.
    names: BTreeMap<ModulePath, BTreeMap<String, Vec<String>>>,
    /// Every module that is a file.
    files: BTreeMap<&'a [String], &'a Source>,
}

/// A leaf of a `use` tree.
struct Use {
    name: String,
    line: usize,
    path: Vec<String>,
    is_re_export: bool,
    in_test: bool,
    /// The module that it stands in: an inline one, or the file's.
    module: ModulePath,
}

/// Longer chains of re-exports are a circle of them.
const MAX_RE_EXPORTS: usize = 16;

impl<'a> Crate<'a> {
    pub fn new(sources: &'a [Source]) -> Self {
        let files = sources.iter().map(|source| (&source.module[..], source)).collect();
        let mut all = Self { sources, names: BTreeMap::new(), files };
        for source in sources {
            for leaf in all.uses(source) {
                all.names.entry(leaf.module).or_default().insert(leaf.name, leaf.path);
            }
        }
        all
    }

    /// Every path of a file that leads into this crate: those of `use` statements, and those in expressions and types.
    pub fn imports(&self, source: &Source) -> Vec<Import> {
        let uses = self.uses(source).into_iter();
        let mut imports: Vec<_> = uses.map(|Use { line, path, in_test, .. }| Import { line, path, in_test }).collect();
        imports.extend(self.expressions(source));
        imports
    }

    /// Every arrow between two files, tests aside.
    pub fn arrows(&self) -> Vec<Arrow<'a>> {
        let mut arrows = Vec::new();
        for from in self.sources {
            let uses = self.uses(from).into_iter().filter(|leaf| {
                // Re-exporting what a child defines isn't using it, and a module's name uses nothing of it yet.
                let is_of_child = leaf.is_re_export && leaf.path.starts_with(&from.module);
                !leaf.in_test && !is_of_child && !self.files.contains_key(&leaf.path[..])
            });
            let places = uses.map(|leaf| (leaf.line, leaf.path));
            let expressions = self.expressions(from).into_iter().filter(|import| !import.in_test);
            let mut seen = BTreeSet::new();
            for (line, path) in places.chain(expressions.map(|import| (import.line, import.path))) {
                let to = self.definition(&path);
                if to.module != from.module && seen.insert(&to.name) {
                    arrows.push(Arrow { from, line, to });
                }
            }
        }
        arrows
    }

    /// The file that defines what a path names.
    fn definition(&self, path: &[String]) -> &'a Source {
        let mut path = path.to_vec();
        for _ in 0..MAX_RE_EXPORTS {
            let length = (0..=path.len()).rev().find(|length| self.files.contains_key(&path[..*length]));
            let length = length.expect("lib.rs defines the empty path");
            let (module, rest) = path.split_at(length);
            let re_export = rest.first().and_then(|name| self.names.get(module)?.get(name));
            match re_export {
                Some(target) => path = [target, &rest[1..]].concat(),
                None => return self.files[module],
            }
        }
        panic!("{path:?} is re-exported without an end");
    }

    /// The leaves of all `use` statements that lead into this crate.
    fn uses(&self, source: &Source) -> Vec<Use> {
        let tokens = &source.tokens;
        let mut uses = Vec::new();
        for (at, module) in modules_of_tokens(source) {
            // `use<'a>` is a bound.
            if tokens[at].text != "use" || tokens[at + 1].text == "<" {
                continue;
            }
            let is_re_export = at > 0 && ["pub", ")"].contains(&&*tokens[at - 1].text);
            let mut leaves = Vec::new();
            leaves_of_tree(tokens, &mut (at + 1), &[], &mut leaves);
            for (name, place, path) in leaves {
                let Some(path) = self.path_from_root(&module, &path, None) else { continue };
                let Token { line, in_test, .. } = tokens[place];
                uses.push(Use { name, line, path, is_re_export, in_test, module: module.clone() });
            }
        }
        uses
    }

    /// The paths in expressions and types. A name that stands alone counts where the file re-exports it and so may use
    /// it without importing it.
    fn expressions(&self, source: &Source) -> Vec<Import> {
        let tokens = &source.tokens;
        let mut imports = Vec::new();
        let mut use_ends = 0;
        for (at, module) in modules_of_tokens(source) {
            let before = at.checked_sub(1).map_or("", |before| &*tokens[before].text);
            if tokens[at].text == "use" && tokens[at + 1].text != "<" {
                use_ends = (at..tokens.len()).find(|at| tokens[*at].text == ";").expect("a semicolon ends it");
            }
            let is_start = is_name(&tokens[at]) && !["::", ".", "fn", "mod", "let"].contains(&before);
            if at < use_ends || !is_start {
                continue;
            }
            let path = chain(&tokens[at..]);
            let names_field = tokens.get(at + 1).is_some_and(|next| next.text == ":");
            if path.len() == 1 && names_field {
                continue;
            }
            if let Some(path) = self.path_from_root(&module, &path, self.names.get(&module)) {
                imports.push(Import { line: tokens[at].line, path, in_test: tokens[at].in_test });
            }
        }
        imports
    }

    /// A path as `module` writes it, from the crate's root; `None`: it leads elsewhere.
    fn path_from_root(
        &self,
        module: &[String],
        path: &[String],
        names: Option<&BTreeMap<String, Vec<String>>>,
    ) -> Option<Vec<String>> {
        let (first, rest) = path.split_first()?;
        let ups = path.iter().take_while(|segment| *segment == "super").count();
        let child = [module, &path[..1]].concat();
        match &**first {
            // In `main.rs` the library has its own name.
            "crate" | "lb" => Some(rest.to_vec()),
            "self" if !rest.is_empty() => Some([module, rest].concat()),
            "super" if ups < path.len() => Some([&module[..module.len().checked_sub(ups)?], &path[ups..]].concat()),
            _ if path.len() > 1 && self.files.contains_key(&child[..]) => Some([module, path].concat()),
            first => Some([names?.get(first)?, rest].concat()),
        }
    }
}

/// The place of every token, with the module that it is in.
fn modules_of_tokens(source: &Source) -> Vec<(usize, ModulePath)> {
    let mut places = Vec::with_capacity(source.tokens.len());
    let mut module = source.module.clone();
    let (mut depth, mut inline_from) = (0, Vec::new());
    for (at, token) in source.tokens.iter().enumerate() {
        match &*token.text {
            "{" => depth += 1,
            "}" => {
                depth -= 1;
                if inline_from.last() == Some(&depth) {
                    inline_from.pop();
                    module.pop();
                }
            }
            "mod" if source.tokens[at + 2].text == "{" => {
                inline_from.push(depth);
                module.push(source.tokens[at + 1].text.clone());
            }
            _ => {}
        }
        places.push((at, module.clone()));
    }
    places
}

/// Goes over one branch of a `use` tree; gives the name, place and path of each leaf.
fn leaves_of_tree(tokens: &[Token], at: &mut usize, trunk: &[String], leaves: &mut Vec<(String, usize, Vec<String>)>) {
    let mut path = trunk.to_vec();
    let place = *at;
    loop {
        match &*tokens[*at].text {
            "{" => {
                while tokens[*at].text != "}" {
                    *at += 1;
                    if tokens[*at].text != "}" {
                        leaves_of_tree(tokens, at, &path, leaves);
                    }
                }
                *at += 1;
                return;
            }
            "," | "}" | ";" => break,
            "as" => {
                leaves.push((tokens[*at + 1].text.clone(), place, path));
                *at += 2;
                return;
            }
            "::" => {}
            "self" if !path.is_empty() => {}
            name => path.push(name.to_owned()),
        }
        *at += 1;
    }
    if let Some(name) = path.last() {
        leaves.push((name.clone(), place, path));
    }
}

fn is_name(token: &Token) -> bool {
    token.text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// The names of `a::b::c`.
fn chain(tokens: &[Token]) -> Vec<String> {
    let mut names = vec![tokens[0].text.clone()];
    for pair in tokens[1..].chunks_exact(2) {
        if pair[0].text != "::" || !is_name(&pair[1]) {
            break;
        }
        names.push(pair[1].text.clone());
    }
    names
}
