package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// A greTunnel is one tunnel between the node and the guest, and a network of its own behind the guest.
type greTunnel struct {
	tunnel
	number int
	words  []string // of ip link
	mtu    int      // that magic-transit's table gives: 1500 less the outer headers
	v6     bool     // outer
	key    string   // as tshark prints it; empty without
	csum   bool
	seq    bool
}

// greTunnels are both outer families with every optional field, and Linux's ip6gre once without the destination option
// that it puts before GRE by default.
func greTunnels() []greTunnel {
	var list []greTunnel
	add := func(name string, v6 bool, overhead int, extra []string, words ...string) {
		k := len(list) + 1
		x := greTunnel{number: k, words: words, mtu: 1500 - overhead, v6: v6}
		x.name = name
		x.endpoint, x.customer = endpoint4, fmt.Sprintf("198.51.100.%d", 10+k)
		if v6 {
			x.endpoint, x.customer = endpoint6, fmt.Sprintf("2001:db8:c::%d", 10+k)
		}
		x.interface4, x.customer4 = fmt.Sprintf("10.213.%d.0/31", k), fmt.Sprintf("10.213.%d.1", k)
		x.interface6, x.customer6 = fmt.Sprintf("fd00:213:%d::a/127", k), fmt.Sprintf("fd00:213:%d::b", k)
		x.prefixes = []string{fmt.Sprintf("198.18.%d.0/24", k), fmt.Sprintf("2001:db8:18:%d::/64", k)}
		x.extra = extra
		x.csum, x.seq = slices.Contains(words, "csum"), slices.Contains(words, "seq")
		if slices.Contains(words, "key") {
			x.key = "0x0000002a"
		}
		list = append(list, x)
	}
	for _, v6 := range []bool{false, true} {
		name, ip := "v4", 20
		if v6 {
			name, ip = "v6", 40
		}
		add(name+"-plain", v6, ip+4, nil)
		add(name+"-key", v6, ip+8, []string{"key: 42"}, "key", "42")
		add(name+"-checksum", v6, ip+8, []string{"checksum: true"}, "csum")
		add(name+"-sequence", v6, ip+8, []string{"sequence: true"}, "seq")
		add(name+"-all", v6, ip+16, []string{"key: 42", "checksum: true", "sequence: true"}, "key", "42", "csum", "seq")
	}
	add("v6-no-option", true, 44, nil, "encaplimit", "none")
	return list
}

func (x *greTunnel) behind4() netip.Addr { return addr(fmt.Sprintf("198.18.%d.10", x.number)) }
func (x *greTunnel) behind6() netip.Addr { return addr(fmt.Sprintf("2001:db8:18:%d::10", x.number)) }

// guestTunnels gives the guest the other ends of the tunnels and their networks. What comes from such a network leaves
// by its tunnel.
func (b *bed) guestTunnels(t *testing.T, tunnels []greTunnel) {
	t.Helper()
	four := []string{"addr add 198.51.100.2/24 dev vec0", "route add default via 198.51.100.254"}
	six := []string{"addr add 2001:db8:c::2/64 dev vec0 nodad", "route add default via 2001:db8:c::fe"}
	var links []string
	for _, x := range tunnels {
		k, dev := x.number, fmt.Sprintf("g%d", x.number)
		kind := "gre"
		if x.v6 {
			kind = "ip6gre"
			six = append(six, "addr add "+x.customer+"/64 dev vec0 nodad")
		} else {
			four = append(four, "addr add "+x.customer+"/24 dev vec0")
		}
		links = append(links, fmt.Sprintf("link add %s type %s local %s remote %s ttl 64 %s", dev, kind, x.customer, x.endpoint,
			strings.Join(x.words, " ")), "link set "+dev+" up")
		four = append(four, fmt.Sprintf("addr add 198.18.%d.1/24 dev vec1", k),
			fmt.Sprintf("addr add %s/31 dev %s", x.customer4, dev),
			fmt.Sprintf("route add default dev %s table %d", dev, 100+k),
			fmt.Sprintf("route add 198.18.%d.0/24 dev vec1 table %d", k, 100+k),
			fmt.Sprintf("rule add from 198.18.%d.0/24 lookup %d", k, 100+k))
		six = append(six, fmt.Sprintf("addr add 2001:db8:18:%d::1/64 dev vec1 nodad", k),
			fmt.Sprintf("addr add %s/127 dev %s nodad", x.customer6, dev),
			fmt.Sprintf("route add default dev %s table %d", dev, 100+k),
			fmt.Sprintf("route add 2001:db8:18:%d::/64 dev vec1 table %d", k, 100+k),
			fmt.Sprintf("rule add from 2001:db8:18:%d::/64 lookup %d", k, 100+k))
	}
	var text strings.Builder
	for family, lines := range [][]string{links, four, six} {
		fmt.Fprintf(&text, "ip %s -batch - <<'END' || exit\n%s\nEND\n", []string{"", "-4", "-6"}[family], strings.Join(lines, "\n"))
	}
	b.sh(t, text.String())
	for _, x := range tunnels {
		must(t, b.srv, "ip", "addr", "add", x.behind4().String()+"/24", "dev", "eth0")
		must(t, b.srv, "ip", "addr", "add", x.behind6().String()+"/64", "dev", "eth0", "nodad")
	}
	b.srv.Route("default", "via", "198.18.1.1")
	b.srv.Route("default", "via", "2001:db8:18:1::1")
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
			{x.name + " IPv4", b.inet, addr(inet4), b.srv, x.behind4(), nil},
			{x.name + " IPv6", b.inet, addr(inet6), b.srv, x.behind6(), nil},
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

	t.Run("ping", func(t *testing.T) { b.testPing(t, tunnels) })
	b.end(t)
}

func (b *bed) testPing(t *testing.T, tunnels []greTunnel) {
	pingAll(t, 3, append(b.flows(tunnels, true), b.flows(tunnels, false)...))
	b.balance(t)
}
