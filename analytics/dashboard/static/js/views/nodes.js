// Each node: what it carries, what it drops, and what its probes find.
import { part } from "../api.js";
import { Chart } from "../chart.js";
import { el } from "../dom.js";
import { metrics, packets, percent, si } from "../format.js";
import { Table, numberColumn, panel, textColumn } from "../panel.js";
import { during, fitted, ratesOf, timesOf } from "../span.js";

const lines = 8;

export class Nodes {
  interval = 5; // seconds between two answers, live

  constructor(page) {
    this.page = page;
    const empty = "No node counted packets or probed tunnels for this account in this time. Choose a longer time or another account.";
    this.chart = new Chart({ title: "Traffic by node", unit: "bit/s", zoom: page.zoom, empty });
    this.table = new Table({ id: "nodes", caption: "Nodes", order: "2.desc", change: page.table, columns: this.columns("bits"), empty });
    this.root = el(
      "div",
      { class: "grid" },
      this.chart.root,
      panel("Nodes", this.table.root, () => this.table.table()),
    );
  }

  columns(metric) {
    const m = metrics[metric];
    const rate = (way, words, block) =>
      numberColumn(
        `${words}, ${m.rate}`,
        (r) => r[way][block],
        (x) => si(x, m.rate),
      );
    return [
      textColumn(
        "Node",
        (r) => r.node,
        (r) => el("a", { href: this.page.link("explorer", { filters: [{ dim: "edgePopName", op: "is", value: r.node }] }) }, r.node || "unnamed"),
      ),
      textColumn("Data center", (r) => [r.code, r.city].filter(Boolean).join(", ")),
      rate("ingress", "In", "mean"),
      rate("ingress", "In max", "max"),
      rate("egress", "Out", "mean"),
      rate("egress", "Out max", "max"),
      numberColumn("Through it, packets", (r) => r.packets, packets),
      numberColumn("Dropped, packets", (r) => r.dropped, packets),
      numberColumn("Tunnels probed", (r) => r.tunnels, String),
      numberColumn(
        "Healthy, share",
        (r) => r.healthy,
        (x) => (x === null ? "–" : percent(x)),
      ),
      numberColumn(
        "Probes lost, share",
        (r) => r.loss,
        (x) => (x === null ? "–" : percent(x)),
      ),
    ];
  }

  parts(state, w) {
    return [
      part(
        "rates",
        "traffic",
        during(w),
        5000,
        "sum_bits_DESC",
        "dimensions { edgePopName edgeColoCode edgeColoCity direction } sum { bits packets } max { bitRate packetRate }",
      ),
      part("lost", "drops", during(w), 1000, "sum_packets_DESC", "dimensions { edgePopName edgeColoCode edgeColoCity } sum { packets }"),
      part(
        "health",
        "health",
        during(w),
        10000,
        "edgePopName_ASC",
        "dimensions { edgePopName edgeColoCode edgeColoCity tunnelName } count avg { tunnelState } sum { probes probesLost }",
      ),
      part("series", "traffic", during(w), 10000, `${w.dim}_DESC`, `dimensions { ${w.dim} edgePopName } sum { bits packets } resolution`),
    ];
  }

  update(data, w, state) {
    const m = metrics[state.metric],
      v = fitted(w, data.series),
      times = timesOf(v),
      rows = rowsOf(data, w, m);
    const total = (r) => r.ingress.mean + r.egress.mean;
    const top = rows
      .filter((r) => r.packets > 0)
      .toSorted((a, b) => total(b) - total(a))
      .slice(0, lines)
      .map((r) => r.node)
      .toSorted();
    this.chart.set(
      times,
      top.map((node) => ({
        label: node || "unnamed",
        values: ratesOf(
          v,
          times,
          data.series.filter((g) => g.dimensions.edgePopName === node),
          (g) => g.sum[m.sum],
        ),
      })),
      m.rate,
    );
    this.table.columns = this.columns(state.metric);
    this.table.set(rows, state.tables.nodes ?? "");
  }

  close() {
    this.chart.forget();
  }
}

function rowsOf(data, w, m) {
  const rows = new Map();
  const row = ({ edgePopName: node, edgeColoCode: code, edgeColoCity: city }) =>
    rows.get(node) ??
    rows
      .set(node, {
        node,
        code,
        city,
        ingress: { mean: 0, max: 0 },
        egress: { mean: 0, max: 0 },
        packets: 0,
        dropped: 0,
        tunnels: 0,
        minutes: 0,
        state: 0,
        probes: 0,
        lost: 0,
      })
      .get(node);
  for (const g of data.rates) {
    const r = row(g.dimensions),
      way = g.dimensions.direction === "egress" ? r.egress : r.ingress;
    way.mean += g.sum[m.sum] / w.elapsed;
    way.max = Math.max(way.max, g.max[m.avg]);
    r.packets += g.sum.packets;
  }
  for (const g of data.lost) row(g.dimensions).dropped += g.sum.packets;
  for (const g of data.health) {
    const r = row(g.dimensions);
    r.tunnels++;
    r.minutes += g.count;
    r.state += g.count * g.avg.tunnelState;
    r.probes += g.sum.probes;
    r.lost += g.sum.probesLost;
  }
  return [...rows.values()].map((r) => ({
    ...r,
    healthy: r.minutes > 0 ? r.state / r.minutes : null,
    loss: r.probes > 0 ? r.lost / r.probes : null,
  }));
}
