// The time that is asked for, and the buckets that it is drawn in.
import { ranges } from "./state.js";
import { iso, seconds } from "./format.js";

// Dimensions of time with their seconds.
const buckets = [
  ["datetimeTenSeconds", 10],
  ["datetimeMinute", 60],
  ["datetimeFiveMinutes", 300],
  ["datetimeFifteenMinutes", 900],
  ["datetimeHour", 3600],
  ["date", 86400],
];
const most = 400; // buckets of a chart: about as many as a phone has pixels

// lag is how long rows may take to be stored: younger ones are not counted, they would look like a fall.
const lag = 10;

// spanOf is what a state asks for at a time, in whole seconds: from `from` to `end`, which is `to` or the last that is stored. Buckets
// are of `least` seconds or more.
export function spanOf(state, least = 0, now = Date.now() / 1000) {
  const custom = state.range === "custom",
    live = state.range === "live",
    stored = Math.floor(now - lag);
  const length = custom ? seconds(state.to) - seconds(state.from) : ranges[state.range][1];
  const [dim, size] = buckets.find(([, s]) => s >= least && length / s <= most) ?? buckets.at(-1);
  const to = custom ? Math.ceil(seconds(state.to) / size) * size : stored;
  const start = custom ? seconds(state.from) : live ? now - length : stored - length;
  const from = live ? Math.ceil(start / size) * size : Math.floor(start / size) * size;
  const end = Math.max(from + 1, Math.min(to, stored));
  return { from, to, end, live, dim, size, elapsed: live ? length - lag : end - from };
}

// during is the filter for it. Live times are spans before now: they move along in a stream.
export function during(w) {
  return w.live ? { datetime_geq: "-30m", datetime_lt: `-${lag}s` } : { datetime_geq: iso(w.from), datetime_lt: iso(w.end) };
}

// before is the filter for as much time before.
export function before(w) {
  return w.live ? { datetime_geq: "-3590s", datetime_lt: "-30m" } : { datetime_geq: iso(w.from - w.elapsed), datetime_lt: iso(w.from) };
}

// timesOf are the starts of the buckets. The last may have just begun: of too little of it no rate can be told.
export function timesOf(w) {
  const out = [];
  for (let t = w.from; t + Math.min(w.size, Math.max(10, w.size / 20)) <= w.end; t += w.size) out.push(t);
  return out;
}

// fitted is w with buckets of at least the resolution of the groups: of times long ago only coarser rows are kept.
export function fitted(w, groups) {
  const size = groups.reduce((most, g) => Math.max(most, g.resolution ?? 0), w.size);
  return size === w.size ? w : { ...w, size, from: Math.floor(w.from / size) * size };
}

// seriesOf puts the values of groups into the buckets. Where there is no group stands `missing`.
export function seriesOf(w, times, groups, value, missing = 0) {
  const out = new Array(times.length).fill(missing);
  for (const g of groups) {
    const i = Math.floor((seconds(g.dimensions[w.dim]) - w.from) / w.size);
    if (i >= 0 && i < out.length) out[i] = (out[i] ?? 0) + value(g);
  }
  return out;
}

// ratesOf are amounts a second. Of a bucket that goes on, the time that it has had counts.
export function ratesOf(w, times, groups, amount) {
  return seriesOf(w, times, groups, amount).map((x, i) => x / Math.min(w.size, w.end - times[i]));
}
