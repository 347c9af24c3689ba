// The page: what the address says is asked for, once or again and again, and given to the view.
import { ApiError, accounts, ask, follow, token } from "./api.js";
import { recolour } from "./chart.js";
import { $, button, choice, el, keepFocus } from "./dom.js";
import { bothTimes, localTime, span, zoneText } from "./format.js";
import { spanOf } from "./span.js";
import { filtered, other, pages, read, write } from "./state.js";
import { toolbar } from "./toolbar.js";
import { Overview } from "./views/overview.js";
import { Tunnels } from "./views/tunnels.js";
import { Explorer } from "./views/explorer.js";
import { Attacks } from "./views/attacks.js";
import { Nodes } from "./views/nodes.js";

const views = { overview: Overview, tunnels: Tunnels, explorer: Explorer, attacks: Attacks, nodes: Nodes };
const accountKey = "causeway.account";

let state,
  view,
  controller = new AbortController(),
  visible = [], // accounts that the token may see; "*" is the first if it may see all
  typing = false, // the name of an account, rather than choosing it
  spoken = 0;

// What views may do.
const page = {
  get state() {
    return state;
  },
  // go changes what is shown; the address and the history of the browser say so.
  go(changes) {
    location.hash = write({ ...state, ...changes });
  },
  // note changes the address alone: nothing else has to be asked for.
  note(changes) {
    state = { ...state, ...changes };
    history.replaceState(null, "", write(state));
  },
  table(id, at) {
    page.note({ tables: { ...state.tables, [id]: at } });
  },
  zoom(from, to) {
    page.go({ range: "custom", from: new Date(from * 1000).toISOString(), to: new Date(Math.max(to, from + 10) * 1000).toISOString() });
  },
  link(target, changes) {
    return other(state, { page: target, ...changes });
  },
  filter(dim, value) {
    page.go({ filters: filtered(state.filters, dim, value), tables: {} });
  },
  reload: () => load(),
};

// show makes the page of the address.
function show() {
  const next = read(location.hash);
  if (!Object.hasOwn(views, next.page)) next.page = "overview";
  next.account ||= sessionStorage.getItem(accountKey) || "*";
  const turned = state?.page !== next.page || !view;
  state = next;
  history.replaceState(null, "", write(state));
  document.title = `${pages[state.page]} – Causeway analytics`;
  $("title").textContent = pages[state.page];
  if (turned) renew();
  frame();
  load();
}

// renew makes the view anew, without data.
function renew() {
  view?.close();
  view = new views[state.page](page);
  $("view").replaceChildren(view.root);
}

// frame draws what is around the view.
function frame() {
  $("pages").replaceChildren(
    ...Object.entries(pages).map(([id, name]) =>
      el("li", {}, el("a", { href: other(state, { page: id }), "aria-current": id === state.page ? "page" : null }, name)),
    ),
  );
  chooser();
  $("sign-out").hidden = token.get() === "";
  toolbar($("toolbar"), page);
}

const named = (a) => [a, a === "*" ? "All accounts" : a];
const otherAccount = "";

// chooser draws the choice of the account. Who may see all may also write a name: the node may not know it any more.
function chooser() {
  const chosen = (account) => {
    typing = false;
    if (account === state.account) return chooser();
    page.go({ account, filters: [], tunnel: "" });
  };
  if (typing) {
    if ($("account-name")) return;
    const input = el("input", { id: "account-name", autocomplete: "off", spellcheck: "false", size: 12, required: true, value: "" });
    input.addEventListener("keydown", (e) => e.key === "Escape" && chosen(state.account));
    const submit = (e) => {
      e.preventDefault();
      chosen(input.value.trim() || state.account);
    };
    $("account-form").replaceChildren(
      el("form", { class: "field", on: { submit } }, el("label", { for: "account-name" }, "Name of the account"), input, el("button", {}, "Show")),
    );
    return input.focus();
  }
  const names = visible.includes(state.account) ? visible : [...visible, state.account];
  const options = [...names.map(named), ...(visible[0] === "*" ? [[otherAccount, "Another…"]] : [])];
  const select = choice("account", "Account", options, state.account, (v) => {
    typing = v === otherAccount;
    if (typing) chooser();
    else chosen(v);
  });
  select.querySelector("select").dataset.key = "account";
  keepFocus($("account-form"), () => $("account-form").replaceChildren(select));
}

// see takes the accounts that the token may see. One that says nothing of an account shows the first of them.
function see(list) {
  const changed = list.join("\n") !== visible.join("\n");
  visible = list;
  if (state.account === "*" && list.length > 0 && list[0] !== "*") page.note({ account: list[0] });
  else if (!changed) return;
  frame();
}

// load asks for what the state says. A load that comes later ends it.
async function load() {
  controller.abort();
  const own = (controller = new AbortController());
  $("view").setAttribute("aria-busy", "true");
  say("Loading…");
  for (let tries = 0; !own.signal.aborted; tries++) {
    const begun = Date.now();
    try {
      await once(own.signal);
      return;
    } catch (e) {
      if (own.signal.aborted) return;
      const problem = explain(e);
      if (!problem.wait) return;
      if (Date.now() - begun > 60000) tries = 0; // it went well for a while
      await pause(Math.max(problem.wait, Math.min(60, 2 ** tries)), own.signal);
    }
  }
}

// first asks what a view wants. Of long ago only coarser rows are kept, which the store does not put into fine buckets: then wider ones
// are asked for.
async function first(account, signal) {
  let tried = 0;
  for (const least of [0, 60, 3600]) {
    const w = spanOf(state, least);
    if (w.size === tried) continue;
    tried = w.size;
    try {
      const parts = view.parts(state, w),
        data = await ask(account, parts, signal);
      const more = view.more?.(state, w, data);
      if (!more) return { w, parts, data };
      return { w, parts: [...parts, ...more], data: { ...data, ...(await ask(account, more, signal)) } };
    } catch (e) {
      if (e.kind !== "store" || w.size >= 3600) throw e;
    }
  }
}

// once loads, and in a live view follows until the stream ends, which is a reason to begin anew.
async function once(signal) {
  if (visible.length === 0) see(await accounts(signal));
  const { account } = state;
  let { w, parts, data } = await first(account, signal);
  if (signal.aborted) return;
  sessionStorage.setItem(accountKey, account);
  see(data.visible);
  $("problem").replaceChildren();
  $("view").hidden = false;
  $("view").removeAttribute("aria-busy");
  present(data, w, parts);
  if (!w.live) return say(`Loaded at ${localTime(Date.now() / 1000)}.`);
  say("Live: the page follows the traffic.");
  spoken = Date.now();
  await follow(account, parts, view.interval, signal, (answer) => {
    w = spanOf(state, w.size);
    present(answer, w, parts);
    tick();
  });
  throw new ApiError("busy", "The live view has ended.", "It begins anew by itself.", 2);
}

// present gives an answer to the view, and says what is missing: what nodes know that did not answer, what is older than what is kept, and rows above
// a limit.
function present(data, w, parts) {
  const kept = Object.values(data.settings ?? {})
    .map((s) => s.notOlderThan)
    .filter((s) => s > 0);
  const short = kept.length > 0 && Date.now() / 1000 - w.from > Math.min(...kept) + w.size;
  $("span").replaceChildren(
    `${w.live ? "The last 30 minutes, until " : `${bothTimes(w.from)} to `}${bothTimes(w.end)}`,
    ...(data.missing ?? []).map((m) => el("strong", {}, ` What ${m.node} has counted is missing: ${m.why}.`)),
    short ? el("strong", {}, ` Some of this is kept for ${span(Math.min(...kept))} only: what is older is missing.`) : "",
    parts.some((p) => p.complete && data[p.alias]?.length >= p.limit)
      ? el("strong", {}, " There are more rows than one answer has: some are missing. Choose a shorter time, or one account.")
      : "",
  );
  view.update(data, w, state);
}

// tick tells that a live view goes on: to the eye each time, and to a screen reader once a minute.
function tick() {
  const text = `Live: updated at ${localTime(Date.now() / 1000)}.`;
  $("live-at").textContent = text;
  if (Date.now() - spoken > 60000) {
    spoken = Date.now();
    say(text);
  }
}

function say(text) {
  $("status").textContent = text;
}

// explain shows what went wrong, in words, with what can be done.
function explain(e) {
  const problem =
    e instanceof ApiError ? e : new ApiError("wrong", `The page itself failed: ${e.message}`, "Load it again; if it comes again, tell its makers.");
  if (!(e instanceof ApiError)) console.error(e);
  $("view").removeAttribute("aria-busy");
  say("");
  const form = problem.kind === "signin" || problem.kind === "account" ? signIn(problem.kind === "signin") : null;
  $("problem").replaceChildren(
    el("div", { class: "problem" }, el("p", {}, el("strong", {}, problem.message), " ", problem.advice), form ?? button("Try again", load)),
  );
  $("view").hidden = Boolean(form);
  if (form) {
    renew(); // what was shown may be another's
    form.querySelector("input, select").focus();
  }
  return problem;
}

// signIn is the form for a token, or for an account that the token may see.
function signIn(withToken) {
  const secret = el("input", { id: "token", type: "password", autocomplete: "off", required: true, maxlength: 512 });
  const account = choice("sign-account", "Account", visible.map(named), "", () => {}).querySelectorAll("*");
  const submit = (event) => {
    event.preventDefault();
    visible = [];
    if (withToken) token.set(secret.value.trim());
    else page.note({ account: account[1].value });
    frame();
    load();
  };
  return el(
    "form",
    { class: "sign-in", "aria-label": withToken ? "Sign in" : "Account", on: { submit } },
    withToken ? el("p", { class: "field" }, el("label", { for: "token" }, "Token"), secret) : el("p", { class: "field" }, account[0], account[1]),
    el("button", { class: "primary" }, withToken ? "Sign in" : "Show account"),
    withToken ? el("p", { class: "hint" }, "The token stays in this tab and is forgotten when you close it.") : null,
  );
}

function pause(s, signal) {
  return new Promise((done) => {
    const timer = setTimeout(done, s * 1000);
    signal.addEventListener(
      "abort",
      () => {
        clearTimeout(timer);
        done();
      },
      { once: true },
    );
  });
}

// Colours: the system's, or the other ones.
const dark = matchMedia("(prefers-color-scheme: dark)");

function themed() {
  const now = document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light");
  $("theme").textContent = now === "dark" ? "Light colours" : "Dark colours";
  recolour();
  return now;
}

function switchTheme() {
  const next = themed() === "dark" ? "light" : "dark";
  if ((next === "dark") === dark.matches) delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = next;
  try {
    localStorage.setItem("causeway.theme", document.documentElement.dataset.theme ?? "");
  } catch {
    /* storage is forbidden: the choice holds until the page is left */
  }
  themed();
}

$("theme").addEventListener("click", switchTheme);
dark.addEventListener("change", themed);
$("sign-out").addEventListener("click", () => {
  token.set("");
  sessionStorage.removeItem(accountKey);
  location.hash = "#/overview";
  location.reload();
});
$("skip").addEventListener("click", (e) => {
  e.preventDefault();
  $("main").focus();
});
addEventListener("hashchange", show);
$("zone").textContent = zoneText();
themed();
show();
