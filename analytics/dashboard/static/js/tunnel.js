// What the node knows of a tunnel now: its ends and sizes, its health, and the associations of IPsec.
import { el } from "./dom.js";
import { packets, si, span } from "./format.js";
import { Table, numberColumn, panel, textColumn } from "./panel.js";

// bytes are in powers of ten, as everything else here.
const bytes = (x) => si(x, "B");
const hex = (spi) => `0x${spi.toString(16).padStart(8, "0")}`;
const clamp = (mss) => (mss > 0 ? String(mss) : "not clamped");

// facts is a list of what there is to know of one tunnel.
export function facts(t) {
  if (!t) return el("p", { class: "empty" }, "The node that answers does not have this tunnel now: what follows is what was counted.");
  const h = t.health;
  const smaller = t.effectiveMtu < t.mtu ? ` (configured ${t.mtu}; the path to the customer is narrower)` : "";
  const rows = [
    ["Kind", t.kind === "IPSec" ? "IPsec" : t.kind],
    ["Account", t.account],
    ["Our endpoint", t.endpoint],
    ["Customer endpoint", t.customerEndpoint || "not known yet"],
    ["Address inside", [t.interfaceAddress, t.interfaceAddress6].filter(Boolean).join(", ") || "none"],
    ["Prefixes of the customer", t.prefixes.join(", ") || "none"],
    ["MTU", `${t.effectiveMtu} bytes${smaller}`],
    ["MSS of TCP", `IPv4 ${clamp(t.mssIPv4)}, IPv6 ${clamp(t.mssIPv6)}`],
    ["Way to the customer", { ok: "there is a route", unresolved: "the next hop does not answer", none: "no route" }[t.routeState] ?? t.routeState],
    ["Health", h ? state(h) : "not probed"],
    h && ["Probes", `${h.probes} sent, ${h.lost} lost`],
    h?.rttMicroseconds > 0 && ["Round trip", `${(h.rttMicroseconds / 1000).toPrecision(3)}\u00a0ms`],
    h?.bfdState && ["BFD", h.bfdState],
    t.ikeFailure && ["IKE failed", t.ikeFailure],
    t.ikeElsewhere.length > 0 && ["IKE at other nodes", t.ikeElsewhere.join(", ")],
    ["Told by", t.edgePopName],
  ];
  return el(
    "dl",
    { class: "facts", "aria-label": "The tunnel now" },
    rows.filter(Boolean).map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))),
  );
}

function state(h) {
  const known = ["healthy", "degraded", "down"].includes(h.state) ? h.state : "";
  const elsewhere = h.fleetState && h.fleetState !== h.state ? `; all data centers together: ${h.fleetState}` : "";
  return [el("span", { class: `state ${known}` }, h.state), ` for ${span(h.sinceSeconds)}${h.why ? `: ${h.why}` : ""}${elsewhere}`];
}

// Associations are those of IKE and of ESP of a tunnel with IPsec.
export class Associations {
  // fields are what is asked for of the tunnel.
  static fields = `tunnelName account kind edgePopName endpoint customerEndpoint interfaceAddress interfaceAddress6
    prefixes mtu effectiveMtu mssIPv4 mssIPv6 routeState ikeFailure ikeElsewhere health { state why fleetState sinceSeconds probes lost rttMicroseconds bfdState }
    ikeSas { state role suite peerAddress peerIdentity natPeer ageSeconds rekeyInSeconds pairs { state spiIn spiOut ageSeconds rekeyInSeconds } }
    espSas { direction encryption spi packets bytes refusedPackets esn udpEncapsulation }`;

  constructor(page) {
    const age = (name, f) => numberColumn(`${name}, s`, f, (x) => (x === null ? "–" : span(x)));
    this.ike = new Table({
      id: "ike",
      caption: "IKE associations of the tunnel",
      change: page.table,
      empty: "There is no association of IKE at this node. Nothing is negotiated if keys are configured.",
      columns: [
        textColumn("Peer", (s) => s.peerIdentity || "not proved yet"),
        textColumn("Address", (s) => `${s.peerAddress}${s.natPeer ? " (behind NAT)" : ""}`),
        textColumn("State", (s) => `${s.state}, ${s.role}`),
        textColumn("Suite", (s) => s.suite),
        age("Age", (s) => s.ageSeconds),
        age("Rekey in", (s) => s.rekeyInSeconds),
        numberColumn("Pairs", (s) => s.pairs.length, String),
      ],
    });
    this.esp = new Table({
      id: "esp",
      caption: "IPsec associations of the tunnel",
      change: page.table,
      empty: "There is no association of ESP: the tunnel carries nothing.",
      columns: [
        textColumn("SPI", (a) => hex(a.spi)),
        textColumn("Direction", (a) => ({ in: "from the customer", out: "to the customer" })[a.direction] ?? a.direction),
        textColumn("State", (a) => a.pair?.state ?? "configured"),
        textColumn("Encryption", (a) => [a.encryption, a.esn && "ESN", a.udpEncapsulation && "UDP"].filter(Boolean).join(" ")),
        numberColumn("Packets", (a) => a.packets, packets),
        numberColumn("Bytes", (a) => a.bytes, bytes),
        numberColumn("Refused, packets", (a) => a.refusedPackets, packets),
        age("Age", (a) => a.pair?.ageSeconds ?? null),
        age("Rekey in", (a) => a.pair?.rekeyInSeconds ?? null),
      ],
    });
    this.root = el(
      "div",
      { class: "grid" },
      panel("IKE associations of the tunnel", this.ike.root, () => this.ike.table()),
      panel("IPsec associations of the tunnel", this.esp.root, () => this.esp.table()),
    );
  }

  // set shows those of a tunnel; of one without IPsec nothing.
  set(t, state) {
    this.root.hidden = t?.kind !== "IPSec";
    if (this.root.hidden) return;
    const pairs = t.ikeSas.flatMap((s) => s.pairs);
    this.ike.set(t.ikeSas, state.tables.ike ?? "");
    this.esp.set(
      t.espSas.map((a) => ({ ...a, pair: pairs.find((p) => (a.direction === "in" ? p.spiIn : p.spiOut) === a.spi) })),
      state.tables.esp ?? "",
    );
  }
}
