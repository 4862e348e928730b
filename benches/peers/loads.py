"""The loads: what clients do to a proxy, and how much of it got done. Knows nothing of which proxy it is."""

import contextlib
import re
import socket
import ssl
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Callable

from backend import SMALL
from measure import CpuMeter, rss_kib
from processes import Failed

HERE = Path(__file__).resolve().parent
GIB = 1024**3
# Added to what a load should take before its child is ended.
GRACE_S = 20
# Slowest bulk rate that is waited for.
BULK_FLOOR_BYTES_PER_S = 20 * 1024 * 1024
BULK_CLIENTS = 2
# Each on a connection of its own, so that a run averages over which workers its connections fall to: with one long
# transfer a client, runs of the same proxy differed up to twofold.
BULK_TRANSFERS = 8
IDLE_SETTLE_S = 0.5


@dataclass(frozen=True)
class Sizes:
    """How much to do in a run."""

    seconds: int
    transfer_bytes: int
    idle_connections: int


@dataclass(frozen=True)
class Outcome:
    """One run. `cost` is the figure to compare (lower is better), in the load's `cost_unit`."""

    cost: float
    throughput: float
    p99_us: float | None = None
    # The same unit as `cost`, of the whole machine's CPU: what the clients and the backend had to pay, too.
    machine: float | None = None
    foreign: float = 0.0
    errors: int = 0


@dataclass(frozen=True)
class Load:
    name: str
    mode: str
    what: str
    cost_unit: str
    throughput_unit: str
    run: Callable
    # Seconds beside `Sizes.seconds`, for the estimate; bulk and idle don't depend on `seconds` at all.
    timed: bool = True


class Tools:
    """The client programs and the backend, whose CPU is set apart from the proxy's."""

    def __init__(self, wrk, curl, backend):
        self.wrk = wrk
        self.curl = curl
        self.backend = backend

    def meter(self, proxy):
        return CpuMeter(proxy, [self.backend.server])


def requests(path, clients, *, close=False, scheme="http"):
    """wrk with one thread; cost is CPU per request (with `close`: each on a connection of its own)."""

    def run(tools, proxy, sizes):
        command = [tools.wrk, "-t1", f"-c{clients}", f"-d{sizes.seconds}s", "--latency", "--timeout", "5s"]
        if close:
            command += ["-H", "Connection: close"]
        meter = tools.meter(proxy)
        meter.start()
        text = finish(start([*command, f"{scheme}://127.0.0.1:{proxy.port}{path}"]), "wrk", sizes.seconds + GRACE_S)
        use = meter.stop()
        result = parse_wrk(text)
        cost_us, machine_us = (ns / 1000 / result.done for ns in (use.proxy_ns, use.machine_ns))
        return Outcome(cost_us, result.done / result.seconds, result.p99_us, machine_us, use.foreign, result.errors)

    return run


def download(tools, proxy, sizes, scheme="http"):
    return transfer(tools, proxy, sizes, ["-o", "/dev/null"], "/big", "%{http_code} %{size_download}\\n", scheme)


def upload(tools, proxy, sizes):
    source = ["-T", str(tools.backend.files / "big")]
    return transfer(tools, proxy, sizes, source, "/discard", "%{http_code} %{size_upload}\\n")


def transfer(tools, proxy, sizes, options, path, answer_format, scheme="http"):
    """Two curls at once, each with several transfers in turn; every status and byte count must be right."""
    total = BULK_CLIENTS * BULK_TRANSFERS * sizes.transfer_bytes
    timeout_s = total / BULK_FLOOR_BYTES_PER_S + GRACE_S
    # An empty Expect: curl would otherwise wait for a 100 Continue before it uploads.
    command = [tools.curl, "-sSk", "--http1.1", "--noproxy", "*", "-H", "Expect:", "-w", answer_format]
    # A name each gets a connection each. (With `Connection: close` curl ends an upload at the early answer.)
    command += ["--resolve", f"*:{proxy.port}:127.0.0.1"]
    for index in range(BULK_TRANSFERS):
        command += [*options, f"{scheme}://transfer{index}.test:{proxy.port}{path}"]
    meter = tools.meter(proxy)
    meter.start()
    began = time.monotonic()
    answers = finish_all([start(command) for _ in range(BULK_CLIENTS)], "curl", timeout_s)
    took_s = time.monotonic() - began
    use = meter.stop()
    wanted = [f"200 {sizes.transfer_bytes}"] * BULK_TRANSFERS
    for answer in answers:
        if answer.splitlines() != wanted:
            raise Failed(f"curl: expected {BULK_TRANSFERS} times '{wanted[0]}' (status, bytes), got: {answer.strip()}")
    gib = total / GIB
    return Outcome(
        use.proxy_ns / 1e6 / gib, gib / took_s, machine=use.machine_ns / 1e6 / gib, foreign=use.foreign
    )


def tls_download(tools, proxy, sizes):
    return download(tools, proxy, sizes, "https")


def resume(tools, proxy, sizes):
    """Two Pythons, a connection at a time each: slow, but only the proxy's CPU counts."""
    command = [sys.executable, HERE / "resume.py", str(proxy.port), str(sizes.seconds)]
    meter = tools.meter(proxy)
    meter.start()
    began = time.monotonic()
    done = sum(map(int, finish_all([start(command) for _ in range(2)], "resume.py", sizes.seconds + GRACE_S)))
    took_s = time.monotonic() - began
    use = meter.stop()
    return Outcome(use.proxy_ns / 1000 / done, done / took_s, foreign=use.foreign)


def tls_idle(tools, proxy, sizes):
    context = ssl._create_unverified_context()
    return idle(tools, proxy, sizes, lambda client: context.wrap_socket(client))


def idle(tools, proxy, sizes, wrap=lambda client: client):
    """Memory of connections that have spoken once and now wait; the most common state of a connection."""
    before_kib = rss_kib(proxy.pids())
    began = time.monotonic()
    with contextlib.ExitStack() as held:
        for index in range(sizes.idle_connections):
            try:
                plain = socket.create_connection(("127.0.0.1", proxy.port), timeout=10)
                client = held.enter_context(wrap(plain))
                ask_once(client)
            except OSError as error:
                raise Failed(f"idle connection {index + 1} of {sizes.idle_connections}: {error}") from error
        took_s = time.monotonic() - began
        time.sleep(IDLE_SETTLE_S)
        after_kib = rss_kib(proxy.pids())
    each_kib = (after_kib - before_kib) / sizes.idle_connections
    return Outcome(each_kib, sizes.idle_connections / took_s)


def ask_once(client):
    client.sendall(b"GET /small HTTP/1.1\r\nHost: bench.test\r\n\r\n")
    answer = b""
    while not answer.endswith(SMALL):
        piece = client.recv(4096)
        if not piece:
            raise OSError("closed before it answered")
        answer += piece


@dataclass(frozen=True)
class WrkResult:
    done: int
    seconds: float
    p99_us: float
    errors: int


def parse_wrk(text):
    done = re.search(r"(\d+) requests in ([\d.]+)(ms|s|m)", text)
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s|m)\b", text)
    if not done or not p99 or int(done.group(1)) == 0:
        raise Failed(f"wrk got nothing done: {text.strip()}")
    if bad := re.search(r"Non-2xx or 3xx responses: (\d+)", text):
        raise Failed(f"wrk got {bad.group(1)} error responses")
    socket_errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    errors = sum(map(int, socket_errors.groups())) if socket_errors else 0
    seconds = float(done.group(2)) * {"ms": 0.001, "s": 1, "m": 60}[done.group(3)]
    p99_us = float(p99.group(1)) * {"us": 1, "ms": 1e3, "s": 1e6, "m": 6e7}[p99.group(2)]
    return WrkResult(int(done.group(1)), seconds, p99_us, errors)


def start(command):
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(client, name, timeout_s):
    return finish_all([client], name, timeout_s)[0]


def finish_all(clients, name, timeout_s):
    """What each client printed; none is left running, however this ends."""
    deadline = time.monotonic() + timeout_s
    try:
        texts = [client.communicate(timeout=max(0.1, deadline - time.monotonic()))[0] for client in clients]
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{name} wasn't done after {timeout_s:.0f} s") from error
    finally:
        for client in clients:
            if client.poll() is None:
                client.kill()
                client.wait()
    for client, text in zip(clients, texts):
        if client.returncode != 0:
            raise Failed(f"{name} ended with code {client.returncode}: {text.strip()}")
    return texts


LOADS = [
    Load("small", "tcp", "small request and response, keep-alive, 64 clients",
         "µs CPU/request", "requests/s", requests("/small", 64)),
    Load("small-1", "tcp", "the same, 1 client", "µs CPU/request", "requests/s", requests("/small", 1)),
    Load("small-8", "tcp", "the same, 8 clients", "µs CPU/request", "requests/s", requests("/small", 8)),
    Load("small-512", "tcp", "the same, 512 clients", "µs CPU/request", "requests/s", requests("/small", 512)),
    Load("conn", "tcp", "one small request a connection, 32 clients",
         "µs CPU/connection", "connections/s", requests("/small", 32, close=True)),
    Load("mid", "tcp", "64 KiB responses, keep-alive, 32 clients",
         "µs CPU/response", "responses/s", requests("/mid", 32)),
    Load("bulk-down", "tcp", "big downloads, 2 clients", "ms CPU/GiB", "GiB/s", download, timed=False),
    Load("bulk-up", "tcp", "big uploads, 2 clients", "ms CPU/GiB", "GiB/s", upload, timed=False),
    Load("idle", "tcp", "idle connections held open", "KiB RSS/connection", "connections/s", idle, timed=False),
]
TCP = {load.name: load for load in LOADS}
# The same work with the proxy in http mode, setting the four headers.
LOADS += [
    replace(TCP["small"], name="http-small", mode="http"),
    replace(TCP["conn"], name="http-conn", mode="http", what=TCP["conn"].what + ", backend connections reused"),
    replace(TCP["bulk-down"], name="http-bulk", mode="http"),
]
# Clients that speak TLS, which the proxy ends; its backends are plain.
LOADS += [
    replace(TCP["small"], name="tls-small", mode="tls", run=requests("/small", 64, scheme="https")),
    replace(TCP["conn"], name="tls-conn", mode="tls", run=requests("/small", 32, close=True, scheme="https"),
            what="full handshake (ECDSA P-256) and one small request a connection, 32 clients"),
    replace(TCP["conn"], name="tls-resume", mode="tls", run=resume,
            what="resumed handshake and one small request a connection, 2 clients"),
    replace(TCP["mid"], name="tls-mid", mode="tls", run=requests("/mid", 32, scheme="https")),
    replace(TCP["bulk-down"], name="tls-bulk", mode="tls", run=tls_download),
    replace(TCP["idle"], name="tls-idle", mode="tls", run=tls_idle),
]
BY_NAME = {load.name: load for load in LOADS}
