//! A configuration of any bytes is read or refused, with names of hosts and services among them; what was read and
//! printed reads the same again.
#![no_main]

use std::io::Write;
use std::path::PathBuf;

use lb::bench::config::{Loaded, Problems, Source};
use libfuzzer_sys::fuzz_target;
use tempfile::NamedTempFile;

fn load(bytes: &[u8]) -> Result<Loaded, Problems> {
    let mut file = NamedTempFile::new().expect("a temporary file");
    file.write_all(bytes).expect("room for it");
    let source = Source { file: Some(PathBuf::from(file.path())), ..Source::default() };
    source.load()
}

fuzz_target!(|bytes: &[u8]| {
    match load(bytes) {
        Err(Problems(problems)) => assert!(!problems.is_empty(), "refused without a reason"),
        Ok(loaded) => {
            let again = load(loaded.printed.as_bytes()).unwrap_or_else(|problems| {
                panic!("what was printed is refused: {problems}\n{}", loaded.printed);
            });
            assert_eq!(again.printed, loaded.printed);
        }
    }
});
