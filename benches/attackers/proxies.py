"""The proxies under attack, as their manuals would set them up at an edge, and the origin behind them."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "peers"))

from backend import nginx_user  # noqa: E402
from machine import find_program, nginx_stream_module  # noqa: E402

REPOSITORY = HERE.parent.parent
BIG_BYTES = 1 << 30


# Attackers are slow, and nothing of nginx's is to end them.
PATIENT_HTTP = """\
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    client_header_timeout 1h;
    client_body_timeout 1h;
    send_timeout 1h;"""


def nginx_main(name, workers, log_level, folder, files):
    return f"""\
{nginx_user()}
worker_processes {workers};
worker_rlimit_nofile {files};
pid {folder}/{name}.pid;
daemon off;
error_log {folder}/{name}-error.log {log_level};
events {{ worker_connections {files}; multi_accept on; }}"""


def origin(folder, port, files):
    """nginx with a file of a gibibyte and a small one."""
    root = Path(folder) / "root"
    root.mkdir()
    root.chmod(0o755)
    Path(folder).chmod(0o755)
    with open(root / "big", "wb") as big:
        big.truncate(BIG_BYTES)
    (root / "small").write_bytes(b"s" * 100)
    config = Path(folder) / "origin.conf"
    config.write_text(f"""\
{nginx_main("origin", 1, "error", folder, files)}
http {{
{PATIENT_HTTP}
    sendfile on;
    client_max_body_size 0;
    client_body_temp_path {folder}/origin-bodies;
    server {{ listen 127.0.0.1:{port} backlog=4096; root {root}; }}
}}
""")
    return [find_program("nginx"), "-p", folder, "-c", config]


def lb(program, listener, port, backend, folder, files):
    first = {
        "proxy": "proxy_protocol: required\ntrusted_proxies: [127.0.0.1]",
        "hello": "",
    }.get(listener, "")
    mode = "http" if listener == "http" else "tcp"
    where = f"listen: 127.0.0.1:{port}\nmode: {mode}\nbackends: ['{backend}']\n"
    if listener == "hello":
        where = (
            f"listeners: {{edge: {{bind: '127.0.0.1:{port}', routes: [{{sni: '*', pool: origin}}], "
            f"timeouts: {{client_header: 1h, idle: 1h}}}}}}\npools: {{origin: {{backends: ['{backend}']}}}}\n"
        )
    limits = "" if listener == "hello" else "timeouts: {client_header: 1h, idle: 1h}\n"
    config = Path(folder) / "lb.yaml"
    config.write_text(
        f"{where}{first}\n{limits}workers: 2\nmax_connections: {files // 2}\n"
        "admin: {bind: 'off'}\nlog: {level: warn, access: 'off'}\n"
    )
    return [program, "-c", config]


def nginx(program, listener, port, backend, folder, files):
    head = f"""\
{nginx_stream_module(program) if listener != "http" else ""}
{nginx_main("nginx", 2, "crit", folder, files)}
"""
    if listener == "http":
        body = f"""\
http {{
{PATIENT_HTTP}
    large_client_header_buffers 4 16k;
    client_max_body_size 0;
    client_body_temp_path {folder}/nginx-bodies;
    proxy_temp_path {folder}/nginx-temp;
    upstream origin {{ server {backend}; keepalive 64; }}
    server {{
        listen 127.0.0.1:{port} reuseport backlog=4096;
        location / {{
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_request_buffering off;
        }}
    }}
}}
"""
    else:
        more = {"proxy": "proxy_protocol", "hello": ""}.get(listener, "")
        preread = "ssl_preread on; preread_timeout 1h; proxy_protocol_timeout 1h;" if listener != "tcp" else ""
        body = f"""\
stream {{
    access_log off;
    server {{
        listen 127.0.0.1:{port} {more} reuseport backlog=4096;
        {preread}
        proxy_pass {backend};
        proxy_timeout 1h;
        tcp_nodelay on;
    }}
}}
"""
    config = Path(folder) / "nginx.conf"
    config.write_text(head + body)
    return [program, "-p", folder, "-c", config]


def haproxy(program, listener, port, backend, folder, files):
    more = {"proxy": "accept-proxy"}.get(listener, "")
    inspect = {
        "hello": "tcp-request inspect-delay 1h\n    tcp-request content accept if { req_ssl_hello_type 1 }",
        "http": "option http-keep-alive\n    http-reuse safe\n    timeout http-request 1h\n    "
        "timeout http-keep-alive 1h",
    }.get(listener, "")
    config = Path(folder) / "haproxy.cfg"
    config.write_text(f"""\
global
    nbthread 2
    maxconn {files // 2}
defaults
    mode {"http" if listener == "http" else "tcp"}
    timeout connect 2s
    timeout client 1h
    timeout server 1h
listen front
    bind 127.0.0.1:{port} {more} shards by-thread backlog 4096
    {inspect}
    server origin {backend}
""")
    return [program, "-db", "-f", config]


COMMANDS = {"lb": lb, "nginx": nginx, "haproxy": haproxy}


def program_of(name, given):
    if name == "lb" and not given:
        target = os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target")
        given = str(REPOSITORY / target / "release" / "lb")
    return find_program(name, given)
