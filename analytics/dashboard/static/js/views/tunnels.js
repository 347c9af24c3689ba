// Each tunnel: its rates, its drops, its health, and what the node knows of it now. One that is chosen is shown whole, and over time.
import { part, tunnelPart } from "../api.js";
import { Chart } from "../chart.js";
import { button, el } from "../dom.js";
import { directions, metrics, packets, percent, seconds, si, span } from "../format.js";
import { Associations, facts } from "../tunnel.js";
import { Table, numberColumn, panel, textColumn } from "../panel.js";
import { during, fitted, ratesOf, seriesOf, timesOf } from "../span.js";

const signs = { healthy: "●", degraded: "◐", down: "○" };
const worse = ["healthy", "degraded", "down"];
const count = (x) => (x === null ? "–" : String(x));
const clamp = (x) => (x === 0 ? "not clamped" : count(x));

export class Tunnels {
  interval = 5; // seconds between two answers, live

  constructor(page) {
    this.page = page;
    this.all = [];
    this.find = el("input", { id: "find", type: "search", autocomplete: "off", spellcheck: "false", on: { input: () => this.found() } });
    this.table = new Table({
      id: "tunnels",
      caption: "Tunnels",
      order: "3.desc",
      change: page.table,
      columns: this.columns("bits"),
      empty: () => this.why(),
    });
    this.note = el("p", { class: "hint" });
    this.detail = el("div", { class: "grid wide" });
    this.rates = new Chart({ title: "Rates of the tunnel", unit: "bit/s", zoom: page.zoom, empty: "This tunnel carried no packets in this time." });
    this.health = new Chart({
      title: "Health of the tunnel",
      unit: "",
      max: 1,
      zoom: page.zoom,
      empty: "Nobody probed this tunnel in this time: probing may be off for it.",
      note: "1 healthy, 0.5 degraded, 0 down: mean of all nodes",
    });
    this.drops = new Table({
      id: "drops",
      caption: "Drops of the tunnel",
      order: "2.desc",
      change: page.table,
      empty: "No packet of this tunnel was dropped in this time.",
      columns: [
        textColumn("Reason", (r) => r.dimensions.dropReason),
        textColumn("Direction", (r) => r.dimensions.direction),
        numberColumn("Packets", (r) => r.sum.packets, packets),
      ],
    });
    this.sas = new Associations(page);
    this.facts = el("div", {});
    this.root = el(
      "div",
      { class: "grid" },
      this.detail,
      panel(
        "All tunnels",
        [el("p", { class: "field" }, el("label", { for: "find" }, "Find by name or endpoint"), this.find), this.table.root, this.note],
        () => this.table.table(),
      ),
    );
  }

  why() {
    if (this.all.length > 0) return "No name or endpoint contains what you look for.";
    return "This account has no tunnels at this node, and none carried packets or was probed in this time. Choose a longer time or another account.";
  }

  columns(metric) {
    const m = metrics[metric];
    const rate = (way, words, block) =>
      numberColumn(
        `${words}, ${m.rate}`,
        (r) => r[way]?.[block] ?? 0,
        (x) => si(x, m.rate),
      );
    return [
      textColumn(
        "Tunnel",
        (r) => r.name,
        (r) => button(r.name, () => this.choose(r.name), { class: "link", "data-key": `tunnel-${r.name}` }),
      ),
      textColumn(
        "State now",
        (r) => r.state ?? "",
        (r) => stateNode(r),
      ),
      textColumn("Endpoint", (r) => r.remote ?? ""),
      rate("ingress", "In", "mean"),
      rate("ingress", "In max", "max"),
      rate("ingress", "In p95", "p95"),
      rate("egress", "Out", "mean"),
      rate("egress", "Out max", "max"),
      rate("egress", "Out p95", "p95"),
      numberColumn("Dropped, packets", (r) => r.dropped, packets),
      numberColumn(
        "Healthy, share",
        (r) => r.healthy ?? null,
        (x) => (x === null ? "–" : percent(x)),
      ),
      numberColumn(
        "Probes lost, share",
        (r) => r.loss ?? null,
        (x) => (x === null ? "–" : percent(x)),
      ),
      numberColumn(
        "Round trip, s",
        (r) => r.rtt ?? null,
        (x) => (x === null ? "–" : si(x, "s").replace(/^0\.(\d+)\u00a0s$/, () => `${(x * 1000).toPrecision(3)}\u00a0ms`)),
      ),
      textColumn("Kind", (r) => r.now?.kind ?? ""),
      numberColumn("MTU", (r) => r.now?.effectiveMtu ?? null, count),
      numberColumn("MSS, IPv4", (r) => r.now?.mssIPv4 ?? null, clamp, "MSS v4"),
      numberColumn("MSS, IPv6", (r) => r.now?.mssIPv6 ?? null, clamp, "MSS v6"),
      {
        ...numberColumn("IPsec pairs", (r) => (r.now?.kind === "IPSec" ? r.now.ipsecPairs : null), count),
        show: (r) => (r.now?.kind !== "IPSec" ? "–" : r.now.ipsecPairs > 0 ? String(r.now.ipsecPairs) : el("strong", { class: "bad" }, "none")),
      },
    ];
  }

  parts(state, w) {
    const list = [
      part(
        "rates",
        "traffic",
        during(w),
        10000,
        "sum_bits_DESC",
        "dimensions { tunnelName direction } sum { bits packets } max { bitRate packetRate } p95 { bitRate packetRate } resolution",
      ),
      part("lost", "drops", during(w), 10000, "sum_packets_DESC", "dimensions { tunnelName } sum { packets }"),
      part(
        "health",
        "health",
        during(w),
        10000,
        "tunnelName_ASC",
        "dimensions { tunnelName remoteTunnelIPv4 } avg { tunnelState rttMicroseconds } sum { probes probesLost }",
      ),
      part(
        "now",
        "health",
        { datetime_geq: "-4m" },
        10000,
        "datetimeMinute_DESC",
        "dimensions { tunnelName edgePopName resultStatus datetimeMinute }",
      ),
      tunnelPart("list", "", "tunnelName kind customerEndpoint effectiveMtu mssIPv4 mssIPv6 ipsecPairs"),
    ];
    if (!state.tunnel) return list;
    const bucket = minutes(w).dim,
      one = { ...during(w), tunnelName: state.tunnel };
    return [
      ...list,
      part("series", "traffic", one, 10000, `${w.dim}_ASC`, `dimensions { ${w.dim} direction } sum { bits packets } resolution`),
      part("states", "health", one, 10000, `${bucket}_ASC`, `dimensions { ${bucket} } avg { tunnelState } resolution`),
      tunnelPart("chosen", state.tunnel, Associations.fields),
      part("reasons", "drops", one, 100, "sum_packets_DESC", "dimensions { dropReason direction } sum { packets }"),
    ];
  }

  update(data, w, state) {
    const m = metrics[state.metric];
    this.all = rowsOf(data, w, m);
    this.table.columns = this.columns(state.metric);
    if (document.activeElement !== this.find) this.find.value = state.find;
    this.found();
    this.note.textContent =
      data.rates.length > 0
        ? "In: Internet → customer, lateral traffic among it; out: customer → Internet. " +
          `Maxima and 95th percentiles are exact, of rates over ${span(data.rates[0].resolution)}.`
        : "";
    this.one(data, w, state, m);
  }

  // found shows the rows that have what is looked for.
  found() {
    if (this.find.value !== this.page.state.find) this.page.note({ find: this.find.value });
    const text = this.find.value.toLowerCase();
    this.table.set(
      this.all.filter((r) => r.name.toLowerCase().includes(text) || (r.remote ?? "").includes(text)),
      this.page.state.tables.tunnels ?? "",
    );
  }

  // choose goes to a tunnel, and takes the focus to what is then shown of it.
  choose(name) {
    this.to = name;
    this.page.go({ tunnel: name });
  }

  // leave goes back to where the tunnel was chosen.
  leave(name) {
    this.page.go({ tunnel: "" });
    this.detail.replaceChildren();
    this.shown = "";
    for (const b of this.table.root.querySelectorAll("[data-key]")) if (b.dataset.key === `tunnel-${name}`) b.focus();
  }

  // one shows the chosen tunnel.
  one(data, w, state, m) {
    if (!state.tunnel || !data.series) {
      this.shown = "";
      this.detail.replaceChildren();
      return;
    }
    const now = data.chosen[0];
    if (this.shown !== state.tunnel) {
      this.shown = state.tunnel;
      const explore = (dim, text) => el("a", { href: this.page.link("explorer", { filters: [{ dim, op: "is", value: state.tunnel }] }) }, text);
      this.detail.replaceChildren(
        el(
          "div",
          { class: "panel chosen" },
          el("h2", { id: "chosen", tabindex: "-1" }, state.tunnel),
          el(
            "p",
            {},
            explore("egressTunnelName", "Packets that went into it"),
            " · ",
            explore("ingressTunnelName", "Packets that came out of it"),
            " ",
            button("Close", () => this.leave(state.tunnel), { id: "close" }),
          ),
          this.facts,
        ),
        this.sas.root,
        this.rates.root,
        this.health.root,
        panel("Drops of the tunnel", this.drops.root, () => this.drops.table()),
      );
      if (this.to === state.tunnel) this.detail.querySelector("h2").focus();
      this.to = "";
    }
    this.facts.replaceChildren(facts(now));
    this.sas.set(now, state);
    const v = fitted(w, data.series),
      times = timesOf(v),
      u = fitted(minutes(w), data.states),
      probed = timesOf(u);
    const ways = ["ingress", "egress", "lateral"].filter((d) => d !== "lateral" || data.series.some((g) => g.dimensions.direction === d));
    this.rates.set(
      times,
      data.series.length === 0
        ? []
        : ways.map((d, index) => ({
            label: directions[d],
            index,
            values: ratesOf(
              v,
              times,
              data.series.filter((g) => g.dimensions.direction === d),
              (g) => g.sum[m.sum],
            ),
          })),
      m.rate,
    );
    this.health.set(probed, [{ label: "State", index: 2, values: seriesOf(u, probed, data.states, (g) => g.avg.tunnelState, null) }]);
    this.drops.set(data.reasons, state.tables.drops ?? "");
  }

  close() {
    this.rates.forget();
    this.health.forget();
  }
}

// minutes is w with buckets of a minute at least: states are kept by the minute.
function minutes(w) {
  return w.size < 60 ? { ...w, dim: "datetimeMinute", size: 60, from: Math.floor(w.from / 60) * 60 } : w;
}

// rowsOf makes one row of each tunnel of what the datasets say.
function rowsOf(data, w, m) {
  const rows = new Map();
  const row = (name) => rows.get(name) ?? rows.set(name, { name, dropped: 0, nodes: new Map() }).get(name);
  for (const t of data.list) Object.assign(row(t.tunnelName), { now: t, remote: t.customerEndpoint });
  for (const g of data.rates) {
    const r = row(g.dimensions.tunnelName),
      way = g.dimensions.direction === "egress" ? "egress" : "ingress",
      old = r[way];
    r[way] = {
      mean: (old?.mean ?? 0) + g.sum[m.sum] / w.elapsed,
      max: Math.max(old?.max ?? 0, g.max[m.avg]),
      p95: Math.max(old?.p95 ?? 0, g.p95[m.avg]),
    };
  }
  for (const g of data.lost) if (g.dimensions.tunnelName) row(g.dimensions.tunnelName).dropped += g.sum.packets;
  for (const g of data.health) {
    const probed = g.sum.probes > 0,
      answered = g.sum.probesLost < g.sum.probes;
    Object.assign(row(g.dimensions.tunnelName), {
      remote: g.dimensions.remoteTunnelIPv4,
      healthy: g.avg.tunnelState,
      loss: probed ? g.sum.probesLost / g.sum.probes : null,
      rtt: answered ? g.avg.rttMicroseconds / 1e6 : null,
    });
  }
  for (const g of data.now) {
    // the latest minute of each node comes first
    const { nodes } = row(g.dimensions.tunnelName),
      { edgePopName: node, resultStatus: status, datetimeMinute: minute } = g.dimensions;
    const old = nodes.get(node);
    if (!old || (seconds(minute) === old.minute && worse.indexOf(status) > worse.indexOf(old.status)))
      nodes.set(node, { status, minute: seconds(minute) });
  }
  for (const r of rows.values()) r.state = [...r.nodes.values()].map((n) => n.status).toSorted((a, b) => worse.indexOf(b) - worse.indexOf(a))[0];
  return [...rows.values()];
}

// stateNode is the worst state of all nodes, and how many see it.
function stateNode(r) {
  if (!r.state) return el("span", { class: "muted" }, "not probed");
  const n = [...r.nodes.values()].filter((x) => x.status === r.state).length;
  const where = n < r.nodes.size ? ` on ${n} of ${r.nodes.size} nodes` : "";
  return el("span", { class: `state ${Object.hasOwn(signs, r.state) ? r.state : ""}` }, `${signs[r.state] ?? "?"} ${r.state}${where}`);
}
