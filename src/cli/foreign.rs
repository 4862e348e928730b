//! Files of other programs: what they include is read here, so that the importers see no file system.

use std::fs;
use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};

use crate::config::{Problem, Problems, read_bytes};
use crate::import::{Format, Impact, Import, MAX_BYTES, Surroundings, Unreadable};

use super::environment::variable;

/// Files that the includes of a file may name.
const MAX_FILES: usize = 1000;

/// Names that are read in folders to find them.
const MAX_NAMES: usize = 100_000;

/// Where files have no end, or reading one does something.
const NO_FILES: [&str; 2] = ["/proc", "/sys"];

/// What `-c` takes beside an lb.yaml: a file of another program, if nothing that changes traffic is left out of it.
/// `None`: the text is no such file.
pub(super) fn translate(path: &Path, text: &str) -> Option<Result<String, Problems>> {
    let format = Format::of(text)?;
    Some(match import(format, path, text) {
        Err(Unreadable { place, message }) => Err(Problems(vec![Problem::at(place.to_string(), "", message)])),
        Ok(import) if import.changes_traffic() => {
            let left_out = import.notes.iter().filter(|note| note.impact == Impact::ChangesTraffic);
            let problem = |note: &crate::import::Note| {
                let message = format!("`{}` would be left out, which changes traffic: {}", note.directive, note.why);
                Problem::at(note.place.to_string(), "", message)
            };
            let mut problems: Vec<Problem> = left_out.map(problem).collect();
            let shown = path.display();
            let remedy = format!("to run it without these, write an lb.yaml with `lb import {shown} -o lb.yaml`");
            problems.push(Problem::general(remedy));
            Err(Problems(problems))
        }
        Ok(import) => Ok(import.to_yaml(&path.display().to_string())),
    })
}

/// Translates the text of a file, and of what it includes.
///
/// # Errors
/// It isn't of that format.
pub(super) fn import(format: Format, path: &Path, text: &str) -> Result<Import, Unreadable> {
    let mut files = Files::beside(path);
    let mut surroundings =
        Surroundings { files: &mut |pattern| files.matching(pattern), variable: &|name| variable(name) };
    Import::of(format, &path.display().to_string(), text, &mut surroundings)
}

/// The files that a file includes, and how many more of them may be read.
struct Files {
    /// Where its relative paths begin.
    folder: PathBuf,
    files_left: usize,
    names_left: usize,
    bytes_left: u64,
}

impl Files {
    fn beside(path: &Path) -> Self {
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        Self { folder, files_left: MAX_FILES, names_left: MAX_NAMES, bytes_left: MAX_BYTES as u64 }
    }

    /// Names and texts of the files that match a pattern, in order.
    fn matching(&mut self, pattern: &str) -> Result<Vec<(String, String)>, String> {
        let full = self.folder.join(pattern);
        let paths = if has_wildcards(pattern) { self.paths(&full)? } else { vec![full] };
        self.files_left =
            self.files_left.checked_sub(paths.len()).ok_or_else(|| format!("more than {MAX_FILES} files match"))?;
        paths.iter().map(|path| self.read(path)).collect()
    }

    /// The files that match a pattern, as glob(3) finds them: `**` is `*`, and a name with a dot before it is hidden.
    fn paths(&mut self, pattern: &Path) -> Result<Vec<PathBuf>, String> {
        let options = MatchOptions { require_literal_leading_dot: true, ..MatchOptions::new() };
        let mut paths = vec![PathBuf::new()];
        for component in pattern.components() {
            let component = component.as_os_str().to_str().ok_or("its path is no UTF-8")?;
            if !has_wildcards(component) {
                paths.iter_mut().for_each(|path| path.push(component));
                continue;
            }
            let mut component = component.to_owned();
            while component.contains("**") {
                component = component.replace("**", "*");
            }
            let component = Pattern::new(&component).map_err(|error| format!("it is no pattern: {error}"))?;
            let mut found = Vec::new();
            for folder in &paths {
                let folder_or_here = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
                // What is no folder, or can't be read, has no file that matches.
                for entry in fs::read_dir(folder_or_here).into_iter().flatten().flatten() {
                    self.names_left =
                        self.names_left.checked_sub(1).ok_or("it would search too many folders for files")?;
                    let name = entry.file_name();
                    if name.to_str().is_some_and(|name| component.matches_with(name, options)) {
                        found.push(folder.join(name));
                    }
                }
            }
            paths = found;
        }
        paths.retain(|path| path.is_file());
        paths.sort();
        Ok(paths)
    }

    /// A file's name and text. What is no regular file could have no end.
    fn read(&mut self, path: &Path) -> Result<(String, String), String> {
        let shown = path.display();
        let wrong = |error: std::io::Error| format!("{shown} can't be read: {error}");
        let real = fs::canonicalize(path).map_err(wrong)?;
        let metadata = fs::metadata(&real).map_err(wrong)?;
        if !metadata.is_file() || NO_FILES.iter().any(|folder| real.starts_with(folder)) {
            return Err(format!("{shown} is no regular file"));
        }
        self.bytes_left = self
            .bytes_left
            .checked_sub(metadata.len())
            .ok_or_else(|| format!("{shown}: the included files are too large together"))?;
        let bytes = read_bytes(&real).map_err(wrong)?;
        Ok((shown.to_string(), String::from_utf8_lossy(&bytes).into_owned()))
    }
}

fn has_wildcards(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matching(files: &mut Files, pattern: &str) -> Result<Vec<String>, String> {
        let found = files.matching(pattern)?;
        Ok(found.into_iter().map(|(_, text)| text).collect())
    }

    #[test]
    fn files_are_found_as_glob_finds_them() {
        let folder = tempfile::tempdir().expect("the temporary directory is writable");
        for name in ["b/two.conf", "a/one.conf", "a/.hidden.conf", "a/c/deep.conf", "a/other"] {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("it has one")).expect("the folder is writable");
            fs::write(path, name).expect("the folder is writable");
        }
        let mut files = Files::beside(&folder.path().join("main.conf"));
        let both = Ok(vec!["a/one.conf".to_owned(), "b/two.conf".to_owned()]);
        assert_eq!(matching(&mut files, "*/*.conf"), both);
        assert_eq!(matching(&mut files, "**/***.conf"), both, "`**` goes no deeper");
        assert_eq!(matching(&mut files, "?/[ot]*.conf"), both);
        assert_eq!(matching(&mut files, "*/none*"), Ok(Vec::new()));
        assert!(matching(&mut files, "a/none.conf").is_err());
        assert!(matching(&mut files, "a/[").is_err());
    }

    #[test]
    fn no_more_is_read_than_a_file_may_include() {
        let folder = tempfile::tempdir().expect("the temporary directory is writable");
        for name in ["1", "2", "3"] {
            fs::write(folder.path().join(name), "four").expect("the folder is writable");
        }
        let new = || Files::beside(&folder.path().join("main.conf"));
        let message = |mut files: Files, pattern: &str| matching(&mut files, pattern).err().unwrap_or_default();
        assert!(message(Files { bytes_left: 11, ..new() }, "*").ends_with("too large together"));
        assert!(message(Files { files_left: 2, ..new() }, "*").ends_with("files match"));
        assert!(message(Files { names_left: 2, ..new() }, "4*").contains("too many"));
        assert_eq!(message(new(), "*"), "");
    }

    #[test]
    fn what_could_have_no_end_is_not_read() {
        let mut files = Files::beside(Path::new("main.conf"));
        for path in ["/proc/kmsg", "/proc/self/environ", "/sys/kernel/uevent_seqnum", "/dev/zero", "/"] {
            assert!(matching(&mut files, path).is_err(), "{path}");
        }
    }
}
