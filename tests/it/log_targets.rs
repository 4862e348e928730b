//! Where logs go: receivers of syslog that are there, dead, slow or started anew, and folders that vanish. Lines may be
//! lost, and are counted then; nothing ever waits.

use std::fs;
use std::io::Write;
use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{
    Folder, Lb, LbBuilder, Origin, Reader, Server, connect, free_port, get, get_from, lb_command, rsyslog, wait_for,
    wait_until, wait_until_equal,
};

fn logging_to(server: &Server, target: &str) -> LbBuilder {
    Lb::in_front_of(&[server.address()]).with(&["--access-log", target]).in_text()
}

fn lost(lb: &Lb) -> f64 {
    lb.metrics().sum("access_log_dropped_total", &[])
}

/// The lines that rsyslog has written, once there is one with this text.
#[track_caller]
fn lines_with(folder: &Path, text: &str) -> Vec<String> {
    wait_for(&format!("{text:?} is received"), || {
        let lines = fs::read_to_string(folder.join("out")).unwrap_or_default();
        let found: Vec<String> = lines.lines().filter(|line| line.contains(text)).map(str::to_owned).collect();
        (!found.is_empty()).then_some(found)
    })
}

#[test]
fn rsyslog_reads_what_is_sent_by_udp_and_by_unix_sockets() {
    let folder = Folder::new();
    let receiver = rsyslog(&folder);
    let server = Server::named("here");
    let udp = format!("syslog:{},facility=local3,tag=web", receiver.address());
    let (unix, devlog) = (folder.path().join("log"), folder.path().join("devlog"));
    for (target, expected) in [
        (udp, "local3.info 1 web PID access-log"),
        (format!("syslog:{}", unix.display()), "daemon.info 1 lb PID access-log"),
        (format!("syslog:{},tag=lb-2,format=local", devlog.display()), "daemon.info 0 lb-2 PID -"),
    ] {
        let lb = logging_to(&server, &target).start();
        assert_eq!(get(lb.address(), "/").body, "here");
        let expected = expected.replace("PID", &lb.pid().to_string());
        let line = lines_with(folder.path(), &format!("{expected}|")).remove(0);
        let (_, text) = line.split_once('|').unwrap();
        assert!(text.contains(&format!("default/{}", server.address())) && text.contains(" conn="), "{line}");
        assert_eq!(lost(&lb), 0.0);
    }
}

#[test]
fn the_programs_own_log_goes_to_syslog_with_its_severities() {
    let folder = Folder::new();
    let _receiver = rsyslog(&folder);
    let (address, admin) = (free_port().to_string(), free_port());
    let target = format!("log.program=syslog:{},facility=local0", folder.path().join("log").display());
    let mut command = lb_command(folder.path());
    command.args(["--listen", &address, "--backend", "127.0.0.1:9", "--admin", &admin.to_string(), "--set", &target]);
    let mut lb = command.spawn().unwrap();
    wait_until("it is ready", || get_from(admin, "/readyz").is_ok_and(|answer| answer.status == 200));
    let first = lines_with(folder.path(), "event=\"started\"").remove(0);
    let expected = format!("local0.info 1 lb {} log|", lb.id());
    assert!(first.starts_with(&expected) && first.contains("commit=") && !first.contains("20"), "{first}");
    // Three failed connects eject the backend, which is a warning.
    for _ in 0..3 {
        let _ = get_from(address.parse().unwrap(), "/");
    }
    let ejected = lines_with(folder.path(), "backend ejected").remove(0);
    assert!(ejected.starts_with("local0.warning 1 lb "), "{ejected}");
    kill_process(Pid::from_child(&lb), Signal::TERM).unwrap();
    assert_eq!(wait_for("it ends", || lb.try_wait().unwrap()).code(), Some(0));
    lines_with(folder.path(), "stopped");
}

#[test]
fn the_programs_own_log_in_a_file_is_rotated_as_the_access_log_is() {
    let folder = Folder::new();
    let (file, old) = (folder.path().join("lb.log"), folder.path().join("lb.log.1"));
    let admin = free_port();
    let mut command = lb_command(folder.path());
    command.args(["--listen", "127.0.0.1:0", "--backend", "127.0.0.1:9", "--admin", &admin.to_string()]);
    command.args(["--access-log", "off", "--set", &format!("log.program={}", file.display())]);
    let mut lb = command.spawn().unwrap();
    wait_until("it is ready", || get_from(admin, "/readyz").is_ok_and(|answer| answer.status == 200));
    wait_until("it is logged", || fs::read_to_string(&file).is_ok_and(|text| text.contains("accepting connections")));
    fs::rename(&file, &old).unwrap();
    kill_process(Pid::from_child(&lb), Signal::USR1).unwrap();
    wait_until("it is opened again", || file.exists());
    kill_process(Pid::from_child(&lb), Signal::TERM).unwrap();
    assert_eq!(wait_for("it ends", || lb.try_wait().unwrap()).code(), Some(0));
    assert!(fs::read_to_string(&file).unwrap().contains("stopped"));
}

#[test]
fn a_start_that_fails_says_why_on_standard_error_too() {
    let folder = Folder::new();
    let receiver = UnixDatagram::bind(folder.path().join("log")).unwrap();
    let taken = Server::echo();
    let target = format!("log.program=syslog:{}", folder.path().join("log").display());
    let mut command = lb_command(folder.path());
    command.args(["--listen", &taken.address().to_string(), "--backend", "127.0.0.1:9", "--admin", "off"]);
    let output = command.args(["--set", &target]).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && told.starts_with("error: can't listen on"), "{told}");
    let mut buffer = [0; 4096];
    let message = wait_for("it is in the log too", || {
        let read = receiver.recv(&mut buffer).unwrap();
        Some(String::from_utf8_lossy(&buffer[..read]).into_owned()).filter(|text| text.contains("can't listen on"))
    });
    assert!(message.starts_with("<27>1 "), "{message}");
}

#[test]
fn a_receiver_that_is_dead_or_started_anew_costs_lines_which_are_counted() {
    let (folder, server) = (Folder::new(), Server::named("here"));
    let path = folder.path().join("log");
    let lb = logging_to(&server, &format!("syslog:{}", path.display())).start();
    let mut asked = 0.0;
    let mut ask = |times: u32| {
        (0..times).for_each(|_| assert_eq!(get(lb.address(), "/").body, "here"));
        asked += f64::from(times);
        asked
    };
    wait_until_equal("nobody is there", &ask(3), || lost(&lb));
    for _ in 0..2 {
        let receiver = UnixDatagram::bind(&path).unwrap();
        receiver.set_nonblocking(true).unwrap();
        let mut buffer = [0; 4096];
        // It is looked for once a second.
        wait_until("a line is received again", || {
            ask(1);
            receiver.recv(&mut buffer).is_ok()
        });
        while receiver.recv(&mut buffer).is_ok() {}
        let before = lost(&lb);
        drop(receiver);
        fs::remove_file(&path).unwrap();
        ask(2);
        wait_until("lost lines are counted", || lost(&lb) >= before + 2.0);
    }
    wait_until("it is told", || lb.log_text().contains("the access log is written again; lines were lost before"));
    assert!(lost(&lb) <= ask(0));
}

#[test]
fn a_dead_receiver_by_udp_is_noticed() {
    let server = Server::named("here");
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    let lb = logging_to(&server, &format!("syslog:{}", receiver.local_addr().unwrap())).start();
    get(lb.address(), "/");
    let mut buffer = [0; 4096];
    let read = receiver.recv(&mut buffer).unwrap();
    assert!(buffer[..read].starts_with(b"<30>1 20"), "{}", String::from_utf8_lossy(&buffer[..read]));
    drop(receiver);
    wait_until("lost lines are counted", || {
        assert_eq!(get(lb.address(), "/").body, "here");
        lost(&lb) >= 3.0
    });
}

#[test]
fn nothing_waits_for_a_receiver_that_stands_still() {
    let (folder, origin) = (Folder::new(), Origin::new());
    let path = folder.path().join("log");
    // Takes as many messages as its queue holds, and reads none.
    let _receiver = UnixDatagram::bind(&path).unwrap();
    let target = format!("syslog:{}", path.display());
    let mut lb = Lb::in_front_of(&[origin.address()]).with(&["--mode", "http", "--access-log", &target]).start();
    let request = format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "x".repeat(7_000));
    let mut client = Reader::of(connect(lb.address()));
    // More than the buffer holds, 8 MiB.
    while lost(&lb) == 0.0 {
        for _ in 0..100 {
            client.send(request.as_bytes());
            assert_eq!(client.response().status(), 200);
        }
    }
    assert_eq!(lb.post("/api/v1/reload").0, 200);
    assert_eq!(get(lb.admin(), "/readyz").status, 200);
    drop(client);
    lb.signal(Signal::TERM);
    assert_eq!(lb.wait_for_end().code(), Some(0));
}

#[test]
fn a_folder_that_vanishes_costs_lines_which_are_counted_until_it_is_back() {
    let (folder, server) = (Folder::new(), Server::named("here"));
    let logs = folder.path().join("logs");
    fs::create_dir(&logs).unwrap();
    let file = logs.join("access.log");
    let lb = logging_to(&server, &file.display().to_string()).start();
    get(lb.address(), "/");
    wait_until("the line is written", || fs::read_to_string(&file).is_ok_and(|text| text.lines().count() == 1));
    fs::remove_dir_all(&logs).unwrap();
    (0..5).for_each(|_| assert_eq!(get(lb.address(), "/").body, "here"));
    wait_until_equal("lost lines are counted", &5.0, || lost(&lb));
    lb.signal(Signal::USR1);
    wait_until("it is told", || lb.log_text().contains("the access log can't be written; lines are lost and counted"));
    fs::create_dir(&logs).unwrap();
    // It is looked for once a second.
    wait_until("lines are written again", || {
        assert_eq!(get(lb.address(), "/").body, "here");
        fs::read_to_string(&file).is_ok_and(|text| !text.is_empty())
    });
    let lost_before = lost(&lb);
    // A file that somebody removes is made again.
    fs::remove_file(&file).unwrap();
    wait_until("it is there again", || {
        assert_eq!(get(lb.address(), "/").body, "here");
        fs::read_to_string(&file).is_ok_and(|text| !text.is_empty())
    });
    assert!(lost(&lb) >= lost_before);
    fs::File::options().append(true).open(&file).unwrap().flush().unwrap();
}
