//! A network that one test has for itself.

use std::process::{Command, Stdio};

use super::required;

/// Runs the test of that name once more, in a network of its own, where loopback is up: whether this is that run. The
/// other one waits for it.
pub fn is_in_a_network_of_its_own(test: &str) -> bool {
    const MARK: &str = "LB_TEST_IN_A_NETWORK_OF_ITS_OWN";
    if std::env::var_os(MARK).is_some() {
        let up = Command::new(required("ip", "iproute2")).args(["link", "set", "lo", "up"]).status();
        assert!(up.expect("ip starts").success());
        return true;
    }
    let mut command = Command::new(required("unshare", "util-linux"));
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    let this = std::env::current_exe().expect("the tests are a file");
    command.arg("--net").arg(this).args(["--exact", test, "--nocapture"]).env(MARK, "1").stdin(Stdio::null());
    let run = command.output().expect("unshare starts");
    let said = [run.stdout, run.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(
        run.status.success() && said[0].contains("1 passed"),
        "{command:?}: {}\n{}{}",
        run.status,
        said[0],
        said[1]
    );
    false
}
