#!/usr/bin/env bash
# The system calls of one connection's life through lb, nginx stream and HAProxy tcp, counted with strace, as a table.
#
#   cargo build --release && benches/syscalls.sh          (needs strace, nginx with its stream module, haproxy, python3)
#
# One worker each; connections one after the other: accept, a request of 100 bytes, a response of 100 bytes in one
# segment, the client closes. LB, CONNECTIONS and TRACES (a folder for the traces) may be set.
set -euo pipefail
cd "$(dirname "$0")/.."

LB=${LB:-${CARGO_TARGET_DIR:-target}/release/lb}
CONNECTIONS=${CONNECTIONS:-500}
PATH=$PATH:/usr/sbin
work=$(mktemp -d)
traces=${TRACES:-$work}
started=()
# shellcheck disable=SC2317  # called by trap
finish() {
  local pid
  for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait
  rm -rf "$work"
}
trap finish EXIT

for program in strace nginx haproxy python3 ss pgrep "$LB"; do
  command -v "$program" >/dev/null || { echo "missing: $program" >&2; exit 1; }
done

# Both ends of a connection in one process, so that each step waits for the one before.
cat >"$work/ends.py" <<'PYTHON'
import socket, sys

backend = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=64)
port, connections = int(sys.argv[2]), int(sys.argv[3])
backend.settimeout(10)

def all_of(stream, length):
    data = b""
    while len(data) < length:
        part = stream.recv(4096)
        assert part, "an early end"
        data += part

for _ in range(connections):
    client = socket.create_connection(("127.0.0.1", port), timeout=10)
    client.sendall(b"q" * 100)
    server, _ = backend.accept()
    server.settimeout(10)
    all_of(server, 100)
    server.sendall(b"a" * 100)
    all_of(client, 100)
    client.close()
    assert server.recv(1) == b"", "no end"
    server.close()
PYTHON

free_port() { python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# until_true COMMAND…: waits at most 10 s
until_true() {
  local deadline=$((SECONDS + 10))
  until "$@" 2>/dev/null; do
    ((SECONDS < deadline)) || { echo "waited in vain: $*" >&2; exit 1; }
    sleep 0.05
  done
}
listens() { ss -Hltn "sport = :$1" | grep -q .; }
says() { grep -q "$1" "$2"; }

backend_port=$(free_port)
port=$(free_port)

cat >"$work/lb.yaml" <<YAML
listen: 127.0.0.1:$port
backends: ["127.0.0.1:$backend_port"]
workers: 1
admin: {bind: "off"}
log: {level: warn, access: "off"}
YAML

module=/usr/lib/nginx/modules/ngx_stream_module.so
cat >"$work/nginx.conf" <<NGINX
$([[ -e $module ]] && echo "load_module $module;")
daemon off;
worker_processes 1;
pid $work/nginx.pid;
error_log stderr error;
events { worker_connections 1024; multi_accept on; }
stream {
    access_log off;
    upstream backends { server 127.0.0.1:$backend_port; }
    server { listen 127.0.0.1:$port reuseport; proxy_pass backends; tcp_nodelay on; }
}
NGINX

cat >"$work/haproxy.cfg" <<HAPROXY
global
    nbthread 1
defaults
    mode tcp
    timeout connect 2s
    timeout client 1h
    timeout server 1h
frontend front
    bind 127.0.0.1:$port
    default_backend back
backend back
    server one 127.0.0.1:$backend_port
HAPROXY

# count NAME COMMAND…: starts it, warms it up, traces CONNECTIONS connections, and ends it
count() {
  local name=$1 pid tracer pids
  shift
  "$@" >"$work/$name.log" 2>&1 &
  pid=$!
  started+=("$pid")
  until_true listens "$port"
  python3 "$work/ends.py" "$backend_port" "$port" 20
  pids=$(pgrep -P "$pid" || echo "$pid")
  strace -f -o "$traces/$name.strace" $(printf -- '-p %s ' $pids) 2>"$work/$name.attached" &
  tracer=$!
  started+=("$tracer")
  until_true says attached "$work/$name.attached"
  python3 "$work/ends.py" "$backend_port" "$port" "$CONNECTIONS"
  kill -INT "$tracer"
  wait "$tracer" || true
  kill "$pid"
  wait "$pid" 2>/dev/null || true
}

count lb "$LB" -c "$work/lb.yaml"
count nginx nginx -p "$work" -c "$work/nginx.conf"
count haproxy haproxy -db -f "$work/haproxy.cfg"

python3 - "$traces" "$CONNECTIONS" <<'PYTHON'
import collections, re, sys

folder, connections = sys.argv[1], int(sys.argv[2])
names = ["lb", "nginx", "haproxy"]
counts = {}
for name in names:
    counts[name] = collections.Counter()
    for line in open(f"{folder}/{name}.strace"):
        call = re.match(r"\d+ +(\w+)\(", line)
        if call:
            counts[name][call[1]] += 1
        if call and "EAGAIN" in line:
            counts[name]["of these, EAGAIN"] += 1
calls = sorted({call for count in counts.values() for call in count} - {"of these, EAGAIN"})
# What happens once in ten connections is upkeep, not part of a connection's life.
shown = [call for call in calls if any(counts[name][call] * 10 >= connections for name in names)]
print("| System call | " + " | ".join(names) + " |")
print("|---|" + "---|" * len(names))
for call in [*shown, "of these, EAGAIN"]:
    cells = [f"{counts[name][call] / connections:.1f}".replace("0.0", "–") for name in names]
    print(f"| {call} | " + " | ".join(cells) + " |")
totals = [f"**{sum(counts[name][call] for call in calls) / connections:.1f}**" for name in names]
print("| **all** | " + " | ".join(totals) + " |")
PYTHON
