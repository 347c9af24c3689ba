package main_test

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// In these tests scapy is the customer, because no kernel sends what they need. The customers' addresses are on nobody's
// interface, so nobody answers for them: the router sends all of it to the host `cust`, where it is recorded.

// craftedCustomers is how many addresses 198.51.100.k and 2001:db8:c::k, from k = 11, lead to cust.
const craftedCustomers = 20

func newCraftedBed(t *testing.T) *bed {
	t.Helper()
	b := newBed(t, bedOptions{})
	mac := b.cust.MAC("up0")
	var four, six strings.Builder
	for k := 11; k < 11+craftedCustomers; k++ {
		fmt.Fprintf(&four, "neigh add 198.51.100.%d lladdr %s dev vc nud permanent\n", k, mac)
		fmt.Fprintf(&six, "neigh add 2001:db8:c::%d lladdr %s dev vc nud permanent\n", k, mac)
	}
	must(t, b.rt, "sh", "-c", "ip -batch - <<'END' && ip -6 -batch - <<'END'\n"+four.String()+"END\n"+six.String()+"END\n")
	return b
}

// customer runs a scapy script on the customer's line: send(p) sends an IP packet to the router.
func (b *bed) customer(script string) {
	b.cust.Scapy(fmt.Sprintf(`
s = conf.L2socket(iface="up0")
def send(p): s.send(Ether(src=%q, dst=%q) / p)
`, b.cust.MAC("up0"), b.rt.MAC("vc")) + script)
}

// TestRootCraftedPackets is what scapy makes and tshark judges.
func TestRootCraftedPackets(t *testing.T) {
	b := newCraftedBed(t)
	tunnels := []greTunnel{
		newTunnel(1, "plain4", endpoint4, nil),
		newTunnel(2, "plain6", endpoint6, nil),
		newTunnel(3, "keyed", endpoint4, []string{"key: 42"}, "key", "42"),
	}
	all := append(plain(tunnels), accountTunnels()...)
	b.run(t, b.configuration(all))
	b.warmCrafted(t)
	b.part(t, "keepalive", func(t *testing.T) { b.testKeepalive(t) })
	b.part(t, "ecn and dscp", func(t *testing.T) { b.testECN(t) })
	b.part(t, "accounts", func(t *testing.T) { b.testAccounts(t) })
	b.part(t, "outer fragments", func(t *testing.T) { b.testCraftedFragments(t) })
	b.part(t, "hostile", func(t *testing.T) { b.testHostile(t) })
	b.end(t)
}

// warmCrafted has the next hops of the node resolved: it sends until something comes out on each side and in each family.
func (b *bed) warmCrafted(t *testing.T) {
	t.Helper()
	at, far := b.cust.Capture("up0", "proto 47 or ip6 proto 47"), b.inet.Capture("eth0", "udp port 9")
	b.inet.Scapy(`
for i in range(20):
    send(IP(dst="198.18.1.10")/UDP(dport=9)); send(IPv6(dst="2001:db8:18:2::10")/UDP(dport=9)); time.sleep(.02)`)
	b.customer(fmt.Sprintf(`
for i in range(20):
    send(IP(src="198.51.100.11", dst=%q)/GRE()/IP(src="198.18.1.10", dst=%q)/UDP(dport=9))
    send(IPv6(src="2001:db8:c::12", dst=%q, nh=47)/GRE(proto=0x86dd)/IPv6(src="2001:db8:18:2::10", dst=%q)/UDP(dport=9)); time.sleep(.02)`,
		endpoint4, inet4, endpoint6, inet6))
	in, out := at.Stop(), far.Stop()
	for filter, pcap := range map[string]string{"ip.src == " + endpoint4: in, "ipv6.src == " + endpoint6: in, "ip.src == 198.18.1.10": out, "ipv6.src == 2001:db8:18:2::10": out} {
		if len(b.net.Tshark(pcap, filter, "frame.number")) == 0 {
			t.Fatalf("nothing of twenty packets came through: %s", filter)
		}
	}
}

// testKeepalive sends keepalives as Cisco's routers do: the answer is inside, from the endpoint to the customer.
func (b *bed) testKeepalive(t *testing.T) {
	wire := b.cust.Capture("up0", "src host "+endpoint4)
	b.customer(fmt.Sprintf(`
e = %q
for i in range(3):
    send(IP(src="198.51.100.11", dst=e, ttl=255)/GRE()/IP(src=e, dst="198.51.100.11", ttl=255, id=100+i)/GRE(proto=0))
    send(IP(src="198.51.100.13", dst=e, ttl=255)/GRE(key_present=1, key=42)/IP(src=e, dst="198.51.100.13", ttl=255, id=200+i)/GRE(key_present=1, key=42, proto=0))
    # not one of its tunnel: answered it would be a reflector
    send(IP(src="198.51.100.11", dst=e, ttl=255)/GRE()/IP(src=e, dst="198.51.100.13", ttl=255)/GRE(proto=0))
`, endpoint4))
	got := fmt.Sprint(b.net.Tshark(wire.Stop(), "", "ip.dst", "ip.ttl", "ip.id", "gre.proto", "gre.key", "ip.checksum.status"))
	var want [][]string
	for i := range 3 { // the router in between takes one off the TTL
		want = append(want, []string{"198.51.100.11", "254", fmt.Sprintf("0x%04x", 100+i), "0x0000", "", "1"},
			[]string{"198.51.100.13", "254", fmt.Sprintf("0x%04x", 200+i), "0x0000", "0x0000002a", "1"})
	}
	if got != fmt.Sprint(want) {
		t.Errorf("answers to keepalives: %s, want %s", got, want)
	}
	b.balance(t)
}

// RFC 6040 figure 4, by inner and then by outer codepoint (0 Not-ECT, 1 ECT(1), 2 ECT(0), 3 CE); -1 is a drop.
var ecnOfDecapsulated = [4][4]int{
	{0, 0, 0, -1},
	{1, 1, 1, 3},
	{2, 1, 2, 3},
	{3, 3, 3, 3},
}

// testECN sends every pair of codepoints through both families of headers, and looks at DSCP on the way.
func (b *bed) testECN(t *testing.T) {
	before := b.drops(t)
	toNet, toCustomer := b.rt.Capture("n0", "udp"), b.cust.Capture("up0", "proto 47 or ip6 proto 47")
	// The UDP port says which packet it was: outer, inner, and the families.
	b.customer(fmt.Sprintf(`
for outer in range(4):
    for inner in range(4):
        o, n, p = 0x28 | outer, 0xb8 | inner, 10000 + 4 * outer + inner
        i4 = lambda k: IP(src="198.18.%%d.10" %% k, dst=%[2]q, tos=n)/UDP(sport=p, dport=p)
        i6 = lambda k: IPv6(src="2001:db8:18:%%d::10" %% k, dst=%[4]q, tc=n)/UDP(sport=p, dport=p)
        send(IP(src="198.51.100.11", dst=%[1]q, tos=o)/GRE()/i4(1))
        send(IP(src="198.51.100.11", dst=%[1]q, tos=o)/GRE(proto=0x86dd)/i6(1))
        send(IPv6(src="2001:db8:c::12", dst=%[3]q, tc=o, nh=47)/GRE()/i4(2))
        send(IPv6(src="2001:db8:c::12", dst=%[3]q, tc=o, nh=47)/GRE(proto=0x86dd)/i6(2))
`, endpoint4, inet4, endpoint6, inet6))
	b.inet.Scapy(`
for inner in range(4):
    for k in (1, 2):
        send(IP(dst="198.18.%d.10" % k, tos=0xb8 | inner)/UDP(sport=inner, dport=20000 + inner))
        send(IPv6(dst="2001:db8:18:%d::10" % k, tc=0xb8 | inner)/UDP(sport=inner, dport=20000 + inner))`)
	seen := map[string]int{} // family, tunnel and port -> codepoint
	for _, r := range b.net.Tshark(toNet.Stop(), "udp.checksum.status == 1 && !(ip.checksum.status == 0) && (ip.dst == "+inet4+" || ipv6.dst == "+inet6+")",
		"ip.src", "ipv6.src", "ip.dsfield.ecn", "ipv6.tclass.ecn", "ip.dsfield.dscp", "ipv6.tclass.dscp", "udp.dstport") {
		if dscp := r[4] + r[5]; dscp != "46" {
			t.Errorf("a decapsulated packet has DSCP %s, want the inner one, 46: %v", dscp, r)
		}
		seen[r[0]+r[1]+" "+r[6]] = last(t, r[2]+r[3])
	}
	for outer := range 4 {
		for inner := range 4 {
			for _, src := range []string{"198.18.1.10", "2001:db8:18:1::10", "198.18.2.10", "2001:db8:18:2::10"} {
				got, ok := seen[fmt.Sprintf("%s %d", src, 10000+4*outer+inner)]
				if !ok {
					got = -1
				}
				if want := ecnOfDecapsulated[inner][outer]; got != want {
					t.Errorf("from %s: outer ECN %d, inner %d: %d came out, want %d (-1: dropped)", src, outer, inner, got, want)
				}
			}
		}
	}
	if drops := b.newDrops(t, before); fmt.Sprint(drops) != "map[ecn_conflict:4]" {
		t.Errorf("drops %v, want ecn_conflict 4 times", drops)
	}
	rows := b.net.Tshark(toCustomer.Stop(), "gre && udp.dstport >= 20000", "ip.dsfield", "ipv6.tclass", "udp.dstport")
	for _, r := range rows {
		inner := last(t, r[2]) - 20000
		var got []int
		for _, v := range strings.Split(strings.Trim(r[0]+","+r[1], ","), ",") {
			n, _ := strconv.ParseInt(v, 0, 0)
			got = append(got, int(n))
		}
		if want := []int{0xb8 | inner, 0xb8 | inner}; !slices.Equal(got, want) {
			t.Errorf("the two headers of an encapsulated packet have DSCP and ECN %x, want %x", got, want)
		}
	}
	if len(rows) != 16 {
		t.Errorf("%d encapsulated packets, want 16", len(rows))
	}
	b.balance(t)
}

// testCraftedFragments sends outer packets in three pieces, in every order, over IPv6 too, where Linux's tunnels never
// fragment. What comes out is whole.
func (b *bed) testCraftedFragments(t *testing.T) {
	before := b.balance(t)
	far := b.inet.Capture("eth0", "udp port 40000")
	b.customer(fmt.Sprintf(`
import itertools
data = bytes(i %% 251 for i in range(1200))
four = IP(src="198.51.100.11", dst=%q, id=1)/GRE()/IP(src="198.18.1.10", dst=%q)/UDP(sport=40000, dport=40000)/data
six = lambda i: IPv6(src="2001:db8:c::12", dst=%q)/IPv6ExtHdrFragment(nh=47, id=i)/GRE(proto=0x86dd)/IPv6(src="2001:db8:18:2::10", dst=%q)/UDP(sport=40000, dport=40000)/data
for i in range(6):
    four.id = 1000 + i
    for pieces in (fragment(IP(raw(four)), 480), fragment6(six(2000 + i), 560)):
        assert len(pieces) == 3
        for p in list(itertools.permutations(pieces))[i]: send(p)
`, endpoint4, inet4, endpoint6, inet6))
	data := make([]byte, 1200)
	for i := range data {
		data[i] = byte(i % 251)
	}
	from := map[string]int{}
	for _, r := range b.net.Tshark(far.Stop(), "udp.checksum.status == 1", "ip.src", "ipv6.src", "udp.payload") {
		if r[2] == hex.EncodeToString(data) {
			from[r[0]+r[1]]++
		}
	}
	if from["198.18.1.10"] != 6 || from["2001:db8:18:2::10"] != 6 {
		t.Errorf("whole datagrams by source: %v, want 6 from each tunnel", from)
	}
	if f := b.balance(t); f.Joined-before.Joined != 24 || f.Held != 0 {
		t.Errorf("%d fragments were joined to another and %d are held, want 24 and none", f.Joined-before.Joined, f.Held)
	}
}

// accountTunnels are two accounts that use the same addresses: prefixes, and interface addresses too.
func accountTunnels() []tunnel {
	var list []tunnel
	for i, account := range []string{"red", "blue"} {
		for site := range 2 {
			x := tunnel{name: fmt.Sprintf("%s-%d", account, site+1), account: account, endpoint: endpoint4,
				customer:   fmt.Sprintf("198.51.100.%d", 21+2*i+site),
				interface4: fmt.Sprintf("10.255.0.%d/31", 2*site), interface6: fmt.Sprintf("fd00:255::%d0/127", site),
				prefixes: []string{"10.0.0.0/8", "fd00:10::/32"}}
			if site == 1 {
				x.prefixes = []string{"10.2.0.0/16", "fd00:10:2::/48"}
			}
			list = append(list, x)
		}
	}
	return list
}

// testAccounts sends the same packets in both accounts, mixed. Each stays in its own.
func (b *bed) testAccounts(t *testing.T) {
	before := b.drops(t)
	wire := b.cust.Capture("up0", "src host "+endpoint4)
	b.customer(fmt.Sprintf(`
for i in range(20):
    for k, mark in ((21, 1), (23, 2)):
        o = lambda p=0x800: IP(src="198.51.100.%%d" %% k, dst=%q)/GRE(proto=p)
        o2 = lambda p=0x800: IP(src="198.51.100.%%d" %% (k + 1), dst=%[1]q)/GRE(proto=p)
        u = UDP(sport=30000, dport=30000 + mark)
        send(o()/IP(src="10.1.1.1", dst="10.2.2.2")/u)
        send(o2()/IP(src="10.2.2.2", dst="10.1.1.1")/u)
        send(o(0x86dd)/IPv6(src="fd00:10:1::1", dst="fd00:10:2::2")/u)
        send(o2(0x86dd)/IPv6(src="fd00:10:2::2", dst="fd00:10:1::1")/u)
        send(o()/IP(src="10.255.0.1", dst="10.255.0.0")/ICMP(id=mark, seq=i))
        send(o2(0x86dd)/IPv6(src="fd00:255::11", dst="fd00:255::10")/ICMPv6EchoRequest(id=mark, seq=i))
`, endpoint4))
	got := map[string]int{}
	for _, r := range b.net.Tshark(wire.Stop(), "gre", "ip.dst", "udp.dstport", "icmp.ident", "icmp.type", "icmpv6.type", "icmpv6.echo.identifier") {
		mark := r[1]
		if r[3] == "0" {
			mark = "reply " + first(r[2])
		}
		if r[4] == "129" {
			mark = "reply6 " + r[5]
		}
		got[first(r[0])+" "+mark]++
	}
	want := map[string]int{}
	for i, first := range []int{21, 23} {
		for site := range 2 {
			want[fmt.Sprintf("198.51.100.%d %d", first+site, 30001+i)] = 40
		}
		want[fmt.Sprintf("198.51.100.%d reply %d", first, i+1)] = 20
		want[fmt.Sprintf("198.51.100.%d reply6 0x%04x", first+1, i+1)] = 20
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("by outer destination and mark:\n%v, want\n%v", got, want)
	}
	if drops := b.newDrops(t, before); len(drops) != 0 {
		t.Errorf("drops %v", drops)
	}
	b.balance(t)
}
