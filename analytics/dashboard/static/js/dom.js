// Elements. Whatever comes from data ends in text nodes and in values of attributes, never in HTML.

// el makes an element. Of props, `on` are listeners, `class` and others attributes; true and false set and leave out an attribute.
export function el(tag, props, ...children) {
  const e = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (name === "on") {
      for (const [event, f] of Object.entries(value)) e.addEventListener(event, f);
    } else if (value === true) {
      e.setAttribute(name, "");
    } else if (value !== false && value !== null && value !== undefined) {
      e.setAttribute(name, value);
    }
  }
  e.append(...children.flat().filter((c) => c !== null && c !== undefined && c !== false));
  return e;
}

export const $ = (id) => document.getElementById(id);

export function button(text, click, props) {
  return el("button", { type: "button", ...props, on: { click } }, text);
}

// choice is a labelled select. Options are [value, text] or [group, [[value, text], ...]].
export function choice(id, label, options, value, change) {
  const option = ([v, text]) =>
    Array.isArray(text) ? el("optgroup", { label: v }, text.map(option)) : el("option", { value: v, selected: v === String(value) }, text);
  const select = el("select", { id, on: { change: () => change(select.value) } }, options.map(option));
  return el("span", { class: "field" }, el("label", { for: id }, label), select);
}

// colour is what a variable of the style sheet is now.
export function colour(name) {
  const probe = el("span", { class: "hidden" });
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const c = getComputedStyle(probe).color;
  probe.remove();
  return c;
}

// keepFocus runs f, which makes the content of an element anew, and leaves the focus where it was by data-key.
export function keepFocus(root, f) {
  const held = root.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  f();
  if (held === undefined) return;
  for (const e of root.querySelectorAll("[data-key]")) {
    if (e.dataset.key === held) return e.focus({ preventScroll: true });
  }
}
