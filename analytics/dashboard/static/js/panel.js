// Panels: a heading, buttons that export, and tables that can be sorted and paged.
import { button, el, keepFocus } from "./dom.js";
import { csv, json, save } from "./export.js";
import { timeNode, iso } from "./format.js";

// panel is a section. `table` is a function that gives {columns, rows} for the export.
export function panel(title, body, table, props = {}) {
  const id = `p-${title.toLowerCase().replace(/\W+/g, "-")}`;
  const name = `causeway-${id.slice(2)}`;
  const exporting =
    table &&
    el(
      "span",
      { class: "export" },
      button(
        "CSV",
        () => {
          const t = table();
          save(`${name}.csv`, "text/csv;charset=utf-8", csv(t.columns, t.rows));
        },
        { "aria-label": `Export ${title} as CSV` },
      ),
      button(
        "JSON",
        () => {
          const t = table();
          save(`${name}.json`, "application/json", json(title, t.columns, t.rows));
        },
        { "aria-label": `Export ${title} as JSON` },
      ),
    );
  return el(
    "section",
    { class: `panel ${props.class ?? ""}`, "aria-labelledby": id },
    el("div", { class: "head" }, el("h2", { id }, title), exporting),
    body,
  );
}

// Columns. `raw` is for sorting and exports, `show` for people.
export const textColumn = (label, raw, show) => ({ label, raw, show: show ?? raw });
export const numberColumn = (label, raw, show, text = label.replace(/,.*/, "")) => ({ label, raw, show: (r) => show(raw(r)), number: true, text });
export const timeColumn = (label, raw) => ({
  label: `${label}, UTC`,
  text: label,
  number: true,
  sortValue: raw,
  raw: (r) => (Number.isFinite(raw(r)) ? iso(raw(r)) : null),
  show: (r) => timeNode(raw(r)),
});

const pageRows = 50;

// A Table shows rows. Its order and page stand in the address, as KEY.asc|desc.PAGE, so it is told the state and how to change it.
export class Table {
  constructor({ id, caption, columns, order = "", empty, change, key }) {
    Object.assign(this, { id, caption, columns, empty, change, key, rows: [], initial: order });
    this.at = order;
    this.root = el("div", {});
  }

  // set shows rows. `at` is the order and page of the address; without it they stay.
  set(rows, at) {
    this.rows = rows;
    if (at !== undefined) this.at = at || this.initial;
    keepFocus(this.root, () => this.draw());
  }

  // order is [column, descending, page].
  order() {
    const [c, way, page] = this.at.split(".");
    return [this.columns[Number(c)] && c !== "" ? Number(c) : -1, way === "desc", Math.max(1, Number(page) || 1)];
  }

  sorted() {
    const [c, descending] = this.order();
    if (c < 0) return this.rows;
    const column = this.columns[c],
      value = column.sortValue ?? column.raw;
    const compare = (a, b) =>
      typeof a === "number" && typeof b === "number" ? a - b : String(a ?? "").localeCompare(String(b ?? ""), undefined, { numeric: true });
    return this.rows.toSorted((a, b) => compare(value(a), value(b)) * (descending ? -1 : 1));
  }

  table() {
    return { columns: this.columns, rows: this.sorted() };
  }

  go(at) {
    this.at = at;
    if (this.change) this.change(this.id, at);
    keepFocus(this.root, () => this.draw());
  }

  draw() {
    if (this.rows.length === 0) {
      const empty = typeof this.empty === "function" ? this.empty() : this.empty;
      this.root.replaceChildren(el("p", { class: "empty" }, empty));
      return;
    }
    const [c, descending, page] = this.order(),
      last = Math.ceil(this.rows.length / pageRows),
      at = Math.min(page, last);
    const rows = this.sorted().slice((at - 1) * pageRows, at * pageRows);
    const head = this.columns.map((column, i) =>
      el(
        "th",
        { scope: "col", class: column.number ? "number" : "", "aria-sort": i === c ? (descending ? "descending" : "ascending") : null },
        button(column.text ?? column.label, () => this.go(`${i}.${i === c ? (descending ? "asc" : "desc") : column.number ? "desc" : "asc"}`), {
          class: "sort",
          "data-key": `sort-${i}`,
        }),
      ),
    );
    const body = rows.map((r) =>
      el(
        "tr",
        {},
        this.columns.map((column, i) =>
          el(i === 0 ? "th" : "td", { scope: i === 0 ? "row" : null, class: column.number ? "number" : "" }, column.show(r)),
        ),
      ),
    );
    const table = el("table", {}, el("caption", { class: "hidden" }, this.caption), el("thead", {}, el("tr", {}, head)), el("tbody", {}, body));
    const left = this.root.firstChild?.scrollLeft ?? 0;
    const scroll = el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": this.caption, "data-key": "scroll" }, table);
    this.root.replaceChildren(scroll, ...this.pager(at, last));
    scroll.scrollLeft = left;
  }

  pager(at, last) {
    if (last < 2) return [];
    const [c, descending] = this.order(),
      order = c < 0 ? "." : `${c}.${descending ? "desc" : "asc"}`;
    const turn = (text, page, key) => button(text, () => this.go(`${order}.${page}`), { disabled: page < 1 || page > last, "data-key": key });
    return [
      el(
        "p",
        { class: "pager" },
        turn("Previous", at - 1, "previous"),
        ` Page ${at} of ${last}, ${this.rows.length} rows `,
        turn("Next", at + 1, "next"),
      ),
    ];
  }
}

// bar shows a share beside its number.
export function bar(share) {
  const inner = el("span", {});
  inner.style.width = `${Math.max(0, Math.min(100, share * 100))}%`;
  return el("span", { class: "bar", "aria-hidden": "true" }, inner);
}

// tile is one figure of a summary.
export function tile(label, value, more) {
  return el("div", { class: "tile" }, el("dt", {}, label), el("dd", {}, value, more ? el("small", {}, more) : null));
}
