// Lines over time, drawn by uPlot, each with a table of the same numbers.
import uPlot from "../vendor/uplot/uPlot.esm.js";
import { button, colour, el } from "./dom.js";
import { si, localTime, bothTimes } from "./format.js";
import { Table, numberColumn, panel, timeColumn } from "./panel.js";

const colours = 9; // of the style sheet: --s0 to --s8
const dashes = [[], [6, 4], [2, 3], [10, 4, 2, 4]]; // lines differ in more than colour
const all = new Set(); // charts on the page, to be drawn again in other colours

// A Chart is a panel. zoom is called with the two times that were marked with the mouse.
export class Chart {
  constructor({ title, unit, zoom, empty, max, whole, note }) {
    Object.assign(this, { title, unit, zoom, empty, max, whole, off: new Set(), times: [], series: [] });
    this.canvas = el("div", { class: "plot", "aria-hidden": "true" });
    this.legend = el("ul", { class: "legend" });
    this.none = el("p", { class: "empty", hidden: true });
    this.holder = el("div", {});
    this.details = el("details", { class: "data", on: { toggle: () => this.fill() } }, el("summary", {}, "Table of this chart"), this.holder);
    this.root = panel(
      title,
      el("figure", { "aria-label": title }, this.canvas, this.legend, this.none, note ? el("figcaption", {}, note) : null, this.details),
      () => this.table(),
    );
    new ResizeObserver(() => this.resize()).observe(this.canvas);
    all.add(this);
  }

  // set draws series of {label, values, index} at times; index chooses the colour.
  set(times, series, unit = this.unit) {
    const labels = (list) => list.map((s) => s.label).join("\n");
    const same = this.plot && unit === this.unit && labels(series) === labels(this.series);
    Object.assign(this, { times, series, unit });
    const empty = series.length === 0 || series.every((s) => s.values.every((v) => v === null));
    this.none.hidden = !empty;
    this.none.textContent = empty ? (typeof this.empty === "function" ? this.empty() : this.empty) : "";
    this.canvas.hidden = this.legend.hidden = this.details.hidden = empty;
    if (empty) this.destroy();
    else if (same) this.plot.setData(this.data());
    else this.draw();
    this.fill();
  }

  data() {
    return [this.times, ...this.series.map((s) => s.values)];
  }

  rows() {
    return this.times.map((t, i) => ({ t, i }));
  }

  table() {
    const columns = [
      timeColumn("Start", (r) => r.t),
      ...this.series.map((s) =>
        numberColumn(
          `${s.label}, ${this.unit}`,
          (r) => s.values[r.i],
          (v) => si(v, this.unit),
          s.label,
        ),
      ),
    ];
    return { columns, rows: this.rows() };
  }

  // fill writes the table, once it is open.
  fill() {
    if (!this.details.open) return;
    const key = this.series.map((s) => s.label).join("\n") + this.unit;
    if (this.tableKey !== key) {
      this.numbers = new Table({ id: "", caption: `${this.title}: numbers`, columns: this.table().columns, order: "0.desc", empty: "No numbers" });
      this.tableKey = key;
      this.holder.replaceChildren(this.numbers.root);
    }
    this.numbers.columns = this.table().columns;
    this.numbers.set(this.rows());
  }

  destroy() {
    this.plot?.destroy();
    this.plot = null;
  }

  forget() {
    this.destroy();
    all.delete(this);
  }

  resize() {
    const width = this.canvas.clientWidth;
    if (width === 0 || this.canvas.hidden) return;
    if (this.plot) this.plot.setSize({ width, height: this.height() });
    else if (this.series.length > 0) this.draw();
  }

  height() {
    return this.canvas.clientWidth < 480 ? 180 : 240;
  }

  draw() {
    this.destroy();
    this.key();
    const width = this.canvas.clientWidth;
    if (width === 0) return; // not laid out yet: the observer calls again
    const text = colour("muted"),
      line = colour("line"),
      font = "12px system-ui, sans-serif";
    const axis = { stroke: text, font, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 } };
    this.plot = new uPlot(
      {
        width,
        height: this.height(),
        legend: { show: false },
        cursor: { drag: { x: Boolean(this.zoom), y: false, setScale: false }, points: { size: 7 } },
        scales: { y: { range: (u, low, high) => [0, this.max ?? (high > 0 ? high * 1.08 : 1)] } },
        axes: [
          { ...axis, space: 70, values: ticks },
          {
            ...axis,
            size: 92,
            incrs: this.whole ? [1, 2, 5, 10, 20, 50, 100, 200, 500] : undefined,
            values: (u, splits) => splits.map((v) => si(v, this.unit)),
          },
        ],
        series: [{}, ...this.series.map((s, i) => this.style(s, i))],
        hooks: { setCursor: [(u) => this.values(u.cursor.idx)], setSelect: [(u) => this.marked(u)] },
      },
      this.data(),
      this.canvas,
    );
  }

  style(s, i) {
    const stroke = colour(`s${(s.index ?? i) % colours}`);
    return {
      label: s.label,
      stroke,
      width: 2,
      dash: dashes[(s.index ?? i) % dashes.length],
      show: !this.off.has(s.label),
      points: { show: this.times.length < 3 },
      fill: i === 0 && this.series.length < 3 ? stroke.replace(/^rgb\((.*)\)$/, "rgba($1, 0.12)") : undefined,
      spanGaps: false,
    };
  }

  // key is the legend: buttons that hide and show lines.
  key() {
    this.out = [];
    this.legend.replaceChildren(
      ...this.series.map((s, i) => {
        const value = el("span", { class: "value" });
        this.out.push(value);
        const toggle = () => {
          this.off.has(s.label) ? this.off.delete(s.label) : this.off.add(s.label);
          b.setAttribute("aria-pressed", String(!this.off.has(s.label)));
          this.plot?.setSeries(i + 1, { show: !this.off.has(s.label) });
        };
        const b = button([el("span", { class: `swatch s${(s.index ?? i) % colours}` }), s.label], toggle, {
          "aria-pressed": String(!this.off.has(s.label)),
          title: "Hide or show this line",
        });
        return el("li", {}, b, value);
      }),
      (this.when = el("li", { class: "when" })),
    );
  }

  // values shows the numbers under the mouse.
  values(i) {
    const there = i !== null && i !== undefined;
    this.out?.forEach((o, k) => {
      o.textContent = there ? si(this.series[k]?.values[i], this.unit) : "";
    });
    if (this.when) this.when.textContent = there ? bothTimes(this.times[i]) : "";
  }

  marked(u) {
    if (!this.zoom || u.select.width < 4) return;
    const from = u.posToVal(u.select.left, "x"),
      to = u.posToVal(u.select.left + u.select.width, "x");
    u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    this.zoom(from, to);
  }
}

// ticks are the times at the axis, in the viewer's zone: with the day where it changes.
function ticks(u, splits, axis, space, step) {
  let day = "";
  return splits.map((t) => {
    const [date, time] = localTime(t).split(" ");
    const clock = step < 60 ? time : time.slice(0, 5),
      changed = date !== day && (day !== "" || step >= 3600);
    day = date;
    if (step >= 86400) return date.slice(5);
    return changed ? `${clock}\n${date.slice(5)}` : clock;
  });
}

// recolour draws all charts again.
export function recolour() {
  for (const c of all) if (c.plot) c.draw();
}
