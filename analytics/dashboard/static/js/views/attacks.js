// Attacks that were detected.
import { Chart } from "../chart.js";
import { el } from "../dom.js";
import { bitRate, packetRate, span } from "../format.js";
import { Table, panel, tile } from "../panel.js";
import { timesOf } from "../span.js";
import { attackColumns, attackParts, began, ended, lasted, moreColumns } from "../attacks.js";

const most = 1000; // attacks of one answer

export class Attacks {
  interval = 5; // seconds between two answers, live

  constructor(page) {
    this.tiles = el("dl", { class: "tiles", "aria-label": "Summary" });
    const empty = "No attack was detected in this time. Detectors look at sampled packets and at the counters of all tunnels.";
    this.chart = new Chart({ title: "Attacks under way", unit: "", whole: true, zoom: page.zoom, empty });
    this.table = new Table({
      id: "attacks",
      caption: "Attacks",
      order: "0.desc",
      change: page.table,
      columns: [...attackColumns(page), ...moreColumns()],
      empty,
    });
    this.root = el(
      "div",
      { class: "grid" },
      this.tiles,
      this.chart.root,
      panel("Attacks", this.table.root, () => this.table.table()),
    );
  }

  parts(state, w) {
    return attackParts(w, most);
  }

  update(data, w, state) {
    const list = data.attacks,
      times = timesOf(w);
    const kinds = [...new Set(list.map((a) => a.attackVector))].toSorted().slice(0, 8);
    this.chart.set(
      times,
      kinds.map((kind) => ({
        label: kind,
        values: times.map((t) => list.filter((a) => a.attackVector === kind && began(a) < t + w.size && !(ended(a) < t)).length),
      })),
    );
    this.table.set(list, state.tables.attacks ?? "");
    const top = (f) => list.reduce((m, a) => Math.max(m, f(a)), 0),
      going = list.filter((a) => !a.endDatetime).length;
    const dropped = list.reduce((s, a) => s + a.droppedPackets, 0),
      all = list.reduce((s, a) => s + a.packets, 0);
    this.tiles.replaceChildren(
      tile("Attacks", String(list.length), going ? `${going} under way` : "none under way"),
      tile("Largest mean rate", bitRate(top((a) => a.bits / lasted(a))), packetRate(top((a) => a.packets / lasted(a)))),
      tile("Longest", list.length ? span(top(lasted)) : "–"),
      tile("Targets", String(new Set(list.map((a) => a.destinationIp)).size)),
      tile("Dropped of their packets", all ? `${((100 * dropped) / all).toFixed(1)}\u00a0%` : "–"),
    );
  }

  close() {
    this.chart.forget();
  }
}
