package main_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"causeway/scripts/hosts"
)

// oddTunnels are set up in ways that most are not.
type oddTunnels struct {
	fragments          greTunnel // the customer's kernel fragments outer packets
	small4, small6     greTunnel // smaller than what IPv6 may count on
	clearDF, clampOff  greTunnel
	lateral1, lateral2 greTunnel // two sites of one account
}

func newOddTunnels() *oddTunnels {
	o := &oddTunnels{
		fragments: newTunnel(41, "outer-fragments", endpoint4, nil, "nopmtudisc", "ignore-df"),
		small4:    newTunnel(42, "small-4", endpoint4, []string{"mtu: 1200"}),
		small6:    newTunnel(43, "small-6", endpoint6, []string{"mtu: 1200"}),
		clearDF:   newTunnel(44, "df-clear", endpoint4, []string{"df: clear"}),
		lateral1:  newTunnel(45, "lateral-1", endpoint4, nil),
		lateral2:  newTunnel(46, "lateral-2", endpoint6, []string{"key: 42"}, "key", "42", "encaplimit", "none"),
		clampOff:  newTunnel(47, "clamp-off", endpoint4, []string{"mss_clamp: off"}),
	}
	o.lateral1.account, o.lateral2.account = "two-sites", "two-sites"
	o.lateral2.second = true
	return o
}

func (o *oddTunnels) all() []greTunnel {
	return []greTunnel{o.fragments, o.small4, o.small6, o.clearDF, o.lateral1, o.lateral2, o.clampOff}
}

// testOuterFragments has the customer's kernel fragment what it has encapsulated.
func (b *bed) testOuterFragments(t *testing.T, x greTunnel) {
	b.forgetPaths(t)
	large6 := strconv.Itoa(1500 - echo6)
	// The answers in IPv6 do not fit the tunnel, which their sender learns at the first.
	b.srv.Run("ping", "-c1", "-W1", "-s", large6, "-I", x.behind6().String(), inet6)
	before := b.balance(t)
	wire := b.rt.Capture("n1", "proto 47")
	pingAll(t, 5, []flow{
		{"IPv4", b.srv, x.behind4(), b.inet, addr(inet4), []string{"-M", "dont", "-s", strconv.Itoa(1500 - echo4)}},
		{"IPv6", b.srv, x.behind6(), b.inet, addr(inet6), []string{"-s", large6}},
	})
	rows := b.net.Tshark(wire.Stop(), "ip.dst == "+endpoint4+" && ip.proto == 47 && (ip.flags.mf == 1 || ip.frag_offset > 0)", "frame.number")
	if len(rows) != 20 {
		t.Fatalf("the customer's kernel sent %d fragments to the endpoint, want 20", len(rows))
	}
	after := b.balance(t)
	if joined := int(after.Joined - before.Joined); joined != 10 || after.Held != 0 {
		t.Errorf("%d fragments were joined to another and %d are held, want 10 and none", joined, after.Held)
	}
}

// testSmallTunnels sends 1280 bytes of IPv6 into tunnels that carry less: nobody is told, the outer packet is fragmented, and
// the customer's kernel puts it together.
func (b *bed) testSmallTunnels(t *testing.T, small4, small6 greTunnel) {
	b.forgetPaths(t)
	wire := b.rt.Capture("n1", "")
	size := []string{"-M", "do", "-s", strconv.Itoa(1280 - echo6)}
	pingAll(t, 3, []flow{
		{small4.name, b.inet, addr(inet6), b.srv, small4.behind6(), size},
		{small6.name, b.inet, addr(inet6), b.srv, small6.behind6(), size},
	})
	pcap := wire.Stop()
	pieces := map[string]int{}
	for _, r := range b.net.Tshark(pcap, "ip.flags.mf == 1 || ip.frag_offset > 0 || ipv6.fraghdr.nxt", "ip.dst", "ipv6.dst", "ip.len", "ipv6.plen") {
		to, size := first(r[0]), first(r[2])
		if to == "" {
			to, size = first(r[1]), first(r[3])
		}
		pieces[to]++
		// What fits: 1200 bytes and the outer headers, less those of IPv6, whose length does not count them.
		limit := 1224
		if to == small6.customer {
			limit = 1204
		}
		if n, err := strconv.Atoi(size); err != nil || n > limit {
			t.Errorf("an outer fragment to %s has %q bytes, more than %d", to, size, limit)
		}
	}
	if pieces[small4.customer] != 6 || pieces[small6.customer] != 6 {
		t.Errorf("outer fragments %v, want 6 to each customer", pieces)
	}
}

// testClearDF sends packets that may not be fragmented through a tunnel that does so nevertheless.
func (b *bed) testClearDF(t *testing.T, x greTunnel) {
	b.forgetPaths(t)
	wire := b.rt.Capture("n1", "proto 47")
	pingAll(t, 3, []flow{{x.name, b.inet, addr(inet4), b.srv, x.behind4(), []string{"-M", "do", "-s", strconv.Itoa(1500 - echo4)}}})
	rows := b.net.Tshark(wire.Stop(), "ip.dst == "+x.behind4().String(), "ip.len", "ip.flags.mf", "ip.flags.df", "ip.id")
	idents := map[string]int{}
	for _, r := range rows {
		if last(t, r[2]) != 0 || last(t, r[0]) > x.mtu {
			t.Errorf("an inner packet with DF, or longer than %d bytes: %v", x.mtu, r)
		}
		idents[r[3][strings.LastIndex(r[3], ",")+1:]]++
	}
	// A packet with DF has no identification that tells its fragments from another's (RFC 6864 4.1).
	if len(rows) != 6 || len(idents) != 3 {
		t.Errorf("%d inner fragments with identifications %v, want two of each of three packets", len(rows), idents)
	}
}

// testLateral sends between two sites of an account: out of one tunnel and into the other.
func (b *bed) testLateral(t *testing.T, one, two greTunnel) {
	b.forgetPaths(t)
	must(t, b.srv2, "ip", "-4", "route", "flush", "cache")
	flows := []flow{
		{"lateral IPv4", b.srv, one.behind4(), b.srv2, two.behind4(), nil},
		{"lateral IPv6", b.srv, one.behind6(), b.srv2, two.behind6(), nil},
		{"lateral IPv4 back", b.srv2, two.behind4(), b.srv, one.behind4(), nil},
		{"lateral IPv6 back", b.srv2, two.behind6(), b.srv, one.behind6(), nil},
	}
	const syn = "tcp[13] & 2 != 0 or (ip6[6] = 6 and ip6[53] & 2 != 0)"
	at := []*hosts.Capture{b.srv.Capture("eth0", syn), b.srv2.Capture("eth0", syn)}
	wire := b.rt.Capture("n0", "net 198.18.0.0/16 or net 2001:db8:18::/48")
	pingAll(t, 2, flows)
	b.transferAll(t, flows, 1)
	for i, c := range at {
		pcap := c.Stop()
		mine := []string{one.behind4().String(), one.behind6().String()}
		if i == 1 {
			mine = []string{two.behind4().String(), two.behind6().String()}
		}
		syns := 0
		for _, r := range b.net.Tshark(pcap, "tcp.flags.syn == 1", "ip.src", "ipv6.src", "tcp.options.mss_val") {
			src := r[0] + r[1]
			want := strconv.Itoa(two.mtu - 40) // the narrower of the two tunnels
			if strings.Contains(src, ":") {
				want = strconv.Itoa(two.mtu - 60)
			}
			if slices.Contains(mine, src) {
				continue
			}
			if syns++; r[2] != want {
				t.Errorf("a SYN from %s arrives with MSS %s, want %s", src, r[2], want)
			}
		}
		if syns != 4 {
			t.Errorf("%d SYNs and SYN-ACKs came from the other site, want 4", syns)
		}
	}
	b.transferAll(t, flows, 1<<20)
	if rows := b.net.Tshark(wire.Stop(), "", "frame.number"); len(rows) != 0 {
		t.Errorf("%d packets between the sites were seen outside tunnels", len(rows))
	}
	b.lateralPathMTU(t, one, two)
	want := []string{"198.18.45.1", "10.213.45.0", two.behind4().String()}
	out := must(t, b.srv, "traceroute", "-n", "-q1", "-w10", "-m6", "-s", one.behind4().String(), two.behind4().String())
	if got := hops(out); len(got) != 4 || got[0] != want[0] || got[1] != want[1] || got[3] != want[2] {
		t.Errorf("traceroute to the other site: hops %q, want %q and the guest's other side between", got, want)
	}
	b.balance(t)
}

// lateralPathMTU sends what the first tunnel carries and the second does not: the error comes through the first tunnel, from
// the node's interface address.
func (b *bed) lateralPathMTU(t *testing.T, one, two greTunnel) {
	b.forgetPaths(t)
	errors := b.srv.Capture("eth0", "icmp[0] = 3 or (ip6[6] = 58 and ip6[40] = 2)")
	for _, c := range []struct {
		from, to string
		headers  int
	}{{one.behind4().String(), two.behind4().String(), echo4}, {one.behind6().String(), two.behind6().String(), echo6}} {
		if out, err := b.srv.Run("ping", "-c1", "-W2", "-M", "do", "-s", strconv.Itoa(one.mtu-c.headers), "-I", c.from, c.to); err == nil {
			t.Errorf("%d bytes passed:\n%s", one.mtu, out)
		}
		if err := ping(flow{"", b.srv, addr(c.from), b.srv2, addr(c.to), []string{"-M", "do", "-s", strconv.Itoa(two.mtu - c.headers)}}, 2); err != nil {
			t.Error(err)
		}
	}
	pcap := errors.Stop()
	got := fmt.Sprint(b.net.Tshark(pcap, "icmp.code == 4", "ip.src", "icmp.mtu"), b.net.Tshark(pcap, "icmpv6.type == 2", "ipv6.src", "icmpv6.mtu"))
	want := fmt.Sprintf("[[10.213.45.0,%s %d]] [[fd00:213:45::a,%s %d]]", one.behind4(), two.mtu, one.behind6(), two.mtu)
	if got != want {
		t.Errorf("errors about lateral packets: %s, want %s", got, want)
	}
}
