//! nginx and HAProxy, as peers on either side.

use std::net::SocketAddr;
use std::process::Command;

use super::authority::Authority;
use super::files::Folder;
use super::packages::required;
use super::ports::free_port;
use super::programs::Program;

/// Where distributions put nginx's modules.
pub(super) const STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// nginx listening at `address`, with these blocks (`http { server { … } }` or `stream { … }`); they may use `$TEMP`
/// for directives that an `http` block wants.
#[track_caller]
pub fn nginx(folder: &Folder, address: SocketAddr, blocks: &str) -> Program {
    let at = folder.path().join(format!("nginx-{}", address.port()));
    std::fs::create_dir_all(&at).expect("the folder is writable");
    let at = at.display();
    let module = match blocks.contains("stream {") {
        true => format!("load_module {};\n", required(STREAM_MODULE).display()),
        false => String::new(),
    };
    let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temp: String = kinds.map(|kind| format!("{kind}_temp_path {at}/{kind};\n")).concat();
    let config = folder.write(
        &format!("nginx-{}.conf", address.port()),
        format!(
            "{module}daemon off; master_process off; pid {at}/nginx.pid; error_log {at}/error.log; events {{}}\n{}\n",
            blocks.replace("$TEMP", &format!("access_log off;\n{temp}"))
        ),
    );
    let mut command = Command::new(required("nginx"));
    command.args(["-p", &at.to_string(), "-c", &config.display().to_string()]);
    Program::serving_at(address, &mut command)
}

/// nginx with this certificate of the authority, which answers `/readyz`; `further` are directives of its server.
#[track_caller]
pub fn tls_nginx(authority: &Authority, name: &str, further: &str) -> Program {
    let address = free_port();
    let (cert, key) = (authority.path(&format!("{name}.pem")), authority.path(&format!("{name}.key")));
    let server = format!(
        "http {{ $TEMP server {{ listen {address} ssl; ssl_certificate {cert}; ssl_certificate_key {key}; {further} \
         location /readyz {{ return 200 ready; }} }} }}"
    );
    nginx(&authority.folder, address, &server)
}

/// HAProxy listening at `address`, with these sections.
#[track_caller]
pub fn haproxy(folder: &Folder, address: SocketAddr, sections: &str) -> Program {
    let defaults = "defaults\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n";
    let config = folder.write(&format!("haproxy-{}.cfg", address.port()), format!("{defaults}{sections}\n"));
    let mut command = Command::new(required("haproxy"));
    command.args(["-db", "-f", &config.display().to_string()]);
    Program::serving_at(address, &mut command)
}
