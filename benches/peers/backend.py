"""The backend that every peer gets: one nginx worker that serves both backend addresses, and the proof that a
proxy in front of it delivers what it should.

One worker, because it shares the machine with the proxy: a second would only fight the proxy for the cores.
"""

import contextlib
import hashlib
import http.client
import os
import ssl
import subprocess
from pathlib import Path

from processes import Failed, running

# Bodies. A short one is what a health check, a cache hit or a small API call looks like.
SMALL = b"the quick brown fox jumps over the lazy dog; pack my box with five dozen liquor jugs; a small response\n"
MID_BYTES = 64 * 1024
# Transfers whose every byte is compared, before anything is measured.
PROOF_BYTES = 24 * 1024 * 1024
# Random bytes are written again and again to make the big file: proxies at this layer can't tell.
RANDOM_BLOCK = 16 * 1024 * 1024

CONFIG = """\
{user}
worker_processes 1;
worker_rlimit_nofile {files};
pid {folder}/backend.pid;
daemon off;
error_log {folder}/backend-error.log error;
events {{ worker_connections {files}; multi_accept on; }}
http {{
    access_log off;
    default_type application/octet-stream;
    sendfile on;
    tcp_nopush on;
    tcp_nodelay on;
    open_file_cache max=100;
    # The backend must never be the one that ends a connection or refuses an upload.
    keepalive_timeout 1h;
    keepalive_requests 1000000000;
    client_header_timeout 1h;
    client_body_timeout 1h;
    client_max_body_size 0;
    # `return` answers an upload and then discards its body: allow it to take as long as it takes.
    lingering_time 1h;
    lingering_timeout 1m;
    client_body_temp_path {folder}/bodies;
    server {{
        listen 127.0.0.1:{ports[0]} backlog=4096;
        listen 127.0.0.1:{ports[1]} backlog=4096;
        root {folder}/files;
        location = /small {{ default_type text/plain; return 200 "{small}"; }}
        location = /port {{ return 200 $server_port; }}
        location = /headers {{
            return 200 "$http_host|$http_x_real_ip|$http_x_forwarded_for|$http_x_forwarded_proto";
        }}
        location = /discard {{ return 200; }}
        # Uploads that are kept, so that their bytes can be compared.
        location /kept/ {{ dav_methods PUT; }}
    }}
}}
"""


class Backend:
    """The running backend: its two addresses and its files."""

    def __init__(self, server, ports, files):
        self.server = server
        self.ports = ports
        self.files = files
        self.addresses = [f"127.0.0.1:{port}" for port in ports]
        self.proof = (files / "proof").read_bytes()
        self.mid = (files / "mid").read_bytes()


@contextlib.contextmanager
def running_backend(nginx, folder, ports, files_limit, bulk_bytes):
    """Writes the files, then runs the backend inside the `with` block."""
    folder = Path(folder)
    files = folder / "files"
    (files / "kept").mkdir(parents=True)
    block = os.urandom(RANDOM_BLOCK)
    (files / "mid").write_bytes(block[:MID_BYTES])
    (files / "proof").write_bytes(os.urandom(PROOF_BYTES))
    with open(files / "big", "wb") as big:
        for start in range(0, bulk_bytes, RANDOM_BLOCK):
            big.write(block[: min(RANDOM_BLOCK, bulk_bytes - start)])
    config = folder / "backend.conf"
    config.write_text(
        CONFIG.format(
            user=nginx_user(),
            files=files_limit,
            folder=folder,
            ports=ports,
            small=SMALL.decode(),
        )
    )
    with running("backend", [nginx, "-p", folder, "-c", config], ports[0], folder) as server:
        yield Backend(server, ports, files)


def make_certificate(folder):
    """An ECDSA certificate (P-256), and its key in the same file."""
    path = Path(folder) / "certificate.pem"
    key = Path(folder) / "certificate.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "100",
         "-subj", "/CN=bench.test", "-addext", "subjectAltName=DNS:bench.test,IP:127.0.0.1",
         "-keyout", key, "-out", path],
        check=True, capture_output=True,
    )
    path.write_text(path.read_text() + key.read_text())
    return path


def nginx_user():
    """Started by root, nginx would give its workers to another user, who can't read our temporary folder."""
    return "user root;" if os.geteuid() == 0 else ""


def prove_answers(port, backend, mode):
    """Small requests over several connections: right bodies, and both backends used."""
    seen = set()
    for _ in range(8):
        with connection(port, mode) as client:
            for _ in range(3):
                expect(fetch(client, "/small"), SMALL, "small response")
            expect(fetch(client, "/mid"), backend.mid, "64 KiB response")
            seen.add(int(fetch(client, "/port")))
    if seen != set(backend.ports):
        raise Failed(f"8 connections reached the backends {sorted(seen)}, expected {backend.ports}")


def prove_transfers(port, backend, mode):
    """A download and an upload, compared byte by byte."""
    with connection(port, mode) as client:
        expect(fetch(client, "/proof"), backend.proof, "download")
    with connection(port, mode) as client:
        client.request("PUT", "/kept/upload", body=backend.proof)
        response = client.getresponse()
        response.read()
        if response.status not in (201, 204):
            raise Failed(f"upload answered {response.status}")
    kept = backend.files / "kept" / "upload"
    expect(kept.read_bytes(), backend.proof, "upload")
    kept.unlink()


def prove_headers(port):
    """In http mode: the four headers arrive, and what a client forged does not."""
    with connection(port, "http") as client:
        client.request("GET", "/headers", headers={"Host": "bench.test", "X-Real-IP": "6.6.6.6"})
        answer = client.getresponse().read()
    expect(answer, b"bench.test|127.0.0.1|127.0.0.1|http", "headers seen by the backend")


@contextlib.contextmanager
def connection(port, mode):
    if mode == "tls":
        # The certificate is of our own making.
        client = http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=ssl._create_unverified_context())
    else:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        yield client
    except (OSError, http.client.HTTPException) as error:
        raise Failed(f"a request failed: {error!r}") from error
    finally:
        client.close()


def fetch(client, path):
    client.request("GET", path)
    response = client.getresponse()
    body = response.read()
    if response.status != 200:
        raise Failed(f"GET {path} answered {response.status}")
    return body


def expect(found, wanted, what):
    if found == wanted:
        return
    if len(wanted) < 200:
        raise Failed(f"{what}: got {found!r}, expected {wanted!r}")
    digests = [hashlib.sha256(data).hexdigest()[:12] for data in (found, wanted)]
    raise Failed(f"{what}: got {len(found)} bytes ({digests[0]}), expected {len(wanted)} bytes ({digests[1]})")
