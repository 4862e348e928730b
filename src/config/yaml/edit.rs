//! One change to the tree, made by an override. Knows neither flags nor YAML.

/// Whose key a simple flag sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// A top-level key.
    Global,
    /// A key of the only listener.
    Listener,
    /// A key of the only pool.
    Pool,
}

/// One change to the configuration's tree.
#[derive(Clone, Debug)]
pub struct Edit {
    /// Whose key `path` is.
    pub scope: Scope,
    /// The key's path within its scope.
    pub path: String,
    /// The new value.
    pub value: EditValue,
    /// What the user typed, for messages: `--policy`, `LB_POLICY`.
    pub origin: String,
}

/// The new value of an [`Edit`].
#[derive(Clone, Debug)]
pub enum EditValue {
    /// A text, even if it looks like a number.
    Text(String),
    /// To be read as YAML.
    Yaml(String),
    /// A list of texts.
    List(Vec<String>),
    /// Backends in the flag's own form, `ADDR[,weight=N][,backup[=N]]`.
    Backends(Vec<String>),
}
