"""What the run stands on: programs, ports, file limits, and the description printed beside the figures."""

import os
import platform
import random
import re
import resource
import shutil
import socket
import subprocess
from pathlib import Path

REMEDY = "apt-get install nginx-light libnginx-mod-stream haproxy wrk curl"
# Where distributions put what an ordinary user's PATH may lack.
EXTRA_PATH = ["/usr/sbin", "/usr/local/sbin", "/sbin"]
# Where the hard limit of open files is infinite.
MANY_FILES = 65536


class Missing(Exception):
    """Something that must be installed or built first; the text names the remedy."""


def find_program(name, override=None):
    """Path of a program, or `Missing` with the command that installs it."""
    if override:
        if not os.access(override, os.X_OK):
            raise Missing(f"{override} isn't an executable file")
        return str(Path(override).resolve())
    path = os.pathsep.join([os.environ.get("PATH", ""), *EXTRA_PATH])
    found = shutil.which(name, path=path)
    if not found:
        raise Missing(f"{name} isn't installed. Remedy: {REMEDY}")
    return found


def first_line(command):
    """First line that a program prints about its version, on whichever stream."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0].strip() if lines else "unknown"


def version_number(command):
    """The first thing that looks like a version in what the command prints."""
    match = re.search(r"\d+\.\d+(\.\d+)?(-[\w.+]*\d)?", first_line(command))
    return match.group(0) if match else "unknown"


def nginx_stream_module(nginx):
    """The `load_module` line that this nginx needs for `stream`, or an empty string if it is built in."""
    done = subprocess.run([nginx, "-V"], capture_output=True, text=True, timeout=20)
    flags = done.stderr + done.stdout
    if re.search(r"--with-stream(\s|$)", flags):
        return ""
    if "--with-stream=dynamic" not in flags:
        raise Missing(f"{nginx} has no stream module. Remedy: {REMEDY}")
    folder = re.search(r"--modules-path=(\S+)", flags)
    module = Path(folder.group(1) if folder else "/usr/lib/nginx/modules") / "ngx_stream_module.so"
    if not module.exists():
        raise Missing(f"{module} is missing. Remedy: {REMEDY}")
    return f"load_module {module};"


def raise_file_limit():
    """Lift the soft limit of open files for this process and its children; returns the limit in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(soft, MANY_FILES) if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


class Ports:
    """Free loopback ports below the ephemeral range, so that no outgoing connection can take one meanwhile."""

    FIRST = 12000
    ATTEMPTS = 200

    def __init__(self):
        text = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text()
        self.last = max(int(text.split()[0]) - 1, self.FIRST + 1000)
        self.given = set()

    def take(self):
        for _ in range(self.ATTEMPTS):
            port = random.randint(self.FIRST, self.last)
            if port not in self.given and self._is_free(port):
                self.given.add(port)
                return port
        raise Missing("no free loopback port found")

    @staticmethod
    def _is_free(port):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
            return True


def describe():
    """Lines about the machine, for the head of the report."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    memory_kib = int(re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text()).group(1))
    return {
        "cores": f"{len(os.sched_getaffinity(0))} ({model})",
        "memory": f"{memory_kib / 1048576:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "load at start": " ".join(f"{value:.2f}" for value in os.getloadavg()),
    }
