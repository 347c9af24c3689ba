package main_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"causeway/scripts/hosts"
)

// testInterfaces pings the node's interface address inside every tunnel, from the customer's router, and the endpoints
// themselves, which the node's kernel answers.
func (b *bed) testInterfaces(t *testing.T, tunnels []greTunnel) {
	wire := b.rt.Capture("n1", "")
	var text strings.Builder
	for _, x := range tunnels {
		for _, a := range []string{fmt.Sprintf("10.213.%d.0", x.number), fmt.Sprintf("fd00:213:%d::a", x.number)} {
			fmt.Fprintf(&text, "ping -c1 -W10 %s >/dev/null 2>&1 || echo %s &\n", a, a)
		}
	}
	if out := b.sh(t, text.String()+"wait"); out != "" {
		t.Errorf("interface addresses without an answer:\n%s", out)
	}
	pingAll(t, 2, []flow{
		{"endpoint", b.inet, addr(inet4), b.node, addr(endpoint4), nil},
		{"endpoint", b.inet, addr(inet6), b.node, addr(endpoint6), nil},
	})
	pcap := wire.Stop()
	answers := map[string]int{} // inner source -> echo replies with a good checksum and a whole life
	for _, r := range b.net.Tshark(pcap, "gre && ((icmp.type == 0 && icmp.checksum.status == 1) || (icmpv6.type == 129 && icmpv6.checksum.status == 1))",
		"ip.src", "ipv6.src", "ip.ttl", "ipv6.hlim", "icmp.type") {
		src, life := r[1], r[3]
		if r[4] != "" {
			src, life = r[0], r[2]
		}
		if last(t, life) == 64 {
			answers[src[strings.LastIndex(src, ",")+1:]]++
		}
	}
	for _, x := range tunnels {
		for _, a := range []string{fmt.Sprintf("10.213.%d.0", x.number), fmt.Sprintf("fd00:213:%d::a", x.number)} {
			if answers[a] != 1 {
				t.Errorf("%s: tshark sees %d echo replies from %s, want 1", x.name, answers[a], a)
			}
		}
	}
	// The route to the endpoints goes by n1; the kernel's answers go by the default route.
	if got := b.net.Tshark(pcap, "icmp.type == 8 && ip.dst == "+endpoint4+" && !gre", "frame.number"); len(got) != 2 {
		t.Errorf("tshark sees %d plain echo requests to the endpoint, want 2", len(got))
	}
}

// testTraceroute wants the node among the hops: by an endpoint's address toward the Internet, by its interface address
// inside the tunnel toward the customer.
func (b *bed) testTraceroute(t *testing.T, tunnels []greTunnel) {
	for _, x := range tunnels {
		k := x.number
		for _, c := range []struct {
			from *hosts.Host
			args []string
			want []string
		}{
			{b.inet, []string{"-4", x.behind4().String()}, []string{"192.0.2.254", endpoint4, "198.51.100.2", x.behind4().String()}},
			{b.inet, []string{"-6", x.behind6().String()}, []string{"2001:db8:2::fe", endpoint6, "", x.behind6().String()}},
			{b.srv, []string{"-4", "-s", x.behind4().String(), inet4}, []string{fmt.Sprintf("198.18.%d.1", k), fmt.Sprintf("10.213.%d.0", k), "172.31.1.254", inet4}},
			{b.srv, []string{"-6", "-s", x.behind6().String(), inet6}, []string{"", fmt.Sprintf("fd00:213:%d::a", k), "2001:db8:31::fe", inet6}},
		} {
			out := must(t, c.from, append([]string{"traceroute", "-n", "-q1", "-w10", "-m6"}, c.args...)...)
			if got := hops(out); !slices.EqualFunc(got, c.want, func(g, w string) bool { return g == w || w == "" }) {
				t.Errorf("%s: traceroute %v: hops %q, want %q", x.name, c.args, got, c.want)
			}
		}
	}
}

// hops are the addresses that traceroute -n -q1 prints.
func hops(out string) []string {
	var list []string
	for i, line := range strings.Split(strings.TrimSpace(out), "\n") {
		if f := strings.Fields(line); i > 0 && len(f) > 1 {
			list = append(list, f[1])
		}
	}
	return list
}
