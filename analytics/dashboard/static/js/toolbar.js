// What is chosen for all pages: time and metric.
import { button, choice, el, keepFocus } from "./dom.js";
import { metrics, seconds } from "./format.js";
import { ranges } from "./state.js";
import { spanOf } from "./span.js";

// toolbar draws the controls for the state of the page.
export function toolbar(root, page) {
  const { state } = page;
  const times = [...Object.entries(ranges).map(([id, [name]]) => [id, name]), ["custom", "Custom…"]];
  const range = choice("range", "Time", times, state.range, (v) => (v === "custom" ? open(page) : page.go({ range: v })));
  range.querySelector("select").dataset.key = "range";
  const metric = el(
    "fieldset",
    { class: "switch" },
    el("legend", { class: "hidden" }, "Metric"),
    Object.entries(metrics).map(([id, m]) =>
      button(m.name, () => page.go({ metric: id }), { "aria-pressed": String(id === state.metric), "data-key": `metric-${id}` }),
    ),
  );
  const now =
    state.range === "live"
      ? button("Stop live", () => page.go({ range: "30m" }), { id: "live", class: "on", "aria-pressed": "true", "data-key": "live" })
      : button("Go live", () => page.go({ range: "live" }), { id: "live", "aria-pressed": "false", "data-key": "live" });
  keepFocus(root, () =>
    root.replaceChildren(
      el(
        "div",
        { class: "tools", role: "group", "aria-label": "Time and metric" },
        range,
        metric,
        now,
        button("Refresh", page.reload, { id: "refresh", "data-key": "refresh", hidden: state.range === "live" }),
        button("Copy link", (e) => copy(e.target), { "data-key": "link" }),
      ),
      state.range === "custom" ? custom(page) : "",
      el("p", { class: "span" }, el("span", { id: "span" }), " ", el("span", { id: "live-at" })),
    ),
  );
}

// open begins a custom time with what is shown.
function open(page) {
  const w = spanOf(page.state);
  page.go({ range: "custom", from: new Date(w.from * 1000).toISOString(), to: new Date(w.to * 1000).toISOString() });
}

// written is a time as a field of the browser wants it: in the viewer's zone.
function written(text) {
  const t = seconds(text) * 1000;
  return new Date(t - new Date(t).getTimezoneOffset() * 60000).toISOString().slice(0, 19);
}

function custom(page) {
  const field = (id, label, value) => {
    const input = el("input", { id, type: "datetime-local", step: "1", required: true, value: written(value), "data-key": id });
    return [el("span", { class: "field" }, el("label", { for: id }, label), input), input];
  };
  const [fromField, from] = field("from", "From", page.state.from),
    [toField, to] = field("to", "To", page.state.to);
  const submit = (e) => {
    e.preventDefault();
    const [a, b] = [new Date(from.value), new Date(to.value)];
    to.setCustomValidity(a < b ? "" : "The end must be after the beginning");
    if (to.reportValidity()) page.go({ range: "custom", from: a.toISOString(), to: b.toISOString() });
  };
  to.addEventListener("input", () => to.setCustomValidity(""));
  return el(
    "form",
    { class: "tools", "aria-label": "Custom time", on: { submit } },
    fromField,
    toField,
    el("button", { "data-key": "show" }, "Show"),
  );
}

async function copy(b) {
  const text = b.textContent;
  try {
    await navigator.clipboard.writeText(location.href);
    b.textContent = "Copied";
  } catch {
    // browsers allow it over TLS and on loopback alone: the address bar has it
    b.textContent = "Copy it from the address bar";
  }
  setTimeout(() => {
    b.textContent = text;
  }, 2000);
}
