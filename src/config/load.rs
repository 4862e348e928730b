//! Loads the configuration from a file, the environment and flags: one that can run, or every problem with it.

use std::borrow::Cow;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::build::build;
use super::file::File;
use super::global::Config;
use super::overrides::{Overrides, flag_name, variable_name};
use super::problem::{Problem, Problems};
use super::yaml::{Reporter, Tree, print};

/// The files that are tried when neither a flag nor `LB_CONFIG` names one.
const DEFAULT_FILES: [&str; 2] = ["./lb.yaml", "/etc/lb/lb.yaml"];

/// A larger file can't be a configuration: 10,000 networks take 200 KB.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// Reads a file of another program: its text as YAML, or every problem with it. `None`: the file is an lb.yaml.
pub type Translate = fn(&Path, &str) -> Option<Result<String, Problems>>;

/// Where a configuration comes from.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// Other programs' files are taken, too.
    pub translate: Option<Translate>,
    /// The file that a flag or `LB_CONFIG` names.
    pub file: Option<PathBuf>,
    /// From the environment.
    pub environment: Overrides,
    /// From flags; they win over the environment.
    pub flags: Overrides,
    /// Of the environment, names that are nearly those of variables.
    pub misspelt: Vec<Problem>,
}

/// A configuration that can run, and where it came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    /// The file's settings after the environment and the flags.
    pub effective: File,
    /// The file that was read, if one was.
    pub file: Option<PathBuf>,
    /// What is valid, and yet surely not meant.
    pub warnings: Vec<Problem>,
}

impl Source {
    /// Reads the file, applies the environment and the flags, and validates.
    ///
    /// # Errors
    /// Every problem found, each with its place and remedy.
    pub fn load(&self) -> Result<Loaded, Problems> {
        let path = self.find_file()?;
        let (file, mut reporter) = self.read(path.as_deref())?;
        let config = build(&file, &mut reporter);
        if reporter.problems.is_empty() {
            let warnings = self.misspelt.iter().cloned().chain(reporter.warnings).collect();
            Ok(Loaded { config, effective: file, file: path, warnings })
        } else {
            Err(Problems(reporter.problems))
        }
    }

    /// Puts a problem that was found with the key at a path of the long form where the user wrote that key.
    ///
    /// # Errors
    /// The file can't be read any more.
    pub fn located(&self, found: Vec<(String, String)>) -> Result<Vec<Problem>, Problems> {
        let (_, mut reporter) = self.read(self.find_file()?.as_deref())?;
        found.into_iter().for_each(|(path, message)| reporter.problem(&path, message));
        Ok(reporter.problems)
    }

    /// Reads the file, and applies the environment and the flags.
    fn read(&self, path: Option<&Path>) -> Result<(File, Reporter), Problems> {
        let mut tree = path.map_or_else(|| Ok(Tree::empty()), |path| self.read_tree(path))?;
        let (from_environment, wrong_variables) = self.environment.clone().edits(variable_name);
        let (from_flags, wrong_flags) = self.flags.clone().edits(flag_name);
        tree.apply(from_environment);
        tree.apply(from_flags);
        let (file, mut reporter) = tree.into_file();
        reporter.problems.extend(wrong_variables.into_iter().chain(wrong_flags));
        Ok((file, reporter))
    }

    /// The named file, or the first default file that exists; none is needed where flags give a listener and a backend.
    ///
    /// # Errors
    /// No file is named, and neither of the default files exists.
    pub fn find_file(&self) -> Result<Option<PathBuf>, Problems> {
        if self.file.is_some() {
            return Ok(self.file.clone());
        }
        let has_listener = !(self.flags.listen.is_empty() && self.environment.listen.is_empty());
        let has_backend = !(self.flags.backend.is_empty() && self.environment.backend.is_empty());
        if has_listener && has_backend {
            return Ok(None);
        }
        if let Some(path) = DEFAULT_FILES.iter().map(Path::new).find(|path| path.exists()) {
            return Ok(Some(path.to_owned()));
        }
        let remedy = match (has_listener, has_backend) {
            (true, false) => "give --backend ADDR (LB_BACKEND) too, or name a file with -c FILE",
            (false, true) => "give --listen ADDR (LB_LISTEN) too, or name a file with -c FILE",
            _ => "name a file with -c FILE, or give --listen ADDR and --backend ADDR (or see it work with `lb demo`)",
        };
        let files = DEFAULT_FILES.join(" nor ");
        Err(Problems(vec![Problem::general(format!("no configuration: neither {files} exists; {remedy}"))]))
    }

    fn read_tree(&self, path: &Path) -> Result<Tree, Problems> {
        let name = path.strip_prefix("./").unwrap_or(path).display().to_string();
        let unreadable = |error: io::Error| {
            let message = format!("can't be read: {error}");
            Problems(vec![Problem::at(name.clone(), "", message)])
        };
        let bytes = read_bytes(path).map_err(unreadable)?;
        // Comments of other programs' files may be in any encoding.
        let text = String::from_utf8_lossy(&bytes);
        match self.translate.and_then(|translate| translate(path, &text)) {
            // Lines are those of the translation, which `lb import` shows.
            Some(translated) => Tree::read(&format!("{name} as lb.yaml"), &translated?),
            None if matches!(text, Cow::Owned(_)) => {
                return Err(unreadable(io::Error::new(io::ErrorKind::InvalidData, "it is no UTF-8")));
            }
            None => Tree::read(&name, &text),
        }
        .map_err(Problems)
    }
}

impl Loaded {
    /// The effective configuration as YAML, long form: after the environment and the flags.
    pub fn printed(&self) -> String {
        print(&self.effective)
    }
}

/// The problems with a file that was made, not read.
pub fn problems_of(file: &File) -> Vec<Problem> {
    let mut reporter = Reporter::default();
    build(file, &mut reporter);
    reporter.problems
}

/// A configuration's bytes, without the mark that some editors begin a file with (U+FEFF in UTF-8).
///
/// # Errors
/// It can't be read, or is too large.
pub fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.starts_with("\u{feff}".as_bytes()) {
        bytes.drain(.."\u{feff}".len());
    }
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {MAX_BYTES} bytes")));
    }
    Ok(bytes)
}
