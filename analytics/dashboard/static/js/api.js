// Asks the GraphQL API of this host.
const path = "/client/v4/graphql";
const tokenKey = "causeway.token";

// The token stays in this tab: session storage is gone with it, and no address has it.
export const token = {
  get: () => sessionStorage.getItem(tokenKey) ?? "",
  set: (t) => (t ? sessionStorage.setItem(tokenKey, t) : sessionStorage.removeItem(tokenKey)),
};

const types = {
  traffic: "magicTransitTunnelTrafficAdaptiveGroups",
  drops: "magicTransitTunnelDropsAdaptiveGroups",
  samples: "magicTransitNetworkAnalyticsAdaptiveGroups",
  health: "magicTransitTunnelHealthChecksAdaptiveGroups",
  attacks: "dosdAttackAnalyticsGroups",
};

// enough is a limit that is there for safety: an answer that reaches it lacks rows. Lower ones are asked for to have the first few.
const enough = 1000;

// part is one dataset field of a query. Values go in variables, so that none of them can be read as part of the query.
export function part(alias, dataset, filter, limit, order, fields) {
  const name = types[dataset],
    type = `Account${name[0].toUpperCase()}${name.slice(1)}Filter_InputObject!`;
  const by = order ? `, orderBy: [${order}]` : "";
  return {
    declares: `$${alias}: ${type}`,
    field: `${alias}: ${name}(filter: $${alias}, limit: ${limit}${by}) { ${fields} }`,
    variables: { [alias]: filter },
    name,
    alias,
    limit,
    complete: limit >= enough,
  };
}

// tunnelPart asks for the tunnels as the node knows them now: all, or the one of that name.
export function tunnelPart(alias, name, fields) {
  if (!name) return { declares: "", field: `${alias}: causewayTunnels { ${fields} }`, variables: {}, alias };
  return {
    declares: `$${alias}: string`,
    field: `${alias}: causewayTunnels(filter: { tunnelName: $${alias} }) { ${fields} }`,
    variables: { [alias]: name },
    alias,
  };
}

// request makes one request of parts. It also asks how long the datasets are kept, and which accounts the token may see.
function request(account, parts) {
  const kept = [...new Set(parts.map((p) => p.name).filter(Boolean))].map((n) => `${n} { notOlderThan }`).join(" ");
  const declared = ["$account: string!", ...parts.map((p) => p.declares).filter(Boolean)].join(", ");
  return JSON.stringify({
    query: `query Dashboard(${declared}) {
  viewer { causewayAccounts accounts(filter: { accountTag: $account }) { ${parts.map((p) => p.field).join("\n")} settings { ${kept} } } }
}`,
    variables: Object.assign({ account }, ...parts.map((p) => p.variables)),
  });
}

// An ApiError says what is wrong, and what to do. Its kind: signin, account, store, busy (try again after `wait` seconds), away or wrong.
export class ApiError extends Error {
  constructor(kind, message, advice, wait = 0) {
    super(message);
    Object.assign(this, { kind, advice, wait });
  }
}

// accounts are the names of those that the token may see; "*" is the first if it may see all.
export async function accounts(signal) {
  const body = await json(await send(path, JSON.stringify({ query: "{ viewer { causewayAccounts } }" }), signal));
  return body?.data?.viewer?.causewayAccounts ?? [];
}

// ask sends one query and returns the fields of the account, and with them `visible`, the accounts that the token may see, and `missing`, the
// nodes whose rows the answer lacks.
export async function ask(account, parts, signal) {
  const response = await send(path, request(account, parts), signal);
  return accountOf(await json(response));
}

// follow gives each new answer to `next` until the signal aborts or the server ends the stream.
export async function follow(account, parts, interval, signal, next) {
  const response = await send(`${path}/stream?interval=${interval}`, request(account, parts), signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let buffer = ""; ;) {
    const { done, value } = await reader.read().catch((e) => {
      throw signal.aborted ? e : away();
    });
    if (done) return;
    const events = (buffer + value).split("\n\n");
    buffer = events.pop();
    for (const event of events) {
      const lines = event.split("\n");
      if (lines.includes("event: complete")) return;
      const data = lines.find((l) => l.startsWith("data: "));
      if (data && lines.includes("event: next")) next(accountOf(JSON.parse(data.slice(6))));
    }
  }
}

async function send(url, body, signal) {
  const headers = { "Content-Type": "application/json" };
  if (token.get()) headers.Authorization = `Bearer ${token.get()}`;
  let response;
  try {
    response = await fetch(url, { method: "POST", headers, body, signal, cache: "no-store", credentials: "omit", referrerPolicy: "no-referrer" });
  } catch (e) {
    throw signal?.aborted ? e : away();
  }
  if (!response.ok) throw refused(response, await json(response).catch(() => ({})));
  return response;
}

async function json(response) {
  try {
    return await response.json();
  } catch (e) {
    if (e.name === "AbortError") throw e;
    throw new ApiError(
      "wrong",
      "What came back is no answer of the API.",
      "Something between you and the node answers in its place: look at the proxy's log.",
    );
  }
}

const away = () =>
  new ApiError(
    "away",
    "The node cannot be reached.",
    "Look whether it runs and whether your network leads there. The page tries again by itself.",
    3,
  );

function refused(response, body) {
  const said = body?.errors?.[0]?.message ?? `HTTP status ${response.status}`;
  const wait = Number(response.headers.get("Retry-After")) || 5;
  switch (response.status) {
    case 401:
      return new ApiError(
        "signin",
        token.get() ? "The token is not valid, or no longer." : "This node asks for a token.",
        "Sign in with a token that its operator gave you.",
      );
    case 421:
      return new ApiError("wrong", said, "Open this page as http://localhost with the port in the address, or let the operator configure tokens.");
    case 429:
      return new ApiError(
        "busy",
        "Your token has asked too often in the last five minutes.",
        `The next try is in ${wait} seconds. Live views need fewer queries than reloading.`,
        wait,
      );
    case 503:
      return new ApiError("busy", "The node has too many queries at once.", `The next try is in ${wait} seconds.`, wait);
    case 504:
      return new ApiError("wrong", said, "Choose a shorter time, or a dimension with fewer values.");
  }
  return new ApiError("wrong", said, "If this comes again, tell the operator: the node's log may say more.");
}

function accountOf(body) {
  const account = body?.data?.viewer?.accounts?.[0];
  const errors = body?.errors ?? [];
  if (account && errors.length === 0) return { ...account, visible: body.data.viewer.causewayAccounts, missing: body.extensions?.missingNodes ?? [] };
  const said = errors.map((e) => e.message).join("; ") || "The answer has no data.";
  if (/not authorized for that account/.test(said)) {
    throw new ApiError(
      "account",
      "Your token may not see that account.",
      "Choose one that it may see. Only some tokens may see all (*).",
    );
  }
  if (/could not answer|kept only/.test(said)) {
    throw new ApiError(
      "store",
      "The node's store could not answer.",
      "Choose a later time or fewer filters. If it comes again, tell the operator: the node's log says why.",
    );
  }
  if (/longer than|deadline/.test(said)) throw new ApiError("wrong", said, "Choose a shorter time, or a dimension with fewer values.");
  throw new ApiError("wrong", said, "Remove filters that you have written, or choose another time. If it comes again, tell the operator.");
}
