//! What the logs are written to may stand still: nothing waits for it.

use std::io::{self, BufRead, BufReader, PipeReader, PipeWriter, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{
    Folder, Lb, Metrics, Origin, Reader, Server, connect, free_port, get, get_from, lb_command, post, required,
    short_read, wait_for, wait_until,
};

/// A pipe that takes no byte more, and that nobody reads.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    for piece in [4096, 1] {
        while writer.write(&vec![b'\n'; piece]).is_ok() {}
    }
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    (reader, writer)
}

/// A balancer of which nothing is read: its addresses can't be chosen by the kernel.
struct Unread {
    process: Child,
    address: SocketAddr,
    admin: SocketAddr,
    folder: Folder,
}

impl Unread {
    /// With standard output and standard error in one pipe, as in a container, that is full from the start.
    fn on_one_pipe(output: &PipeWriter, backends: &[SocketAddr]) -> Self {
        let folder = Folder::new();
        let (address, admin) = (free_port(), free_port());
        let backends: Vec<String> = backends.iter().map(SocketAddr::to_string).collect();
        let config = format!("listen: {address}\nbackends: [{}]\nadmin: {{bind: '{admin}'}}\n", backends.join(", "));
        folder.write("lb.yaml", config);
        let mut command = lb_command(folder.path());
        command.stdout(output.try_clone().unwrap()).stderr(output.try_clone().unwrap());
        let lb = Self { process: command.spawn().unwrap(), address, admin, folder };
        lb.wait_until_ready();
        lb
    }

    fn wait_until_ready(&self) {
        wait_until("it is ready", || get_from(self.admin, "/readyz").is_ok_and(|answer| answer.status == 200));
    }

    /// A client gets back what it sent.
    fn assert_echoes(&self) -> TcpStream {
        let mut client = connect(self.address);
        client.write_all(b"are you there").unwrap();
        assert_eq!(short_read(&mut client), "are you there");
        client
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        Metrics::parse(&get(self.admin, "/metrics").body).sum(name, labels)
    }

    fn wait_for_end(&mut self) -> ExitStatus {
        wait_for("lb ends", || self.process.try_wait().unwrap())
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn nothing_waits_for_a_pipe_of_both_logs_that_nobody_reads() {
    let (_reader, output) = full_pipe();
    let (one, two) = (Server::echo(), Server::echo());
    let mut lb = Unread::on_one_pipe(&output, &[one.address(), two.address()]);
    (0..20).for_each(|_| drop(lb.assert_echoes()));
    let gone = one.stop();
    // The ejection is logged by a worker, the reloads and the refusal by the main thread.
    (0..20).for_each(|_| drop(lb.assert_echoes()));
    assert_eq!(lb.metric("backend_ejections_total", &[]), 1.0);
    for done in 1..=5 {
        lb.signal(Signal::HUP);
        wait_until("it has reloaded", || lb.metric("config_reloads_total", &[]) == f64::from(done));
    }
    lb.folder.write("lb.yaml", "nonsense: 1\n");
    assert_eq!(post(lb.admin, "/api/v1/reload", &[]).status, 422);
    assert_eq!(post(lb.admin, "/api/v1/reload", &[("Origin", "http://evil.example")]).status, 403);
    lb.signal(Signal::USR1);
    lb.assert_echoes();
    lb.signal(Signal::TERM);
    assert_eq!(lb.wait_for_end().code(), Some(0));
    drop(gone);
}

#[test]
fn a_second_signal_ends_it_although_nobody_reads_its_logs() {
    let (_reader, output) = full_pipe();
    let server = Server::echo();
    let mut lb = Unread::on_one_pipe(&output, &[server.address()]);
    let _client = lb.assert_echoes();
    lb.signal(Signal::TERM);
    wait_until("it drains", || get(lb.admin, "/readyz").status == 503);
    lb.signal(Signal::TERM);
    assert_eq!(lb.wait_for_end().code(), Some(0));
}

#[test]
fn a_start_that_fails_ends_although_nobody_reads_why() {
    let (_reader, output) = full_pipe();
    let (folder, taken) = (Folder::new(), Server::echo());
    let address = taken.address().to_string();
    let mut command = lb_command(folder.path());
    command.args(["--listen", &address, "--backend", "127.0.0.1:1", "--admin", "off"]).stderr(output);
    let mut lb = command.spawn().unwrap();
    assert_eq!(wait_for("it ends", || lb.try_wait().unwrap()).code(), Some(1));
}

#[test]
fn the_access_log_says_what_was_lost_once_it_is_read_again() {
    let (reader, output) = full_pipe();
    let origin = Origin::new();
    let mut lb = Lb::in_front_of(&[origin.address()]).with(&["--mode", "http"]).with_output(output).start();
    let request = format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "x".repeat(7_000));
    let mut client = Reader::of(connect(lb.address()));
    let mut asked = 0;
    // More than the buffer holds, 8 MiB.
    while lb.metrics().sum("access_log_dropped_total", &[]) == 0.0 {
        for _ in 0..100 {
            client.send(request.as_bytes());
            assert_eq!(client.response().status(), 200);
            asked += 1;
        }
        assert!(asked < 10_000, "no line is lost");
    }
    drop(client);
    let reader = thread::spawn(move || BufReader::new(reader).lines().map_while(Result::ok).collect::<Vec<_>>());
    let message = "the access log is written again; lines were lost before";
    wait_until("it says so", || !lb.log_lines_with(message).is_empty());
    let lost = lb.metrics().sum("access_log_dropped_total", &[]);
    assert_eq!(lb.log_lines_with(message)[0]["lines"].as_f64(), Some(lost));
    lb.signal(Signal::TERM);
    assert_eq!(lb.wait_for_end().code(), Some(0));
    let lines = reader.join().unwrap().into_iter().filter(|line| !line.is_empty());
    assert_eq!(lines.count() as f64, f64::from(asked) - lost);
}

#[test]
fn the_log_says_what_was_lost_once_it_is_read_again() {
    let (reader, output) = full_pipe();
    let server = Server::echo();
    let lb = Unread::on_one_pipe(&output, &[server.address()]);
    drop(output);
    // The message says what is wrong.
    lb.folder.write("lb.yaml", format!("listen: {}\npolicy: {}\n", lb.address, "x".repeat(500_000)));
    let mut reloads = 0;
    while lb.metric("log_dropped_total", &[]) == 0.0 {
        assert_eq!(post(lb.admin, "/api/v1/reload", &[]).status, 422);
        reloads += 1;
        assert!(reloads < 100, "no line is lost");
    }
    lb.assert_echoes();
    let read = Arc::new(Mutex::new(Vec::new()));
    let gathered = read.clone();
    let reading = thread::spawn(move || {
        let lines = BufReader::new(reader).lines().map_while(Result::ok);
        lines.for_each(|line| gathered.lock().unwrap().push(line));
    });
    let says = |line: &String| line.contains("WARN the log is written again; lines were lost before lines=");
    wait_until("it says so", || read.lock().unwrap().iter().any(says));
    drop(lb);
    reading.join().unwrap();
}

#[test]
fn a_named_pipe_without_a_reader_keeps_neither_the_start_nor_the_end() {
    let folder = Folder::new();
    let pipe = folder.path().join("access.pipe");
    assert!(Command::new(required("mkfifo")).arg(&pipe).status().unwrap().success());
    let server = Server::named("here");
    let path = pipe.display().to_string();
    let mut lb = Lb::in_front_of(&[server.address()]).with(&["--access-log", &path]).start();
    assert_eq!(get(lb.address(), "/").body, "here");
    let mut line = String::new();
    BufReader::new(std::fs::File::open(&pipe).unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("\"cause\":\"backend_closed\""), "{line}");
    assert_eq!(get(lb.address(), "/").body, "here");
    lb.signal(Signal::TERM);
    assert_eq!(lb.wait_for_end().code(), Some(0));
}

/// Runs its arguments on a terminal whose output is stopped, as Ctrl-S does it; exits as they do.
const ON_A_STOPPED_TERMINAL: &str = "
import os, pty, subprocess, sys, termios
terminal, end = pty.openpty()
termios.tcflow(end, termios.TCOOFF)
lb = subprocess.Popen(sys.argv[1:], stdin=end, stdout=end, stderr=end)
os.close(end)
print(lb.pid, flush=True)
sys.exit(lb.wait())
";

/// Kills a process that should have ended.
struct KilledAtLast(Pid);

impl Drop for KilledAtLast {
    fn drop(&mut self) {
        if thread::panicking() {
            let _ = kill_process(self.0, Signal::KILL);
        }
    }
}

#[test]
fn nothing_waits_for_a_terminal_that_was_stopped() {
    let folder = Folder::new();
    let server = Server::named("here");
    let (address, admin) = (free_port(), free_port());
    let texts = [address, server.address(), admin].map(|address| address.to_string());
    let lb = lb_command(folder.path()).get_program().to_owned();
    let mut python = Command::new(required("python3"))
        .args(["-c", ON_A_STOPPED_TERMINAL])
        .arg(lb)
        .args(["--listen", &texts[0], "--backend", &texts[1], "--admin", &texts[2]])
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pid = String::new();
    BufReader::new(python.stdout.take().unwrap()).read_line(&mut pid).unwrap();
    let lb = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
    // python3 ends with it.
    let _killed_if_it_fails = KilledAtLast(lb);
    wait_until("it is ready", || get_from(admin, "/readyz").is_ok_and(|answer| answer.status == 200));
    // More than a terminal takes before it is stopped.
    for _ in 0..100 {
        assert_eq!(get(address, "/").body, "here");
    }
    kill_process(lb, Signal::TERM).unwrap();
    let status = wait_for("lb ends", || python.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
}

#[test]
fn the_demos_servers_wait_for_no_reader() {
    let (_reader, output) = full_pipe();
    let address = free_port();
    let folder = Folder::new();
    let mut command = lb_command(folder.path());
    command.args(["demo", "--server", &address.to_string()]).stdout(output);
    let mut demo = command.spawn().unwrap();
    wait_until("it serves", || TcpStream::connect(address).is_ok());
    for _ in 0..10 {
        assert_eq!(get(address, "/").body, format!("{address}\n"));
    }
    kill_process(Pid::from_child(&demo), Signal::TERM).unwrap();
    assert_eq!(wait_for("it ends", || demo.try_wait().unwrap()).code(), Some(0));
}
