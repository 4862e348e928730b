// Backends that are added, changed and removed, in a dialog. What is wrong with an order, the balancer says.

import { isConfirmed } from "./confirm.js";
import { count } from "./format.js";
import { element } from "./rows.js";

const dialog = element("member");
const [address, weight, rank, limit] = ["address", "weight", "rank", "limit"].map((name) => element(`member-${name}`));
element("member-form").addEventListener("submit", (event) => {
  event.preventDefault();
  dialog.close("save");
});
element("cancel-member").addEventListener("click", () => dialog.close());
element("remove-member").addEventListener("click", () => dialog.close("remove"));

/** `change` gives an order, and says how that went. */
export async function addBackend(pool, change) {
  const answer = await ask(`Add a backend to pool ${pool}`, null);
  if (answer !== "save") return;
  const entry = { address: address.value.trim(), ...numbers() };
  await change(path(pool), `added ${entry.address} to ${pool}; a restart forgets it`,
    `can't add ${entry.address} to ${pool}`, "POST", entry);
}

export async function changeBackend(pool, backend, isLast, change) {
  const name = `${backend.address} in ${pool}`;
  const answer = await ask(`Change ${name}`, backend);
  if (answer === "save") {
    await change(path(pool, backend), `changed ${name}; a restart forgets it`, `can't change ${name}`, "PATCH", numbers());
  } else if (answer === "remove" && await isConfirmed(question(pool, backend, isLast), "Remove")) {
    const done = backend.active === 0 ? "removed" : "draining, to be removed:";
    await change(path(pool, backend), `${done} ${name}; a restart forgets it`, `can't remove ${name}`, "DELETE");
  }
}

function question(pool, backend, isLast) {
  const gone = backend.active === 0
    ? "It is gone at once." : `It drains, and is gone once its ${count(backend.active)} connections have ended.`;
  const last = isLast ? ` It is the last usable backend of pool ${pool}: its clients will not be served.` : "";
  return `Remove ${backend.address} from pool ${pool}? ${gone}${last}`;
}

/** `save`, `remove`, or nothing. */
function ask(title, backend) {
  element("member-title").textContent = title;
  const isNew = backend === null;
  element("member-new").hidden = !isNew;
  address.required = isNew;
  address.value = "";
  element("remove-member").hidden = isNew;
  weight.value = backend?.weight ?? 1;
  rank.value = backend?.rank ?? 0;
  limit.value = backend?.max_connections ?? 0;
  dialog.returnValue = "";
  dialog.showModal();
  (isNew ? address : weight).select();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue), { once: true });
  });
}

function numbers() {
  const backup = Number(rank.value);
  return { weight: Number(weight.value), backup: backup === 0 ? false : backup, max_connections: Number(limit.value) };
}

function path(pool, backend) {
  const one = backend ? `/${encodeURIComponent(backend.address)}` : "";
  return `api/v1/pools/${encodeURIComponent(pool)}/backends${one}`;
}
