//! Which programs the tests want, and where this machine has them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::harness::lacks_program;

/// A package and its signs a line; `.ci/run` reads the same.
const TABLE: &str = include_str!("../../programs");

/// Where distributions put servers, which an ordinary user's PATH leaves out.
const FURTHER_FOLDERS: [&str; 3] = ["/usr/sbin", "/usr/local/sbin", "/sbin"];

/// The path of a program, or of what else the table has. Without it the test ends here, and is ignored.
#[track_caller]
pub fn required(sign: &str) -> PathBuf {
    let package = signs().find_map(|(package, other)| (other == sign).then_some(package));
    let package = package.unwrap_or_else(|| panic!("tests/programs has no package for {sign}"));
    found(sign).unwrap_or_else(|| lacks_program(sign, package))
}

/// All packages that this machine lacks.
pub fn missing_packages() -> BTreeSet<&'static str> {
    signs().filter(|(_, sign)| found(sign).is_none()).map(|(package, _)| package).collect()
}

/// Each sign with its package.
fn signs() -> impl Iterator<Item = (&'static str, &'static str)> {
    let rows = TABLE.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(' '));
    rows.flat_map(|(package, signs)| signs.split_whitespace().map(move |sign| (package, sign)))
}

fn found(sign: &str) -> Option<PathBuf> {
    if sign.starts_with('/') {
        return newest(Path::new("/"), sign.split('/').skip(1));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(FURTHER_FOLDERS.iter().map(PathBuf::from));
    folders.map(|folder| folder.join(sign)).find(|file| file.is_file())
}

/// The last in the order of names of what has this path, where `*` stands for a part of a name.
fn newest<'a>(folder: &Path, mut names: impl Iterator<Item = &'a str> + Clone) -> Option<PathBuf> {
    let Some(name) = names.next() else { return Some(folder.to_owned()) };
    let Some((first, last)) = name.split_once('*') else {
        let path = folder.join(name);
        return if path.exists() { newest(&path, names) } else { None };
    };
    let entries = std::fs::read_dir(folder).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let fits = entries.filter(|name| name.starts_with(first) && name.ends_with(last));
    fits.filter_map(|name| newest(&folder.join(name), names.clone())).max()
}
