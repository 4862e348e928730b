"""Starting and stopping child processes: by process id only, each with a log that is shown when it fails."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

START_TIMEOUT_S = 15
STOP_TIMEOUT_S = 5


class Failed(Exception):
    """A child didn't do what it must; the text says which and shows its last words."""


class Server:
    """One server under test, or the backend: a process and whatever children it has."""

    def __init__(self, name, command, port, folder, cores=None):
        self.name = name
        self.port = port
        self.log_path = Path(folder) / f"{name}.log"
        try:
            with open(self.log_path, "wb") as log:
                self.process = subprocess.Popen(
                    [str(part) for part in command],
                    cwd=folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    preexec_fn=cores and (lambda: os.sched_setaffinity(0, cores)),
                )
        except OSError as error:
            raise Failed(f"{name} can't be started: {error}") from error

    def wait_until_accepting(self):
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise Failed(f"{self.name} ended at start with code {self.process.returncode}: {self.last_words()}")
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            time.sleep(0.02)
        raise Failed(f"{self.name} doesn't accept connections after {START_TIMEOUT_S} s: {self.last_words()}")

    def pids(self):
        """The process and all its descendants (nginx: the master and its workers)."""
        return [self.process.pid, *descendants(self.process.pid)]

    def last_words(self):
        text = self.log_path.read_text(errors="replace").strip()
        return text[-1500:] or "(it printed nothing)"

    def stop(self):
        """Ends the process, then any child that it left behind: they are named by id, never by name."""
        if self.process.poll() is not None:
            return
        children = {pid: start_time(pid) for pid in self.pids()[1:]}
        self.process.terminate()
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(STOP_TIMEOUT_S)
        for pid, started in children.items():
            # The start time guards against an id that was given to a stranger in between.
            if started is not None and start_time(pid) == started:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def running(name, command, port, folder, cores=None):
    """A server that accepts connections inside the `with` block and is gone after it. It runs on these `cores` alone,
    or where this script may run."""
    server = Server(name, command, port, folder, cores)
    try:
        server.wait_until_accepting()
        yield server
    finally:
        server.stop()


def descendants(root):
    """Process ids below `root`, from every process's parent id."""
    children = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = stat_fields(entry.name)
            if fields:
                children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, queue = [], [root]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


def stat_fields(pid):
    """/proc/PID/stat from the state field on (proc(5): field 3 is index 0 here), or None if it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return text.rpartition(")")[2].split()


def start_time(pid):
    fields = stat_fields(pid)
    return fields[19] if fields else None
