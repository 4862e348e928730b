//! A network that one test has for itself, and files of the system that it replaces there.

use std::path::Path;
use std::process::{Child, Command, Stdio};

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

/// Another network, as long as this lives.
pub struct Network(Child);

impl Network {
    /// In a network of its own only: joined to that by a cable `name`: here `.1` of these, there `.2` and `.3`.
    pub fn joined(name: &str, v4: &str, v6: &str) -> Self {
        let mut command = Command::new(required("unshare"));
        command.args(["--net", "sh", "-c", "echo; exec cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // It is there once it has said so.
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        let network = Self(child);
        run("ip", &["link", "add", name, "type", "veth", "peer", "name", "far", "netns", &network.0.id().to_string()]);
        run("ip", &["address", "add", &format!("{v4}.1/24"), "dev", name]);
        run("ip", &["address", "add", &format!("{v6}::1/64"), "dev", name, "nodad"]);
        run("ip", &["link", "set", name, "up"]);
        network.ip(&["link", "set", "lo", "up"]);
        for host in [2, 3] {
            network.ip(&["address", "add", &format!("{v4}.{host}/24"), "dev", "far"]);
            network.ip(&["address", "add", &format!("{v6}::{host}/64"), "dev", "far", "nodad"]);
        }
        network.ip(&["link", "set", "far", "up"]);
        network.ip(&["route", "add", "default", "via", &format!("{v4}.1")]);
        network.ip(&["-6", "route", "add", "default", "via", &format!("{v6}::1")]);
        network
    }

    /// Runs a program there.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(required("nsenter"));
        command.arg(format!("--net=/proc/{}/ns/net", self.0.id())).arg(required(program));
        command
    }

    fn ip(&self, arguments: &[&str]) {
        let status = self.command("ip").args(arguments).status().unwrap();
        assert!(status.success(), "ip {arguments:?}: {status}");
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
