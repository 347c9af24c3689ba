package main_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"causeway/scripts/hosts"
)

// A greTunnel is one tunnel between the node and the guest, and a network of its own behind the guest.
type greTunnel struct {
	tunnel
	number int
	words  []string            // of ip link
	second bool                // its network is behind vec2, not vec1
	mtu    int                 // that magic-transit's table gives: 1500 less the outer headers
	esp    func(outer int) int // IPsec alone: the largest inner packet
	v6     bool                // outer
	key    string              // as tshark prints it; empty without
	csum   bool
	seq    bool
}

// newTunnel makes tunnel k. Extra are further lines of the configuration, words those of ip link for the same.
func newTunnel(k int, name, endpoint string, extra []string, words ...string) greTunnel {
	x := greTunnel{number: k, words: words, mtu: 1500 - 20 - 4}
	x.name, x.endpoint, x.customer, x.extra = name, endpoint, fmt.Sprintf("198.51.100.%d", 10+k), extra
	if addr(endpoint).Is6() {
		x.v6, x.mtu, x.customer = true, 1500-40-4, fmt.Sprintf("2001:db8:c::%d", 10+k)
	}
	x.interface4, x.customer4 = fmt.Sprintf("10.213.%d.0/31", k), fmt.Sprintf("10.213.%d.1", k)
	x.interface6, x.customer6 = fmt.Sprintf("fd00:213:%d::a/127", k), fmt.Sprintf("fd00:213:%d::b", k)
	x.prefixes = []string{fmt.Sprintf("198.18.%d.0/24", k), fmt.Sprintf("2001:db8:18:%d::/64", k)}
	for _, w := range words {
		switch w {
		case "key":
			x.key = "0x0000002a"
		case "csum":
			x.csum = true
		case "seq":
			x.seq = true
		default:
			continue
		}
		x.mtu -= 4
	}
	return x
}

// greTunnels are both outer families with every optional field, and Linux's ip6gre once without the destination option
// that it puts before GRE by default.
func greTunnels() []greTunnel {
	var list []greTunnel
	for _, endpoint := range []string{endpoint4, endpoint6} {
		family := "v4"
		if endpoint == endpoint6 {
			family = "v6"
		}
		add := func(name string, extra []string, words ...string) {
			list = append(list, newTunnel(len(list)+1, family+"-"+name, endpoint, extra, words...))
		}
		add("plain", nil)
		add("key", []string{"key: 42"}, "key", "42")
		add("checksum", []string{"checksum: true"}, "csum")
		add("sequence", []string{"sequence: true"}, "seq")
		add("all", []string{"key: 42", "checksum: true", "sequence: true"}, "key", "42", "csum", "seq")
	}
	return append(list, newTunnel(len(list)+1, "v6-no-option", endpoint6, nil, "encaplimit", "none"))
}

// fits is the largest inner packet whose outer one has at most so many bytes.
func (x *greTunnel) fits(outer int) int {
	if x.esp != nil {
		return x.esp(outer)
	}
	return x.mtu - 1500 + outer
}

func (x *greTunnel) behind4() netip.Addr { return addr(fmt.Sprintf("198.18.%d.10", x.number)) }
func (x *greTunnel) behind6() netip.Addr { return addr(fmt.Sprintf("2001:db8:18:%d::10", x.number)) }

// guestTunnels gives the guest the other ends of the tunnels and their networks. What such a network sends leaves by its
// tunnel.
func (b *bed) guestTunnels(t *testing.T, tunnels []greTunnel) {
	t.Helper()
	var links, four, six []string
	for _, x := range tunnels {
		k, dev, kind, nic := x.number, fmt.Sprintf("g%d", x.number), "gre", "vec1"
		if x.second {
			nic = "vec2"
		}
		if x.v6 {
			kind = "ip6gre"
			six = append(six, "addr add "+x.customer+"/64 dev vec0 nodad")
		} else {
			four = append(four, "addr add "+x.customer+"/24 dev vec0")
		}
		ttl := "ttl 64"
		if slices.Contains(x.words, "nopmtudisc") {
			ttl = "ttl inherit" // else DF is set whatever else is said
		}
		links = append(links, fmt.Sprintf("link add %s type %s local %s remote %s %s %s", dev, kind, x.customer, x.endpoint, ttl,
			strings.Join(x.words, " ")), "link set "+dev+" up")
		four = append(four, fmt.Sprintf("addr add 198.18.%d.1/24 dev %s", k, nic),
			fmt.Sprintf("addr add %s/31 dev %s", x.customer4, dev),
			fmt.Sprintf("route add default dev %s table %d", dev, 100+k),
			fmt.Sprintf("rule add from 198.18.%d.0/24 iif %s lookup %d", k, nic, 100+k))
		six = append(six, fmt.Sprintf("addr add 2001:db8:18:%d::1/64 dev %s nodad", k, nic),
			fmt.Sprintf("addr add %s/127 dev %s nodad", x.customer6, dev),
			fmt.Sprintf("route add default dev %s table %d", dev, 100+k),
			fmt.Sprintf("rule add from 2001:db8:18:%d::/64 iif %s lookup %d", k, nic, 100+k))
	}
	text := ""
	for family, lines := range [][]string{links, four, six} {
		text += fmt.Sprintf("ip %s -batch - <<'END' || exit\n%s\nEND\n", []string{"", "-4", "-6"}[family], strings.Join(lines, "\n"))
	}
	b.sh(t, text)
	gateways := map[*hosts.Host]bool{}
	for _, x := range tunnels {
		h := b.server(&x)
		must(t, h, "ip", "addr", "add", x.behind4().String()+"/24", "dev", "eth0")
		must(t, h, "ip", "addr", "add", x.behind6().String()+"/64", "dev", "eth0", "nodad")
		if !gateways[h] {
			gateways[h] = true
			must(t, h, "ip", "-4", "route", "replace", "default", "via", fmt.Sprintf("198.18.%d.1", x.number))
			must(t, h, "ip", "-6", "route", "replace", "default", "via", fmt.Sprintf("2001:db8:18:%d::1", x.number))
		}
	}
}

// server is the host behind a tunnel.
func (b *bed) server(x *greTunnel) *hosts.Host {
	if x.second {
		return b.srv2
	}
	return b.srv
}

func plain(tunnels []greTunnel) []tunnel {
	var list []tunnel
	for _, x := range tunnels {
		list = append(list, x.tunnel)
	}
	return list
}

// flows are all pairs of the Internet host and a host behind a tunnel, both families, in one direction.
func (b *bed) flows(tunnels []greTunnel, fromInternet bool) []flow {
	var list []flow
	for _, x := range tunnels {
		for _, f := range []flow{
			{x.name + " IPv4", b.inet, addr(inet4), b.server(&x), x.behind4(), nil},
			{x.name + " IPv6", b.inet, addr(inet6), b.server(&x), x.behind6(), nil},
		} {
			if !fromInternet {
				f.client, f.from, f.server, f.to = f.server, f.to, f.client, f.from
			}
			list = append(list, f)
		}
	}
	return list
}

// TestRootLinuxCustomer runs a node against a customer's router that is a Linux kernel.
func TestRootLinuxCustomer(t *testing.T) {
	b := newBed(t, bedOptions{guest: true})
	tunnels := greTunnels()
	b.guestTunnels(t, tunnels)
	b.run(t, b.configuration(plain(tunnels)))

	b.warm(t, tunnels)
	b.part(t, "ping", func(t *testing.T) { b.testPing(t, tunnels) })
	b.part(t, "mss", func(t *testing.T) { b.testMSS(t, tunnels, fits) })
	b.part(t, "transfer", func(t *testing.T) { b.testTransfer(t, tunnels) })
	b.part(t, "path mtu", func(t *testing.T) { b.testPathMTU(t, tunnels) })
	b.part(t, "fragments", func(t *testing.T) { b.testFragments(t, tunnels) })
	b.part(t, "interfaces", func(t *testing.T) { b.testInterfaces(t, tunnels) })
	b.part(t, "traceroute", func(t *testing.T) { b.testTraceroute(t, []greTunnel{tunnels[0], tunnels[9]}) })
	b.part(t, "narrow path", func(t *testing.T) { b.testNarrowPath(t, tunnels) })

	odd := newOddTunnels()
	b.guestTunnels(t, odd.all())
	b.sh(t, fmt.Sprintf("ip link set g%d mtu 1500", odd.fragments.number))
	b.run(t, b.configuration(plain(odd.all())))
	b.warm(t, odd.all())
	b.part(t, "outer fragments", func(t *testing.T) { b.testOuterFragments(t, odd.fragments) })
	b.part(t, "small tunnels", func(t *testing.T) { b.testSmallTunnels(t, odd.small4, odd.small6) })
	b.part(t, "df clear", func(t *testing.T) { b.testClearDF(t, odd.clearDF) })
	b.part(t, "clamp off", func(t *testing.T) {
		b.testMSS(t, []greTunnel{odd.clampOff}, func(*greTunnel) (v4, v6 int) { return 1460, 1440 })
	})
	b.part(t, "lateral", func(t *testing.T) { b.testLateral(t, odd.lateral1, odd.lateral2) })
	b.part(t, "link down", func(t *testing.T) { b.testLinkDown(t, odd.lateral2) })
	b.part(t, "kill", func(t *testing.T) { b.testKill(t, odd.lateral2) })
	b.part(t, "terminate", func(t *testing.T) { b.testTerminate(t, odd.lateral2) })

	few := fewTunnels(51)
	b.guestTunnels(t, few)
	for _, c := range queueCases() {
		b.part(t, fmt.Sprintf("queues %d and %d, cores %s", c.queues0, c.queues1, c.cpus), func(t *testing.T) {
			b.testQueues(t, few, c.queues0, c.queues1, c.cpus)
		})
	}
	b.part(t, "numbers", func(t *testing.T) { b.testNumbers(t, few) })
	b.end(t)
}

// A queueCase is the queues of the two ports, and the cores of the workers.
type queueCase struct {
	queues0, queues1 int
	cpus             string
}

// queueCases are unequal numbers of queues with two workers; in full, all numbers and one worker too.
func queueCases() []queueCase {
	if !full() {
		return []queueCase{{4, 1, "[0, 1]"}, {1, 4, "[0, 1]"}}
	}
	var list []queueCase
	for _, q0 := range []int{1, 2, 4} {
		for _, q1 := range []int{1, 2, 4} {
			for _, cpus := range []string{"[0]", "[0, 1]"} {
				list = append(list, queueCase{q0, q1, cpus})
			}
		}
	}
	return list
}

// fewTunnels are four of different kinds, with numbers from k on.
func fewTunnels(k int) []greTunnel {
	everything := []string{"key: 42", "checksum: true", "sequence: true"}
	return []greTunnel{
		newTunnel(k, "plain4", endpoint4, nil),
		newTunnel(k+1, "all4", endpoint4, everything, "key", "42", "csum", "seq"),
		newTunnel(k+2, "checksum6", endpoint6, []string{"checksum: true"}, "csum"),
		newTunnel(k+3, "all6", endpoint6, everything, "key", "42", "csum", "seq"),
	}
}

// warm sends until an answer comes through each tunnel. Packets whose next hop has not answered ARP or neighbour discovery
// yet may be lost, for that reason alone.
func (b *bed) warm(t *testing.T, tunnels []greTunnel) {
	t.Helper()
	before := b.drops(t)
	for _, f := range b.flows(tunnels, true) {
		eventually(t, f.name+" is answered", func() bool {
			_, err := b.inet.Run("ping", "-c1", "-W1", f.to.String())
			return err == nil
		})
	}
	drops := b.newDrops(t, before)
	delete(drops, "neighbour_unresolved")
	if len(drops) != 0 {
		t.Errorf("the first packets were dropped for %v", drops)
	}
}

func (b *bed) testPing(t *testing.T, tunnels []greTunnel) {
	pingAll(t, 3, append(b.flows(tunnels, true), b.flows(tunnels, false)...))
	b.balance(t)
}

// testMSS opens a connection each way through every tunnel; the SYNs at both ends tell the clamp. It comes before the
// transfers, in which a host may learn a path MTU and offer less by itself.
func (b *bed) testMSS(t *testing.T, tunnels []greTunnel, want func(*greTunnel) (v4, v6 int)) {
	const syn = "tcp[13] & 2 != 0 or (ip6[6] = 6 and ip6[53] & 2 != 0)"
	b.forgetPaths(t)
	atInet, atServer := b.inet.Capture("eth0", syn), b.srv.Capture("eth0", syn)
	b.transferAll(t, append(b.flows(tunnels, true), b.flows(tunnels, false)...), 1)
	b.judgeMSS(t, atInet.Stop(), tunnels, true, want)
	b.judgeMSS(t, atServer.Stop(), tunnels, false, want)
}

// fits is the MSS that a tunnel carries: its MTU less the headers of IP and TCP.
func fits(x *greTunnel) (v4, v6 int) { return x.mtu - 40, x.mtu - 60 }

// testTransfer sends data both ways through every tunnel. tshark judges each packet on the wire between the node and the
// customer, and the Linux kernel counts what it did not like.
func (b *bed) testTransfer(t *testing.T, tunnels []greTunnel) {
	size := 1 << 20
	if full() {
		size = 4 << 20
	}
	wire := b.rt.Capture("n1", "proto 47 or ip6 proto 47 or ip6 proto 60")
	b.transferAll(t, append(b.flows(tunnels, true), b.flows(tunnels, false)...), size)
	b.judgeGRE(t, wire.Stop(), tunnels)
	b.judgeGuest(t)
	b.balance(t)
}

func (b *bed) transferAll(t *testing.T, flows []flow, size int) {
	t.Helper()
	for _, f := range flows {
		if err := transfer(f, size); err != nil {
			t.Errorf("%s: %d bytes from %s to %s: %v", f.name, size, f.from, f.to, err)
		}
	}
}

// judgeGRE looks at every packet between node and customer.
func (b *bed) judgeGRE(t *testing.T, pcap string, tunnels []greTunnel) {
	t.Helper()
	// 0xffff is zero in ones-complement, and Linux writes it so when it sums in software; tshark disagrees.
	const wrong = "ip.checksum.status == 0 || gre.checksum.status == 0 || (tcp.checksum.status == 0 && tcp.checksum != 0xffff)"
	if bad := b.net.Tshark(pcap, wrong, "frame.number", "frame.protocols", "ip.src", "ipv6.src"); len(bad) != 0 {
		t.Errorf("%d packets with a wrong checksum, the first: %q", len(bad), bad[0])
	}
	byCustomer := map[string]*greTunnel{}
	for i := range tunnels {
		byCustomer[tunnels[i].customer] = &tunnels[i]
	}
	sent, received := map[string]int{}, map[string]int{}
	next := map[string]int{}
	for _, r := range b.net.Tshark(pcap, "gre", "ip.src", "ip.dst", "ipv6.src", "ipv6.dst", "gre.key", "gre.checksum.status",
		"gre.sequence_number", "ip.ttl", "ipv6.hlim", "ipv6.opt.type", "ip.flags.df") {
		src, dst, ttl := first(r[0]), first(r[1]), first(r[7])
		if src != endpoint4 && dst != endpoint4 { // outer IPv6
			src, dst, ttl = first(r[2]), first(r[3]), first(r[8])
		}
		x := byCustomer[dst]
		if x == nil {
			if x = byCustomer[src]; x == nil {
				t.Fatalf("a GRE packet of nobody: %v", r)
			}
			received[x.name]++
			if option, want := r[9] != "", x.v6 && !slices.Contains(x.words, "none"); option != want {
				t.Fatalf("%s: Linux sends a destination option: %v, want %v", x.name, option, want)
			}
			continue
		}
		sent[x.name]++
		checksum := ""
		if x.csum {
			checksum = "1"
		}
		if r[4] != x.key || r[5] != checksum || ttl != "64" {
			t.Fatalf("%s: key %q, checksum status %q, outer TTL %s; want %q, %q, 64", x.name, r[4], r[5], ttl, x.key, checksum)
		}
		if (r[6] != "") != x.seq {
			t.Fatalf("%s: sequence number %q", x.name, r[6])
		}
		if x.seq {
			n, err := strconv.Atoi(r[6])
			if before, ok := next[x.name]; err != nil || ok && n != before {
				t.Fatalf("%s: sequence number %s follows %d: %v", x.name, r[6], before-1, err)
			}
			next[x.name] = n + 1
		}
	}
	for _, x := range tunnels {
		if sent[x.name] == 0 || received[x.name] == 0 {
			t.Errorf("%s: tshark saw %d packets to the customer and %d from it", x.name, sent[x.name], received[x.name])
		}
	}
}

// first is the outermost of the values that tshark prints for a field.
func first(values string) string {
	v, _, _ := strings.Cut(values, ",")
	return v
}

// judgeMSS looks at the SYNs and SYN-ACKs at one end. Each host offers what its link carries, and is offered exactly what
// the tunnel carries.
func (b *bed) judgeMSS(t *testing.T, pcap string, tunnels []greTunnel, atInet bool, want func(*greTunnel) (v4, v6 int)) {
	t.Helper()
	seen := map[string]int{} // source and destination -> MSS
	for _, r := range b.net.Tshark(pcap, "tcp.flags.syn == 1", "ip.src", "ip.dst", "ipv6.src", "ipv6.dst", "tcp.options.mss_val", "tcp.checksum.status") {
		mss, err := strconv.Atoi(r[4])
		key := r[0] + r[2] + " " + r[1] + r[3]
		if before, ok := seen[key]; err != nil || r[5] != "1" || ok && before != mss {
			t.Fatalf("SYN %s with MSS %q (before %d), checksum status %s", key, r[4], before, r[5])
		}
		seen[key] = mss
	}
	for i := range tunnels {
		x := &tunnels[i]
		v4, v6 := want(x)
		for _, c := range []struct {
			near, far string
			own, from int
		}{
			{inet4, x.behind4().String(), 1460, v4},
			{inet6, x.behind6().String(), 1440, v6},
		} {
			near, far := c.near, c.far
			if !atInet {
				near, far = far, near
			}
			if out, in := seen[near+" "+far], seen[far+" "+near]; out != c.own || in != c.from {
				t.Errorf("%s: at %s: the host offers MSS %d to %s and is offered %d; want %d and %d", x.name, near, out, far, in, c.own, c.from)
			}
		}
	}
}

// judgeGuest asks the customer's kernel what it did not accept: errors are wrong keys, checksums, or sequence numbers.
func (b *bed) judgeGuest(t *testing.T) {
	t.Helper()
	out := b.sh(t, "for i in /sys/class/net/g*; do echo ${i##*/} $(cat $i/statistics/rx_errors $i/statistics/rx_packets); done")
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if f[0] == "gre0" || f[0] == "gretap0" {
			continue
		}
		if len(f) != 3 || f[1] != "0" || f[2] == "0" {
			t.Errorf("the guest's %s: device, receive errors and packets; want no error and some packets", strings.TrimSpace(line))
		}
	}
}
