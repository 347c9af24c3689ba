package main_test

import (
	"fmt"
	"strings"
	"testing"

	"causeway/control/api"
)

// birdConf is bird's configuration beside a node, for tunnels with devices.
func (b *bed) birdConf(tunnels ...tunnel) string {
	text := b.net.RoutingConf("bgp-bird.conf", "NODE4", "172.31.1.1")
	for i, x := range tunnels {
		text += b.net.RoutingConf("bgp-bird-tunnel.conf", "TUNNEL", x.name, "OURS4", ours(x.interface4), "OURS6", ours(x.interface6), "THEIRS4", x.customer4, "THEIRS6", x.customer6,
			"TABLE", fmt.Sprint(101+i))
	}
	return text
}

func ours(prefix string) string { return strings.Split(prefix, "/")[0] }

// A bgpPeer is what bgpd of FRR on the customer's router has to say through a tunnel.
type bgpPeer struct {
	tunnel   tunnel
	networks []string
	policy   string // of what it says
}

// bgpdConf is the configuration of bgpd.
func bgpdConf(peers ...bgpPeer) string {
	var s strings.Builder
	fmt.Fprintln(&s, "router bgp 65010\n bgp router-id 10.99.0.1\n no bgp ebgp-requires-policy\n no bgp default ipv4-unicast\n no bgp network import-check\n timers bgp 3 9")
	for _, p := range peers {
		for _, address := range []string{ours(p.tunnel.interface4), ours(p.tunnel.interface6)} {
			fmt.Fprintf(&s, " neighbor %[1]s remote-as 64512\n neighbor %[1]s timers connect 1\n", address)
		}
	}
	for _, family := range []string{"ipv4", "ipv6"} {
		fmt.Fprintf(&s, " address-family %s unicast\n", family)
		said := map[string]bool{}
		for _, p := range peers {
			address := ours(p.tunnel.interface4)
			if family == "ipv6" {
				address = ours(p.tunnel.interface6)
			}
			fmt.Fprintf(&s, "  neighbor %[1]s activate\n  neighbor %[1]s route-map to-%[2]s out\n", address, p.tunnel.name)
			for _, n := range p.networks {
				if strings.Contains(n, ":") == (family == "ipv6") && !said[n] {
					said[n] = true
					fmt.Fprintf(&s, "  network %s\n", n)
				}
			}
		}
		fmt.Fprintln(&s, " exit-address-family")
	}
	fmt.Fprintln(&s, "exit")
	for _, p := range peers {
		fmt.Fprintf(&s, "route-map to-%s permit 10\n %s\nexit\n", p.tunnel.name, p.policy)
	}
	return s.String()
}

// deviceOf is a tunnel's device.
func deviceOf(t *testing.T, b *bed, name string) api.KernelInterface {
	t.Helper()
	for _, x := range show[[]api.Tunnel](t, b, "tunnels") {
		if x.Name == name && x.KernelInterface != nil {
			return *x.KernelInterface
		}
	}
	t.Fatalf("tunnel %s has no device", name)
	return api.KernelInterface{}
}

// TestRootBGP: bird beside the node and FRR on the customer's router speak BGP through two GRE tunnels, in both families. What is announced leads
// into the tunnels, by the priorities that communities say; when a tunnel breaks the other one carries it.
func TestRootBGP(t *testing.T) {
	b := newBed(t, bedOptions{guest: true})
	var tunnels []greTunnel
	for k := 1; k <= 2; k++ {
		tunnels = append(tunnels, newTunnel(k, fmt.Sprintf("t-%d", k), endpoint4, []string{"kernel_interface: true", "health_check: {type: request, interval: 200ms, recovery: {clean: 10, hold: 1s}}"}))
	}
	b.guestTunnels(t, tunnels)
	tunnels[1].prefixes = append(tunnels[1].prefixes, tunnels[0].prefixes...)
	b.run(t, b.configuration(plain(tunnels)))
	first, second := tunnels[0].tunnel, tunnels[1].tunnel
	behind4 := tunnels[0].behind4().String()

	before := b.drops(t)
	if _, err := b.inet.Run("ping", "-c", "1", "-W", "1", behind4); err == nil {
		t.Error("nobody has announced it, and yet it answers")
	}
	if d := b.newDrops(t, before); d["route_unlearned"] != 1 {
		t.Errorf("dropped: %v", d)
	}
	bird := b.node.Bird(b.birdConf(first, second))
	defer bird.Stop()
	b.guestFRR(t, bgpdConf(bgpPeer{first, first.prefixes, "set community 13335:60050"}, bgpPeer{second, first.prefixes, "set community 13335:60150"}), "bgpd")
	defer func() {
		if t.Failed() {
			out, _ := b.guest.Sh("vtysh --vty_socket /tmp/frr --config_dir /tmp/frr -c 'show bgp summary' -c 'show bgp ipv4 unicast'; ip -s link show g1")
			links, _ := b.node.Run("sh", "-c", "ip -s addr show t-1; ip route show table all | grep -v local | head -30")
			t.Logf("%s\n%s\n%s\n%s", must(t, b.node, b.bin, "show", "tunnels", "--socket", b.socket), must(t, b.node, b.bin, "show", "routes", "--socket", b.socket), out, links)
		}
	}()
	eventually(t, "both tunnels learn both families", func() bool {
		return deviceOf(t, b, "t-1").Learned == 2 && deviceOf(t, b, "t-2").Learned == 2
	})
	t.Logf("causeway show tunnels\n%s\ncauseway show routes\n%s", must(t, b.node, b.bin, "show", "tunnels", "--socket", b.socket), must(t, b.node, b.bin, "show", "routes", "--socket", b.socket))
}
