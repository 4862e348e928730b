//! Files of other programs: what they include is read here, so that the importers see no file system.

use std::fs;
use std::path::{Path, PathBuf};

use crate::config::{Problem, Problems, read_bytes};
use crate::import::{Format, Impact, Import, MAX_BYTES, Surroundings, Unreadable};

use super::environment::variable;

/// Files that one `include` may name.
const MAX_FILES: usize = 1000;

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
    let folder = path.parent().unwrap_or(Path::new("")).to_owned();
    let mut surroundings = Surroundings {
        files: &mut |pattern| files(&folder, pattern),
        variable: &|name| variable(name),
        bytes_left: MAX_BYTES,
    };
    Import::of(format, &path.display().to_string(), text, &mut surroundings)
}

/// The files that match a pattern, which is relative to the folder of the file that includes them all.
fn files(folder: &Path, pattern: &str) -> Result<Vec<(String, String)>, String> {
    let full = folder.join(pattern);
    let full = full.to_str().ok_or("its path is no UTF-8")?;
    let has_wildcards = pattern.contains(['*', '?', '[']);
    let paths: Vec<PathBuf> = if has_wildcards {
        let found = glob::glob(full).map_err(|error| format!("it is no pattern: {error}"))?;
        found.filter_map(Result::ok).filter(|path| path.is_file()).take(MAX_FILES + 1).collect()
    } else {
        vec![PathBuf::from(full)]
    };
    if paths.len() > MAX_FILES {
        return Err(format!("more than {MAX_FILES} files match"));
    }
    paths.into_iter().map(|path| read(&path)).collect()
}

/// A file's name and text. What is no regular file could have no end.
fn read(path: &Path) -> Result<(String, String), String> {
    let wrong = |error: std::io::Error| format!("{} can't be read: {error}", path.display());
    if !fs::metadata(path).map_err(wrong)?.is_file() {
        return Err(format!("{} is no regular file", path.display()));
    }
    let bytes = read_bytes(path).map_err(wrong)?;
    Ok((path.display().to_string(), String::from_utf8_lossy(&bytes).into_owned()))
}
