#!/usr/bin/env python3
"""Compares `lb` with other balancers on this machine: CPU, throughput, p99 and memory for the same work.

    python3 benches/peers/run.py
    python3 benches/peers/run.py --peers lb,haproxy --loads small,conn --rounds 3

See README.md beside this file for what is measured and how the peers are tuned.
"""

import argparse
import datetime
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import report
from backend import make_certificate, prove_answers, prove_headers, prove_transfers, running_backend
from loads import BULK_CLIENTS, BULK_TRANSFERS, BY_NAME, GIB, LOADS, Sizes, Tools
from machine import Missing, Ports, describe, find_program, raise_file_limit, version_number
from measure import pss_kib
from peers import ALL, DEFAULT
from processes import Failed, running

HERE = Path(__file__).resolve().parent
# For the estimate: starting, proving and stopping a proxy; a GiB through the slowest of them; an idle run.
START_STOP_S, GIB_S, IDLE_S = 0.7, 1.0, 2.0
SPARE_FILES = 1024


def main():
    options = parse_options()
    for number in (signal.SIGTERM, signal.SIGHUP):
        # An exit in good order, so that children are ended and files removed.
        signal.signal(number, lambda received, _: sys.exit(128 + received))
    try:
        allowed = raise_file_limit()
        # Two descriptors a connection. Not more than needed: nginx and HAProxy allocate for the limit they are given.
        options.files = 2 * options.idle_connections + SPARE_FILES
        if allowed < options.files:
            raise Missing(
                f"at most {allowed} open files allowed, {options.idle_connections} idle connections need "
                f"{options.files}. Remedy: ulimit -n {options.files}, or --idle-connections N"
            )
        return compare(options)
    except (Missing, Failed) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; nothing written", file=sys.stderr)
        return 130


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tcp = [load.name for load in LOADS if load.mode == "tcp"]
    parser.add_argument("--peers", type=names_from(ALL), default=DEFAULT,
                        help=f"of {','.join(ALL)} (default: all but haproxy-splice-auto)")
    parser.add_argument("--loads", type=names_from(BY_NAME), help=f"of {','.join(BY_NAME)} (default: {','.join(tcp)})")
    parser.add_argument("--http", action="store_true", help="add the http loads")
    parser.add_argument("--tls", action="store_true", help="add the loads whose clients speak TLS")
    parser.add_argument("--rounds", type=positive, default=5, help="times that every peer has its turn (default 5)")
    parser.add_argument("--seconds", type=positive, default=3, help="length of a timed run (default 3)")
    parser.add_argument("--bulk-mib", type=positive, default=128, help="size of one transfer (default 128)")
    parser.add_argument("--idle-connections", type=positive, default=3000, help="default 3000")
    parser.add_argument("--alone", action="store_true",
                        help="a core for the proxy alone, the others for clients and backend (default: all share)")
    for program in ("lb", "nginx", "haproxy", "envoy"):
        parser.add_argument(f"--{program}", metavar="PATH", help=f"use this {program} program")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of the CSV and SVG")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables to FILE too")
    options = parser.parse_args()
    if options.loads is None:
        options.loads = tcp
    for mode in [mode for mode in ("http", "tls") if getattr(options, mode)]:
        options.loads += [load.name for load in LOADS if load.mode == mode and load.name not in options.loads]
    return options


def set_apart():
    """Leaves one core to the proxies: this script, the backend and the clients, its children, run on the others."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise Missing("--alone needs two cores")
    os.sched_setaffinity(0, set(cores[:-1]))
    return {cores[-1]}


def names_from(known):
    def parse(text):
        chosen = [name.strip() for name in text.split(",") if name.strip()]
        unknown = [name for name in chosen if name not in known]
        if unknown or not chosen:
            raise argparse.ArgumentTypeError(f"unknown: {','.join(unknown)}; known: {','.join(known)}")
        return list(dict.fromkeys(chosen))

    return parse


def positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def compare(options):
    state = describe()
    proxy_cores = set_apart() if options.alone else None
    options.workers = 1 if options.alone else 2
    state["placement"] = (
        "each proxy alone on a core, with one worker; clients and backend on the others" if options.alone
        else "all share the cores; each proxy has two workers"
    )
    wrk, curl = find_program("wrk"), find_program("curl")
    backend_nginx = find_program("nginx")
    peers = prepare_peers(options)
    state["backend"] = f"nginx {version_number([backend_nginx, '-v'])}, one worker"
    state["clients"] = f"wrk {version_number([wrk, '-v'])}, curl {version_number([curl, '--version'])}"
    state["run"] = f"{options.rounds} rounds, {options.seconds} s each, {datetime.date.today()}"
    loads = [BY_NAME[name] for name in options.loads]
    sizes = Sizes(options.seconds, options.bulk_mib * 1024**2, options.idle_connections)
    print(f"estimate: {estimate_s(peers, loads, sizes, options.rounds) / 60:.1f} minutes", flush=True)

    folder = Path(tempfile.mkdtemp(prefix="lb-peers-", dir=roomy_folder(sizes.transfer_bytes)))
    try:
        ports = Ports()
        if any(load.mode == "tls" for load in loads):
            options.certificate = make_certificate(folder)
        with running_backend(
            backend_nginx, folder, [ports.take(), ports.take()], options.files, sizes.transfer_bytes
        ) as backend:
            bench = Bench(Tools(wrk, curl, backend), ports, folder, sizes, proxy_cores)
            working = bench.prove(peers, sorted({load.mode for load in loads}, reverse=True))
            rows = bench.run_rounds(peers, working, loads, options.rounds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    state["peers"] = ", ".join(f"{peer.title} ({peer.version()})" for peer in peers)
    if not rows:
        raise Failed("no run ended well")
    text = report.write(rows, loads, peers, state, bench.problems, options)
    print("\n" + text)
    return 0 if not bench.problems else 1


def prepare_peers(options):
    """Peers that can run here. Envoy is optional; a missing one of the others ends the run with its remedy."""
    print("preparing:", flush=True)
    ready = []
    for name in options.peers:
        peer = ALL[name](options)
        try:
            peer.prepare()
        except Missing as error:
            if name != "envoy":
                raise
            print(f"  skipping envoy: {error}", flush=True)
            continue
        ready.append(peer)
    return ready


def estimate_s(peers, loads, sizes, rounds):
    total = 0.0
    for load in loads:
        runners = sum(load.mode in peer.modes for peer in peers)
        if load.timed:
            each = sizes.seconds
        elif "bulk" in load.name:
            each = BULK_CLIENTS * BULK_TRANSFERS * sizes.transfer_bytes / GIB * GIB_S
        else:
            each = IDLE_S
        total += rounds * runners * (each + START_STOP_S)
    return total


def roomy_folder(needed_bytes):
    """Memory, if there is ample room, so that no disk has a say; else the usual place for temporary files."""
    shm = "/dev/shm"
    if os.access(shm, os.W_OK) and shutil.disk_usage(shm).free > 2 * needed_bytes:
        return shm
    return None


class Bench:
    """Starts a fresh proxy for each run, so that none profits or suffers from what it did before."""

    def __init__(self, tools, ports, folder, sizes, proxy_cores):
        self.proxy_cores = proxy_cores
        self.tools = tools
        self.ports = ports
        self.folder = folder
        self.sizes = sizes
        self.problems = []

    def proxy(self, peer, mode):
        port = self.ports.take()
        command = peer.command(mode, port, self.tools.backend.addresses, self.folder)
        return running(peer.name, command, port, self.folder, self.proxy_cores)

    def prove(self, peers, modes):
        """(peer, mode) pairs that carry every byte rightly; the others are left out, loudly."""
        print("proving answers, bytes and headers:", flush=True)
        working = set()
        for mode in modes:
            for peer in (peer for peer in peers if mode in peer.modes):
                try:
                    with self.proxy(peer, mode) as server:
                        prove_answers(server.port, self.tools.backend, mode)
                        prove_transfers(server.port, self.tools.backend, mode)
                        if mode == "http":
                            prove_headers(server.port)
                except Failed as error:
                    self.problem(f"{peer.name} in {mode} mode is left out: {error}")
                    continue
                print(f"  {peer.name} {mode}: right", flush=True)
                working.add((peer, mode))
        return working

    def run_rounds(self, peers, working, loads, rounds):
        """A B C, A B C, ...: whatever drifts on the machine drifts for all."""
        rows = []
        for round_number in range(1, rounds + 1):
            for load in loads:
                for peer in peers:
                    if (peer, load.mode) in working:
                        self.run_one(rows, round_number, rounds, load, peer)
        return rows

    def run_one(self, rows, round_number, rounds, load, peer):
        try:
            with self.proxy(peer, load.mode) as server:
                prove_answers(server.port, self.tools.backend, load.mode)
                outcome = load.run(self.tools, server, self.sizes)
                memory_kib = pss_kib(server.pids())
        except Failed as error:
            self.problem(f"round {round_number}, {load.name}, {peer.name}: {error}")
            return
        rows.append(report.Row(round_number, load.name, peer.name, outcome, memory_kib))
        errors = f", {outcome.errors} socket errors" if outcome.errors else ""
        print(
            f"round {round_number}/{rounds}  {load.name:<10} {peer.name:<14} "
            f"{outcome.cost:9.2f} {load.cost_unit}, {outcome.throughput:,.2f} {load.throughput_unit}{errors}",
            flush=True,
        )

    def problem(self, text):
        self.problems.append(text)
        print(f"PROBLEM: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
