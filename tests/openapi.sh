#!/usr/bin/env bash
# Asks a running balancer what its OpenAPI description says can be asked, and compares the answers with it (schemathesis).
#
#   tests/openapi.sh LB      LB: the program (target/debug/lb)
#
# The last line is "N passed, N failed"; it exits 1 if something failed, and says "skipped" where schemathesis can't be had.
# Needs python3 with venv (Debian: python3-venv). /api/v1/shutdown and /api/v1/upgrade are left out: tests/it has them.
set -euo pipefail

readonly version=4.32.5
# Each phase has a bounded number of cases; this is for a machine that is much slower.
readonly longest_seconds=300
readonly checks=not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,response_headers_conformance

if (($# != 1)) || [[ ! -x $1 ]]; then
  echo "usage: tests/openapi.sh LB   (the program, such as target/debug/lb)" >&2
  exit 2
fi
lb=$(realpath "$1")
tools=$(realpath -m "${CARGO_TARGET_DIR:-$(dirname "$0")/../target}/schemathesis-$version")
work=$(mktemp -d)
started=()
cleanup() {
  if ((${#started[@]})); then
    kill "${started[@]}" 2>/dev/null || true
    wait "${started[@]}" 2>/dev/null || true
  fi
  rm -rf "$work"
}
trap cleanup EXIT

# It is installed once; a folder without the mark is one whose installation was cut short.
install() {
  if [[ -e $tools/complete ]]; then return; fi
  rm -rf "$tools"
  if ! python3 -m venv "$tools" >"$work/install" 2>&1; then
    cat "$work/install" >&2
    echo "python3 can't make a virtual environment: apt-get install python3-venv" >&2
    exit 1
  fi
  if ! "$tools/bin/pip" install --quiet --disable-pip-version-check --timeout 20 --retries 1 "schemathesis==$version" \
    >"$work/install" 2>&1; then
    cat "$work/install"
    echo "skipped: schemathesis $version can't be installed from the Python package index"
    exit 0
  fi
  touch "$tools/complete"
}

# Two backends that accept. They print their ports.
cat >"$work/backends.py" <<'PY'
import socket

listeners = [socket.create_server(("127.0.0.1", 0), backlog=128) for _ in range(2)]
print(*(listener.getsockname()[1] for listener in listeners), flush=True)
while True:
    listeners[0].accept()
PY

# Waits until a file has a line that matches, and prints the first group of the match.
found_in() {
  local tries
  for ((tries = 0; tries < 400; tries++)); do
    if [[ $(<"$1") =~ $2 ]]; then
      echo "${BASH_REMATCH[1]}"
      return
    fi
    sleep 0.05
  done
  echo "nothing like $2 in $1:" >&2
  cat "$1" >&2
  return 1
}

# schemathesis reads the settings of the folder that it runs in, and writes there.
passed=0 failed=0
compare() {
  local what=$1
  shift
  local began=$SECONDS
  if (cd "$work" && env -u http_proxy -u HTTP_PROXY timeout "$longest_seconds" "$tools/bin/schemathesis" --no-color run \
    "http://$admin/api/v1/openapi.json" --checks "$checks" --workers 1 \
    --exclude-path /api/v1/shutdown --exclude-path /api/v1/upgrade \
    --generation-deterministic --request-timeout 10 --warnings off "$@") >"$work/said" 2>&1; then
    passed=$((passed + 1))
    echo "ok       $what ($(grep -o '[0-9]* generated' "$work/said"), $((SECONDS - began)) s)"
  else
    failed=$((failed + 1))
    echo "FAILED   $what"
    sed 's/^/         /' "$work/said"
  fi
}

install
touch "$work/ports" "$work/log"
python3 "$work/backends.py" >"$work/ports" &
started+=($!)
ports=$(found_in "$work/ports" '([0-9]+ [0-9]+)')
first=127.0.0.1:${ports% *} second=127.0.0.1:${ports#* }
echo "a secret of this test" >"$work/token"
cat >"$work/lb.yaml" <<YAML
listen: 127.0.0.1:0
backends: ["$first", {address: "$second", weight: 3, backup: true, max_connections: 10}]
admin: {bind: "127.0.0.1:0", token_file: $work/token}
YAML
for variable in "${!LB_@}"; do unset "$variable"; done
"$lb" -c "$work/lb.yaml" --log-format json --access-log off 2>"$work/log" &
started+=($!)
admin=$(found_in "$work/log" 'admin server listening","address":"([0-9.:]+)"')

token="Authorization: Bearer $(<"$work/token")"
compare "every path, with the token" --header "$token" --max-examples 300
compare "changes without the token" --include-method POST --include-method PATCH --include-method DELETE --max-examples 20 --phases examples,coverage,fuzzing
cat >"$work/schemathesis.toml" <<TOML
[parameters]
"path.pool" = "default"
"path.address" = "$first"
TOML
for operation in changeBackend patchBackend addBackend removeBackend; do
  compare "$operation where there is one" --header "$token" --include-operation-id "$operation" --max-examples 50 \
    --phases examples,coverage,fuzzing
done

# What is asked must not have hurt it.
if [[ $(curl -sS --max-time 10 "http://$admin/healthz") == ok ]]; then
  passed=$((passed + 1))
else
  failed=$((failed + 1))
  echo "FAILED   it answers afterwards"
fi
echo "$passed passed, $failed failed"
((failed == 0))
