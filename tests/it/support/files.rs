//! A folder of its own for a test.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// Removed with all it holds when dropped.
pub struct Folder(TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::Builder::new().prefix("lb-it-").tempdir().expect("the temporary directory is writable"))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file and gives its path.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, content).expect("the temporary directory is writable");
        path
    }
}
