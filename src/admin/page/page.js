// The status page: polls the admin API every second, and shows the reports. Names, addresses and errors come from the
// network, so they are put into the page as text, never as markup.

const POLL_INTERVAL_MS = 1000;
const POLL_TIMEOUT_MS = 5000;
/** A reload is answered only when it is done. */
const CHANGE_TIMEOUT_MS = 30_000;
/** Rates over a shorter time would fluctuate too much. */
const SHORTEST_SPAN_S = 0.5;
/** Rates over a longer time would be those of the past. */
const LONGEST_SPAN_S = 5;
const SPARKLINE = { spanMs: 60_000, width: 120, height: 24 };
/** A smaller difference counts as none: the answer's Date header has whole seconds. */
const CLOCK_TOLERANCE_MS = 2000;

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
const OUTCOMES = { enable: "is enabled", drain: "is draining", disable: "is disabled" };

const element = (id) => document.getElementById(id);
const grouped = new Intl.NumberFormat("en");
const polling = { underWay: false, again: false, timer: 0 };
/** The server's uptime at the last rates, whether this poll computes new ones, and over how many seconds. */
const rating = { uptime: undefined, due: false, span: undefined };
const header = cellsOf(document);
const listeners = new Map();
const pools = new Map();
const changesUnderWay = new Set();
let samples = [];
let clockSkewMs = 0;
let answeredAt = null;
let offlineSince = null;

document.addEventListener("visibilitychange", poll);
element("filter").addEventListener("input", filterRows);
element("not-up").addEventListener("change", filterRows);
element("pools").addEventListener("click", ({ target }) => changeBackend(target.closest("button")));
element("dismiss").addEventListener("click", dismissResult);
element("reload").addEventListener("click", () => change("api/v1/reload", "configuration reloaded", "reload failed"));
poll();

/** One poll, and the timer for the next; nothing while the tab is hidden. */
async function poll() {
  if (polling.underWay || document.hidden) return;
  clearTimeout(polling.timer);
  const begun = performance.now();
  Object.assign(polling, { underWay: true, again: false });
  await fetchReports().then(([status, report]) => show(status, report.pools), showOffline).catch(console.error);
  polling.underWay = false;
  const wait = polling.again ? 0 : Math.max(0, begun + POLL_INTERVAL_MS - performance.now());
  polling.timer = setTimeout(poll, wait);
}

async function fetchReports() {
  const abort = new AbortController();
  const deadline = setTimeout(() => abort.abort(new Error("it took too long")), POLL_TIMEOUT_MS);
  try {
    return await Promise.all([get("api/v1/status", abort.signal), get("api/v1/pools", abort.signal)]);
  } finally {
    clearTimeout(deadline);
    // If one has failed, the other must not continue into the next poll.
    abort.abort();
  }
}

async function get(path, signal) {
  const response = await fetch(path, { cache: "no-store", signal });
  if (!response.ok) throw new Error(`HTTP ${response.status}`);
  const skew = Date.parse(response.headers.get("date")) - Date.now();
  clockSkewMs = Math.abs(skew) > CLOCK_TOLERANCE_MS ? skew : 0;
  return response.json();
}

function showOffline(error) {
  offlineSince ??= new Date().toISOString();
  // The message of a network error, a TypeError, adds nothing.
  const reason = error instanceof TypeError ? "" : ` (${error.message})`;
  const values = answeredAt ? ` The values below are from ${utc(answeredAt)}.` : "";
  const text = `no answer from the balancer since ${utc(offlineSince)}${reason}; still trying.${values}`;
  fill(header, { offline: text });
  element("offline").hidden = false;
  document.body.classList.add("stale");
  document.title = "no answer – lb";
}

function show(status, poolReports) {
  offlineSince = null;
  answeredAt = new Date().toISOString();
  element("offline").hidden = true;
  document.body.classList.remove("stale");
  setSpan(status.uptime_seconds);
  showHeader(status, poolReports.flatMap((pool) => pool.backends));
  showReload(status.last_reload);
  showCertificates(status.listeners);
  reconcile(element("listeners"), listeners, status.listeners, "name", () => rowOf("listener"), showListener);
  if (rating.due) showAcceptRate();
  reconcile(element("pools"), pools, poolReports, "name", newPool, showPool);
  filterRows();
  document.querySelector("main").hidden = false;
}

/** Measured by the server's uptime: after a restart it is less than before, and there is no rate. */
function setSpan(uptime) {
  const span = uptime - rating.uptime;
  rating.due = !(span >= 0 && span < SHORTEST_SPAN_S);
  if (!rating.due) return;
  rating.uptime = uptime;
  rating.span = span > 0 && span <= LONGEST_SPAN_S ? span : undefined;
}

function showHeader(status, backends) {
  const unready = status.unready_reason ?? (status.draining ? "draining" : "no reason given");
  fill(header, {
    version: status.version,
    ready: status.ready ? "ready" : `not ready: ${unready}`,
    active: count(status.connections.active), max: count(status.connections.max),
    uptime: duration(status.uptime_seconds), workers: count(status.workers),
    config: status.config_file ?? "no file",
    up: count(countUp(backends)), backends: count(backends.length),
  });
  document.title = `${header.up.shown} of ${header.backends.shown} up – lb`;
  element("ready").className = status.ready ? "up" : "bad";
  document.body.classList.toggle("readonly", !status.may_post);
}

function showReload(last) {
  const failed = last?.result === "failure";
  fill(header, {
    reload: last ? `${failed ? "failed" : "worked"} ${ago(last.time)}` : "none since the start",
    "reload-note": last ? utc(last.time) + (failed ? "" : `: ${last.message}`) : "",
    "reload-error": failed ? last.message : "",
  });
  element("reload-failure").hidden = !failed;
}

function showCertificates(listeners) {
  const lines = listeners.flatMap(({ name: listener, tls }) => [
    ...(tls?.problem ? [`listener ${listener}: ${tls.problem}; what the files held before stays in use`] : []),
    ...(tls?.certificates ?? []).filter((it) => it.expires_soon)
      .map(({ name, expires }) => `listener ${listener}: ${name} expires on ${utc(expires)}`),
  ]);
  fill(header, { certificates: lines.join("\n") });
  element("certificates").hidden = lines.length === 0;
}

/** Makes parent's children the rows of items, in their order. A row stays the same element as long as its key exists:
 *  so it keeps focus and selection. */
function reconcile(parent, rows, items, key, create, update) {
  const present = new Set(items.map((item) => item[key]));
  for (const [name, row] of rows) {
    if (present.has(name)) continue;
    row.element.remove();
    rows.delete(name);
  }
  let place = parent.firstElementChild;
  for (const item of items) {
    let row = rows.get(item[key]);
    if (!row) rows.set(item[key], (row = create(item)));
    if (row.element === place) place = place.nextElementSibling;
    else parent.insertBefore(row.element, place);
    update(row, item);
  }
}

function rowOf(template) {
  const copy = element(template).content.firstElementChild.cloneNode(true);
  return { element: copy, cells: cellsOf(copy), counted: null, rates: {} };
}

/** The text node of each [data-field], by name. */
function cellsOf(root) {
  const cells = {};
  for (const holder of root.querySelectorAll("[data-field]")) {
    const node = holder.firstChild ?? holder.appendChild(document.createTextNode(""));
    cells[holder.dataset.field] = { node, shown: null };
  }
  return cells;
}

/** Most values don't change between polls, and must cost nothing: they are compared with the last ones in memory. */
function fill(cells, texts) {
  for (const name in texts) {
    const cell = cells[name];
    if (cell.shown === texts[name]) continue;
    cell.shown = texts[name];
    cell.node.textContent = texts[name];
  }
}

/** The growth per second of each counter; undefined if there is nothing to compare with. */
function takeRates(row, item, counters) {
  if (!rating.due) return;
  for (const counter of counters) {
    const grown = row.counted && rating.span ? item[counter] - row.counted[counter] : -1;
    row.rates[counter] = grown < 0 ? undefined : grown / rating.span;
  }
  row.counted = item;
}

function showListener(row, listener) {
  takeRates(row, listener, ["accepted", "bytes_in", "bytes_out"]);
  fill(row.cells, {
    name: listener.name,
    addresses: listener.addresses.join(", "),
    mode: listener.mode,
    pool: listener.pool ?? "–",
    active: count(listener.active), rejected: count(listener.rejected),
    rate: perSecond(row.rates.accepted),
    in: bytes(row.rates.bytes_in), out: bytes(row.rates.bytes_out),
  });
}

function newPool({ name }) {
  const row = rowOf("pool");
  row.element.querySelector(".scroll").ariaLabel = `Backends of pool ${name}, as a table`;
  row.backends = new Map();
  fill(row.cells, { name, caption: name });
  return row;
}

function showPool(row, { name, policy, service, backends, waiting, retries }) {
  const up = `${countUp(backends)} of ${backends.length} up`;
  fill(row.cells, {
    service: backends.length > 0 ? SERVICES[service] ?? "" : "",
    summary: `${policy}, ${up}, waiting ${count(waiting)}, retries ${count(retries)}`,
  });
  row.element.querySelector(".scroll").hidden = backends.length === 0;
  row.element.querySelector(".empty").hidden = backends.length > 0;
  const body = row.element.querySelector("tbody");
  reconcile(body, row.backends, backends, "address", (backend) => newBackend(name, backend), showBackend);
}

function newBackend(pool, { address }) {
  const row = Object.assign(rowOf("backend"), { pool, address, state: null, hidden: false });
  row.buttons = [...row.element.querySelectorAll("button")];
  Object.assign(row.element.dataset, { pool, backend: address });
  // For screen readers: a list of buttons that are all named "Drain" would be useless.
  for (const button of row.buttons) button.ariaLabel = `${button.textContent} ${address}`;
  fill(row.cells, { address });
  return row;
}

function showBackend(row, backend) {
  takeRates(row, backend, ["total", "bytes_in", "bytes_out"]);
  if (row.state !== backend.state) showState(row, backend.state);
  fill(row.cells, {
    until: backend.ejected_until ? `for another ${Math.max(0, Math.ceil(secondsUntil(backend.ejected_until)))} s` : "",
    backup: rankText(backend.rank), weight: count(backend.weight),
    active: count(backend.active),
    limit: backend.max_connections ? ` of ${count(backend.max_connections)}` : "",
    rate: perSecond(row.rates.total), total: count(backend.total),
    in: bytes(row.rates.bytes_in), out: bytes(row.rates.bytes_out),
    latency: backend.latency === null ? "–" : `${backend.latency.toFixed(2)}\u00a0ms`,
    failures: count(backend.failures),
    error: backend.reason ?? backend.last_error ?? "–",
    "error-age": !backend.reason && backend.last_error_at ? ago(backend.last_error_at) : "",
  });
}

/** A rank above 1 needs its number: what follows it is the weight. */
function rankText(rank) {
  return ["", "backup "][rank] ?? `backup #${rank} `;
}

function showState(row, state) {
  row.state = state;
  row.searchText = `${row.pool} ${row.address} ${state}`.toLowerCase();
  row.element.dataset.state = state;
  row.element.className = ROW_CLASSES[state] ?? "";
  fill(row.cells, { state });
  const focused = row.buttons.find((button) => button === document.activeElement);
  for (const button of row.buttons) button.hidden = !(CHANGES[state] ?? CHANGES.up).includes(button.value);
  // The button that was just pressed may be hidden now: its opposite gets the focus.
  if (focused?.hidden) row.buttons.find((button) => !button.hidden).focus();
}

function filterRows() {
  const words = element("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const onlyNotUp = element("not-up").checked;
  const filters = onlyNotUp || words.length > 0;
  // The row that has the focus stays: the user may just have changed its state.
  const focused = document.activeElement?.closest("tr");
  let [shown, all] = [0, 0];
  for (const pool of pools.values()) {
    const shownBefore = shown;
    for (const row of pool.backends.values()) {
      const matches = !(onlyNotUp && row.state === "up") && words.every((word) => row.searchText.includes(word));
      const hidden = !matches && row.element !== focused;
      if (row.hidden !== hidden) row.element.hidden = row.hidden = hidden;
      shown += row.hidden ? 0 : 1;
      all += 1;
    }
    pool.element.hidden = filters && shown === shownBefore;
  }
  element("matches").textContent = filters ? `${count(shown)} of ${count(all)} shown` : "";
}

function showAcceptRate() {
  const now = performance.now();
  const rates = [...listeners.values()].map((row) => row.rates.accepted ?? 0);
  const rate = rating.span && rates.reduce((sum, one) => sum + one, 0);
  samples = samples.filter((sample) => now - sample.at < SPARKLINE.spanMs).concat({ at: now, rate });
  const peak = Math.max(...samples.map((sample) => sample.rate ?? 0));
  const texts = { accepted: perSecond(rate), peak: perSecond(peak) };
  fill(header, texts);
  element("sparkline").ariaLabel = `accepted per second in the last minute: now ${texts.accepted}, peak ${texts.peak}`;
  element("sparkline").replaceChildren(...unbroken(samples).map((run) => polyline(run, now, peak)));
}

/** Without polls, as in a hidden tab, there is no rate: the line has a gap there. */
function unbroken(samples) {
  const runs = [[]];
  for (const sample of samples) {
    if (sample.rate === undefined) runs.push([]);
    else runs.at(-1).push(sample);
  }
  return runs.filter((run) => run.length > 0);
}

function polyline(run, now, peak) {
  const { spanMs, width, height } = SPARKLINE;
  const points = run.map(({ at, rate }) => {
    const x = width * (1 - (now - at) / spanMs);
    const y = height - 1 - (rate / Math.max(peak, 1)) * (height - 2);
    return `${x.toFixed(1)},${y.toFixed(1)}`;
  });
  const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  line.setAttribute("points", points.join(" "));
  return line;
}

async function changeBackend(button) {
  const { pool, backend } = button?.closest("[data-backend]")?.dataset ?? {};
  if (!backend) return;
  const verb = button.value;
  const path = `api/v1/pools/${encodeURIComponent(pool)}/backends/${encodeURIComponent(backend)}/${verb}`;
  const undo = verb === "enable" ? "" : "; Enable takes it back";
  await change(path, `${backend} in ${pool} ${OUTCOMES[verb]}${undo}`, `can't ${verb} ${backend} in ${pool}`);
}

async function change(path, success, failure) {
  // A double click is one change.
  if (changesUnderWay.has(path)) return;
  changesUnderWay.add(path);
  const error = await post(path);
  changesUnderWay.delete(path);
  element("result").textContent = error ? `${failure}: ${error}` : success;
  element("result").className = error ? "bad" : "";
  element("dismiss").hidden = false;
  // Polled again at once, to show the effect: a poll that is under way may have been answered before the change.
  polling.again = true;
  poll();
}

/** Null, or the reason of the failure. */
async function post(path) {
  try {
    const response = await fetch(path, { method: "POST", signal: AbortSignal.timeout(CHANGE_TIMEOUT_MS) });
    if (response.ok) return null;
    const answer = await response.json().catch(() => ({}));
    return answer.error ?? `HTTP ${response.status}`;
  } catch {
    return "no answer from the balancer; once it answers, this page shows whether the change was made";
  }
}

function dismissResult() {
  element("result").textContent = "";
  element("dismiss").hidden = true;
  element("filter").focus();
}

function countUp(backends) {
  return backends.filter((backend) => backend.state === "up").length;
}

/** Most numbers are small, and don't need Intl, which is slow for a thousand rows. */
function count(number) {
  return number < 1000 ? String(number) : grouped.format(number);
}

function perSecond(rate) {
  if (rate === undefined) return "–";
  return rate < 1000 ? rate.toFixed(1) : count(Math.round(rate));
}

/** At least KiB: units of one width keep the digits aligned. The space is a non-breaking one. */
function bytes(rate) {
  if (rate === undefined) return "–";
  if (rate === 0) return "0";
  const units = ["KiB", "MiB", "GiB", "TiB"];
  const power = Math.min(units.length, Math.max(1, Math.floor(Math.log(rate) / Math.log(1024))));
  const value = rate / 1024 ** power;
  return `${value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0)}\u00a0${units[power - 1]}`;
}

function duration(seconds) {
  const [minutes, hours, days] = [60, 3600, 86_400].map((unit) => Math.floor(seconds / unit));
  if (days > 0) return `${days} d ${hours % 24} h`;
  if (hours > 0) return `${hours} h ${minutes % 60} min`;
  if (minutes > 0) return `${minutes} min ${Math.floor(seconds % 60)} s`;
  return `${Math.floor(seconds)} s`;
}

function ago(time) {
  return `${duration(Math.max(0, -secondsUntil(time))).split(" ", 2).join(" ")} ago`;
}

function secondsUntil(time) {
  return (Date.parse(time) - Date.now() - clockSkewMs) / 1000;
}

/** UTC, as in the logs. */
function utc(time) {
  return `${time.slice(0, 19).replace("T", " ")} UTC`;
}
