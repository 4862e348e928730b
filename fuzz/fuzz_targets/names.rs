//! Names of hosts and services, and every other form of an address: what is taken is within the limits of DNS, and
//! what is shown of it is read as the same again.
#![no_main]

use std::fmt::Display;
use std::str::FromStr;

use lb_fuzz::address::{BackendAddress, BindAddress};
use libfuzzer_sys::fuzz_target;

/// RFC 1035, 2.3.4: in text, without the dot of the root.
const MAX_NAME_LENGTH: usize = 253;
const MAX_LABEL_LENGTH: usize = 63;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(BindAddress::Name(host, _)) = reread(text) {
        judge(&host);
    }
    match reread(text) {
        Some(BackendAddress::Name(name, port)) => {
            assert_ne!(port, 0, "{text}");
            judge(&name);
        }
        Some(BackendAddress::Srv(name)) => judge(&name),
        Some(BackendAddress::Address(_)) | None => {}
    }
});

fn reread<T: FromStr<Err = String> + Display + PartialEq>(text: &str) -> Option<T> {
    match T::from_str(text) {
        Ok(address) => {
            let shown = address.to_string();
            assert!(T::from_str(&shown).is_ok_and(|again| again == address), "{text} is shown as {shown}");
            Some(address)
        }
        Err(said) => {
            assert!(said.contains(text), "{text}: {said}");
            None
        }
    }
}

fn judge(name: &str) {
    let labels = name.strip_suffix('.').unwrap_or(name);
    assert!(labels.len() <= MAX_NAME_LENGTH, "{name}");
    for label in labels.split('.') {
        assert!((1..=MAX_LABEL_LENGTH).contains(&label.len()) && label.is_ascii(), "{name}");
    }
}
