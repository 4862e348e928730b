"""What is measured from outside: CPU time and memory of processes, and how much else the machine was doing.

Knows nothing of proxies or loads.
"""

import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path

from processes import stat_fields

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024
# Work that a proxy still does after its client is gone (closing, a tail in flight) belongs to the run.
QUIET_STEP_S = 0.05
QUIET_TIMEOUT_S = 3.0


@dataclass(frozen=True)
class CpuUse:
    """CPU of one measured interval."""

    proxy_ns: int
    # Of all processes and the kernel, the proxy among them.
    machine_ns: int
    wall_s: float
    # Share of the machine's CPU time spent by processes that have nothing to do with the benchmark, 0 to 1.
    foreign: float


class CpuMeter:
    """CPU time of a server's processes between `start` and `stop`.

    /proc/PID/task/*/schedstat counts nanoseconds for each thread, but forgets threads that ended; then the
    coarser /proc/PID/stat, which remembers them, is taken instead.
    """

    def __init__(self, proxy, helpers):
        self.proxy = proxy
        self.helpers = helpers

    def start(self):
        self.threads = threads_ns(self.proxy.pids())
        self.ticks_ns = processes_ns(self.proxy.pids())
        self.helpers_ns = self._helpers_ns()
        self.machine_ns = machine_ns()
        self.started = time.monotonic()

    def stop(self):
        wait_until_quiet(self.proxy.pids())
        wall_s = time.monotonic() - self.started
        after = threads_ns(self.proxy.pids())
        if self.threads.keys() <= after.keys():
            proxy_ns = sum(after.values()) - sum(self.threads.values())
        else:
            proxy_ns = processes_ns(self.proxy.pids()) - self.ticks_ns
        machine = machine_ns() - self.machine_ns
        ours = proxy_ns + self._helpers_ns() - self.helpers_ns
        foreign = max(0.0, machine - ours) / (wall_s * 1e9 * os.cpu_count())
        return CpuUse(proxy_ns, machine, wall_s, foreign)

    def _helpers_ns(self):
        """The backend, this script, and the load generators (its children that have been waited for)."""
        total = processes_ns(pid for server in self.helpers for pid in server.pids())
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
            usage = resource.getrusage(who)
            total += int((usage.ru_utime + usage.ru_stime) * 1e9)
        return total


def threads_ns(pids):
    """Nanoseconds on a CPU for each (process, thread)."""
    spent = {}
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*"):
            try:
                spent[pid, task.name] = int((task / "schedstat").read_text().split()[0])
            except OSError:
                continue
    return spent


def processes_ns(pids):
    """utime + stime of processes, ended threads included; in steps of one clock tick."""
    ticks = 0
    for pid in pids:
        fields = stat_fields(pid)
        if fields:
            ticks += int(fields[11]) + int(fields[12])
    return ticks * 1_000_000_000 // TICKS_PER_SECOND


def machine_ns():
    """Busy time of all CPUs: everything but idle and iowait; time stolen by a hypervisor is busy too."""
    fields = [int(value) for value in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) * 1_000_000_000 // TICKS_PER_SECOND


def wait_until_quiet(pids):
    """Waits until the processes use (nearly) no CPU; a proxy that never rests is charged for the whole wait."""
    deadline = time.monotonic() + QUIET_TIMEOUT_S
    before = sum(threads_ns(pids).values())
    while time.monotonic() < deadline:
        time.sleep(QUIET_STEP_S)
        now = sum(threads_ns(pids).values())
        if now - before < QUIET_STEP_S * 1e9 * 0.02:
            return
        before = now


def rss_kib(pids):
    """Resident memory summed over processes; pages that they share count in each."""
    total = 0
    for pid in pids:
        try:
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_KIB
        except OSError:
            continue
    return total


def pss_kib(pids):
    """Resident memory with shared pages split among their users: fair to servers of several processes."""
    total = 0
    for pid in pids:
        try:
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
        except OSError:
            continue
    return total
