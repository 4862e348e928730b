//! An nginx.conf or haproxy.cfg of any bytes is refused with one of its lines, or becomes an lb.yaml that is valid.
#![no_main]

use std::io::Write;
use std::path::PathBuf;

use lb::bench::config::Source;
use lb::bench::import::{Format, Import, Surroundings};
use libfuzzer_sys::fuzz_target;
use tempfile::NamedTempFile;

fuzz_target!(|text: &str| {
    let Some(format) = Format::of(text) else { return };
    let mut surroundings = Surroundings {
        files: &mut |pattern| Err(format!("{pattern} is not there")),
        variable: &|_| None,
    };
    match Import::of(format, "file", text, &mut surroundings) {
        Err(error) => assert!((1..=text.lines().count().max(1)).contains(&error.place.line), "{error:?}"),
        Ok(import) => {
            let yaml = import.to_yaml("file");
            let mut file = NamedTempFile::new().expect("a temporary file");
            file.write_all(yaml.as_bytes()).expect("room for it");
            let source = Source { file: Some(PathBuf::from(file.path())), ..Source::default() };
            if let Err(problems) = source.load() {
                let problems = problems.to_string();
                // Certificates that it names are not there.
                let is_lack = |line: &str| line.contains("can't be read: ");
                assert!(problems.lines().all(is_lack), "{problems}\n{yaml}");
            }
        }
    }
});
