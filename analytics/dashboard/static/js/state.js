// What is shown is all in the address, behind the #: #/PAGE?name=value&... A link shows the same to whoever may see it.
import { seconds } from "./format.js";

export const pages = { overview: "Overview", tunnels: "Tunnels", explorer: "Traffic explorer", attacks: "Attacks", nodes: "Nodes" };

export const ranges = {
  live: ["Live, 30 minutes", 1800],
  "30m": ["30 minutes", 1800],
  "1h": ["1 hour", 3600],
  "6h": ["6 hours", 6 * 3600],
  "24h": ["24 hours", 86400],
  "7d": ["7 days", 7 * 86400],
  "30d": ["30 days", 30 * 86400],
};

// Operators of filters, by their name in the address: suffix in the API, and words.
export const operators = {
  is: ["", "is"],
  not: ["_neq", "is not"],
  like: ["_like", "is like (% any text)"],
  unlike: ["_notlike", "is not like"],
  from: ["_geq", "is at least"],
  to: ["_leq", "is at most"],
};

const defaults = {
  page: "overview",
  account: "",
  range: "1h",
  from: "",
  to: "",
  metric: "bits",
  dim: "ipSourceAddress",
  top: "10",
  tunnel: "",
  find: "",
  log: "",
};
const allowed = { page: pages, range: { ...ranges, custom: 1 }, metric: { bits: 1, packets: 1 }, top: { 5: 1, 10: 1, 15: 1, 20: 1, 25: 1 } };

// read takes an address apart. What is not allowed becomes the default.
export function read(hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  const given = new URLSearchParams(query);
  const s = { ...defaults, filters: [], tables: {} };
  for (const name of Object.keys(defaults)) s[name] = given.get(name) ?? s[name];
  s.page = path;
  for (const [name, values] of Object.entries(allowed)) if (!Object.hasOwn(values, s[name])) s[name] = defaults[name];
  if (s.range === "custom" && !(seconds(s.from) < seconds(s.to))) s.range = defaults.range;
  for (const f of given.getAll("f")) {
    const [, dim, op, value] = f.match(/^(\w+):(\w+):(.*)$/s) ?? [];
    if (dim && Object.hasOwn(operators, op)) s.filters.push({ dim, op, value });
  }
  for (const [name, value] of given) if (name.startsWith("t-")) s.tables[name.slice(2)] = value;
  return s;
}

// write is the address of a state.
export function write(s) {
  const q = new URLSearchParams();
  for (const name of Object.keys(defaults)) {
    if (name === "page" || s[name] === defaults[name] || ((name === "from" || name === "to") && s.range !== "custom")) continue;
    q.set(name, s[name]);
  }
  for (const f of s.filters) q.append("f", `${f.dim}:${f.op}:${f.value}`);
  for (const [id, value] of Object.entries(s.tables)) q.set(`t-${id}`, value);
  const text = q.toString();
  return `#/${s.page}${text ? `?${text}` : ""}`;
}

// other is the address of another page with the same account, time and metric.
export function other(s, changes) {
  const { account, range, from, to, metric } = s;
  return write({ ...defaults, account, range, from, to, metric, filters: [], tables: {}, ...changes });
}

// filtered is a list of filters in which a dimension has one value.
export function filtered(filters, dim, value) {
  return [...filters.filter((f) => !(f.dim === dim && f.op === "is")), { dim, op: "is", value: String(value) }];
}
