package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"causeway/control/api"
)

// num writes a count.
func num[T int | uint32 | uint64](n T) string { return strconv.FormatUint(uint64(n), 10) }

// or writes what stands for nothing.
func or(s, nothing string) string {
	if s == "" {
		return nothing
	}
	return s
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func tunnelTable(w io.Writer, tunnels []api.Tunnel) {
	rows := [][]string{{"NAME", "ACCOUNT", "TYPE", "ENDPOINT", "CUSTOMER", "MTU", "MSS", "RX PACKETS", "RX BYTES", "TX PACKETS", "TX BYTES", "DROPS", "ROUTE"}}
	devices := slices.ContainsFunc(tunnels, func(t api.Tunnel) bool { return t.KernelInterface != nil })
	if devices {
		rows[0] = append(rows[0], "DEVICE")
	}
	for _, t := range tunnels {
		mtu := num(t.MTU)
		if t.EffectiveMTU != t.MTU {
			mtu = fmt.Sprintf("%d (%d by path)", t.MTU, t.EffectiveMTU)
		}
		mss := "off"
		if t.MSS4 != 0 {
			const headers4, headers6 = 20 + 20, 40 + 20 // IP and TCP
			mss = fmt.Sprintf("%d/%d", min(t.MSS4, t.EffectiveMTU-headers4), min(t.MSS6, t.EffectiveMTU-headers6))
		}
		rows = append(rows, []string{
			t.Name, t.Account, t.Type, t.Endpoint, t.CustomerEndpoint, mtu, mss,
			num(t.RXPackets), num(t.RXBytes), num(t.TXPackets), num(t.TXBytes), num(t.RXDrops + t.TXDrops), t.Route,
		})
		if devices {
			rows[len(rows)-1] = append(rows[len(rows)-1], deviceWords(t.KernelInterface))
		}
	}
	table(w, rows)
}

// deviceWords says how the host's device of a tunnel is.
func deviceWords(d *api.KernelInterface) string {
	switch {
	case d == nil:
		return "-"
	case d.Problem != "":
		return d.Name + ": " + d.Problem
	case d.Node == "":
		return fmt.Sprintf("%s: %d routes learned, nobody speaks yet", d.Name, d.Learned)
	}
	return fmt.Sprintf("%s: %d routes learned, %s speaks", d.Name, d.Learned, d.Node)
}

// routeTable sorts by account, then prefix: the daemon lists routes as they stand in its tables.
func routeTable(w io.Writer, routes []api.Route) {
	prefixes := make(map[string]netip.Prefix, len(routes))
	for _, r := range routes {
		prefixes[r.Prefix], _ = netip.ParsePrefix(r.Prefix)
	}
	slices.SortStableFunc(routes, func(a, b api.Route) int {
		p, q := prefixes[a.Prefix], prefixes[b.Prefix]
		return cmp.Or(cmp.Compare(a.Account, b.Account), p.Addr().Compare(q.Addr()), cmp.Compare(p.Bits(), q.Bits()), cmp.Compare(a.Priority, b.Priority))
	})
	rows := [][]string{{"PREFIX", "ACCOUNT", "SOURCE", "KIND", "NEXT HOP", "PRIORITY", "WEIGHT", "ACTIVE"}}
	for _, r := range routes {
		active := "no"
		if r.Active {
			active = "yes"
		}
		rows = append(rows, []string{
			r.Prefix, or(r.Account, "(internet)"), r.Source, r.Kind, or(r.NextHop, "-"), priority(r), num(r.Weight), active,
		})
	}
	table(w, rows)
}

func neighbourTable(w io.Writer, neighbours []api.Neighbour) {
	rows := [][]string{{"INTERFACE", "ADDRESS", "MAC", "STATE", "IN USE"}}
	for _, n := range neighbours {
		use := "no"
		if n.Used {
			use = "yes"
		}
		rows = append(rows, []string{n.Interface, n.Address, or(n.MAC, "-"), n.State, use})
	}
	table(w, rows)
}

func workerTable(w io.Writer, all api.Workers) {
	rows := [][]string{{"WORKER", "CORE", "QUEUES", "RECEIVED", "FORWARDED", "DROPPED", "BATCHES", "PER BATCH", "LAST POLL", "LONGEST GAP"}}
	for _, k := range all.Workers {
		per := "-"
		if k.Batches > 0 {
			per = fmt.Sprintf("%.1f", float64(k.Frames.Received)/float64(k.Batches))
		}
		rows = append(rows, []string{
			num(k.Worker), strconv.Itoa(k.CPU), strings.Join(k.Queues, " "), num(k.Frames.Received), num(k.Frames.Forwarded), num(k.Frames.Dropped),
			num(k.Batches), per, seconds(k.LastPollAgo) + " ago", seconds(k.MaxPollGap),
		})
	}
	table(w, rows)
	accountLines(w, all.Total)
}

// accountLines writes the formula by which every frame is accounted for.
func accountLines(w io.Writer, f api.Frames) {
	fmt.Fprintf(w, "\nframes in:  %d = received %d + originated %d + fragments %d\n", f.In, f.Received, f.Originated, f.Fragments)
	fmt.Fprintf(w, "frames out: %d = forwarded %d + delivered %d + punted %d + dropped %d + joined %d + held %d\n",
		f.Out, f.Forwarded, f.Delivered, f.Punted, f.Dropped, f.Joined, f.Held)
}

func seconds(s float64) string {
	return time.Duration(s * float64(time.Second)).Round(10 * time.Microsecond).String()
}

// dropTable leaves out reasons that nothing was dropped for: there are more than a hundred.
// dropTable keeps the reasons of a stage together, the stages in the order in which the list has them first: packet order.
func dropTable(w io.Writer, drops []api.Drop) {
	first := map[string]int{}
	for i, d := range drops {
		if _, seen := first[d.Stage]; !seen {
			first[d.Stage] = i
		}
	}
	slices.SortStableFunc(drops, func(a, b api.Drop) int { return cmp.Compare(first[a.Stage], first[b.Stage]) })
	rows := [][]string{{"PACKETS", "STAGE", "REASON", "MEANING", "RFC"}}
	for _, d := range drops {
		if d.Packets > 0 {
			rows = append(rows, []string{num(d.Packets), d.Stage, d.Reason, d.Sentence, or(d.RFC, "-")})
		}
	}
	if len(rows) == 1 {
		fmt.Fprintln(w, "nothing was dropped")
		return
	}
	table(w, rows)
}

func portTable(w io.Writer, ports []api.Port) {
	rows := [][]string{{"PORT", "DRIVER", "MODE", "MTU", "QUEUE", "WORKER", "RX FULL", "NO FRAME", "RX DROPPED", "TX ERRORS", "LAST ERROR"}}
	for _, p := range ports {
		for _, q := range p.Queues {
			rows = append(rows, []string{
				p.Name, or(p.Driver, "-"), p.Mode, num(p.MTU), num(q.Queue), num(q.Worker), num(q.RxRingFull), num(q.RxFillEmpty),
				num(q.RxDropped), num(q.TxErrors), or(q.LastError, "-"),
			})
		}
	}
	table(w, rows)
	for _, p := range ports {
		if p.Fallback != "" {
			fmt.Fprintf(w, "%s: not faster than %s: %s\n", p.Name, p.Mode, p.Fallback)
		}
		if p.Problem != "" {
			fmt.Fprintln(w, p.Problem)
		}
		var classes []string
		for class, packets := range p.Steered {
			if packets > 0 {
				classes = append(classes, fmt.Sprintf("%s %d", class, packets))
			}
		}
		slices.Sort(classes)
		fmt.Fprintf(w, "%s: packets by class: %s\n", p.Name, or(strings.Join(classes, ", "), "none"))
	}
}

// saTable shows associations; a tunnel of ike has none until it is negotiated.
func saTable(w io.Writer, sas []api.SA, ike []api.IKE) {
	switch {
	case len(sas) == 0 && len(ike) > 0:
		fmt.Fprintln(w, "no tunnel has associations now; what IKE does for each:")
		return
	case len(sas) == 0:
		fmt.Fprintln(w, "there are no IPsec tunnels")
		return
	}
	rows := [][]string{{"TUNNEL", "DIRECTION", "SPI", "ENCRYPTION", "KEY", "ESN", "UDP", "WINDOW", "SEQUENCE", "PACKETS", "REFUSED", "WORKER"}}
	for _, s := range sas {
		window := "-"
		if s.Direction == "in" {
			window = num(s.ReplayWindow)
		}
		var refused []string
		for _, reason := range slices.Sorted(maps.Keys(s.Refused)) {
			refused = append(refused, fmt.Sprintf("%d %s", s.Refused[reason], reason))
		}
		rows = append(rows, []string{s.Tunnel, s.Direction, fmt.Sprintf("%#x", s.SPI), s.Encryption, s.KeyID, yes(s.ESN), yes(s.UDPEncap), window,
			num(s.Sequence), num(s.Packets), or(strings.Join(refused, ", "), "0"), num(s.Worker)})
	}
	table(w, rows)
}

func statusTable(w io.Writer, s api.Status) {
	ready := "ready"
	if !s.Ready {
		ready = "not ready: " + strings.Join(s.NotReady, ", ")
	}
	fmt.Fprintf(w, "node %s, %s\nversion %s, up %s, configuration %s\n", s.Node, ready, s.Version, time.Duration(s.Uptime*float64(time.Second)).Round(time.Second), s.Config)
}

// priority is a route's, with what is added to it.
func priority(r api.Route) string {
	if r.Penalty == 0 {
		return num(r.Priority)
	}
	return num(r.Priority) + "+" + num(r.Penalty)
}

func healthTable(w io.Writer, list []api.Health) {
	if len(list) == 0 {
		fmt.Fprintln(w, "no tunnel is probed: see health_check")
		return
	}
	rows := [][]string{{"TUNNEL", "STATE", "SINCE", "PENALTY", "PROBE", "TO", "EVERY", "PROBES", "LOST", "RTT", "LAST ANSWER", "LAST LOSS"}}
	for _, h := range list {
		row := []string{h.Tunnel, h.State, age(h.Since), num(h.Penalty), h.Type + " " + h.Direction, h.Target, span(h.Interval), num(h.Probes), num(h.Lost),
			span(h.RTT), since(h.LastAnswer), since(h.LastLoss)}
		if h.Type == "" { // BFD alone
			copy(row[4:], []string{"none", "-", "-", "-", "-", "-", "-", "-"})
		}
		rows = append(rows, row)
	}
	table(w, rows)
	for _, h := range list {
		if h.State != "healthy" {
			fmt.Fprintf(w, "%s: %s since %s: %s\n", h.Tunnel, h.State, age(h.Since), h.Why)
		}
		if h.Leg != "" {
			fmt.Fprintf(w, "%s: %s\n", h.Tunnel, h.Leg)
		}
		if h.BFD != nil {
			healthOfSession(w, h.Tunnel, h.BFD)
		}
		if len(h.Datacenters) > 1 && h.Fleet != "healthy" {
			fmt.Fprintf(w, "%s in all data centers together: %s\n", h.Tunnel, h.Fleet)
		}
		for _, d := range h.Datacenters {
			if len(h.Datacenters) > 1 || d.Healthy+d.Degraded+d.Down > 1 { // else it is this node, which has said so
				healthOfDatacenter(w, h.Tunnel, d)
			}
		}
	}
}

// healthOfSession says how BFD finds a tunnel.
func healthOfSession(w io.Writer, tunnel string, b *api.HealthBFD) {
	if b.State == "" {
		fmt.Fprintf(w, "%s: node %s has the session of BFD\n", tunnel, cmp.Or(b.Node, "(nobody)"))
		return
	}
	fmt.Fprintf(w, "%s: BFD is %s since %s, ", tunnel, b.State, age(b.Since))
	switch {
	case b.Received == 0:
		fmt.Fprintf(w, "and the router has never said anything: is BFD configured there?")
	case b.State == "up":
		fmt.Fprintf(w, "and down after %s without a packet;", span(b.Detection))
	default:
		fmt.Fprintf(w, "the last that the router said was %s;", b.Remote)
	}
	fmt.Fprintf(w, " sent %d, received %d, discarded %d", b.Sent, b.Received, b.Wrong)
	if b.WhyWrong != "" {
		fmt.Fprintf(w, " (%s)", b.WhyWrong)
	}
	if b.State != "up" && b.Why != "" {
		fmt.Fprintf(w, "; it went down: %s", b.Why)
	}
	fmt.Fprintln(w)
}

// healthOfDatacenter says how a data center finds a tunnel, if its nodes do not all find it well.
func healthOfDatacenter(w io.Writer, tunnel string, d api.HealthDatacenter) {
	if d.Degraded+d.Down == 0 {
		return
	}
	fmt.Fprintf(w, "%s in %s: %s: %d nodes find it healthy, %d degraded, %d down", tunnel, cmp.Or(d.Datacenter, "this data center"), d.State, d.Healthy, d.Degraded, d.Down)
	if len(d.Disagree) > 0 {
		fmt.Fprintf(w, "; those that do not agree: %s", strings.Join(d.Disagree, ", "))
	}
	fmt.Fprintln(w)
}

func historyTable(w io.Writer, list []api.HealthEvent) {
	if len(list) == 0 {
		fmt.Fprintln(w, "no tunnel's state has changed in the last 30 days, as far as this node knows")
		return
	}
	rows := [][]string{{"TIME", "TUNNEL", "WAS", "IS", "WHY"}}
	for _, e := range list {
		why := e.Why
		if e.Leg != "" {
			why += "; " + e.Leg
		}
		rows = append(rows, []string{e.Time.Local().Format("2006-01-02 15:04:05.000"), e.Tunnel, e.Was, e.State, why})
	}
	table(w, rows)
}

// span is a short time; 0: it is not known.
func span(seconds float64) string {
	if seconds == 0 {
		return "-"
	}
	return time.Duration(seconds * float64(time.Second)).Round(10 * time.Microsecond).String()
}

// since is how long ago something was; less than 0: never.
func since(seconds float64) string {
	if seconds < 0 {
		return "never"
	}
	return age(seconds) + " ago"
}
