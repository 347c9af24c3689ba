// The page: what the address says is asked for, once or again and again, and given to the view.
import { ApiError, ask, follow, token } from "./api.js";
import { recolour } from "./chart.js";
import { $, button, el } from "./dom.js";
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
const accountKey = "causeway.account",
  accountsKey = "causeway.accounts";

let state,
  view,
  controller = new AbortController(),
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
  if (document.activeElement !== $("account")) $("account").value = state.account;
  $("accounts").replaceChildren(el("option", { value: "*" }, "All accounts"), ...known().map((a) => el("option", { value: a })));
  $("sign-out").hidden = token.get() === "";
  toolbar($("toolbar"), page);
}

const known = () => JSON.parse(sessionStorage.getItem(accountsKey) ?? "[]");

// remember keeps accounts that answered, for the list of the chooser.
function remember(account) {
  sessionStorage.setItem(accountKey, account);
  if (account !== "*" && !known().includes(account)) sessionStorage.setItem(accountsKey, JSON.stringify([account, ...known()].slice(0, 50)));
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
  const { account } = state;
  let { w, parts, data } = await first(account, signal);
  if (signal.aborted) return;
  remember(account);
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

// present gives an answer to the view, and says what is missing: what is older than what is kept, and rows above a limit.
function present(data, w, parts) {
  const kept = Object.values(data.settings ?? {})
    .map((s) => s.notOlderThan)
    .filter((s) => s > 0);
  const short = kept.length > 0 && Date.now() / 1000 - w.from > Math.min(...kept) + w.size;
  $("span").replaceChildren(
    `${w.live ? "The last 30 minutes, until " : `${bothTimes(w.from)} to `}${bothTimes(w.end)}`,
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
    form.querySelector("input").focus();
  }
  return problem;
}

// signIn is the form for a token and an account, or for an account alone.
function signIn(withToken) {
  const secret = el("input", { id: "token", type: "password", autocomplete: "off", required: true, maxlength: 512 });
  const account = el("input", {
    id: "sign-account",
    autocomplete: "off",
    spellcheck: "false",
    required: true,
    value: withToken || state.account !== "*" ? state.account : "",
  });
  const submit = (event) => {
    event.preventDefault();
    if (withToken) token.set(secret.value.trim());
    sessionStorage.setItem(accountKey, account.value.trim());
    page.note({ account: account.value.trim() });
    frame();
    load();
  };
  return el(
    "form",
    { class: "sign-in", "aria-label": withToken ? "Sign in" : "Account", on: { submit } },
    withToken ? el("p", { class: "field" }, el("label", { for: "token" }, "Token"), secret) : null,
    el("p", { class: "field" }, el("label", { for: "sign-account" }, "Account (* for all)"), account),
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
$("account-form").addEventListener("submit", (e) => {
  e.preventDefault();
  page.go({ account: $("account").value.trim() || "*", filters: [], tunnel: "" });
});
$("account").addEventListener("change", () => $("account-form").requestSubmit());
$("sign-out").addEventListener("click", () => {
  token.set("");
  for (const key of [accountKey, accountsKey]) sessionStorage.removeItem(key);
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
