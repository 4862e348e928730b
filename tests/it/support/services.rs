//! Databases, directories and mail servers, each with its data in the test's folder.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rustix::process::Signal;

use super::files::Folder;
use super::packages::required;
use super::ports::free_port;
use super::programs::{Program, output_of};
use super::wait_until;

/// rsyslog, receiving by UDP (and TCP) at its address and by the unix sockets `log` and `devlog`, this one as Debian
/// sets up /dev/log. Each message is a line of the file `out`: facility and severity, version, program, process, kind,
/// text.
#[track_caller]
pub fn rsyslog(folder: &Folder) -> Program {
    let address = free_port();
    let (port, path) = (address.port(), folder.path().display());
    let settings = format!(
        "module(load=\"imuxsock\" SysSock.Use=\"off\")\n\
         input(type=\"imuxsock\" Socket=\"{path}/log\" UseSpecialParser=\"off\")\n\
         input(type=\"imuxsock\" Socket=\"{path}/devlog\")\n\
         module(load=\"imudp\")\ninput(type=\"imudp\" address=\"127.0.0.1\" port=\"{port}\")\n\
         module(load=\"imtcp\")\ninput(type=\"imtcp\" address=\"127.0.0.1\" port=\"{port}\")\n\
         template(name=\"all\" type=\"string\" \
         string=\"%pri-text% %protocol-version% %app-name% %procid% %msgid%|%msg%\\n\")\n\
         action(type=\"omfile\" file=\"{path}/out\" template=\"all\")\n"
    );
    let settings = folder.write("rsyslog.conf", settings);
    let mut command = Command::new(required("rsyslogd"));
    command.args(["-n", "-iNONE", "-f"]).arg(settings);
    Program::serving_at(address, &mut command)
}

/// Redis, with further arguments.
#[track_caller]
pub fn redis(folder: &Folder, arguments: &[&str]) -> Program {
    let address = free_port();
    let mut command = Command::new(required("redis-server"));
    command.args(["--port", &address.port().to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    Program::serving_at(address, command.args(arguments).current_dir(folder.path()))
}

/// What a program of PostgreSQL or MariaDB runs as: both refuse to be root, and have a user of their own then.
pub fn as_user(user: &str, program: &Path) -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    // Not runuser: setpriv becomes the program, so that its process is ours to end.
    let mut command = Command::new(required("setpriv"));
    command.args(["--reuid", user, "--regid", user, "--clear-groups", "--"]).arg(program).current_dir("/");
    command
}

/// Makes it that user's, with all that is in it.
pub fn give_to(user: &str, folder: &Path) {
    if rustix::process::geteuid().is_root() {
        output_of(&required("chown"), &["-R".as_ref(), user.as_ref(), folder.as_os_str()]);
    }
}

#[track_caller]
fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
}

/// A program of the newest PostgreSQL, which Debian keeps off the PATH.
fn as_postgres(program: &str) -> Command {
    as_user("postgres", &required("/usr/lib/postgresql/*/bin/initdb").with_file_name(program))
}

/// The password of PostgreSQL's user `tester`.
pub const PASSWORD: &str = "s3cret";

/// PostgreSQL with the user `tester`, who logs in with [`PASSWORD`] (SCRAM). Its log is in `folder`, as `log`.
#[track_caller]
pub fn postgres(folder: &Folder) -> Program {
    postgres_with(folder, &[])
}

/// The same with these settings.
#[track_caller]
pub fn postgres_with(folder: &Folder, settings: &[String]) -> Program {
    folder.write("password", format!("{PASSWORD}\n"));
    give_to("postgres", folder.path());
    let mut initdb = as_postgres("initdb");
    initdb.args(["--no-sync", "--auth=scram-sha-256", "--username=tester", "--locale=C", "--pwfile"]);
    run(initdb.arg(folder.path().join("password")).arg("-D").arg(folder.path().join("data")));
    start_postgres(folder, settings)
}

/// A streaming replica of `primary`.
#[track_caller]
pub fn postgres_replica(folder: &Folder, primary: SocketAddr) -> Program {
    give_to("postgres", folder.path());
    let mut copy = as_postgres("pg_basebackup");
    copy.args(["-h", "127.0.0.1", "-p", &primary.port().to_string(), "-U", "tester", "--no-sync", "-R", "-c", "fast"]);
    run(copy.arg("-D").arg(folder.path().join("data")).env("PGPASSWORD", PASSWORD));
    start_postgres(folder, &[])
}

/// The database that is asked at `address`, for psql.
pub fn database_at(address: SocketAddr) -> String {
    format!("postgresql://tester:{PASSWORD}@{address}/postgres")
}

/// Asks the PostgreSQL server at `address`, which is given some seconds to accept.
pub fn psql(address: SocketAddr, sql: &str) -> Output {
    let mut command = Command::new(required("psql"));
    command.args(["-Atc", sql, &database_at(address)]).env("PGCONNECT_TIMEOUT", "5").stdin(Stdio::null());
    command.output().expect("psql starts")
}

fn start_postgres(folder: &Folder, settings: &[String]) -> Program {
    let address = free_port();
    let mut command = as_postgres("postgres");
    command.arg("-D").arg(folder.path().join("data")).arg("-k").arg(folder.path());
    command.args(["-p", &address.port().to_string(), "-h", "127.0.0.1", "-c", "fsync=off"]);
    command.args(["-c", "logging_collector=on", "-c", "log_filename=log", "-c"]);
    command.arg(format!("log_directory={}", folder.path().display()));
    command.args(settings.iter().flat_map(|setting| ["-c", setting]));
    let server = Program::serving_at(address, &mut command).ended_by(Signal::INT);
    wait_until("PostgreSQL has started", || {
        let mut ready = as_postgres("pg_isready");
        ready.args(["-q", "-h", "127.0.0.1", "-p", &address.port().to_string()]).status().unwrap().success()
    });
    server
}

/// MariaDB, which `sql` asks as root.
pub struct Mariadb {
    program: Program,
    socket: PathBuf,
}

impl Mariadb {
    /// A new one, with these statements run at its start.
    #[track_caller]
    pub fn start(folder: &Folder, statements: &[&str], arguments: &[&str]) -> Self {
        Self::install(folder);
        let init = folder.write("init.sql", statements.join("\n"));
        give_to("mysql", folder.path());
        let init = format!("--init-file={}", init.display());
        Self::serving_at(free_port(), folder, &[arguments, &[&init]].concat())
    }

    /// Makes the databases that a server in this folder needs.
    #[track_caller]
    pub fn install(folder: &Folder) {
        give_to("mysql", folder.path());
        let mut install = as_user("mysql", &required("mariadb-install-db"));
        install.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
        run(install.args(Self::folders(folder)));
    }

    /// The server of this folder, at this address.
    #[track_caller]
    pub fn serving_at(address: SocketAddr, folder: &Folder, arguments: &[&str]) -> Self {
        let socket = folder.path().join("socket");
        let mut command = as_user("mysql", &required("mariadbd"));
        command.args(["--no-defaults", "--skip-name-resolve"]).args(Self::folders(folder)).args(arguments);
        command.args([format!("--bind-address={}", address.ip()), format!("--port={}", address.port())]);
        command.arg(format!("--socket={}", socket.display()));
        Self { program: Program::serving_at(address, &mut command).ended_by(Signal::TERM), socket }
    }

    fn folders(folder: &Folder) -> [String; 2] {
        let folder = folder.path().display();
        // As it starts, MariaDB removes what looks like the temporary tables of one that crashed, of others too.
        [format!("--datadir={folder}/data"), format!("--tmpdir={folder}")]
    }

    pub fn address(&self) -> SocketAddr {
        self.program.address()
    }

    /// The answer to a statement, its columns separated by tabs.
    #[track_caller]
    pub fn sql(&self, statement: &str) -> String {
        let socket = self.socket.display().to_string();
        output_of(&required("mariadb"), &["-uroot", "-S", &socket, "-NBe", statement])
    }
}

/// OpenLDAP's server, with these directives before its database.
#[track_caller]
pub fn slapd(folder: &Folder, directives: &str) -> Program {
    let at = folder.path().display();
    let config = format!(
        "include /etc/ldap/schema/core.schema\nmodulepath /usr/lib/ldap\nmoduleload back_ldif\n{directives}\n\
         database ldif\nsuffix dc=example\ndirectory {at}\n"
    );
    let config = folder.write("slapd.conf", config);
    let address = free_port();
    let mut command = Command::new(required("slapd"));
    // With -d it stays in the foreground.
    command.args(["-d", "0", "-h", &format!("ldap://{address}"), "-f"]).arg(config);
    Program::serving_at(address, &mut command).ended_by(Signal::TERM)
}

/// A mail server in Python, which takes no mail.
#[track_caller]
pub fn mail_server() -> Program {
    let address = free_port();
    let mut command = Command::new(required("aiosmtpd"));
    Program::serving_at(address, command.args(["-n", "-l", &address.to_string()]))
}
