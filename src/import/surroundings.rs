//! What a configuration refers to outside itself: other files, and variables of the environment. The importers see no
//! file system; who calls them decides what they may read.

/// Files, with names to show and their texts; or why there are none.
pub type Files = Result<Vec<(String, String)>, String>;

/// Where a configuration is read.
pub struct Surroundings<'a> {
    /// Those that match a pattern.
    pub files: &'a mut dyn FnMut(&str) -> Files,
    /// A variable of the environment.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// Bytes that may still be read of other files.
    pub bytes_left: usize,
}

impl Surroundings<'_> {
    /// The texts of the files that match, in order.
    ///
    /// # Errors
    /// There is no such file, it can't be read, or all of them together are too large.
    pub fn files(&mut self, pattern: &str) -> Files {
        let files = (self.files)(pattern)?;
        for (name, text) in &files {
            self.bytes_left = self
                .bytes_left
                .checked_sub(text.len())
                .ok_or_else(|| format!("{name}: the included files are too large together"))?;
        }
        Ok(files)
    }
}
