// The status page: polls the admin API every second, and shows the reports. It keeps nothing: what was comes from the
// balancer, and the token for changes is forgotten with the page.

import { isConfirmed } from "./confirm.js";
import { showConnections } from "./connections.js";
import { age, bytes, count, duration, perSecond, setClock, utc } from "./format.js";
import { addBackend, changeBackend } from "./members.js";
import { backendOf, chartedPools, countUp, isDown, isLast, showAgain, showHistory, showPools, why } from "./pools.js";
import { cellsOf, chart, element, fill, rating, reconcile, rowOf, setSpan, takeRates } from "./rows.js";

const POLL_INTERVAL_MS = 1000;
/** A poll takes at most this share of the time: with thousands of backends it comes less often. */
const MOST_BUSY = 0.2;
const POLL_TIMEOUT_MS = 5000;
/** A reload is answered only when it is done. */
const CHANGE_TIMEOUT_MS = 30_000;
const HISTORY = { intervalMs: 30_000, points: 60 };
/** Accepted connections per second, of the last minute. */
const MOST_SAMPLES = 60;
const MOST_EVENTS = 100;
const OUTCOMES = { enable: "is enabled", drain: "is draining", disable: "is disabled" };

const polling = { underWay: false, again: false, timer: 0 };
const header = cellsOf(document.body);
const listeners = new Map();
const changesUnderWay = new Set();
const failing = { counted: null, rates: {} };
let samples = [];
let lastEvent = 0;
let historyAt = -Infinity;
let answeredAt = null;
let offlineSince = null;

document.addEventListener("visibilitychange", poll);
for (const id of ["filter", "not-up", "sort"]) element(id).addEventListener("input", showAgain);
element("pools").addEventListener("click", ({ target }) => clicked(target.closest("button")));
element("dismiss").addEventListener("click", dismissResult);
element("token").addEventListener("input", showRights);
element("token-field").addEventListener("submit", (event) => event.preventDefault());
element("reload").addEventListener("click", () => change("api/v1/reload", "configuration reloaded", "reload failed"));
poll();

/** One poll, and the timer for the next; nothing while the tab is hidden. */
async function poll() {
  if (polling.underWay || document.hidden) return;
  clearTimeout(polling.timer);
  const begun = performance.now();
  Object.assign(polling, { underWay: true, again: false });
  await fetchReports().then(show, showOffline).catch(console.error);
  polling.underWay = false;
  const took = performance.now() - begun;
  const wait = polling.again ? 0 : Math.max(POLL_INTERVAL_MS - took, took / MOST_BUSY - took);
  polling.timer = setTimeout(poll, wait);
}

async function fetchReports() {
  const abort = new AbortController();
  const deadline = setTimeout(() => abort.abort(new Error("it took too long")), POLL_TIMEOUT_MS);
  const isHistoryDue = performance.now() - historyAt > HISTORY.intervalMs;
  try {
    const paths = ["api/v1/status", "api/v1/pools", `api/v1/events?after=${lastEvent}`];
    const reports = await Promise.all(paths.map((path) => get(path, abort.signal)));
    const pools = chartedPools().map((name) => `pool=${encodeURIComponent(name)}&`);
    const histories = isHistoryDue ? ["", ...pools] : [];
    return reports.concat([await Promise.all(histories.map((query) =>
      get(`api/v1/history?${query}points=${HISTORY.points}`, abort.signal).catch(emptyIfGone)))]);
  } finally {
    clearTimeout(deadline);
    // If one has failed, the other must not continue into the next poll.
    abort.abort();
  }
}

/** For the history of a pool that a reload has removed. */
function emptyIfGone(error) {
  if (error.status !== 404) throw error;
  return { series: [], step_seconds: 1 };
}

async function get(path, signal) {
  const response = await fetch(path, { cache: "no-store", signal });
  if (!response.ok) throw Object.assign(new Error(`HTTP ${response.status}`), { status: response.status });
  setClock(response.headers.get("date"));
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

function show([status, { pools }, { events }, histories]) {
  const begun = performance.now();
  const isFirst = answeredAt === null;
  offlineSince = null;
  answeredAt = new Date().toISOString();
  element("offline").hidden = true;
  document.body.classList.remove("stale");
  if (status.uptime_seconds < rating.uptime) beginAnew();
  setSpan(status.uptime_seconds);
  showHeader(status, pools);
  showReload(status.last_reload);
  showCertificates(status.listeners);
  reconcile(element("listeners"), listeners, status.listeners, "name", () => rowOf("listener"), showListener);
  if (rating.due) showAcceptRate();
  showPools(pools);
  for (const { series, step_seconds: step } of histories) {
    series.filter(({ pool }) => pool !== null).forEach((one) => showHistory(one, step));
    // Those of backends need rows, which the first poll makes.
    historyAt = isFirst ? -Infinity : performance.now();
  }
  showEvents(events);
  document.querySelector("main").hidden = false;
  performance.clearMeasures("show");
  performance.measure("show", { start: begun });
}

function showHeader(status, pools) {
  const backends = pools.flatMap((pool) => pool.backends);
  const unready = status.unready_reason ?? (status.draining ? "draining" : "no reason given");
  const down = pools.filter(isDown);
  const all = { failed: status.listeners.reduce((sum, listener) => sum + listener.failed, 0) };
  takeRates(failing, all, ["failed"]);
  fill(header, {
    version: status.version,
    ready: status.ready ? "ready" : `not ready: ${unready}`,
    active: count(status.connections.active), max: count(status.connections.max),
    uptime: duration(status.uptime_seconds), workers: count(status.workers),
    config: status.config_file ?? "no file",
    up: count(countUp(backends)), backends: count(backends.length),
    failed: perSecond(failing.rates.failed), failures: all.failed > 0 ? `${count(all.failed)} so far` : "",
    outage: down.map((pool) => `pool ${pool.name}${pool.outage_since ? `, since ${utc(pool.outage_since)}` : ""}`)
      .join("\n"),
    "readonly-note": status.has_token
      ? "changes need the token" : "changes are off: admin.token_file is not set, and the address is no local one",
  });
  element("outage").hidden = down.length === 0;
  element("ups").classList.toggle("bad", down.length > 0);
  element("failing").classList.toggle("bad", (failing.rates.failed ?? 0) > 0);
  const title = down.length > 0 ? `DOWN: ${down.map((pool) => pool.name).join(", ")}` : null;
  document.title = `${title ?? `${header.up.shown} of ${header.backends.shown} up`} – lb`;
  element("ready").className = status.ready ? "up" : "bad";
  element("token-field").hidden = status.may_post || !status.has_token;
  document.body.dataset.mayPost = String(status.may_post);
  showRights();
}

function showRights() {
  const may = document.body.dataset.mayPost === "true" || element("token").value !== "";
  document.body.classList.toggle("readonly", !may);
}

function showReload(last) {
  const failed = last?.result === "failure";
  fill(header, {
    reload: last ? `${failed ? "failed" : "worked"} ${age(last.time)} ago` : "none since the start",
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

function showListener(row, listener) {
  takeRates(row, listener, ["accepted", "bytes_in", "bytes_out", "failed"]);
  fill(row.cells, {
    name: listener.name,
    addresses: listener.addresses.join(", "),
    mode: listener.mode,
    pool: listener.pool ?? "–",
    active: count(listener.active), rejected: count(listener.rejected),
    failed: count(listener.failed), why: why(listener),
    rate: perSecond(row.rates.accepted),
    in: bytes(row.rates.bytes_in), out: bytes(row.rates.bytes_out),
  });
  row.element.classList.toggle("failing", (row.rates.failed ?? 0) > 0);
}

function showAcceptRate() {
  const rates = [...listeners.values()].map((row) => row.rates.accepted ?? 0);
  const rate = rating.span && rates.reduce((sum, one) => sum + one, 0);
  samples = samples.concat(rate ?? []).slice(-MOST_SAMPLES);
  const peak = Math.max(...samples, 0);
  const texts = { accepted: perSecond(rate), peak: perSecond(peak) };
  fill(header, texts);
  const title = `accepted per second in the last minute: now ${texts.accepted}, peak ${texts.peak}`;
  chart(element("sparkline"), [{ values: samples }], title);
}

/** It was restarted: its events and its history begin with it. */
function beginAnew() {
  lastEvent = 0;
  historyAt = -Infinity;
  element("event-list").replaceChildren();
}

/** The last one on top. */
function showEvents(events) {
  const list = element("event-list");
  for (const event of events) {
    const row = rowOf("event");
    row.element.className = event.level === "info" ? "" : event.level === "warn" ? "warn" : "bad";
    row.element.querySelector("time").dateTime = event.time;
    const where = [event.listener, event.pool, event.backend].filter(Boolean).join(" ");
    fill(row.cells, {
      time: event.time.slice(0, 19).replace("T", " "), text: `${where ? `${where}: ` : ""}${event.message}`,
      detail: event.detail,
    });
    list.prepend(row.element);
    lastEvent = Math.max(lastEvent, event.id);
  }
  while (list.children.length > MOST_EVENTS) list.lastElementChild.remove();
  element("no-events").hidden = list.children.length > 0;
}

async function clicked(button) {
  if (button?.closest("thead")) {
    element("sort").value = button.value;
    return showAgain();
  }
  const { pool, backend } = button?.closest("[data-pool]")?.dataset ?? {};
  const verb = button?.value;
  if (verb === "connections") {
    return showConnections(pool, backend, (path, done, failed) => change(path, done, failed, "DELETE"));
  }
  if (verb === "add") return addBackend(pool, change);
  if (verb === "member" && !document.body.classList.contains("readonly")) {
    return changeBackend(pool, backendOf(pool, backend), isLast(pool, backend), change);
  }
  if (!backend || !OUTCOMES[verb]) return;
  if (verb !== "enable" && isLast(pool, backend) && !(await isMeant(verb, pool, backend))) return;
  const path = `api/v1/pools/${encodeURIComponent(pool)}/backends/${encodeURIComponent(backend)}/${verb}`;
  const undo = verb === "enable" ? "" : "; Enable takes it back";
  await change(path, `${backend} in ${pool} ${OUTCOMES[verb]}${undo}`, `can't ${verb} ${backend} in ${pool}`);
}

/** Asked only where clients would lose. */
function isMeant(verb, pool, backend) {
  const question =
    `${backend} is the last usable backend of pool ${pool}: its clients will not be served. ${verb} it all the same?`;
  return isConfirmed(question, verb === "drain" ? "Drain" : "Disable");
}

async function change(path, success, failure, method = "POST", body = undefined) {
  // A double click is one change.
  if (changesUnderWay.has(path)) return;
  changesUnderWay.add(path);
  const error = await send(method, path, body);
  changesUnderWay.delete(path);
  element("result").textContent = error ? `${failure}: ${error}` : success;
  element("result").className = error ? "bad" : "";
  element("dismiss").hidden = false;
  // Polled again at once, to show the effect: a poll that is under way may have been answered before the change.
  polling.again = true;
  poll();
}

/** Null, or the reason of the failure. */
async function send(method, path, body) {
  const token = element("token").value;
  const headers = token === "" ? {} : { Authorization: `Bearer ${token}` };
  try {
    const signal = AbortSignal.timeout(CHANGE_TIMEOUT_MS);
    const response = await fetch(path, { method, headers, signal, body: body && JSON.stringify(body) });
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
