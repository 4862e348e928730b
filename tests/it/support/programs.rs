//! Other people's programs: real clients and servers.

use std::ffi::OsStr;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::packages::required;
use super::ports::free_port;
use super::{process, wait_until};

/// A server that was asked to end does so in this time, or is killed.
const TIME_TO_END: Duration = Duration::from_secs(20);

/// A server of somebody else. Dropping it kills it.
pub struct Program {
    child: Child,
    address: SocketAddr,
    /// Asks it to end by itself: a server of several processes takes the others along.
    end_signal: Option<Signal>,
}

impl Program {
    /// Starts it, and waits until it accepts at `address`.
    #[track_caller]
    pub fn serving_at(address: SocketAddr, command: &mut Command) -> Self {
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = quiet.spawn().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        let mut program = Self { child, address, end_signal: None };
        wait_until(&format!("{command:?} accepts at {address}"), || {
            if let Ok(Some(status)) = program.child.try_wait() {
                panic!("{command:?} ended at its start: {status}");
            }
            TcpStream::connect(address).is_ok()
        });
        program
    }

    /// Ends by this signal instead of being killed.
    pub fn ended_by(mut self, signal: Signal) -> Self {
        self.end_signal = Some(signal);
        self
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        process::send(self.child.id(), signal);
    }

    /// Kills it and gives its address.
    pub fn stop(self) -> SocketAddr {
        self.address
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(signal) = self.end_signal {
            process::send(self.child.id(), signal);
            let deadline = Instant::now() + TIME_TO_END;
            while self.child.try_wait().is_ok_and(|status| status.is_none()) && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(10));
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program to its end and gives what it wrote; fails unless it ends well.
#[track_caller]
pub fn output_of<A: AsRef<OsStr>>(program: &Path, arguments: &[A]) -> String {
    let mut command = Command::new(program);
    let Output { status, stdout, stderr } =
        command.args(arguments).stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{program:?}: {error}"));
    assert!(status.success(), "{command:?} failed ({status}): {}", String::from_utf8_lossy(&stderr));
    String::from_utf8_lossy(&stdout).into_owned()
}

/// Runs a program to its end that is given `input`: what it wrote, and its complaints.
#[track_caller]
pub fn run_to_output(command: &mut Command, input: &str) -> (String, String) {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    // It may leave before it has read all of it.
    let _ = child.stdin.take().expect("it is piped").write_all(input.as_bytes());
    let Output { stdout, stderr, .. } = child.wait_with_output().expect("it is our child");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&stdout), text(&stderr))
}

/// python3's own HTTP server, with an index page that says `name`.
#[track_caller]
pub fn python_http_server(folder: &Path, name: &str) -> Program {
    python_http_server_at(free_port(), folder, name)
}

/// The same at this address.
#[track_caller]
pub fn python_http_server_at(address: SocketAddr, folder: &Path, name: &str) -> Program {
    let content = folder.join(name);
    std::fs::create_dir_all(&content).expect("the folder is writable");
    std::fs::write(content.join("index.html"), name).expect("the folder is writable");
    let mut command = Command::new(required("python3"));
    command.args(["-m", "http.server", "--bind", "127.0.0.1", &address.port().to_string()]).current_dir(content);
    Program::serving_at(address, &mut command)
}
