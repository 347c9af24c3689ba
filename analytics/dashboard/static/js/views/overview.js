// Traffic in and out, drops and attacks, at a glance.
import { part } from "../api.js";
import { Chart } from "../chart.js";
import { el } from "../dom.js";
import { directions, metrics, packets, percent, si, span } from "../format.js";
import { Table, bar, numberColumn, panel, textColumn, tile } from "../panel.js";
import { before, during, fitted, ratesOf, timesOf } from "../span.js";
import { attackColumns, attackParts } from "../attacks.js";

const order = ["ingress", "egress", "lateral"]; // and colours

export class Overview {
  interval = 2; // seconds between two answers, live

  constructor(page) {
    this.page = page;
    const none = () =>
      "No tunnel of this account carried packets in this time. Choose a longer one, or another account; " +
      "the page Tunnels shows whether they are healthy.";
    this.tiles = el("dl", { class: "tiles", "aria-label": "Summary" });
    this.traffic = new Chart({ title: "Traffic by direction", unit: "bit/s", zoom: page.zoom, empty: none });
    this.dropped = new Chart({
      title: "Dropped packets over time",
      unit: "packets/s",
      zoom: page.zoom,
      empty: "No packet was dropped in this time.",
    });
    this.total = 0;
    this.reasons = new Table({
      id: "reasons",
      caption: "Drops by reason",
      order: "1.desc",
      change: page.table,
      empty: "No packet was dropped in this time.",
      columns: [
        textColumn(
          "Reason",
          (r) => r.dimensions.dropReason,
          (r) => el("a", { href: this.explore(r.dimensions.dropReason) }, r.dimensions.dropReason || "unknown"),
        ),
        numberColumn(
          "Packets",
          (r) => r.sum.packets,
          (x) => [bar(x / this.total), packets(x)],
        ),
        numberColumn("Share", (r) => r.sum.packets / this.total, percent),
      ],
    });
    this.attacks = new Table({
      id: "attacks",
      caption: "Attacks",
      order: "0.desc",
      change: page.table,
      columns: attackColumns(page),
      empty: "No attack was detected in this time.",
    });
    this.dropped.root.classList.add("half");
    this.root = el(
      "div",
      { class: "grid" },
      this.tiles,
      this.traffic.root,
      this.dropped.root,
      panel("Drops by reason", this.reasons.root, () => this.reasons.table(), { class: "half" }),
      panel("Attacks", this.attacks.root, () => this.attacks.table()),
    );
  }

  explore(reason) {
    return this.page.link("explorer", { filters: [{ dim: "dropReason", op: "is", value: reason }] });
  }

  parts(state, w) {
    const over = "dimensions { direction } sum { bits packets droppedPackets }";
    return [
      part("series", "traffic", during(w), 10000, `${w.dim}_ASC`, `dimensions { ${w.dim} direction } sum { bits packets } resolution`),
      part("totals", "traffic", during(w), 10, "sum_bits_DESC", `${over} max { bitRate packetRate } p95 { bitRate packetRate } resolution`),
      part("earlier", "traffic", before(w), 10, "sum_bits_DESC", over),
      part("lost", "drops", during(w), 10000, `${w.dim}_ASC`, `dimensions { ${w.dim} } sum { packets } resolution`),
      part("reasons", "drops", during(w), 100, "sum_packets_DESC", "dimensions { dropReason } sum { packets }"),
      ...attackParts(w, 200, 30),
    ];
  }

  update(data, w, state) {
    const m = metrics[state.metric],
      v = fitted(w, data.series),
      times = timesOf(v),
      u = fitted(w, data.lost),
      droppedTimes = timesOf(u);
    const attacks = data.attacks;
    this.summary(data, w, m, attacks);
    const used = order.filter((d) => d !== "lateral" || data.series.some((g) => g.dimensions.direction === d));
    this.traffic.set(
      times,
      data.series.length === 0
        ? []
        : used.map((d) => ({
            label: directions[d],
            index: order.indexOf(d),
            values: ratesOf(
              v,
              times,
              data.series.filter((g) => g.dimensions.direction === d),
              (g) => g.sum[m.sum],
            ),
          })),
      m.rate,
    );
    this.dropped.set(
      droppedTimes,
      data.lost.length === 0 ? [] : [{ label: "Dropped", index: 3, values: ratesOf(u, droppedTimes, data.lost, (g) => g.sum.packets) }],
    );
    this.total = data.reasons.reduce((sum, g) => sum + g.sum.packets, 0);
    this.reasons.set(data.reasons, state.tables.reasons ?? "");
    this.attacks.set(attacks, state.tables.attacks ?? "");
  }

  summary(data, w, m, attacks) {
    const of = (list, d) => list.find((g) => g.dimensions.direction === d);
    const tiles = order.flatMap((d) => {
      const now = of(data.totals, d),
        then = of(data.earlier, d);
      if (d === "lateral" && !now) return [];
      const more = now
        ? `max ${si(now.max[m.avg], m.rate)}, p95 ${si(now.p95[m.avg], m.rate)}, of rates over ${span(now.resolution)}. ` +
          change(now.sum[m.sum], then?.sum[m.sum])
        : "no packets";
      return [tile(directions[d], si((now?.sum[m.sum] ?? 0) / w.elapsed, m.rate), more)];
    });
    const dropped = data.reasons.reduce((sum, g) => sum + g.sum.packets, 0),
      all = data.totals.reduce((sum, g) => sum + g.sum.packets, 0);
    const going = attacks.filter((a) => !a.endDatetime).length;
    tiles.push(
      tile("Packets through tunnels", packets(all), `${si(all / w.elapsed, "packets/s")} on average`),
      tile("Dropped", packets(dropped), all + dropped > 0 ? `${percent(dropped / (all + dropped))} of all` : ""),
      tile("Attacks", String(attacks.length), going > 0 ? `${going} under way` : "none under way"),
    );
    this.tiles.replaceChildren(...tiles);
  }

  close() {
    this.traffic.forget();
    this.dropped.forget();
  }
}

// change compares with as much time before.
function change(now, then) {
  if (!then) return "Nothing in the period before";
  const x = now / then - 1;
  if (x > 9) return `${Math.round(now / then)} times the period before`;
  return Math.abs(x) < 0.005 ? "As in the period before" : `${x > 0 ? "+" : "−"}${percent(Math.abs(x))} against the period before`;
}
