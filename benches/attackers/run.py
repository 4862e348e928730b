#!/usr/bin/env python3
"""What attackers cost: memory of a thousand connections of each kind, CPU time of what they make a proxy do.

    cargo build --release && python3 benches/attackers/run.py
    python3 benches/attackers/run.py --peers lb,nginx,haproxy --kinds 'never reads'

Each cell is a proxy started anew. User: growth of its proportional set size. Kernel: bytes in its sockets (`ss -m`),
those to the clients and those to the origin; structures of the kernel are not in it.
"""

import argparse
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time

import kinds
import proxies
from machine import Missing, Ports, describe, raise_file_limit
from measure import pss_kib, threads_ns, wait_until_quiet
from processes import Failed, running

SPARE_FILES = 1024
LOOK_S, STILL_LOOKS, SETTLE_S = 0.5, 4, 60


def main():
    options = parse_options()
    try:
        options.files = 2 * options.attackers + SPARE_FILES
        if raise_file_limit() < options.files:
            raise Missing(f"{options.files} open files are needed. Remedy: ulimit -n {options.files}")
        programs = {name: proxies.program_of(name, getattr(options, name)) for name in options.peers}
        for key, value in describe().items():
            print(f"- {key}: {value}")
        table(f"KiB a connection, of {options.attackers}: user / kernel", kinds.HELD, memory, programs, options)
        table("CPU time of the proxy, microseconds each", kinds.SPENT, cpu, programs, options)
    except (Missing, Failed) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=lambda text: text.split(","), default=["lb"], help="of lb,nginx,haproxy")
    parser.add_argument("--kinds", default="", help="only those whose name has this in it")
    parser.add_argument("--attackers", type=int, default=1000, help="connections of a kind (default 1000)")
    for name in proxies.COMMANDS:
        parser.add_argument(f"--{name}", metavar="PATH", help=f"use this {name} program")
    options = parser.parse_args()
    unknown = [name for name in options.peers if name not in proxies.COMMANDS]
    if unknown:
        parser.error(f"unknown peers: {unknown}")
    return options


def table(title, all_kinds, measured, programs, options):
    chosen = [kind for kind in all_kinds if options.kinds in kind.name]
    if not chosen:
        return
    print(f"\n| {title} | {' | '.join(programs)} |\n|---|{'---|' * len(programs)}")
    for kind in chosen:
        cells = []
        for name, program in programs.items():
            try:
                cells.append(under(kind, name, program, measured, options))
            except (Failed, OSError) as error:
                cells.append("failed")
                print(f"PROBLEM: {kind.name}, {name}: {error}", file=sys.stderr, flush=True)
        print(f"| {kind.name} | {' | '.join(cells)} |", flush=True)


def under(kind, name, program, measured, options):
    folder, ports = tempfile.mkdtemp(prefix="lb-attackers-"), Ports()
    front, back = ports.take(), ports.take()
    try:
        command = proxies.COMMANDS[name](program, kind.listener, front, f"127.0.0.1:{back}", folder, options.files)
        with running("origin", proxies.origin(folder, back, options.files), back, folder):
            with running(name, command, front, folder) as proxy:
                return measured(kind, proxy, front, back, options)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def memory(kind, proxy, front, back, options):
    wait_until_quiet(proxy.pids())
    before = pss_kib(proxy.pids())
    attackers = [kind.connect(("127.0.0.1", front)) for _ in range(options.attackers)]
    kernel = settled(front, back)
    user = pss_kib(proxy.pids()) - before
    held = sum(is_open(client) for client in attackers)
    for client in attackers:
        client.close()
    refused = f" ({held} held on)" if held < options.attackers else ""
    return f"{user / options.attackers:.1f} / {kernel / 1024 / options.attackers:,.0f}{refused}"


def settled(front, back):
    """Bytes in the proxy's sockets, once they don't change any more."""
    last, still, deadline = socket_bytes(front, back), 0, time.monotonic() + SETTLE_S
    while still < STILL_LOOKS and time.monotonic() < deadline:
        time.sleep(LOOK_S)
        now = socket_bytes(front, back)
        still = still + 1 if abs(now - last) <= last * 0.002 else 0
        last = now
    return last


def socket_bytes(front, back):
    """Received and not read, and queued to be sent."""
    done = subprocess.run(["ss", "-tmnH", f"sport = :{front} or dport = :{back}"], capture_output=True, text=True)
    total = 0
    for received, queued in re.findall(r"skmem:\(r(\d+),.*?,w(\d+),", done.stdout):
        total += int(received) + int(queued)
    return total


def is_open(client):
    try:
        return bool(client.recv(1, kinds.socket.MSG_PEEK))
    except BlockingIOError:
        return True
    except OSError:
        return False


def cpu(kind, proxy, front, _back, _options):
    address = ("127.0.0.1", front)
    kind.work(address, 100)
    wait_until_quiet(proxy.pids())
    before = sum(threads_ns(proxy.pids()).values())
    made = kind.work(address, kind.count)
    wait_until_quiet(proxy.pids())
    spent = sum(threads_ns(proxy.pids()).values()) - before
    return f"{spent / 1000 / made:.3g}"


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.exit(main())
