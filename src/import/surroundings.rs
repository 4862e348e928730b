//! What a configuration refers to outside itself: other files, and variables of the environment. The importers see no
//! file system; who calls them decides what they may read.

/// Files, with names to show and their texts; or why there are none.
pub type Files = Result<Vec<(String, String)>, String>;

/// Where a configuration is read.
pub struct Surroundings<'a> {
    /// Those that match a pattern, in order. All together they are no larger than `MAX_BYTES`.
    pub files: &'a mut dyn FnMut(&str) -> Files,
    /// A variable of the environment.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
}
