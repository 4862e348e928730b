//! The headers that a proxy sets on requests. Other proxies pass all others as the client sent them, while lb's default
//! sets four: those are written out as what the client sent, unless the other proxy sets them, too.

use std::collections::BTreeMap;

use crate::protocol::http1::{HeaderEdit, InvalidEdit};

/// For X-Forwarded-For as other proxies write it: what any client sent of it is kept.
pub const EVERYBODY: [&str; 2] = ["0.0.0.0/0", "::/0"];

/// `set_headers` of lb.yaml.
pub struct Headers(BTreeMap<String, Option<String>>);

impl Headers {
    /// All as the client sent them.
    pub fn as_sent() -> Self {
        let sent = [
            ("Host", "$http_host"),
            ("X-Real-IP", "$http_x_real_ip"),
            ("X-Forwarded-For", "$http_x_forwarded_for"),
            ("X-Forwarded-Proto", "$http_x_forwarded_proto"),
        ];
        Self(sent.iter().map(|(name, value)| ((*name).to_owned(), Some((*value).to_owned()))).collect())
    }

    /// Sets one; an empty value removes it.
    ///
    /// # Errors
    /// lb doesn't set such a header, or not to such a value.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), InvalidEdit> {
        HeaderEdit::parse(name, value)?;
        self.0.retain(|other, _| !other.eq_ignore_ascii_case(name));
        self.0.insert(name.to_owned(), Some(value.to_owned()).filter(|value| !value.is_empty()));
        Ok(())
    }

    /// What one is set to; `None`: it is removed.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(own, _)| own.eq_ignore_ascii_case(name))?.1.as_deref()
    }

    /// Whether a value has this in it.
    pub fn mention(&self, text: &str) -> bool {
        self.0.values().flatten().any(|value| value.contains(text))
    }

    /// Whether backends see the Host that the client sent.
    pub fn is_host_of_client(&self) -> bool {
        matches!(self.value("Host"), Some("$host" | "$http_host"))
    }

    pub fn into_map(self) -> BTreeMap<String, Option<String>> {
        self.0
    }
}
