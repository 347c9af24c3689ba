// Files of what is shown. Numbers stand in base units, times in UTC.

// text makes a table a file. Columns are {label, raw}, raw being a function of a row.
export function csv(columns, rows) {
  return [columns.map((c) => cell(c.label)), ...rows.map((r) => columns.map((c) => cell(c.raw(r))))].map((l) => `${l.join(",")}\r\n`).join("");
}

// cell quotes as RFC 4180, 2 has it. Spreadsheets take text that begins like this for formulas, and names come from others.
function cell(x) {
  let s = x === null || x === undefined ? "" : String(x);
  if (typeof x === "string" && /^[=+\-@\t\r]/.test(s)) s = `'${s}`;
  return /[",\r\n]/.test(s) ? `"${s.replaceAll('"', '""')}"` : s;
}

export function json(title, columns, rows) {
  const list = rows.map((r) => Object.fromEntries(columns.map((c) => [c.label, c.raw(r) ?? null])));
  return `${JSON.stringify({ title, address: location.href, exported: new Date().toISOString(), rows: list }, null, 2)}\n`;
}

export function save(name, type, content) {
  const url = URL.createObjectURL(new Blob([content], { type }));
  const a = Object.assign(document.createElement("a"), { href: url, download: name });
  document.body.append(a);
  a.click();
  a.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}
