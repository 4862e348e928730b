//! What the tests of the admin server ask it.

use std::fmt::Display;
use std::io::Write as _;

use super::files::Folder;
use super::http::{Answer, post};
use super::lb::Lb;
use super::servers::Server;

/// Where a reload is asked for.
pub const RELOAD: &str = "/api/v1/reload";

/// Says its name to whoever comes, then echoes.
pub fn greeter(name: &'static str) -> Server {
    Server::that(move |mut stream| {
        let _ = stream.write_all(name.as_bytes());
        let mut reader = stream.try_clone().unwrap();
        let _ = std::io::copy(&mut reader, &mut stream);
    })
}

/// Changes a backend of the pool `default`.
pub fn change_backend(lb: &Lb, address: impl Display, verb: &str) -> Answer {
    post(lb.admin(), &backend_path(address, verb), &[])
}

/// Where a change of a backend of the pool `default` is asked for.
pub fn backend_path(address: impl Display, verb: &str) -> String {
    format!("/api/v1/pools/default/backends/{address}/{verb}")
}

/// With a file that the test may write anew.
pub fn start_with_file(folder: &Folder, yaml: &str) -> Lb {
    let file = folder.write("lb.yaml", yaml);
    Lb::with_arguments(&["-c", &file.display().to_string()]).start()
}

/// It is an answer of the API that says what was wrong.
#[track_caller]
pub fn assert_api_error(answer: &Answer, status: u16, part: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"), "{answer:?}");
    let error = answer.json()["error"].as_str().unwrap_or_default().to_owned();
    assert!(error.contains(part), "{part:?} in {error:?}");
}
