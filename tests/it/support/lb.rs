//! The balancer as a process: started as a user would, seen through what it shows to users.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{lacks, report};

use super::files::Folder;
use super::http::{self, Answer};
use super::lines::Lines;
use super::metrics::Metrics;
use super::process;
use super::{required, wait_for, wait_until, wait_until_equal};

mod balance;
mod changes;
mod commands;
mod logs;

use balance::AtRest;

use commands::{command, command_of, command_of_user, copied_into};
pub use commands::{command as lb_command, run_to_end};

/// An ordinary user and its group, whom nobody else is: the kernel counts the pipes of an unprivileged user. Only root
/// can be somebody else; by others the test is ignored.
pub fn ordinary_user() -> u32 {
    if !rustix::process::geteuid().is_root() {
        lacks("root, to run a program as another user");
    }
    20_000 + std::process::id() % 40_000
}

/// What a configuration is called in the test's folder.
const CONFIG_FILE: &str = "test.yaml";

/// What the tests run.
const LB: &str = env!("CARGO_BIN_EXE_lb");

/// A balancer to be started.
pub struct LbBuilder {
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    open_files: Option<u64>,
    user: Option<u32>,
    socket: Option<OwnedFd>,
    from_copy: bool,
    /// A program that runs it under some seccomp filter, and its arguments.
    filter: Vec<String>,
    log_format: &'static str,
    output: Stdio,
    is_watched: bool,
    folder: Folder,
}

/// A running balancer. Dropping it checks that nothing is left of the test's connections, and kills it; when the test
/// fails, its log is shown.
pub struct Lb {
    processes: Processes,
    output: Lines,
    log: Lines,
    addresses: Vec<(String, SocketAddr)>,
    admin: Option<SocketAddr>,
    at_rest: AtRest,
    /// Whether its end is checked.
    is_watched: bool,
    /// Whether a signal has asked it to stop: its log may say so a moment later.
    is_stopped: AtomicBool,
    /// The process that an upgrade has put in place of the one before.
    successor: Option<u32>,
}

/// Dropping it kills them.
struct Processes {
    first: Child,
    folder: Folder,
}

impl LbBuilder {
    /// Adds arguments.
    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// Sets a key by its path.
    pub fn set(self, path: &str, value: impl Display) -> Self {
        self.with(&["--set", &format!("{path}={value}")])
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Puts a file into the folder that it runs in.
    pub fn with_file(self, name: &str, content: &str) -> Self {
        self.folder.write(name, content);
        self
    }

    /// Gives the process this many open files at most.
    pub fn open_files_at_most(mut self, limit: u64) -> Self {
        self.open_files = Some(limit);
        self
    }

    /// Runs it as an ordinary user.
    pub fn by_ordinary_user(mut self) -> Self {
        self.user = Some(ordinary_user());
        self
    }

    /// Starts it with this listening socket as its descriptor 3.
    pub fn with_socket(mut self, socket: impl Into<OwnedFd>) -> Self {
        self.socket = Some(socket.into());
        self
    }

    /// Runs the file `lb` of its own folder: a test may put another program there.
    pub fn in_its_folder(mut self) -> Self {
        self.from_copy = true;
        self
    }

    /// Answers its splice(2) with this error, as a container's seccomp filter may.
    pub fn without_call(mut self, call: &'static str, error: i32) -> Self {
        let script = include_str!("../../data/programs/without_call.py");
        let python = required("python3").display().to_string();
        self.filter = [&python, "-c", script, call, &error.to_string()].map(str::to_owned).into();
        self
    }

    /// Under the seccomp profile of `deploy/`, as a container engine sets it up.
    pub fn under_seccomp_profile(mut self) -> Self {
        required("/usr/lib/python3/dist-packages/seccomp*.so");
        let script = include_str!("../../data/programs/under_profile.py");
        let profile = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/seccomp/lb.json");
        // Debian's own Python has Debian's modules.
        self.filter = ["/usr/bin/python3", "-c", script, profile].map(str::to_owned).into();
        self
    }

    /// Gives it this as its standard output, which then isn't read here.
    pub fn with_output(mut self, output: impl Into<Stdio>) -> Self {
        self.output = output.into();
        self
    }

    /// Logs text, as without a flag.
    pub fn in_text(mut self) -> Self {
        self.log_format = "text";
        self
    }

    /// Starts it, and waits until it is ready.
    #[track_caller]
    pub fn start(self) -> Lb {
        let mut command = command(self.folder.path());
        if let Some(limit) = self.open_files {
            // ulimit sets the soft and the hard limit; exec keeps the process id.
            command = Command::new("sh");
            command.current_dir(self.folder.path()).stdin(Stdio::null());
            command.args(["-c", "ulimit -n \"$1\" && shift && exec \"$@\"", "sh", &limit.to_string(), LB]);
        }
        if let Some(socket) = self.socket {
            // A child's descriptors can be numbered by a shell alone, without unsafe code; exec keeps the process id.
            command = Command::new("sh");
            command.current_dir(self.folder.path()).stdin(Stdio::from(socket));
            command.args(["-c", "exec \"$@\" 3<&0 </dev/null", "sh", LB]);
        }
        if self.from_copy {
            command = command_of(&copied_into(self.folder.path()), self.folder.path());
        }
        if let Some(user) = self.user {
            command = command_of_user(user, self.folder.path());
        }
        if let [program, arguments @ ..] = &self.filter[..] {
            // exec keeps the process id.
            command = command_of(program.as_ref(), self.folder.path());
            command.args(arguments).arg(LB);
        }
        // JSON: the addresses that the kernel chose are read from the log, and the access log is read as values.
        command.args(&self.arguments).args(["--log-format", self.log_format]).envs(self.environment);
        let mut child = command.stdout(self.output).stderr(Stdio::piped()).spawn().expect("the binary was built");
        let output = child.stdout.take().map_or_else(|| Lines::of(std::io::empty()), Lines::of);
        let log = Lines::of(child.stderr.take().expect("piped"));
        let mut lb = Lb {
            processes: Processes { first: child, folder: self.folder },
            output,
            log,
            addresses: Vec::new(),
            admin: None,
            at_rest: AtRest::default(),
            is_watched: self.is_watched,
            is_stopped: AtomicBool::new(false),
            successor: None,
        };
        lb.become_ready();
        lb
    }
}

impl Lb {
    /// In front of these backends, by flags alone; on a port that the kernel chooses.
    pub fn in_front_of(backends: &[SocketAddr]) -> LbBuilder {
        let texts: Vec<String> = backends.iter().map(SocketAddr::to_string).collect();
        Self::with_backends(&texts.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// The same with backends as the flag has them: `ADDR[,weight=N][,backup]`.
    pub fn with_backends(backends: &[&str]) -> LbBuilder {
        let builder = Self::with_arguments(&["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        backends.iter().fold(builder, |builder, backend| builder.with(&["--backend", backend]))
    }

    /// With a configuration file.
    pub fn with_config(yaml: &str) -> LbBuilder {
        let builder = Self::with_arguments(&["--admin", "127.0.0.1:0"]);
        let file = builder.folder.write(CONFIG_FILE, yaml);
        builder.with(&["-c", &file.display().to_string()])
    }

    pub fn with_arguments(arguments: &[&str]) -> LbBuilder {
        let empty = LbBuilder {
            arguments: Vec::new(),
            environment: Vec::new(),
            open_files: None,
            user: None,
            socket: None,
            from_copy: false,
            filter: Vec::new(),
            log_format: "json",
            output: Stdio::piped(),
            is_watched: true,
            folder: Folder::new(),
        };
        empty.with(arguments)
    }

    /// Reads the addresses from the log, and waits until it is ready.
    #[track_caller]
    fn become_ready(&mut self) {
        wait_until("lb accepts connections", || {
            if let Ok(Some(status)) = self.processes.first.try_wait() {
                panic!("lb ended at its start ({status}):\n{}", self.log.text());
            }
            !self.log_lines_with("accepting connections").is_empty()
        });
        let address_of = |line: &Value| line["address"].as_str().and_then(|address| address.parse().ok());
        for line in self.log_lines_with("listening") {
            let name = line["listener"].as_str().map(str::to_owned);
            if let (Some(name), Some(address)) = (name, address_of(&line)) {
                self.addresses.push((name, address));
            }
        }
        self.admin = self.log_lines_with("admin server listening").first().and_then(address_of);
        self.at_rest = self.at_rest();
    }

    /// The process; after an upgrade the newest.
    pub fn pid(&self) -> u32 {
        self.successor.unwrap_or_else(|| self.processes.first.id())
    }

    /// The pipes that it has open, by name.
    pub fn pipes(&self) -> BTreeSet<PathBuf> {
        process::open_pipes(self.pid())
    }

    /// The address of its first listener.
    #[track_caller]
    pub fn address(&self) -> SocketAddr {
        self.addresses.first().expect("a TCP listener").1
    }

    /// The address of a listener.
    #[track_caller]
    pub fn address_of(&self, listener: &str) -> SocketAddr {
        self.addresses.iter().find(|(name, _)| name == listener).expect("a listener of that name").1
    }

    /// The addresses of its TCP listeners, in the order of the configuration.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.addresses.iter().map(|(_, address)| *address).collect()
    }

    #[track_caller]
    pub fn admin(&self) -> SocketAddr {
        self.admin.expect("the admin server is on")
    }

    /// GETs a path of the admin server.
    #[track_caller]
    pub fn ask(&self, path: &str) -> Answer {
        http::get(self.admin(), path)
    }

    /// GETs a path of the admin server's API.
    #[track_caller]
    pub fn api(&self, path: &str) -> Value {
        let answer = self.ask(path);
        serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{path}: {error} in {:?}", answer.body))
    }

    /// The API's report of a backend in the first pool.
    #[track_caller]
    pub fn backend(&self, address: SocketAddr) -> Value {
        let report = self.api("/api/v1/pools");
        let backends = report["pools"][0]["backends"].as_array().expect("a list").clone();
        let is_it = |backend: &Value| backend["address"] == address.to_string();
        backends.into_iter().find(is_it).expect("a backend of that address")
    }

    /// The state of a backend in the first pool.
    #[track_caller]
    pub fn state_of(&self, address: SocketAddr) -> String {
        self.backend(address)["state"].as_str().expect("a text").to_owned()
    }

    /// Clients in the queue of the first pool.
    #[track_caller]
    pub fn waiting(&self) -> u64 {
        self.api("/api/v1/pools")["pools"][0]["waiting"].as_u64().expect("a number")
    }

    /// Has a backend of the short form's pool take no new connections.
    #[track_caller]
    pub fn drain_backend(&self, address: SocketAddr) {
        let (status, said) = self.post(&format!("/api/v1/pools/default/backends/{address}/drain"));
        assert_eq!(status, 200, "{said}");
    }

    /// Scrapes; what is scraped must add up, whenever that is.
    #[track_caller]
    pub fn metrics(&self) -> Metrics {
        let metrics = Metrics::parse(&self.ask("/metrics").body);
        metrics.assert_conserved();
        metrics
    }

    pub fn signal(&self, signal: Signal) {
        if matches!(signal, Signal::TERM | Signal::INT) {
            self.is_stopped.store(true, Ordering::Relaxed);
        }
        process::send(self.pid(), signal);
    }

    /// Waits for its end, and for the last of its output.
    #[track_caller]
    pub fn wait_for_end(&mut self) -> ExitStatus {
        let status = wait_for("lb ends", || self.processes.first.try_wait().expect("a child can be waited for"));
        self.output.finish();
        self.log.finish();
        status
    }
}

impl Drop for Lb {
    fn drop(&mut self) {
        let has_failed = thread::panicking();
        // A test that has failed already is not judged again.
        let end = panic::catch_unwind(AssertUnwindSafe(|| {
            if !has_failed {
                self.assert_good_end();
            }
        }));
        if has_failed || end.is_err() {
            report(&format!("--- log of lb (pid {}) ---\n{}--- end of log ---\n", self.pid(), self.log.text()));
        }
        if let Err(failure) = end {
            panic::resume_unwind(failure);
        }
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        let _ = self.first.kill();
        let _ = self.first.wait();
        // Those that an upgrade has started are in its folder, which no other test has.
        process::working_in(self.folder.path()).into_iter().for_each(process::kill);
    }
}
