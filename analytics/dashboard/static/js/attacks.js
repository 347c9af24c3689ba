// What pages say of attacks.
import { part } from "./api.js";
import { el } from "./dom.js";
import { bitRate, iso, packetRate, packets, seconds, si, span } from "./format.js";
import { numberColumn, textColumn, timeColumn } from "./panel.js";

// attackParts asks for the attacks that were under way in the time: they began before its end, and did not end before its beginning. One
// that goes on has no end, which is later than any time. A bound of days before spares the store looking through all that it keeps.
export function attackParts(w, limit, days = 0) {
  const filter = w.live ? { endDatetime_geq: "-30m" } : { startDatetime_lt: iso(w.end), endDatetime_geq: iso(w.from) };
  if (days > 0) filter.startDatetime_geq = w.live ? `-${days * 24}h` : iso(Math.max(0, w.from - days * 86400));
  return [
    part(
      "attacks",
      "attacks",
      filter,
      limit,
      "startDatetime_DESC",
      `attackId attackType attackVector commonTcpFlagsNames sourceIp sourcePort destinationIp destinationPort ipProtocolName
     startDatetime endDatetime coloCode bits packets droppedPackets mitigationType`,
    ),
  ];
}

export const began = (a) => seconds(a.startDatetime);
export const ended = (a) => (a.endDatetime ? seconds(a.endDatetime) : NaN);

// lasted is how long it went on, in seconds.
export const lasted = (a) => Math.max(1, (a.endDatetime ? seconds(a.endDatetime) : Date.now() / 1000) - began(a));

const host = (address, port) => (port ? (address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`) : address);

// around is the link to the packets of an attack.
function around(page, a) {
  const to = (a.endDatetime ? ended(a) : Date.now() / 1000) + 60;
  return page.link("explorer", {
    range: "custom",
    from: iso(began(a) - 60),
    to: new Date(to * 1000).toISOString(),
    filters: [{ dim: "ipDestinationAddress", op: "is", value: a.destinationIp }],
  });
}

// attackColumns are the first columns of a table of attacks.
export function attackColumns(page) {
  return [
    timeColumn("Began", began),
    textColumn("Vector", (a) => a.attackVector),
    textColumn(
      "Target",
      (a) => host(a.destinationIp, a.destinationPort),
      (a) => el("a", { href: around(page, a) }, host(a.destinationIp, a.destinationPort)),
    ),
    {
      ...numberColumn("Lasted, s", lasted, span),
      show: (a) => (a.endDatetime ? span(lasted(a)) : el("strong", { class: "bad" }, `under way, ${span(lasted(a))}`)),
    },
    numberColumn("Packets", (a) => a.packets, packets),
    numberColumn(
      "Bits",
      (a) => a.bits,
      (x) => si(x, "bit"),
    ),
  ];
}

// moreColumns are what only the page of attacks shows.
export function moreColumns() {
  return [
    numberColumn("Mean rate, packets/s", (a) => a.packets / lasted(a), packetRate, "Packet rate"),
    numberColumn("Mean rate, bit/s", (a) => a.bits / lasted(a), bitRate, "Bit rate"),
    numberColumn("Dropped packets", (a) => a.droppedPackets, packets),
    textColumn("Kind", (a) => a.attackType),
    textColumn("Protocol", (a) => [a.ipProtocolName, a.commonTcpFlagsNames].filter(Boolean).join(" ")),
    textColumn("Main source", (a) => host(a.sourceIp, a.sourcePort)),
    textColumn("Mitigation", (a) => a.mitigationType || "none"),
    textColumn("Data center", (a) => a.coloCode),
    { ...timeColumn("Ended", ended), show: (a) => (a.endDatetime ? timeColumn("Ended", ended).show(a) : "goes on") },
    textColumn("ID", (a) => a.attackId),
  ];
}
