// The connections of one backend, in a dialog: renewed each second, ended one by one or all after a question.

import { isConfirmed } from "./confirm.js";
import { bytes, count, duration } from "./format.js";
import { element, fill, reconcile, rowOf } from "./rows.js";

const INTERVAL_MS = 1000;
const TIMEOUT_MS = 5000;
const MOST_SHOWN = 100;

const dialog = element("connections");
const rows = new Map();
/** What is shown: the path of its connections, its name, and who ends some. */
let shown = null;
let timer = 0;

element("close-connections").addEventListener("click", () => dialog.close());
element("kill-all").addEventListener("click", () =>
  end(shown.path, `all ${element("connections-note").textContent} of ${shown.title}`));
element("connection-rows").addEventListener("click", ({ target }) => {
  const { id, client } = target.closest("button")?.closest("tr")?.dataset ?? {};
  if (id) end(`api/v1/connections?id=${id}`, `connection ${id} of ${client}`);
});

/** `change` deletes a path, and says how that went. */
export function showConnections(pool, backend, change) {
  const path = `api/v1/connections?pool=${encodeURIComponent(pool)}&backend=${encodeURIComponent(backend)}`;
  shown = { path, title: `${backend} in ${pool}`, change };
  element("connections-title").textContent = `Connections of ${shown.title}`;
  showReport({ matched: 0, connections: [] }, "asking …");
  dialog.showModal();
  renew();
}

async function renew() {
  clearTimeout(timer);
  if (!dialog.open) return;
  const asked = shown;
  try {
    const signal = AbortSignal.timeout(TIMEOUT_MS);
    const response = await fetch(`${asked.path}&limit=${MOST_SHOWN}`, { cache: "no-store", signal });
    if (!response.ok) throw new Error(`HTTP ${response.status}`);
    const report = await response.json();
    if (asked === shown) showReport(report, `${count(report.matched)} connections`);
  } catch {
    if (asked === shown) element("connections-note").textContent = "no answer from the balancer; still trying";
  }
  if (asked === shown) timer = setTimeout(renew, INTERVAL_MS);
}

function showReport({ matched, connections }, note) {
  element("connections-note").textContent = note;
  element("connections-more").textContent = connections.length < matched ? `, the newest ${MOST_SHOWN}:` : "";
  element("kill-all").hidden = matched === 0;
  reconcile(element("connection-rows"), rows, connections, "id", newConnection, showConnection);
}

function newConnection({ id, client }) {
  const row = rowOf("connection");
  Object.assign(row.element.dataset, { id, client });
  row.element.querySelector("button").ariaLabel = `Kill ${id} of ${client}`;
  return row;
}

function showConnection(row, connection) {
  fill(row.cells, {
    id: connection.id, client: connection.client, "server-name": connection.server_name ?? "",
    listener: connection.listener,
    age: duration(connection.age_seconds), idle: duration(connection.idle_seconds),
    in: bytes(connection.bytes_in), out: bytes(connection.bytes_out),
    requests: connection.mode === "http" ? count(connection.requests) : "–",
  });
}

async function end(path, what) {
  if (!(await isConfirmed(`Kill ${what}? Clients are reset, and lose what is under way.`, "Kill"))) return;
  await shown.change(path, `killed ${what}`, `can't kill ${what}`);
  renew();
}
