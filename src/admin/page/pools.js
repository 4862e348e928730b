// Pools and their backends: filtered, sorted, the worst first, and so many rows at once as a page can carry.

import { age, bytes, count, milliseconds, perSecond } from "./format.js";
import { chart, element, fill, newChart, rating, reconcile, rowOf, takeRates } from "./rows.js";

/** Rows of a pool until the rest is asked for: what is bad is among them. */
const MOST_ROWS = 100;
/** With more backends, the page asks for the history of pools alone. */
const MOST_CHARTED = 200;

const SEVERITY = { down: 0, ejected: 0, probing: 1, waiting: 1, draining: 2, standby: 3, disabled: 3, up: 4 };
const ROW_CLASSES = {
  ejected: "bad", down: "bad", probing: "warn", waiting: "warn", draining: "warn", standby: "off", disabled: "off",
};
const CHANGES = {
  up: ["drain", "disable"], waiting: ["enable", "disable"], draining: ["enable", "disable"], disabled: ["enable"],
};
const SERVICES = {
  refused: "clients are refused", all_tried: "none passes its check, all are tried",
  ejected_tried: "none is usable, those that have failed are tried",
};
/** The value by which rows are sorted, the largest first. */
const SORT_VALUES = {
  state: ({ backend }) => -SEVERITY[backend.state],
  p99: ({ backend }) => backend.first_byte?.p99_ms ?? -1,
  failures: ({ backend }) => backend.failures,
  rate: ({ known, http }) => known.rates[http ? "requests" : "total"] ?? -1,
  active: ({ backend }) => backend.active,
  total: ({ backend, http }) => (http ? backend.requests : backend.total),
  weight: ({ backend }) => backend.weight,
};
const byAddress = new Intl.Collator("en", { numeric: true });

const pools = new Map();
let reports = [];

/** Shows the pools' reports; those that serve nobody come first. */
export function showPools(poolReports) {
  reports = poolReports;
  const worstFirst = [...reports].sort((a, b) => isDown(b) - isDown(a));
  reconcile(element("pools"), pools, worstFirst, "name", newPool, showPool);
  showMatches();
}

/** After a change of the filter or of the order. */
export function showAgain() {
  for (const report of reports) showRows(pools.get(report.name), report);
  showMatches();
}

export function isDown(pool) {
  return pool.outage_since !== null || pool.backends.length === 0;
}

/** Whether new clients of the pool would have no backend left without this one. */
export function isLast(poolName, address) {
  const { backends } = reports.find((pool) => pool.name === poolName) ?? { backends: [] };
  const usable = backends.filter((backend) => backend.state === "up" && backend.weight > 0);
  return usable.length === 1 && usable[0].address === address;
}

/** A backend's report. */
export function backendOf(poolName, address) {
  const { backends } = reports.find((pool) => pool.name === poolName) ?? { backends: [] };
  return backends.find((backend) => backend.address === address);
}

/** The pools whose backends' history is worth asking for. */
export function chartedPools() {
  const all = reports.reduce((sum, pool) => sum + pool.backends.length, 0);
  return all <= MOST_CHARTED ? reports.map((pool) => pool.name) : [];
}

/** Draws the hour of a pool, or of one of its backends. */
export function showHistory(series, step) {
  const pool = pools.get(series.pool);
  if (!pool) return;
  const rates = (series.requests.some((value) => value > 0) ? series.requests : series.connections);
  const perStep = rates.map((value) => value / step);
  const peaks = `peak ${perSecond(Math.max(...perStep, 0))} per second, ${count(sum(series.failed))} failed`;
  const slowest = `slowest p99 ${milliseconds(Math.max(...series.p99_ms, 0))}`;
  if (series.backend !== null) {
    const row = pool.rows.get(series.backend);
    if (!row) return;
    row.chart ??= row.element.querySelector(".hour").appendChild(newChart());
    const lines = [{ values: perStep }, { values: series.failed, bad: true }];
    chart(row.chart, sum(series.failed) > 0 ? lines : lines.slice(0, 1), `last hour: ${peaks}, ${slowest}`);
    return;
  }
  pool.charts ??= [...pool.element.querySelectorAll("[data-chart]")].map((holder) => holder.appendChild(newChart()));
  pool.element.querySelector(".charts").hidden = false;
  chart(pool.charts[0], [{ values: perStep }], `last hour: ${peaks}`);
  chart(pool.charts[1], [{ values: series.failed, bad: true }], `last hour: ${count(sum(series.failed))} failed`);
  chart(pool.charts[2], [{ values: series.p99_ms }], `last hour: ${slowest}`);
}

function sum(values) {
  return values.reduce((all, value) => all + value, 0);
}

function newPool({ name }) {
  const row = rowOf("pool");
  row.element.querySelector(".scroll").ariaLabel = `Backends of pool ${name}, as a table`;
  Object.assign(row, { rows: new Map(), known: new Map(), showsAll: false, failed: {} });
  row.failed = { counted: null, rates: {} };
  row.all = row.element.querySelector(".all");
  row.all.addEventListener("click", () => {
    row.showsAll = true;
    showAgain();
  });
  row.element.dataset.pool = name;
  fill(row.cells, { name, caption: name });
  return row;
}

function showPool(row, report) {
  const { name, policy, service, backends, waiting, retries, failed } = report;
  row.http = backends.some((backend) => backend.requests > 0);
  for (const backend of backends) {
    let known = row.known.get(backend.address);
    if (!known) row.known.set(backend.address, (known = { counted: null, rates: {} }));
    takeRates(known, backend, ["total", "requests", "bytes_in", "bytes_out"]);
  }
  forgetOthers(row.known, backends);
  takeRates(row.failed, report, ["failed"]);
  const rate = total(backends.map((backend) => row.known.get(backend.address).rates[row.http ? "requests" : "total"]));
  const active = backends.reduce((all, backend) => all + backend.active, 0);
  const up = `${countUp(backends)} of ${backends.length} up`;
  const unit = row.http ? "req/s" : "conn/s";
  fill(row.cells, {
    service: backends.length > 0 ? SERVICES[service] ?? "" : "",
    summary: `${policy}, ${up}, active ${count(active)}, ${perSecond(rate)} ${unit}, waiting ${count(waiting)}, ` +
      `retries ${count(retries)}${report.outage_since ? `, down for ${age(report.outage_since)}` : ""}`,
    failing: failed > 0 ? `failed ${count(failed)} (${perSecond(row.failed.rates.failed)}/s): ${why(report)}` : "",
    "rate-title": row.http ? "Req/s" : "Conn/s", "rate-chart": unit,
  });
  row.element.classList.toggle("down", isDown(report));
  row.element.querySelector(".scroll").hidden = backends.length === 0;
  row.element.querySelector(".empty").hidden = backends.length > 0;
  showRows(row, report);
}

function forgetOthers(known, backends) {
  if (known.size === backends.length) return;
  const present = new Set(backends.map((backend) => backend.address));
  for (const address of known.keys()) if (!present.has(address)) known.delete(address);
}

/** Why clients were not served, the most frequent reason first. */
export function why({ failures }) {
  const reasons = Object.entries(failures).sort(([, a], [, b]) => b - a);
  return reasons.map(([reason, times]) => `${count(times)} ${reason}`).join(", ");
}

function showRows(row, { name, backends }) {
  const words = element("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const onlyNotUp = element("not-up").checked;
  // The row that has the focus stays: the user may just have changed its state.
  const focused = document.activeElement?.closest("[data-backend]")?.dataset;
  const stays = (backend) => focused?.pool === name && focused?.backend === backend.address;
  const matches = (backend) => {
    const text = `${name} ${backend.address} ${backend.state}`.toLowerCase();
    return !(onlyNotUp && backend.state === "up") && words.every((word) => text.includes(word));
  };
  const found = backends.filter((backend) => matches(backend) || stays(backend));
  const ordered = inOrder(row, found);
  const shown = row.showsAll ? ordered : ordered.slice(0, MOST_ROWS);
  Object.assign(row, { found: found.length, count: backends.length });
  row.all.hidden = shown.length === found.length;
  row.all.textContent = `Show all ${count(found.length)}`;
  const body = row.element.querySelector("tbody");
  const create = (backend) => newBackend(name, backend);
  reconcile(body, row.rows, shown, "address", create, (one, backend) => showBackend(one, backend, row));
  row.element.hidden = (words.length > 0 || onlyNotUp) && found.length === 0;
}

function inOrder({ known, http }, backends) {
  const key = element("sort").value;
  if (key === "address") return [...backends].sort((a, b) => byAddress.compare(a.address, b.address));
  const value = SORT_VALUES[key];
  const rated = backends.map((backend) => [value({ backend, known: known.get(backend.address), http }), backend]);
  return rated.sort(([a], [b]) => b - a).map(([, backend]) => backend);
}

function showMatches() {
  let [shown, all] = [0, 0];
  for (const pool of pools.values()) {
    shown += pool.found;
    all += pool.count;
    for (const head of pool.element.querySelectorAll("thead th")) {
      const key = head.querySelector("button")?.value;
      if (key) head.ariaSort = key === element("sort").value ? (key === "address" ? "ascending" : "descending") : null;
    }
  }
  const filters = element("filter").value.trim() !== "" || element("not-up").checked;
  element("matches").textContent = filters ? `${count(shown)} of ${count(all)} shown` : "";
}

function newBackend(pool, { address }) {
  const row = Object.assign(rowOf("backend"), { address, state: null });
  const [more, connections] = ["more", "connections"].map((name) => row.element.querySelector(`button.${name}`));
  row.buttons = [...row.element.querySelectorAll(".actions button")];
  Object.assign(row.element.dataset, { pool, backend: address });
  connections.title = `connections of ${address}`;
  row.element.querySelector("button.member").title = `change or remove ${address}`;
  // For screen readers: a list of buttons that are all named "Drain" would be useless.
  for (const button of row.buttons) button.ariaLabel = `${button.textContent} ${address}`;
  more.ariaLabel = `More of ${address}`;
  more.addEventListener("click", () => {
    more.ariaExpanded = String(row.element.classList.toggle("open"));
  });
  fill(row.cells, { address });
  return row;
}

function showBackend(row, backend, { known, http }) {
  const { rates } = known.get(backend.address);
  if (row.state !== backend.state) showState(row, backend.state);
  const isOld = backend.reason === null && backend.last_error_at;
  fill(row.cells, {
    since: backend.state === "up" ? "" : sinceText(backend),
    backup: rankText(backend.rank), weight: count(backend.weight),
    active: count(backend.active),
    limit: backend.max_connections ? ` of ${count(backend.max_connections)}` : "",
    rate: perSecond(rates[http ? "requests" : "total"]), total: count(http ? backend.requests : backend.total),
    in: bytes(rates.bytes_in), out: bytes(rates.bytes_out),
    p50: milliseconds(backend.first_byte?.p50_ms), p99: milliseconds(backend.first_byte?.p99_ms),
    failures: count(backend.failures),
    error: (backend.reason ?? backend.last_error ?? "") + (isOld ? ` (${age(backend.last_error_at)} ago)` : ""),
    next: backend.next ?? "",
  });
  const hasDetail = row.cells.error.shown !== "" || row.cells.next.shown !== "";
  row.element.classList.toggle("detailed", hasDetail);
  row.element.classList.toggle("failing", backend.failures > 0);
}

function sinceText({ state, since, active }) {
  const done = state === "draining" && active === 0 ? "drained, " : "";
  return since ? `${done}for ${age(since)}` : done;
}

/** A rank above 1 needs its number: what follows it is the weight. */
function rankText(rank) {
  return ["", "backup "][rank] ?? `backup #${rank} `;
}

function showState(row, state) {
  row.state = state;
  row.element.dataset.state = state;
  const isOpen = row.element.classList.contains("open");
  row.element.className = `${ROW_CLASSES[state] ?? ""}${isOpen ? " open" : ""}`;
  fill(row.cells, { state });
  const focused = row.buttons.find((button) => button === document.activeElement);
  for (const button of row.buttons) button.hidden = !(CHANGES[state] ?? CHANGES.up).includes(button.value);
  // The button that was just pressed may be hidden now: its opposite gets the focus.
  if (focused?.hidden) row.buttons.find((button) => !button.hidden).focus();
}

export function countUp(backends) {
  return backends.filter((backend) => backend.state === "up").length;
}

function total(rates) {
  return rating.span === undefined ? undefined : rates.reduce((all, rate) => all + (rate ?? 0), 0);
}
