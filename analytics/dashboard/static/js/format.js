// Numbers with units and times, as people read them.
import { el } from "./dom.js";

const prefixes = ["", "k", "M", "G", "T", "P", "E"];

// si writes a number with an SI prefix: of 1000, not 1024. It has three digits.
export function si(x, unit) {
  if (x === null || x === undefined || !Number.isFinite(x)) return "–";
  let v = Math.abs(x),
    i = 0;
  while (v >= 999.5 && i < prefixes.length - 1) {
    v /= 1000;
    i++;
  }
  const digits = v >= 99.95 || (i === 0 && Number.isInteger(v)) ? 0 : v >= 9.995 ? 1 : 2;
  const sign = x < 0 ? "−" : "";
  return `${sign}${v.toFixed(digits)}\u00a0${prefixes[i]}${unit}`.trimEnd();
}

export const metrics = {
  bits: { name: "Bits", rate: "bit/s", unit: "bit", sum: "bits", avg: "bitRate" },
  packets: { name: "Packets", rate: "packets/s", unit: "packets", sum: "packets", avg: "packetRate" },
};

export const bitRate = (x) => si(x, "bit/s");
export const packetRate = (x) => si(x, "packets/s");
export const packets = (x) => si(x, "packets");

export function percent(x) {
  if (!Number.isFinite(x)) return "–";
  return `${(100 * x).toFixed(x !== 0 && Math.abs(x) < 0.1 ? 2 : 1)}\u00a0%`;
}

// The Swedish way of writing dates is that of ISO 8601.
const localFormat = new Intl.DateTimeFormat("sv-SE", { dateStyle: "short", timeStyle: "medium" });
export const zone = Intl.DateTimeFormat().resolvedOptions().timeZone || "local time";
const inUTC = ["UTC", "Etc/UTC", "Etc/GMT", "GMT"].includes(zone);

// Times are seconds since 1970.
export const iso = (t) => new Date(t * 1000).toISOString().replace(".000Z", "Z");
export const utcTime = (t) => `${iso(t).slice(0, 19).replace("T", " ")} UTC`;
export const localTime = (t) => (inUTC ? utcTime(t) : localFormat.format(t * 1000));
export const seconds = (text) => Date.parse(text) / 1000;

// bothTimes is a time in the viewer's zone and in UTC.
export function bothTimes(t) {
  return inUTC ? utcTime(t) : `${localTime(t)} (${utcTime(t)})`;
}

export function timeNode(t) {
  if (!Number.isFinite(t)) return el("span", {}, "–");
  return el("time", { datetime: iso(t), class: "time" }, localTime(t), inUTC ? null : el("small", {}, ` ${utcTime(t)}`));
}

export function zoneText() {
  return inUTC ? "Times are in UTC, as your browser's zone is." : `Times are in your zone, ${zone}; UTC stands beside them.`;
}

// span writes a number of seconds.
export function span(s) {
  if (!Number.isFinite(s)) return "–";
  const parts = [];
  for (const [n, unit] of [
    [86400, "d"],
    [3600, "h"],
    [60, "min"],
    [1, "s"],
  ]) {
    const k = Math.floor(s / n);
    if (k > 0 || (unit === "s" && parts.length === 0)) parts.push(`${k}\u00a0${unit}`);
    s -= k * n;
  }
  return parts.slice(0, 2).join(" ");
}

export const directions = {
  ingress: "Ingress: Internet → customer",
  egress: "Egress: customer → Internet",
  lateral: "Lateral: tunnel → tunnel",
  none: "Non-tunnel traffic",
};
