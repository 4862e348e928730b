// Numbers and times as text.

const grouped = new Intl.NumberFormat("en");
/** A smaller difference counts as none: the answer's Date header has whole seconds. */
const CLOCK_TOLERANCE_MS = 2000;
let clockSkewMs = 0;

/** By the Date header of an answer. */
export function setClock(date) {
  const skew = Date.parse(date) - Date.now();
  clockSkewMs = Math.abs(skew) > CLOCK_TOLERANCE_MS ? skew : 0;
}

/** Most numbers are small, and don't need Intl, which is slow for a thousand rows. */
export function count(number) {
  return number < 1000 ? String(number) : grouped.format(number);
}

export function perSecond(rate) {
  if (rate === undefined) return "–";
  return rate < 1000 ? rate.toFixed(1) : count(Math.round(rate));
}

/** The space is a non-breaking one. */
export function milliseconds(value) {
  return value === undefined ? "–" : `${value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0)}\u00a0ms`;
}

/** At least KiB: units of one width keep the digits aligned. */
export function bytes(rate) {
  if (rate === undefined) return "–";
  if (rate === 0) return "0";
  const units = ["KiB", "MiB", "GiB", "TiB"];
  const power = Math.min(units.length, Math.max(1, Math.floor(Math.log(rate) / Math.log(1024))));
  const value = rate / 1024 ** power;
  return `${value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0)}\u00a0${units[power - 1]}`;
}

export function duration(seconds) {
  const [minutes, hours, days] = [60, 3600, 86_400].map((unit) => Math.floor(seconds / unit));
  if (days > 0) return `${days} d ${hours % 24} h`;
  if (hours > 0) return `${hours} h ${minutes % 60} min`;
  if (minutes > 0) return `${minutes} min ${Math.floor(seconds % 60)} s`;
  return `${Math.floor(seconds)} s`;
}

/** In its largest unit. */
export function age(time) {
  return duration(Math.max(0, (Date.now() + clockSkewMs - Date.parse(time)) / 1000)).split(" ", 2).join(" ");
}

/** UTC, as in the logs. */
export function utc(time) {
  return `${time.slice(0, 19).replace("T", " ")} UTC`;
}
