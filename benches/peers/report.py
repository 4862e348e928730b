"""From rows to what is read: a Markdown report, a CSV with every run, and the plot."""

import csv
from dataclasses import dataclass
from statistics import median

import plot
from loads import Outcome

OURS = "lb"
# Above this share of the machine's CPU used by strangers, figures are marked as disturbed.
FOREIGN_LIMIT = 0.10


@dataclass(frozen=True)
class Row:
    """One run of one load through one peer."""

    round: int
    load: str
    peer: str
    outcome: Outcome
    memory_kib: int


@dataclass(frozen=True)
class Summary:
    """All rounds of one load through one peer."""

    cost: float
    low: float
    high: float
    throughput: float
    p99_us: float | None
    machine: float | None
    memory_kib: float
    foreign: float
    errors: int
    ratio: float | None


def write(rows, loads, peers, state, problems, options):
    """Writes the files; returns the Markdown text."""
    table = {load.name: summarise([row for row in rows if row.load == load.name], peers) for load in loads}
    table = {name: summaries for name, summaries in table.items() if summaries}
    shown = [load for load in loads if load.name in table]
    text = markdown(table, shown, peers, state, problems)
    options.out.mkdir(parents=True, exist_ok=True)
    write_csv(options.out / "peers.csv", rows, {load.name: load for load in loads})
    (options.out / "peers.svg").write_text(plot.bars(table, shown, peers), encoding="utf-8")
    if options.markdown:
        options.markdown.parent.mkdir(parents=True, exist_ok=True)
        options.markdown.write_text(text, encoding="utf-8")
    return text


def summarise(rows, peers):
    """Peer name to Summary for one load; the ratio is to the best peer that isn't ours."""
    medians = {}
    for peer in peers:
        costs = [row.outcome.cost for row in rows if row.peer == peer.name]
        if costs:
            medians[peer.name] = median(costs)
    best = min((cost for name, cost in medians.items() if name != OURS), default=None)
    summaries = {}
    for name, cost in medians.items():
        mine = [row for row in rows if row.peer == name]
        outcomes = [row.outcome for row in mine]
        machines = [outcome.machine for outcome in outcomes if outcome.machine is not None]
        p99s = [outcome.p99_us for outcome in outcomes if outcome.p99_us is not None]
        summaries[name] = Summary(
            cost=cost,
            low=min(outcome.cost for outcome in outcomes),
            high=max(outcome.cost for outcome in outcomes),
            throughput=median(outcome.throughput for outcome in outcomes),
            p99_us=median(p99s) if p99s else None,
            machine=median(machines) if machines else None,
            memory_kib=median(row.memory_kib for row in mine),
            foreign=median(outcome.foreign for outcome in outcomes),
            errors=sum(outcome.errors for outcome in outcomes),
            ratio=cost / best if best and best > 0 else None,
        )
    return summaries


def markdown(table, loads, peers, state, problems):
    lines = ["# lb and its peers", ""]
    lines += [f"- {name}: {value}" for name, value in state.items()]
    if problems:
        lines += ["", "**Failed or left out**:", ""] + ["- " + " ".join(problem.split()) for problem in problems]
    lines += ["", "## Cost, as a ratio to the best peer (lower is better)", ""]
    lines += ratio_table(table, loads, peers)
    for load in loads:
        lines += ["", f"## {load.name}: {load.what}", ""]
        lines += load_table(table[load.name], load, peers)
    lines += disturbance(table, loads)
    lines += ["", "Medians of all rounds. CPU is the proxy's alone; machine: the same of all processes. Memory: just after the load, shared pages split "
                  "(PSS). Socket errors are wrk's count over all rounds."]
    return "\n".join(lines) + "\n"


def disturbance(table, loads):
    """A warning where strangers' work may have spoilt figures; the CSV has the share for each run."""
    shares = {
        f"{load.name} with {name}": summary.foreign
        for load in loads for name, summary in table[load.name].items()
    }
    disturbed = [name for name, share in shares.items() if share > FOREIGN_LIMIT]
    if not disturbed:
        return []
    worst = max(disturbed, key=shares.get)
    return ["", f"**Disturbed**: in {len(disturbed)} of {len(shares)} cells other processes used more than "
                f"{FOREIGN_LIMIT:.0%} of the machine (median of the rounds; worst: {worst}, {shares[worst]:.0%}). "
                "Repeat on a quiet machine."]


def ratio_table(table, loads, peers):
    present = [peer for peer in peers if any(peer.name in table[load.name] for load in loads)]
    lines = ["| Load | " + " | ".join(peer.title for peer in present) + " |", "|---" * (len(present) + 1) + "|"]
    for load in loads:
        cells = []
        for peer in present:
            summary = table[load.name].get(peer.name)
            if not summary or summary.ratio is None:
                cells.append("–")
            else:
                cells.append(f"**{summary.ratio:.2f}**" if peer.name == OURS else f"{summary.ratio:.2f}")
        lines.append(f"| {load.name} ({load.cost_unit}) | " + " | ".join(cells) + " |")
    return lines


def load_table(summaries, load, peers):
    columns = ["Peer", load.cost_unit, "lowest–highest", "ratio", "machine", load.throughput_unit, "p99 µs", "memory MiB",
               "socket errors"]
    lines = ["| " + " | ".join(columns) + " |", "|---" + "|---:" * (len(columns) - 1) + "|"]
    for peer in peers:
        if summary := summaries.get(peer.name):
            cells = [
                peer.title,
                number(summary.cost),
                f"{number(summary.low)}–{number(summary.high)}",
                f"{summary.ratio:.2f}" if summary.ratio is not None else "–",
                number(summary.machine) if summary.machine is not None else "–",
                number(summary.throughput),
                number(summary.p99_us) if summary.p99_us is not None else "–",
                f"{summary.memory_kib / 1024:.1f}",
                str(summary.errors),
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def number(value):
    """Three or more significant digits, without noise."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def write_csv(path, rows, loads):
    with open(path, "w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(["round", "load", "peer", "cost", "cost_unit", "throughput", "throughput_unit", "p99_us",
                      "machine_cost", "memory_pss_kib", "socket_errors", "foreign_cpu_share"])
        for row in rows:
            load, outcome = loads[row.load], row.outcome
            out.writerow([row.round, row.load, row.peer, f"{outcome.cost:.4f}", load.cost_unit,
                          f"{outcome.throughput:.4f}", load.throughput_unit,
                          "" if outcome.p99_us is None else f"{outcome.p99_us:.0f}",
                          "" if outcome.machine is None else f"{outcome.machine:.4f}",
                          row.memory_kib, outcome.errors, f"{outcome.foreign:.4f}"])
