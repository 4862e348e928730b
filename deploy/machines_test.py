#!/usr/bin/env python3
"""Several machines with the real programs, in network namespaces: what clients notice when one of them goes.

    deploy/machines_test.py LB [bgp] [vrrp] [--short]

LB is the program. A client's network, a router, and behind a switch three machines with lb, BIRD and lb-announce (or two
with keepalived) and two backends, by the files of deploy/bgp and deploy/vrrp. 200 connections a second and 300 that stay
(--short: 50 and 60, and fewer events) go through, and each event is judged; the table is docs/guide/scaling-out.md's. Exits 1
where something does not hold. Needs root, iproute2, bird2, keepalived, curl; Linux 5.13.

Everything lives in namespaces of its own (network, mounts, processes) and ends with this program, however that ends;
logs and configurations too, unless MACHINES_TEST_FOLDER names a folder for them.
"""

import asyncio
import collections
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
SERVICE = "198.51.100.1"
VRRP_ADDRESS = "192.0.2.100"
LB_CONFIG = """
listen: 0.0.0.0:8080
backends: ['192.0.2.21:7000', '192.0.2.22:7000']
policy: source_hash
connect_timeout: 1s
health_check: {interval: 500ms, timeout: 1s, rise: 2, fall: 2}
failure_detection: {ejection: %ds}
drain: {grace: %ds, timeout: 10s}
log: {access: 'off'}
"""
# Longer than a session of the load is silent, short enough for a test: a bucket without one is free then.
BUCKET_IDLE_SECONDS = 3
GRACE_SECONDS, SHORT_GRACE_SECONDS = 14, 9
# A client gives up after it. Failures are dated by their beginning.
PATIENCE_SECONDS = 1.0


# ---- In the client's namespace: the load. ----

class Load:
    """Short connections at a pace, and sessions that ask again and again; each answer says by whom it came."""

    def __init__(self, address, pace, sessions):
        self.address, self.pace, self.wanted = address, pace, sessions
        self.sources = [f"203.0.113.{last}" for last in range(10, 42)]
        self.made = 0
        self.reset()
        self.held = {}              # number -> (lb, backend) of an open session
        self.to_end = {}            # lb -> when its sessions are to end by themselves
        self.homes = {}             # source -> its backend

    def reset(self):
        self.short, self.failures, self.by_lb = 0, [], collections.Counter()
        self.died = collections.defaultdict(collections.Counter)
        self.ended, self.strays = collections.Counter(), 0

    async def connect(self):
        self.made += 1
        source = self.sources[self.made % len(self.sources)]
        reader, writer = await asyncio.open_connection(self.address, 8080, local_addr=(source, 0))
        return source, reader, writer

    async def ask(self, reader, writer):
        writer.write(b"who\n")
        line = await reader.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        return line.decode().split()

    async def one_short(self):
        began, writer = time.monotonic(), None
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                source, reader, writer = await self.connect()
                backend, lb = await self.ask(reader, writer)
            self.by_lb[lb] += 1
            self.strays += self.homes.setdefault(source, backend) != backend
        except (OSError, EOFError, TimeoutError) as error:
            self.failures.append((began, type(error).__name__))
        finally:
            self.short += 1
            if writer:
                writer.close()

    async def one_session(self, number):
        lb = None
        try:
            source, reader, writer = await asyncio.wait_for(self.connect(), PATIENCE_SECONDS)
            while True:
                backend, lb = await asyncio.wait_for(self.ask(reader, writer), 10 * PATIENCE_SECONDS)
                self.held[number] = (lb, backend)
                self.strays += self.homes.setdefault(source, backend) != backend
                await asyncio.sleep(0.5 + 0.5 * (number % 7) / 7)
                if time.monotonic() > self.to_end.get(lb, float("inf")) + number % 50 / 10:
                    self.ended[lb] += 1
                    writer.close()
                    return
        except (OSError, EOFError, TimeoutError) as error:
            if lb:
                self.died[lb][type(error).__name__] += 1
            # It comes again, as clients do, after a while.
            await asyncio.sleep(1)
        finally:
            self.held.pop(number, None)

    async def keep_session(self, number):
        while True:
            await self.one_session(number)
            await asyncio.sleep(0.1)

    async def keep_pace(self):
        tasks, due = set(), time.monotonic()
        while True:
            task = asyncio.create_task(self.one_short())
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            due += 1 / self.pace
            await asyncio.sleep(max(0, due - time.monotonic()))

    def report(self):
        return {
            "short": self.short, "failures": self.failures, "by_lb": self.by_lb, "died": self.died,
            "ended": self.ended, "strays": self.strays, "held": collections.Counter(lb for lb, _ in self.held.values()),
        }

    async def run(self):
        loop = asyncio.get_running_loop()
        orders = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
        tasks = [asyncio.create_task(self.keep_session(number)) for number in range(self.wanted)]
        tasks.append(asyncio.create_task(self.keep_pace()))
        while order := (await orders.readline()).decode().split():
            match order:
                case ["reset"]:
                    self.reset()
                case ["end", lb]:
                    self.to_end[lb] = time.monotonic()
                case ["address", address]:
                    self.address = address
                case ["forget", lb]:
                    self.to_end.pop(lb, None)
            print(json.dumps(self.report()), flush=True)


async def serve_backend(name):
    """Answers each line with its name and who asks: the lb."""

    async def serve(reader, writer):
        peer = writer.get_extra_info("peername")[0]
        try:
            while await reader.readline():
                writer.write(f"{name} {peer}\n".encode())
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "0.0.0.0", 7000, backlog=4096)
    await server.serve_forever()


# ---- Outside: the machines, the events, the verdicts. ----

class Stage:
    def __init__(self, lb_program, folder, is_short):
        self.lb_program, self.folder, self.is_short = lb_program, folder, is_short
        self.grace = SHORT_GRACE_SECONDS if is_short else GRACE_SECONDS
        self.running = {}           # (machine, program) -> Popen
        self.rows, self.findings = [], []

    def sh(self, command, machine=None):
        prefix = ["ip", "netns", "exec", machine] if machine else []
        return subprocess.run([*prefix, "sh", "-ec", command], check=True, capture_output=True, text=True).stdout

    def start(self, machine, program, command, **more):
        log = open(self.folder / f"{machine}.{program}.log", "a")
        command = ["ip", "netns", "exec", machine, *command]
        process = subprocess.Popen(command, stderr=log, **{"stdout": log, "stdin": subprocess.DEVNULL, **more})
        self.running[machine, program] = process
        return process

    def stop(self, machine, program, how=signal.SIGTERM):
        process = self.running.pop((machine, program), None)
        if process:
            process.send_signal(how)
            return process.wait(30)
        return None

    def build_networks(self):
        for machine in ("switch", "router", "client", *LBS, "b1", "b2"):
            self.sh(f"ip netns add {machine}")
            self.sh("ip link set lo up", machine)
        self.sh("ip link add br0 type bridge && ip link set br0 up", "switch")
        # By way of the switch, nobody sees a carrier go.
        for machine, last in {"router": 1, **LBS, "b1": 21, "b2": 22}.items():
            self.sh(f"ip link add {machine} netns switch type veth peer name eth0 netns {machine}")
            self.sh(f"ip link set {machine} master br0 up", "switch")
            self.sh(f"ip address add 192.0.2.{last}/24 dev eth0 && ip link set eth0 up", machine)
            if machine != "router":
                self.sh("ip route add default via 192.0.2.1", machine)
        self.sh("ip link add eth1 type veth peer name eth0 netns client", "router")
        self.sh("ip address add 203.0.113.1/24 dev eth1 && ip link set eth1 up && sysctl -qw net.ipv4.ip_forward=1", "router")
        self.sh("ip link set eth0 up", "client")
        for last in (2, *range(10, 42)):
            self.sh(f"ip address add 203.0.113.{last}/24 dev eth0", "client")
        self.sh("ip route add default via 203.0.113.1", "client")
        for name in ("b1", "b2"):
            self.start(name, "backend", [sys.executable, __file__, "--backend", name])

    def start_lb(self, machine):
        config = self.folder / f"{machine}.yaml"
        config.write_text(LB_CONFIG % (3 if self.is_short else 10, self.grace))
        self.start(machine, "lb", [self.lb_program, "-c", str(config)])

    def start_bird(self, machine, text):
        config = self.folder / f"{machine}.bird.conf"
        config.write_text(text.replace("log syslog all;", "log stderr all;"))
        socket = str(self.folder / f"{machine}.ctl")
        self.start(machine, "bird", ["bird", "-f", "-c", str(config), "-s", socket, "-P", str(self.folder / f"{machine}.pid")])
        return {**os.environ, "BIRD_SOCKET": socket}

    def start_bgp(self):
        environment = self.start_bird("router", (HERE / "bgp/router/bird.conf").read_text())
        environment["IDLE"] = str(BUCKET_IDLE_SECONDS)
        self.start("router", "nexthops", [str(HERE / "bgp/router/resilient-nexthops")], env=environment)
        for machine, last in LBS.items():
            self.sh(f"ip address add {SERVICE}/32 dev lo", machine)
            self.start_lb(machine)
            text = (HERE / "bgp/bird.conf").read_text().replace("192.0.2.11", f"192.0.2.{last}")
            environment = self.start_bird(machine, text)
            self.start(machine, "announce", [str(HERE / "bgp/lb-announce")], env=environment)

    def start_load(self, address):
        pace, sessions = (50, 60) if self.is_short else (200, 300)
        self.load = self.start("client", "load", [sys.executable, __file__, "--load", address, str(pace), str(sessions)],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.sessions = sessions

    def ask_load(self, order="report"):
        self.load.stdin.write(order + "\n")
        self.load.stdin.flush()
        return json.loads(self.load.stdout.readline())

    def wait(self, what, condition, seconds=20):
        began = time.monotonic()
        while not condition():
            if time.monotonic() > began + seconds:
                raise AssertionError(f"{what}: not within {seconds} s")
            time.sleep(0.05)
        return time.monotonic() - began

    def hops(self):
        text = self.sh(f"ip route show {SERVICE}; ip nexthop show id 10 2>/dev/null || true", "router")
        return text if "nhid" in text else ""

    def in_route(self, machine):
        return f"/{1000 + LBS[machine]}," in self.hops().replace("group ", "/").replace("/", "/")

    def settle(self):
        """All sessions are open and nothing fails; then counting begins."""
        def is_calm():
            report = self.ask_load("reset")
            time.sleep(0.5)
            report = self.ask_load()
            return sum(report["held"].values()) == self.sessions and not report["failures"]
        self.wait("a calm load", is_calm, 40)
        return self.ask_load("reset")["held"]

    def wait_for_cuts(self, before, victim):
        """Its connections end when their next packet is answered, or isn't for long."""
        def all_are_cut():
            died = self.ask_load()["died"].get(victim, {})
            return sum(died.values()) >= before.get(victim, 0)
        self.wait("all its connections are cut", all_are_cut)

    def print_table(self):
        """For docs/guide/scaling-out.md."""
        print("| Event | New connections: failed | the last after | Its own: held, cut | The others': held, cut | Changed backend |")
        print("|---|---|---|---|---|---|")
        for row in self.rows:
            print(f"| {row['event']} | {row['failed']} of {row['short']} | {row['for']} | {row['own held']}, {row['own cut']} "
                  f"| {row['others held']}, {row['others cut']} | {row['moved']} |")

    def judge(self, event, began, before, victim, report, limits):
        """A row of the table; `limits`: what must hold."""
        fails = [at - began for at, _ in report["failures"]]
        lasted = max(fails, default=0.0)
        others = sum(count for lb, kinds in report["died"].items() if lb != victim for count in kinds.values())
        own = sum(report["died"].get(victim, {}).values())
        row = {
            "event": event, "short": report["short"], "failed": len(fails), "for": f"{lasted:.2f} s" if fails else "-",
            "own held": before.get(victim, 0), "own cut": own,
            "others held": sum(count for lb, count in before.items() if lb != victim), "others cut": others,
            "moved": report["strays"],
        }
        self.rows.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)
        wrong = []
        if lasted > limits.get("fail_for", 0) and fails:
            kinds = collections.Counter(kind for _, kind in report["failures"])
            wrong.append(f"{len(fails)} new connections failed, the last {lasted:.2f} s after it {dict(kinds)}")
        if others:
            wrong.append(f"{others} connections of the others were cut: {report['died']}")
        if limits.get("own_cut") == "all" and own < before.get(victim, 0):
            wrong.append(f"only {own} of its {before.get(victim, 0)} connections were cut")
        if limits.get("own_cut") == 0 and own:
            wrong.append(f"{own} of its connections were cut")
        # A connect that comes too late for lb is tried elsewhere.
        if report["strays"] > report["short"] / 100:
            wrong.append(f"{report['strays']} times a client met another backend than before")
        self.findings += [f"{event}: {what}" for what in wrong]


LBS = {"lb1": 11, "lb2": 12, "lb3": 13}


def address_of(machine):
    return f"192.0.2.{LBS[machine]}"


def run_bgp(stage):
    stage.start_bgp()
    stage.wait("all are in the route", lambda: all(stage.in_route(machine) for machine in LBS), 30)
    stage.start_load(SERVICE)

    before = stage.settle()
    began = time.monotonic()
    stage.stop("lb2", "lb", signal.SIGKILL)
    stage.wait("it is out of the route", lambda: not stage.in_route("lb2"))
    stage.wait_for_cuts(before, address_of("lb2"))
    time.sleep(1)
    stage.judge("kill -9 of one lb", began, before, address_of("lb2"), stage.ask_load(), {"fail_for": 1, "own_cut": "all"})
    stage.start_lb("lb2")
    stage.wait("it is back in the route", lambda: stage.in_route("lb2"))
    returned(stage, "it returns", "lb2")

    before = stage.settle()
    began = time.monotonic()
    victim = address_of("lb1")
    stage.ask_load(f"end {victim}")
    process = stage.running["lb1", "lb"]
    process.send_signal(signal.SIGTERM)
    status = process.wait(stage.grace + 15)
    lasted = time.monotonic() - began
    time.sleep(1)
    report = stage.ask_load(f"forget {victim}")
    stage.judge(f"drain of one (ended after {lasted:.0f} s)", began, before, victim, report, {"own_cut": 0})
    if status != 0:
        stage.findings.append(f"the drained lb ended with {status}")
    stage.start_lb("lb1")
    stage.wait("it is back in the route", lambda: stage.in_route("lb1"))
    if not stage.is_short:
        returned(stage, "it returns", "lb1")

    without_backends(stage)

    before = stage.settle()
    began = time.monotonic()
    stage.sh("ip link set lb3 down", "switch")
    stage.wait("it is out of the route", lambda: not stage.in_route("lb3"))
    stage.wait_for_cuts(before, address_of("lb3"))
    time.sleep(1)
    stage.judge("a machine is lost (BFD)", began, before, address_of("lb3"), stage.ask_load(), {"fail_for": 1, "own_cut": "all"})
    if not stage.is_short:
        stage.sh("ip link set lb3 up", "switch")
        stage.wait("it is back in the route", lambda: stage.in_route("lb3"), 40)
        returned(stage, "it returns", "lb3")


def without_backends(stage):
    """One lb loses all its backends: it leaves the route, and its sessions end with those."""
    before = stage.settle()
    began = time.monotonic()
    stage.sh("ip route add blackhole 192.0.2.21 && ip route add blackhole 192.0.2.22", "lb2")
    stage.wait("it leaves the route", lambda: not stage.in_route("lb2"), 10)
    left = time.monotonic() - began
    stage.sh("ip route del blackhole 192.0.2.21 && ip route del blackhole 192.0.2.22", "lb2")
    back = stage.wait("it is back in the route", lambda: stage.in_route("lb2"), 30)
    event = f"all backends of a lb are down (withdrawn after {left:.1f} s, back {back:.1f} s after they are)"
    stage.judge(event, began, before, address_of("lb2"), stage.ask_load(), {"fail_for": left + 1})


def run_vrrp(stage):
    """The address is on the first; it moves where it has to, and only then."""
    text = (HERE / "vrrp/keepalived.conf").read_text()
    for machine, priority in (("lb1", 110), ("lb2", 100)):
        if (machine, "lb") not in stage.running:
            stage.start_lb(machine)
        config = stage.folder / f"{machine}.keepalived.conf"
        config.write_text(text.replace("priority 110", f"priority {priority}"))
        pids = [f"-{letter}{stage.folder}/{machine}.keepalived.{letter}" for letter in "pr"]
        command = ["keepalived", "--vrrp", "--dont-fork", "--log-console", "-f", str(config), *pids]
        stage.start(machine, "keepalived", command)
        stage.wait("somebody has the address", lambda: any(has_address(stage, machine) for machine in LBS))

    def moves():
        logs = (stage.folder.glob("*.keepalived.log"))
        return sum(log.read_text().count("Entering MASTER STATE") for log in logs)

    def moved(event, to, victim, began, before, moves_before):
        took = stage.wait(f"the address is on {to}", lambda: has_address(stage, to))
        stage.wait_for_cuts(before, victim)
        time.sleep(1)
        event = f"{event} (there after {took:.1f} s)"
        stage.judge(event, began, before, victim, stage.ask_load(), {"fail_for": 3, "own_cut": "all"})
        if moves() != moves_before + 1:
            stage.findings.append(f"{event}: {moves() - moves_before} moves")

    def stays(event, seconds):
        before, began, moves_before = stage.settle(), time.monotonic(), moves()
        time.sleep(seconds)
        stage.judge(event, began, before, None, stage.ask_load(), {})
        if moves() != moves_before:
            stage.findings.append(f"{event}: the address moved")

    stage.start_load(VRRP_ADDRESS)
    seconds = 4 if stage.is_short else 10
    before, began, moves_before = stage.settle(), time.monotonic(), moves()
    stage.stop("lb1", "lb", signal.SIGKILL)
    moved("VRRP: kill -9 of the lb that has the address", "lb2", address_of("lb1"), began, before, moves_before)
    stage.start_lb("lb1")
    stays("VRRP: it returns, the address stays", seconds)
    if stage.is_short:
        return
    before, began, moves_before = stage.settle(), time.monotonic(), moves()
    stage.sh("ip link set lb2 down", "switch")
    moved("VRRP: the machine that has the address is lost", "lb1", address_of("lb2"), began, before, moves_before)
    stage.sh("ip link set lb2 up", "switch")
    stays("VRRP: that returns, the address stays", seconds)


def has_address(stage, machine):
    return VRRP_ADDRESS in stage.sh("ip -o address show dev eth0", machine)


def returned(stage, event, machine):
    """What comes back takes its share and nobody's connections."""
    before = stage.settle()
    began = time.monotonic()
    time.sleep(2 if stage.is_short else 5)
    report = stage.ask_load()
    stage.judge(f"{event} ({machine})", began, before, None, report, {})
    if not report["by_lb"].get(address_of(machine)):
        stage.findings.append(f"{event}: it gets no connections")


def main():
    arguments = sys.argv[1:]
    match arguments:
        case ["--load", address, pace, sessions]:
            return asyncio.run(Load(address, int(pace), int(sessions)).run())
        case ["--backend", name]:
            return asyncio.run(serve_backend(name))
    if os.environ.get("MACHINES_TEST_INSIDE") != "1":
        # The first process of the inner namespace ends with this one, and with it all others.
        os.environ["MACHINES_TEST_INSIDE"] = "1"
        limit = ["timeout", "--foreground", "-k", "5", "300", "setpriv", "--pdeathsig", "KILL"]
        inside = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        os.execvp(limit[0], [*limit, *inside, sys.executable, __file__, *arguments])
    words = [word for word in arguments[1:] if not word.startswith("--")] or ["bgp", "vrrp"]
    # Whatever else this machine does must not decide: what is measured are timers of a third of a second.
    os.nice(-15)
    subprocess.run(["sh", "-ec", "mount -t tmpfs tmpfs /run && mkdir /run/netns"], check=True)
    folder = pathlib.Path(os.environ.get("MACHINES_TEST_FOLDER", "/run"))
    stage = Stage(os.path.realpath(arguments[0]), folder, "--short" in arguments)
    stage.build_networks()
    if "bgp" in words:
        run_bgp(stage)
        stage.stop("client", "load")
    if "vrrp" in words:
        run_vrrp(stage)
    stage.print_table()
    for finding in stage.findings:
        print("FINDING ", finding)
    return 1 if stage.findings else 0


if __name__ == "__main__":
    sys.exit(main())
