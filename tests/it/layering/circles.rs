//! Import circles: in each folder, between its files and between the folders in it, which count as one each.

use std::collections::{BTreeMap, BTreeSet};

use super::imports::Arrow;

/// What stands directly in a folder: a file or a folder, without `.rs`. The folder's `mod.rs` is `mod`.
type Unit = String;
/// Which unit needs which, and by which arrow.
type Arrows<'a> = BTreeMap<(Unit, Unit), &'a Arrow<'a>>;

/// The circles of all folders: the folder, and the arrows that make one. Every unit that is on a circle is on one of
/// those that are shown.
pub fn circles<'a>(arrows: &'a [Arrow<'a>]) -> Vec<(String, Vec<&'a Arrow<'a>>)> {
    let mut folders: BTreeMap<String, Arrows<'a>> = BTreeMap::new();
    for arrow in arrows {
        let (from, to) = (&arrow.from.module, &arrow.to.module);
        let shared = from.iter().zip(to).take_while(|(from, to)| from == to).count();
        let unit = |module: &[String]| module.get(shared).map_or("mod", String::as_str).to_owned();
        let folder = ["src"].into_iter().chain(from[..shared].iter().map(String::as_str));
        let arrows = folders.entry(folder.collect::<Vec<_>>().join("/")).or_default();
        arrows.entry((unit(from), unit(to))).or_insert(arrow);
    }
    let circles = folders.iter().flat_map(|(folder, arrows)| {
        let mut shown = BTreeSet::new();
        let mut circles = Vec::new();
        for unit in arrows.keys().map(|(from, _)| from) {
            if !shown.contains(unit)
                && let Some(circle) = shortest_circle(arrows, unit)
            {
                shown.extend(circle.iter().map(|(from, _)| from.clone()));
                circles.push((folder.clone(), circle.iter().map(|pair| arrows[pair]).collect()));
            }
        }
        circles
    });
    circles.collect()
}

/// The shortest way from a unit back to itself.
fn shortest_circle(arrows: &Arrows<'_>, start: &Unit) -> Option<Vec<(Unit, Unit)>> {
    let mut came_from: BTreeMap<&Unit, &Unit> = BTreeMap::new();
    let mut front = vec![start];
    while !front.is_empty() && !came_from.contains_key(start) {
        let mut next = Vec::new();
        for (from, to) in arrows.keys() {
            if front.contains(&from) && !came_from.contains_key(to) {
                came_from.insert(to, from);
                next.push(to);
            }
        }
        front = next;
    }
    let mut circle = Vec::new();
    let mut to = start;
    while let Some(from) = came_from.get(to) {
        circle.push(((*from).clone(), to.clone()));
        to = from;
        if to == start {
            circle.reverse();
            return Some(circle);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::imports::Crate;
    use super::super::sources::Source;
    use super::*;

    fn circles_of(files: &[(&str, &str)]) -> Vec<String> {
        let mut sources: Vec<_> = files.iter().map(|(name, text)| Source::new(format!("src/{name}"), text)).collect();
        sources.push(Source::new("src/lib.rs".to_owned(), ""));
        let arrows = Crate::new(&sources).arrows();
        let shown = |arrow: &&Arrow<'_>| format!("{}:{} -> {}", arrow.from.name, arrow.line, arrow.to.name);
        let circles = circles(&arrows).into_iter();
        circles.map(|(_, circle)| circle.iter().map(shown).collect::<Vec<_>>().join(", ")).collect()
    }

    #[test]
    fn two_files_that_need_each_other_are_a_circle() {
        let files = [("a/mod.rs", "mod b;\nmod c;"), ("a/b.rs", "use super::c::C;"), ("a/c.rs", "\nf(super::b::B)")];
        assert_eq!(circles_of(&files), ["src/a/b.rs:1 -> src/a/c.rs, src/a/c.rs:2 -> src/a/b.rs"]);
    }

    #[test]
    fn a_file_is_one_with_its_folder_seen_from_outside() {
        let files = [("a/b.rs", "use crate::a::c::d::{self, C};"), ("a/c/d.rs", "use {super::super::b::{x as B}};")];
        let parents = [("a/mod.rs", ""), ("a/c/mod.rs", "")];
        assert_eq!(
            circles_of(&[files, parents].concat()),
            ["src/a/b.rs:1 -> src/a/c/d.rs, src/a/c/d.rs:1 -> src/a/b.rs"]
        );
    }

    #[test]
    fn a_child_may_need_what_its_parent_re_exports_and_not_what_it_defines_unless_the_parent_needs_no_child() {
        let (b, c) = (("a/b.rs", "use super::C;"), ("a/c.rs", "pub struct C;"));
        assert!(circles_of(&[("a/mod.rs", "mod b; mod c;\npub use b::B;\npub use c::C;"), b, c]).is_empty());
        assert!(circles_of(&[("a/mod.rs", "mod b; mod c;\npub use b::B;\npub struct C;"), b, c]).is_empty());
        for needing in ["use b::B;", "fn f() { b::B::new() }", "pub use b::B;\nfn f(b: B) {}"] {
            let parent = format!("mod b; mod c;\npub struct C;\n{needing}");
            assert_eq!(circles_of(&[("a/mod.rs", &parent), b, c]).len(), 1, "{needing}");
        }
    }

    #[test]
    fn tests_are_left_out() {
        let test = "#[cfg(test)]\nmod tests {\n    use super::super::c::C;\n}\n#[cfg(test)]\nuse super::c::C;";
        assert!(circles_of(&[("a/mod.rs", ""), ("a/b.rs", test), ("a/c.rs", "use super::b::B;")]).is_empty());
    }
}
