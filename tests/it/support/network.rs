//! A network that one test has for itself, and files of the system that it replaces there.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::lacks;

use super::packages::required;

/// Runs the test of that name once more, in a network of its own, where loopback is up, and with mounts of its own:
/// whether this is that run. The other one waits for it.
pub fn is_in_a_network_of_its_own(test: &str) -> bool {
    const MARK: &str = "LB_TEST_IN_A_NETWORK_OF_ITS_OWN";
    let (unshare, ip) = (required("unshare"), required("ip"));
    if std::env::var_os(MARK).is_some() {
        let up = Command::new(ip).args(["link", "set", "lo", "up"]).status();
        assert!(up.expect("ip starts").success());
        return true;
    }
    let in_a_network = || {
        let mut command = Command::new(&unshare);
        if !rustix::process::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["--net", "--mount"]).stdin(Stdio::null());
        command
    };
    if !in_a_network().arg("true").output().is_ok_and(|output| output.status.success()) {
        lacks("a network namespace of its own: root, or user namespaces");
    }
    let mut command = in_a_network();
    let this = std::env::current_exe().expect("the tests are a file");
    command.arg(this).args(["--exact", test]).env(MARK, "1");
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

/// Runs a program of the system, which must succeed: in a network of its own only.
#[track_caller]
pub fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(required(program)).args(arguments).status().expect("it is a program");
    assert!(status.success(), "{program} {arguments:?}: {status}");
}

/// Puts a file, or a folder, in the place of one of the system's: with mounts of its own only.
#[track_caller]
pub fn put_in_place_of(system: &str, own: &Path) {
    run("mount", &["--bind", &own.display().to_string(), system]);
}

/// Switches IPv6 off, as many containers have it: in a network of its own only.
pub fn switch_ipv6_off() {
    for interface in ["all", "lo"] {
        std::fs::write(format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6"), "1").expect("root may set it");
    }
}
