// Sampled packets by any dimension, with filters.
import { part } from "../api.js";
import { Chart } from "../chart.js";
import { button, choice, el, keepFocus } from "../dom.js";
import { condition, dimensions, options, shown } from "../dimensions.js";
import { metrics, percent, seconds, si } from "../format.js";
import { Table, bar, numberColumn, panel, textColumn, timeColumn } from "../panel.js";
import { during, ratesOf, timesOf } from "../span.js";
import { operators } from "../state.js";

const lines = 8; // values that are drawn
const packetFields =
  "datetime direction ipSourceAddress sourcePort ipDestinationAddress destinationPort ipProtocolName tcpFlagsString ipTotalLength " +
  "verdict dropReason ingressTunnelName egressTunnelName edgePopName";

export class Explorer {
  interval = 2; // seconds between two answers, live

  constructor(page) {
    this.page = page;
    this.total = 0;
    this.controls = el("div", { class: "panel filters" });
    this.chart = new Chart({ title: "Estimated traffic over time", unit: "bit/s", zoom: page.zoom, empty: () => this.why() });
    this.table = new Table({ id: "top", caption: "Top values", order: "", change: page.table, columns: [], empty: () => this.why() });
    this.packets = new Table({
      id: "packets",
      caption: "Sampled packets",
      order: "0.desc",
      change: page.table,
      columns: this.packetColumns(),
      empty: () => this.why(),
    });
    this.log = panel("Sampled packets", this.packets.root, () => this.packets.table());
    this.hint = el(
      "p",
      { class: "hint" },
      "Estimates from samples: the truth lies within ± of them in 95 % of all cases. Choose a value to filter by it.",
    );
    this.root = el(
      "div",
      { class: "grid" },
      this.controls,
      this.chart.root,
      panel("Top values", [this.table.root, this.hint], () => this.table.table()),
      this.log,
    );
  }

  why() {
    const n = this.page.state.filters.length;
    const reason = "only some of all packets are sampled, so little traffic may leave none.";
    if (n === 0) return `No sampled packet was seen in this time. Choose a longer time: ${reason}`;
    return `No sampled packet passes your ${n === 1 ? "filter" : `${n} filters`} in this time. Remove one, or choose a longer time: ${reason}`;
  }

  // where is the filter of the state.
  where(state, w) {
    const list = state.filters.map((f) => condition(f, operators[f.op][0])).filter(Boolean);
    return list.length > 0 ? { ...during(w), AND: list } : during(w);
  }

  dim(state) {
    return Object.hasOwn(dimensions, state.dim) ? state.dim : "ipSourceAddress";
  }

  parts(state, w) {
    const m = metrics[state.metric],
      where = this.where(state, w);
    const list = [
      part(
        "top",
        "samples",
        where,
        Number(state.top),
        `sum_${m.sum}_DESC`,
        `dimensions { ${this.dim(state)} } sum { bits packets }
         confidence(level: 0.95) { sum { bits { lower upper isValid sampleSize } packets { lower upper isValid sampleSize } } }`,
      ),
      part("total", "samples", where, 10000, `${w.dim}_ASC`, `dimensions { ${w.dim} } sum { bits packets }`),
    ];
    if (state.log) list.push(part("log", "samples", where, 100, "datetime_DESC", `dimensions { ${packetFields} } sum { packets }`));
    return list;
  }

  // more asks how the top values went over time.
  more(state, w, data) {
    const dim = this.dim(state),
      values = data.top.slice(0, lines).map((g) => g.dimensions[dim]);
    if (values.length === 0) return null;
    this.drawn = values;
    const where = this.where(state, w);
    return [
      part(
        "parts",
        "samples",
        { ...where, AND: [...(where.AND ?? []), { [`${dim}_in`]: values }] },
        10000,
        `${w.dim}_ASC`,
        `dimensions { ${w.dim} ${dim} } sum { bits packets }`,
      ),
    ];
  }

  update(data, w, state) {
    const m = metrics[state.metric],
      dim = this.dim(state),
      times = timesOf(w);
    this.control(state, dim);
    this.total = data.total.reduce((sum, g) => sum + g.sum[m.sum], 0);
    const amount = (g) => g.sum[m.sum];
    const series = (data.parts ? this.drawn : []).map((v, index) => ({
      label: shown(dim, v),
      index,
      values: ratesOf(
        w,
        times,
        data.parts.filter((g) => g.dimensions[dim] === v),
        amount,
      ),
    }));
    if (data.total.length > 0) series.push({ label: "All", index: lines, values: ratesOf(w, times, data.total, amount) });
    this.chart.set(times, series, m.rate);
    this.table.columns = this.topColumns(m, dim, w);
    this.table.set(data.top, state.tables.top ?? "");
    this.log.hidden = !state.log;
    if (data.log) this.packets.set(data.log, state.tables.packets ?? "");
    if (w.live) this.follow(data, dim);
  }

  // follow begins the live view anew when other values have come to the top, at most each 20 seconds.
  follow(data, dim) {
    const now = data.top.slice(0, lines).map((g) => g.dimensions[dim]);
    const same = now.length === this.drawn?.length && now.every((v) => this.drawn.includes(v));
    if (same || Date.now() - (this.begun ?? 0) < 20000) return;
    this.begun = Date.now();
    setTimeout(() => {
      if (this.root.isConnected && this.page.state.range === "live") this.page.reload();
    });
  }

  topColumns(m, dim, w) {
    const c = (g) => g.confidence.sum[m.sum];
    const half = (g) => (c(g).isValid && g.sum[m.sum] > 0 ? (c(g).upper - c(g).lower) / 2 / g.sum[m.sum] : null);
    return [
      textColumn(
        dimensions[dim].words,
        (g) => g.dimensions[dim],
        (g) =>
          button(shown(dim, g.dimensions[dim]), () => this.page.filter(dim, g.dimensions[dim]), {
            class: "link value-of",
            "data-key": `v-${g.dimensions[dim]}`,
            title: `Show only ${shown(dim, g.dimensions[dim])}`,
          }),
      ),
      numberColumn(
        "Share",
        (g) => g.sum[m.sum] / this.total,
        (x) => [bar(x), percent(x)],
      ),
      numberColumn(
        `Mean rate, ${m.rate}`,
        (g) => g.sum[m.sum] / w.elapsed,
        (x) => si(x, m.rate),
      ),
      numberColumn(
        `Total, ${m.unit}`,
        (g) => g.sum[m.sum],
        (x) => si(x, m.unit),
      ),
      numberColumn("± at 95 %, share", half, (x) => (x === null ? "too few samples" : `±\u00a0${percent(x)}`), "± at 95 %"),
      numberColumn(
        "Samples",
        (g) => c(g).sampleSize,
        (x) => si(x, ""),
      ),
    ];
  }

  packetColumns() {
    const d = (name) => (g) => g.dimensions[name];
    const value = (name, words) =>
      textColumn(words, d(name), (g) =>
        button(shown(name, g.dimensions[name]), () => this.page.filter(name, g.dimensions[name]), {
          class: "link",
          title: `Show only ${shown(name, g.dimensions[name])}`,
        }),
      );
    return [
      timeColumn("Time", (g) => seconds(g.dimensions.datetime)),
      value("direction", "Direction"),
      value("ipSourceAddress", "Source"),
      value("sourcePort", "Source port"),
      value("ipDestinationAddress", "Destination"),
      value("destinationPort", "Destination port"),
      value("ipProtocolName", "Protocol"),
      value("tcpFlagsString", "TCP flags"),
      numberColumn("Size, byte", d("ipTotalLength"), (x) => `${x}\u00a0bytes`),
      value("verdict", "Verdict"),
      value("dropReason", "Drop reason"),
      value("ingressTunnelName", "Came out of"),
      value("egressTunnelName", "Went into"),
      value("edgePopName", "Node"),
      numberColumn(
        "Stands for, packets",
        (g) => g.sum.packets,
        (x) => si(x, "packets"),
      ),
    ];
  }

  // control draws the choices, unless they are as they were: someone may be writing there.
  control(state, dim) {
    const key = JSON.stringify([dim, state.top, state.filters, state.log]);
    if (this.controlled === key) return;
    this.controlled = key;
    const by = choice("dim", "Show by", options, dim, (v) => this.page.go({ dim: v, tables: {} }));
    const top = choice(
      "top",
      "Top",
      [5, 10, 15, 20, 25].map((n) => [String(n), String(n)]),
      state.top,
      (v) => this.page.go({ top: v }),
    );
    by.lastChild.dataset.key = "dim";
    top.lastChild.dataset.key = "top";
    keepFocus(this.controls, () =>
      this.controls.replaceChildren(
        el("h2", { class: "hidden" }, "Choices"),
        el(
          "div",
          { class: "tools" },
          by,
          top,
          button(state.log ? "Hide sampled packets" : "Show sampled packets", () => this.page.go({ log: state.log ? "" : "1" }), {
            "aria-pressed": String(Boolean(state.log)),
            "data-key": "log",
          }),
        ),
        this.chips(state),
        this.adder(),
      ),
    );
  }

  chips(state) {
    if (state.filters.length === 0) return el("p", { class: "hint" }, "No filter: all sampled packets count.");
    const remove = (f) => this.page.go({ filters: state.filters.filter((x) => x !== f), tables: {} });
    const chip = (f) => {
      const words = `${dimensions[f.dim]?.words ?? f.dim} ${operators[f.op][1].replace(/ \(.*/, "")} ${shown(f.dim, f.value)}`;
      const ignored = condition(f, operators[f.op][0]) ? "" : " (ignored: this needs a known dimension, and a number where it is one)";
      return el(
        "li",
        {},
        el("span", {}, words + ignored),
        button("×", () => remove(f), { "aria-label": `Remove filter: ${words}`, title: "Remove", class: "remove" }),
      );
    };
    return el(
      "ul",
      { class: "chips", "aria-label": "Filters" },
      state.filters.map(chip),
      state.filters.length > 1
        ? el(
            "li",
            {},
            button("Remove all", () => this.page.go({ filters: [], tables: {} })),
          )
        : null,
    );
  }

  // adder is the form for filters that no value is there to click for.
  adder() {
    const dim = choice("f-dim", "Dimension", options, "ipDestinationSubnet", () => {}),
      op = choice(
        "f-op",
        "Comparison",
        Object.entries(operators).map(([id, [, words]]) => [id, words]),
        "is",
        () => {},
      );
    const value = el("input", { id: "f-value", autocomplete: "off", spellcheck: "false" });
    const submit = (e) => {
      e.preventDefault();
      const f = { dim: dim.lastChild.value, op: op.lastChild.value, value: value.value.trim() };
      value.setCustomValidity(
        condition(f, operators[f.op][0])
          ? ""
          : "This dimension is a number: write a whole one, and compare it with is, is not, at least or at most",
      );
      if (value.reportValidity()) this.page.go({ filters: [...this.page.state.filters, f], tables: {} });
    };
    value.addEventListener("input", () => value.setCustomValidity(""));
    return el(
      "details",
      {},
      el("summary", {}, "Add a filter"),
      el(
        "form",
        { class: "tools", "aria-label": "Add a filter", on: { submit } },
        dim,
        op,
        el("span", { class: "field" }, el("label", { for: "f-value" }, "Value"), value),
        el("button", {}, "Add"),
      ),
    );
  }

  close() {
    this.chart.forget();
  }
}
