package main_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"causeway/control/api"
)

// headers of an echo request, in bytes
const (
	echo4 = 20 + 8
	echo6 = 40 + 8
)

// testPathMTU sends packets that the customer's tunnel can not carry. The sender is told by how much, and what it then
// sends fits: path MTU discovery as the Linux kernel does it.
func (b *bed) testPathMTU(t *testing.T, tunnels []greTunnel) {
	b.forgetPaths(t)
	errors := b.inet.Capture("eth0", "icmp[0] = 3 or (ip6[6] = 58 and ip6[40] = 2)")
	var wg sync.WaitGroup
	for _, x := range tunnels {
		wg.Go(func() { b.learnPath(t, x.name, x.behind4(), 1500, x.mtu, echo4) })
		wg.Go(func() { b.learnPath(t, x.name, x.behind6(), 1500, x.mtu, echo6) })
	}
	wg.Wait()
	pcap := errors.Stop()
	b.wantErrors(t, pcap, "icmp.type == 3 && icmp.code == 4 && icmp.checksum.status == 1", endpoint4, "icmp.mtu", tunnels, (*greTunnel).behind4)
	b.wantErrors(t, pcap, "icmpv6.type == 2 && icmpv6.checksum.status == 1", endpoint6, "icmpv6.mtu", tunnels, (*greTunnel).behind6)
}

// learnPath sends a packet that is too large and must be lost, and then those that must fit.
func (b *bed) learnPath(t *testing.T, name string, to netip.Addr, size, mtu, headers int) {
	f := flow{name, b.inet, addr(inet4), b.srv, to, []string{"-M", "do", "-s", strconv.Itoa(mtu - headers)}}
	if to.Is6() {
		f.from = addr(inet6)
	}
	if out, err := b.inet.Run("ping", "-c1", "-W2", "-M", "do", "-s", strconv.Itoa(size-headers), to.String()); err == nil {
		t.Errorf("%s: a packet of %d bytes to %s passed:\n%s", name, size, to, out)
	}
	out, err := b.inet.Run("ip", "route", "get", to.String())
	if want := fmt.Sprintf(" mtu %d ", mtu); err != nil || !strings.Contains(out, want) {
		t.Errorf("%s: ip route get %s: %v, %s; want%s", name, to, err, out, want)
	}
	if to.Is6() {
		// The way back may be narrower by the destination option, which Linux then has to learn too.
		b.inet.Run("ping", "-c1", "-W1", "-M", "do", "-s", strconv.Itoa(mtu-headers), to.String())
	}
	if err := ping(f, 2); err != nil {
		t.Errorf("%s: a packet of %d bytes: %v", name, mtu, err)
	}
}

// wantErrors checks that each destination had exactly one error, from the endpoint, with the exact MTU.
func (b *bed) wantErrors(t *testing.T, pcap, filter, from, field string, tunnels []greTunnel, behind func(*greTunnel) netip.Addr) {
	t.Helper()
	got := map[string]string{} // destination of the packet that the error is about -> MTU
	for _, r := range b.net.Tshark(pcap, filter, "ip.src", "ip.dst", "ipv6.src", "ipv6.dst", field) {
		src, dst := r[0], r[1]
		if src == "" {
			src, dst = r[2], r[3]
		}
		if first(src) != from {
			t.Errorf("an error from %s, want %s", first(src), from)
		}
		_, quoted, _ := strings.Cut(dst, ",")
		if got[quoted] != "" {
			t.Errorf("two errors about packets to %s", quoted)
		}
		got[quoted] = r[4]
	}
	for i := range tunnels {
		if to := behind(&tunnels[i]).String(); got[to] != strconv.Itoa(tunnels[i].mtu) {
			t.Errorf("%s: packets to %s: the error says MTU %q, want %d", tunnels[i].name, to, got[to], tunnels[i].mtu)
		}
	}
	if len(got) != len(tunnels) {
		t.Errorf("errors about %d destinations, want %d", len(got), len(tunnels))
	}
}

// forgetPaths makes the hosts forget the path MTUs that they have learned.
func (b *bed) forgetPaths(t *testing.T) {
	t.Helper()
	for _, family := range []string{"-4", "-6"} {
		must(t, b.inet, "ip", family, "route", "flush", "cache")
		must(t, b.srv, "ip", family, "route", "flush", "cache")
	}
}

// testFragments sends datagrams that may be fragmented. They arrive whole, in pieces that fit the tunnel exactly.
func (b *bed) testFragments(t *testing.T, tunnels []greTunnel) {
	b.forgetPaths(t)
	wire := b.rt.Capture("n1", "proto 47 or ip6 proto 47 or ip6 proto 60")
	flows := slices.Concat(b.flows(tunnels, true), b.flows(tunnels, false))
	for i := range flows {
		flows[i].pingArguments = []string{"-s", "3000", "-M", "dont"}
	}
	// IPv6 routers do not fragment: a sender has to know the path, which testPathMTU shows. Here IPv4 alone.
	pingAll(t, 2, slices.DeleteFunc(flows, func(f flow) bool { return f.to.Is6() }))
	pcap := wire.Stop()
	most, more := map[string]int{}, map[string]int{} // by inner destination
	for _, r := range b.net.Tshark(pcap, "gre && ip.dst == 198.18.0.0/16", "ip.dst", "ip.len", "ip.flags.mf", "ip.flags.df") {
		to := r[0][strings.LastIndex(r[0], ",")+1:]
		most[to] = max(most[to], last(t, r[1]))
		more[to] += last(t, r[2])
		if last(t, r[3]) != 0 {
			t.Errorf("an inner fragment to %s with DF", to)
		}
	}
	for _, x := range tunnels {
		to := x.behind4().String()
		// Pieces are multiples of 8 behind 20 bytes of header.
		if want := (x.mtu-20)/8*8 + 20; most[to] != want || more[to] == 0 {
			t.Errorf("%s: the largest inner fragment has %d bytes, want %d; %d have more fragments behind them", x.name, most[to], want, more[to])
		}
	}
	if lost := b.balance(t).Held; lost != 0 {
		t.Errorf("%d frames are held", lost)
	}
}

// last is the innermost of the values that tshark prints for a field.
func last(t *testing.T, values string) int {
	t.Helper()
	n, err := strconv.Atoi(values[strings.LastIndex(values, ",")+1:])
	if err != nil {
		t.Fatalf("tshark: %q: %v", values, err)
	}
	return n
}

// testNarrowPath makes the customer's access line narrower than any tunnel's MTU. The router in front of it, a Linux kernel,
// tells the endpoint, and the tunnels shrink.
func (b *bed) testNarrowPath(t *testing.T, tunnels []greTunnel) {
	b.forgetPaths(t)
	const narrow = 1400
	must(t, b.rt, "ip", "link", "set", "dev", "vc", "mtu", strconv.Itoa(narrow))
	defer func() { must(t, b.rt, "ip", "link", "set", "dev", "vc", "mtu", "1500") }()
	// The customer knows its line, and so do its tunnels.
	const each = "for i in /sys/class/net/g[1-9]*; do [ -e $i ] && ip link set ${i##*/} mtu $(($(cat $i/mtu) %s)); done; true"
	b.sh(t, "ip link set vec0 mtu 1400; "+fmt.Sprintf(each, "- 100"))
	defer b.sh(t, "ip link set vec0 mtu 1500; "+fmt.Sprintf(each, "+ 100"))
	reports := b.rt.Capture("n1", "(icmp[0] = 3 and icmp[1] = 4) or (ip6[6] = 58 and ip6[40] = 2)")
	// As large as the tunnels carry: the outer packets are 1500 bytes, which the router refuses.
	var wg sync.WaitGroup
	for _, x := range tunnels {
		wg.Go(func() {
			b.inet.Run("ping", "-c1", "-W1", "-M", "do", "-s", strconv.Itoa(x.mtu-echo4), x.behind4().String())
		})
	}
	wg.Wait()
	learned := func(x *greTunnel) int { return x.fits(narrow) }
	eventually(t, "effective_mtu of every tunnel is what the narrow line leaves", func() bool {
		for _, s := range show[[]api.Tunnel](t, b, "tunnels") {
			i := slices.IndexFunc(tunnels, func(x greTunnel) bool { return x.name == s.Name })
			if s.EffectiveMTU != learned(&tunnels[i]) || s.PathMTU != s.EffectiveMTU || s.MTU != tunnels[i].mtu {
				t.Logf("%s: mtu %d, path_mtu %d, effective_mtu %d", s.Name, s.MTU, s.PathMTU, s.EffectiveMTU)
				return false
			}
		}
		return true
	})
	pcap := reports.Stop()
	outer := map[bool]int{} // tunnels by family
	for _, x := range tunnels {
		outer[x.v6]++
	}
	for v6, filter := range map[bool]string{false: "icmp.type == 3 && icmp.mtu == 1400 && ip.dst == " + endpoint4, true: "icmpv6.type == 2 && icmpv6.mtu == 1400 && ipv6.dst == " + endpoint6} {
		if got := b.net.Tshark(pcap, filter, "frame.number"); len(got) != outer[v6] {
			t.Errorf("the router's kernel sent %d errors %s, want %d", len(got), filter, outer[v6])
		}
	}
	// The Internet hears of it at the next packet, and TCP by the clamp.
	for _, x := range tunnels {
		wg.Go(func() { b.learnPath(t, x.name, x.behind4(), x.mtu, learned(&x), echo4) })
	}
	wg.Wait()
	b.testMSS(t, tunnels, func(x *greTunnel) (v4, v6 int) { return learned(x) - 40, learned(x) - 60 })
	b.transferAll(t, b.flows(tunnels, true), 100_000)
	b.balance(t)
}
