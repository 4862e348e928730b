#!/usr/bin/env bash
# Checks what is in this folder; exits 1 if there is a finding.
#
#   deploy/check.sh [LB]      LB: the program, to check the lb.yaml files here as well (target/debug/lb)
#
# Needs promtool (Debian: prometheus) and python3. With PyYAML, systemd-analyze, kubectl, kubernetes-validate, yamllint, shellcheck and Docker
# Compose it checks more, and says what it leaves out without them. So with BIRD and keepalived (Debian: bird2, keepalived), as root: it then
# builds a network of several machines out of namespaces and has them fail. LB_CHECK_MACHINES says how much of that: short (half a minute, the
# default), full (the tables of docs/guide/scaling-out.md, a minute and a half), off.
set -uo pipefail
lb=${1:+$(realpath "$1")}
cd "$(dirname "$0")" || exit 1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
findings=0

# Runs a command, shows what it says only if it fails.
check() {
  local what=$1
  shift
  if "$@" >"$work/output" 2>&1; then
    echo "ok       $what"
  else
    findings=$((findings + 1))
    echo "FINDING  $what"
    sed 's/^/         /' "$work/output"
  fi
}
skip() { echo "skipped  $1: no $2"; }
has() { command -v "$1" >/dev/null; }

for tool in promtool python3; do
  if ! has "$tool"; then
    echo "missing: $tool" >&2
    exit 1
  fi
done

# Writes every expression of the dashboard as a recording rule, and compares all names of metrics with the sources.
cat >"$work/metrics.py" <<'PY'
import json, pathlib, re, sys

# Not in metric.rs: those of the process.
ELSEWHERE = {
    "lb_process_cpu_seconds_total", "lb_process_resident_memory_bytes", "lb_process_open_fds", "lb_process_max_fds",
    "lb_process_start_time_seconds",
}
# Labels that Prometheus adds, and that of a histogram's buckets.
ADDED_LABELS = {"job", "instance", "namespace", "pod", "le"}
VARIABLES = {"__rate_interval": "5m", "__range": "1h", "__interval": "1m"}
SELECTOR = re.compile(r"\b(lb_[a-z0-9_]+)(?:\{([^}]*)\})?")
findings = []


def expressions(node, where="lb.json"):
    """Every `expr` with the title of its panel, and the selectors of the variables' queries."""
    if isinstance(node, dict):
        where = node.get("title") or node.get("name") or where
        if "expr" in node:
            yield where, node["expr"]
        query = node["query"].get("query", "") if isinstance(node.get("query"), dict) else ""
        if query.startswith("label_values("):
            yield where, re.fullmatch(r"label_values\((.*), *\w+\)", query)[1]
        for child in node.values():
            yield from expressions(child, where)
    elif isinstance(node, list):
        for child in node:
            yield from expressions(child, where)


def substituted(expr, own):
    for name in own:
        expr = re.sub(rf"\$(?:{name}\b|\{{{name}(?::\w+)?\}})", ".*", expr)
    for name, value in VARIABLES.items():
        expr = re.sub(rf"\${name}\b", value, expr)
    return expr


def documented_labels():
    """Labels by metric, as the reference has them."""
    labels = {}
    for row in re.findall(r"^\| (`lb_.*)$", pathlib.Path("../docs/reference/metrics.md").read_text(), re.M):
        names, kind = row.split("|")[:2]
        for name in re.findall(r"`(lb_\w+)`", names):
            labels[name] = set(re.findall(r"`(\w+)", kind))
    return labels


source = pathlib.Path("../src/telemetry/metric.rs").read_text()
kinds = {name: kind for kind, name in re.findall(r'(counter|gauge|seconds|summary) \w+ =\s+"(lb_\w+)"', source)}
histograms = {name for name, kind in kinds.items() if kind == "seconds"}
series = {name for name in kinds if name not in histograms} | ELSEWHERE
series |= {name + part for name in histograms for part in ("_bucket", "_sum", "_count")}
series |= {name + part for name, kind in kinds.items() if kind == "summary" for part in ("_sum", "_count")}
labels = documented_labels()

dashboard = json.loads(pathlib.Path("grafana/lb.json").read_text())
ids = [panel["id"] for panel in dashboard["panels"]]
if len(ids) != len(set(ids)):
    findings.append("lb.json: two panels have one id")
own = [variable["name"] for variable in dashboard["templating"]["list"]]
rules = []
for number, (where, expr) in enumerate(expressions(dashboard)):
    plain = substituted(expr, own)
    if "$" in plain:
        findings.append(f"lb.json, {where}: an unknown variable in {plain}")
    rules.append({"record": f"check:expression:{number}", "expr": plain})
    for name, matchers in SELECTOR.findall(plain):
        if name not in series:
            findings.append(f"lb.json, {where}: no series is called {name}")
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        known = labels.get(name, labels.get(base))
        for label in re.findall(r"(\w+) *(?:=~|!~|!=|=)", matchers):
            if known is not None and label not in known | ADDED_LABELS:
                findings.append(f"lb.json, {where}: {name} has no label {label}")
if not rules:
    findings.append("lb.json: no expression found")

# Elsewhere, in prose too, a histogram may stand without its suffix.
for path in ("grafana/lb.json", "prometheus/alerts.yaml", "prometheus/alerts_test.yaml", "kubernetes/hpa.yaml", "README.md", "../docs/guide/scaling-out.md"):
    file = pathlib.Path(path)
    for name in set(re.findall(r"\blb_[a-z0-9_]+", file.read_text())) if file.exists() else ():
        if name not in series | histograms:
            findings.append(f"{path}: no metric is called {name}")

pathlib.Path(sys.argv[1]).write_text(json.dumps({"groups": [{"name": "lb.json", "rules": rules}]}))
print("\n".join(findings))
sys.exit(bool(findings))
PY

# Parses every YAML file, wants of each alert what a reader of it needs and a test for both cases, and takes out the lb.yaml files.
cat >"$work/files.py" <<'PY'
import pathlib, re, sys
import yaml

out = pathlib.Path(sys.argv[1])
findings = []
for path in sorted(p for p in pathlib.Path(".").rglob("*") if p.suffix in (".yaml", ".yml")):
    try:
        documents = [document for document in yaml.safe_load_all(path.read_text()) if document]
    except yaml.YAMLError as error:
        findings.append(f"{path}: {error}")
        continue
    for document in documents:
        name = f"{path.stem}-{(document.get('metadata') or {}).get('name', '')}"
        if document.get("kind") == "ConfigMap" and "lb.yaml" in document["data"]:
            (out / f"{name}.lb.yaml").write_text(document["data"]["lb.yaml"])
        # The balancer of a sidecar is set by its variables alone.
        spec = document.get("spec") or {}
        for container in spec.get("initContainers", []) if document.get("kind") == "Pod" else []:
            lines = [f"{variable['name']}={variable['value']}" for variable in container.get("env", [])]
            (out / f"{name}.env").write_text("\n".join(lines) + "\n")
        # A pod must not be killed before its balancer has drained.
        if document.get("kind") == "Deployment" and (out / f"{name}.lb.yaml").exists():
            drain = yaml.safe_load((out / f"{name}.lb.yaml").read_text())["drain"]
            needed = sum(int(re.fullmatch(r"(\d+)s", drain[key])[1]) for key in ("grace", "timeout"))
            if spec["template"]["spec"]["terminationGracePeriodSeconds"] <= needed:
                findings.append(f"{path}: terminationGracePeriodSeconds is not above the drain's {needed} s")
(out / "compose.lb.yaml").write_text(pathlib.Path("compose/lb.yaml").read_text())

groups = yaml.safe_load(pathlib.Path("prometheus/alerts.yaml").read_text())["groups"]
alerts = {rule["alert"]: rule for group in groups for rule in group["rules"]}
tests = yaml.safe_load(pathlib.Path("prometheus/alerts_test.yaml").read_text())["tests"]
cases = [case for test in tests for case in test["alert_rule_test"]]
for name, rule in alerts.items():
    for key in ("summary", "description"):
        if not rule.get("annotations", {}).get(key):
            findings.append(f"alerts.yaml: {name} has no {key}")
    if rule.get("labels", {}).get("severity") not in ("critical", "warning", "info"):
        findings.append(f"alerts.yaml: {name} has no severity")
    for verdict, fires in (("fires", True), ("doesn't fire", False)):
        if not any(case["alertname"] == name and bool(case["exp_alerts"]) == fires for case in cases):
            findings.append(f"alerts_test.yaml: no case where {name} {verdict}")
for name in {case["alertname"] for case in cases} - alerts.keys():
    findings.append(f"alerts_test.yaml: there is no alert {name}")
print("\n".join(findings))
sys.exit(bool(findings))
PY

check "prometheus.yml" promtool check config prometheus/prometheus.yml
check "alerts.yaml" promtool check rules prometheus/alerts.yaml
check "alerts_test.yaml" promtool test rules prometheus/alerts_test.yaml
check "lb.json: JSON, names of metrics and labels" python3 "$work/metrics.py" "$work/dashboard.yaml"
if [[ -s $work/dashboard.yaml ]]; then
  check "lb.json: every expression parses" promtool check rules "$work/dashboard.yaml"
fi

mkdir "$work/configs"
if python3 -c 'import yaml' 2>/dev/null; then
  check "YAML files parse; every alert is complete and tested" python3 "$work/files.py" "$work/configs"
  if [[ -n $lb ]]; then
    for config in "$work"/configs/*.lb.yaml; do
      check "lb check ${config##*/}" env -u LB_CONFIG "$lb" check -c "$config"
    done
    for variables in "$work"/configs/*.env; do
      mapfile -t lines <"$variables"
      check "lb check ${variables##*/}" env -u LB_CONFIG "${lines[@]}" "$lb" check
    done
  else
    echo "skipped  lb check: no program was named"
  fi
else
  skip "YAML files, completeness of the alerts, lb check" "PyYAML (Debian: python3-yaml)"
fi

# All of the example, which has the base in it; in the base, nothing names a namespace.
render() {
  kubectl kustomize kubernetes/base >"$work/base.yaml" && kubectl kustomize kubernetes/example >"$work/example.yaml" &&
    ! grep -nE 'namespace:|\.svc\.' "$work/base.yaml"
}
cat >"$work/rendered.py" <<'PY'
import sys
import yaml

# Whatever selects pods finds some, and names ports that they have.
documents = [document for document in yaml.safe_load_all(open(sys.argv[1])) if document]
pods = [document["spec"]["template"] for document in documents if document["kind"] == "Deployment"]
findings = []


def named_ports(node):
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("port", "targetPort") and isinstance(value, str):
                yield value
            else:
                yield from named_ports(value)
    elif isinstance(node, list):
        for child in node:
            yield from named_ports(child)


for document in documents:
    spec, name = document.get("spec") or {}, f"{document['kind']} {document['metadata']['name']}"
    selector = spec.get("podSelector") or spec.get("selector")
    if not selector:
        continue
    wanted = selector.get("matchLabels", selector).items()
    selected = [pod for pod in pods if wanted <= pod["metadata"]["labels"].items()]
    if not selected:
        findings.append(f"{name} selects no pod")
    known = {port["name"] for pod in (pods if "egress" in spec else selected) for port in pod["spec"]["containers"][0]["ports"]}
    for port in set(named_ports(spec)) - known:
        findings.append(f"{name}: no pod that it selects has a port {port}")
print("\n".join(findings))
sys.exit(bool(findings))
PY
if has kubectl; then
  check "kubectl kustomize; the base names no namespace" render
  if python3 -c 'import yaml' 2>/dev/null && [[ -s $work/example.yaml ]]; then
    check "selectors and ports of the example" python3 "$work/rendered.py" "$work/example.yaml"
  fi
else
  skip "kustomizations" "kubectl"
fi

if has kubernetes-validate; then
  for file in kubernetes/*.yaml kubernetes/base/[!k]*.yaml kubernetes/example/app.yaml; do
    check "kubernetes-validate $file" kubernetes-validate --strict --quiet "$file"
  done
else
  skip "kubernetes/ against the API's schemas" "kubernetes-validate (from PyPI)"
fi

if has yamllint; then
  check "yamllint" yamllint --strict -d '{extends: default, rules: {line-length: disable, document-start: disable, comments: {min-spaces-from-content: 1}, braces: {max-spaces-inside: 1}, quoted-strings: disable}}' .
else
  skip "style of YAML" "yamllint"
fi

cat >"$work/package.py" <<'PY'
import pathlib, sys, tomllib

deb = tomllib.loads(pathlib.Path("../Cargo.toml").read_text())["package"]["metadata"]["deb"]
# What build.sh makes is not there yet.
files = [source for source, *_ in deb["assets"] if not source.startswith("target/")] + deb["license-file"]
missing = [file for file in files if not pathlib.Path("..", file).exists()]
installed = {target + pathlib.Path(source).name if target.endswith("/") else target for source, target, _ in deb["assets"]}
missing += [file for file in deb["conf-files"] if file.lstrip("/") not in installed]
print("\n".join(f"Cargo.toml: there is no {file}" for file in missing))
sys.exit(bool(missing))
PY
check "files of the Debian package" python3 "$work/package.py"
for script in debian/postinst debian/prerm debian/postrm; do check "sh -n $script" sh -n "$script"; done
check "bash -n debian/build.sh" bash -n debian/build.sh
if [[ -n $lb ]]; then check "lb check debian/lb.yaml" env -u LB_CONFIG "$lb" check -c debian/lb.yaml; fi
if python3 -c 'import yaml' 2>/dev/null; then
  check "release workflow parses" python3 -c 'import sys, yaml; yaml.safe_load(open(sys.argv[1]))' ../.github/workflows/release.yaml
else
  skip "release workflow parses" "python3-yaml"
fi

if has shellcheck; then
  check "shellcheck" shellcheck check.sh bgp/lb-announce bgp/router/resilient-nexthops
else
  skip "shell scripts" "shellcheck"
fi

if has bird; then
  check "bird.conf" bird -p -c bgp/bird.conf
  check "router/bird.conf" bird -p -c bgp/router/bird.conf
else
  skip "bgp/ by BIRD's parser" "bird (Debian: bird2)"
fi

# A busy machine may be too slow for timers of a third of a second: what fails is tried once more, and said.
machines() {
  local how=()
  [[ ${LB_CHECK_MACHINES:-short} == full ]] || how=(--short)
  ./machines_test.py "$lb" "${how[@]}" >"$work/machines" 2>&1 && return
  cat "$work/machines"
  echo "-- once more:"
  ./machines_test.py "$lb" "${how[@]}" >"$work/machines" 2>&1 && echo "note     several machines: passed only when it was run again" && return
  cat "$work/machines"
  return 1
}
missing=
for program in bird keepalived ip curl; do has "$program" || missing+=" $program"; done
if [[ ${LB_CHECK_MACHINES:-short} == off ]]; then
  echo "skipped  several machines: LB_CHECK_MACHINES=off"
elif [[ -z $lb ]]; then
  echo "skipped  several machines: no program was named"
elif [[ -n $missing ]]; then
  skip "several machines: BGP and VRRP in namespaces" "$missing"
elif ((EUID != 0)) || ! unshare --net --mount --pid --fork true 2>/dev/null; then
  skip "several machines: BGP and VRRP in namespaces" "right to make namespaces"
else
  check "several machines, ${LB_CHECK_MACHINES:-short}: kill, drain and loss of one, by BGP and VRRP" machines
  grep '^|' "$work/machines" | sed 's/^/         /'
fi

# The program need not be installed: another one takes its place.
verify_units() {
  local said
  mkdir -p "$work/units"
  cp systemd/lb.socket "$work/units/"
  sed 's#=lb #=/bin/true #' systemd/lb.service >"$work/units/lb.service"
  sed 's#/usr/local/bin/lb-announce\|/usr/sbin/birdc#/bin/true#' bgp/lb-announce.service >"$work/units/lb-announce.service"
  said=$(systemd-analyze verify --man=no --recursive-errors=no "$work/units/"* 2>&1) || said+=" (failed)"
  # An unknown key is only a warning to it.
  echo "$said"
  [[ -z $said ]]
}
if ! has systemd-analyze; then
  skip "systemd/" "systemd-analyze"
elif ! systemd-analyze --help | grep -q -e --offline; then
  skip "systemd/" "systemd-analyze of version 250 or newer"
else
  check "systemd-analyze verify" verify_units
  check "systemd-analyze security: exposure of at most 2.0" \
    systemd-analyze security --no-pager --offline=true --threshold=20 "$work/units/lb.service"
fi

if docker compose version >/dev/null 2>&1; then
  check "docker compose config" docker compose -f docker-compose.yaml config --quiet
else
  skip "docker-compose.yaml against Compose's schema" "docker compose"
fi

if ((findings > 0)); then
  echo "$findings findings"
  exit 1
fi
