// Rows of tables and the texts in them. What comes from the network is put into the page as text, never as markup.

/** Rates over a shorter time would fluctuate too much. */
const SHORTEST_SPAN_S = 0.5;
/** Rates over a longer time would be those of the past. */
const LONGEST_SPAN_S = 10;

export const element = (id) => document.getElementById(id);
/** The server's uptime at the last rates, whether this poll computes new ones, and over how many seconds. */
export const rating = { uptime: undefined, due: false, span: undefined };

/** Measured by the server's uptime: after a restart it is less than before, and there is no rate. */
export function setSpan(uptime) {
  const span = uptime - rating.uptime;
  rating.due = !(span >= 0 && span < SHORTEST_SPAN_S);
  if (!rating.due) return;
  rating.uptime = uptime;
  rating.span = span > 0 && span <= LONGEST_SPAN_S ? span : undefined;
}

/** The growth per second of each counter; undefined if there is nothing to compare with. */
export function takeRates(known, item, counters) {
  if (!rating.due) return;
  for (const counter of counters) {
    const grown = known.counted && rating.span ? item[counter] - known.counted[counter] : -1;
    known.rates[counter] = grown < 0 ? undefined : grown / rating.span;
  }
  known.counted = item;
}

/** Makes parent's children the rows of items, in their order. A row stays the same element as long as its key exists:
 *  so it keeps focus and selection. */
export function reconcile(parent, rows, items, key, create, update) {
  const focused = document.activeElement;
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
  // A row that was moved has lost it.
  if (focused !== document.activeElement && focused?.isConnected) focused.focus({ preventScroll: true });
}

export function rowOf(template) {
  const copy = element(template).content.firstElementChild.cloneNode(true);
  return { element: copy, cells: cellsOf(copy), counted: null, rates: {} };
}

/** The text node of each [data-field], by name. */
export function cellsOf(root) {
  const cells = {};
  for (const holder of root.querySelectorAll("[data-field]")) {
    const node = holder.firstChild ?? holder.appendChild(document.createTextNode(""));
    cells[holder.dataset.field] = { node, shown: null };
  }
  return cells;
}

/** Most values don't change between polls, and must cost nothing: they are compared with the last ones in memory. */
export function fill(cells, texts) {
  for (const name in texts) {
    const cell = cells[name];
    if (cell.shown === texts[name]) continue;
    cell.shown = texts[name];
    cell.node.textContent = texts[name];
  }
}

/** Lines over the same time, each to its own scale; the last value at the right. */
export function chart(svg, lines, title) {
  const [width, height] = [120, 24];
  const drawn = lines.map(({ values, bad }) => {
    const peak = Math.max(...values, 1e-9);
    const step = width / Math.max(1, values.length - 1);
    const points = values.map((value, index) =>
      `${(index * step).toFixed(1)},${(height - 1 - (value / peak) * (height - 2)).toFixed(1)}`);
    const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
    line.setAttribute("points", points.join(" "));
    if (bad) line.setAttribute("class", "bad");
    return line;
  });
  svg.replaceChildren(...drawn);
  svg.ariaLabel = title;
}

export function newChart() {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  for (const [name, value] of [["viewBox", "0 0 120 24"], ["preserveAspectRatio", "none"], ["role", "img"]]) {
    svg.setAttribute(name, value);
  }
  svg.ariaLabel = "no history yet";
  return svg;
}
