package main_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"causeway/control/api"
)

// birdConf is bird's configuration beside a node, for tunnels with devices.
func (b *bed) birdConf(address string, tunnels ...tunnel) string {
	text := "router id " + address + "; protocol device { scan time 5; }\n" + b.net.RoutingConf("bgp-bird.conf")
	for i, x := range tunnels {
		for _, n := range []string{"4", "6"} {
			text += b.net.RoutingConf("bgp-bird-tunnel"+n+".conf", "TUNNEL", x.name, "OURS4", ours(x.interface4), "OURS6", ours(x.interface6), "THEIRS4", x.customer4, "THEIRS6", x.customer6,
				"TABLE", fmt.Sprint(101+i))
		}
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
			fmt.Fprintf(&s, " neighbor %[1]s remote-as 65001\n neighbor %[1]s timers connect 1\n", address)
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
	// Behind the file that announces endpoints it is right too.
	joined := filepath.Join(b.dir, "joined.conf")
	text := b.net.RoutingConf("bird.conf", "NODE4", address1, "ROUTER4", "172.31.1.254", "ROUTER6", "2001:db8:31::fe") + strings.SplitN(b.birdConf(address1, first, second), "\n", 2)[1]
	if err := os.WriteFile(joined, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	must(t, b.node, "bird", "-p", "-c", joined)
	bird := b.node.Bird(b.birdConf(address1, first, second))
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
	t.Logf("causeway show tunnels\n%s", must(t, b.node, b.bin, "show", "tunnels", "--socket", b.socket))
	for prefix, want := range map[string][]uint32{first.prefixes[0]: {50, 150}, first.prefixes[1]: {50, 150}} {
		if got := b.priorities(t, prefix); !slices.Equal(got, want) {
			t.Errorf("priorities of %s: %v, want %v", prefix, got, want)
		}
	}
	before1 := carriedBy(t, b, "t-1")
	must(t, b.inet, "ping", "-q", "-i", "0.01", "-c", "100", behind4)
	must(t, b.inet, "ping", "-q", "-i", "0.01", "-c", "100", tunnels[0].behind6().String())
	if n := carriedBy(t, b, "t-1") - before1; n < 200 {
		t.Errorf("the first tunnel carries %d packets", n)
	}
	if out := b.vtysh(t, "show bgp ipv4 unicast 0.0.0.0/0"); strings.Count(out, "65001") < 2 {
		t.Errorf("the router is told of no way out:\n%s", out)
	}

	// Nobody tells the daemons: probes find out.
	flow := b.inet.Start("ping", "-q", "-i", "0.01", "-c", "500", "-W", "1", behind4)
	time.Sleep(time.Second)
	b.sh(t, fmt.Sprintf("modprobe iptable_raw && iptables-legacy -t raw -A PREROUTING -s %s -d %s -j DROP", endpoint4, first.customer))
	eventually(t, "the first tunnel is down", func() bool { return b.healthOf(t, "t-1").State == "down" })
	received := pinged(t, flow, 500)
	t.Logf("of 500 packets, 100 a second, %d were lost when the tunnel broke", 500-received)
	if received < 400 {
		t.Errorf("%d packets were lost, which is more than a second", 500-received)
	}
	b.sh(t, "iptables-legacy -t raw -F PREROUTING")
	eventually(t, "the first tunnel is healthy again, and what it has learned is there", func() bool {
		return b.healthOf(t, "t-1").State == "healthy" && deviceOf(t, b, "t-1").Learned == 2
	})

	// What is withdrawn is nobody's.
	for _, name := range []string{"t-1", "t-2"} {
		b.vtysh(t, "configure terminal", "route-map to-"+name+" deny 5", "exit")
	}
	eventually(t, "nothing is learned any more", func() bool {
		return deviceOf(t, b, "t-1").Learned == 0 && deviceOf(t, b, "t-2").Learned == 0
	})
	before = b.drops(t)
	if _, err := b.inet.Run("ping", "-c", "1", "-W", "1", behind4); err == nil {
		t.Error("it was withdrawn, and answers")
	}
	if d := b.newDrops(t, before); d["route_unlearned"] != 1 {
		t.Errorf("dropped: %v", d)
	}
	b.lostDevice(t, first)
	b.manyPrefixes(t, first, func(conf string) string { return conf })
	b.balance(t)
	b.end(t)
}

// lostDevice: a device that somebody takes away is made again, and the daemons speak through it again.
func (b *bed) lostDevice(t *testing.T, through tunnel) {
	for _, name := range []string{"t-1", "t-2"} {
		b.vtysh(t, "configure terminal", "no route-map to-"+name+" deny 5")
	}
	eventually(t, "it is learned again", func() bool { return deviceOf(t, b, "t-1").Learned == 2 && deviceOf(t, b, "t-2").Learned == 2 })
	b.node.MustRun("ip", "link", "del", through.name)
	eventually(t, "the device is there again", func() bool {
		_, err := b.node.Run("ip", "link", "show", through.name)
		return err == nil
	})
	eventually(t, "it is learned through the new device", func() bool { return deviceOf(t, b, through.name).Learned == 2 })

	// Without the field the device goes, and nothing of the other tunnel is lost.
	flow := b.inet.Start("ping", "-q", "-i", "0.01", "-c", "300", "-W", "1", "198.18.1.10")
	time.Sleep(time.Second)
	text, err := os.ReadFile(b.file())
	if err != nil {
		t.Fatal(err)
	}
	i := strings.LastIndex(string(text), "    kernel_interface: true\n") // t-2's, which carries nothing
	b.write(t, string(text[:i])+strings.Replace(string(text[i:]), "    kernel_interface: true\n", "", 1))
	must(t, b.node, b.bin, "reload", "--socket", b.socket)
	if _, err := b.node.Run("ip", "link", "show", "t-2"); err == nil {
		t.Error("the device of t-2 is there")
	}
	if n := pinged(t, flow, 300); n < 300 {
		t.Errorf("%d of 300 packets were lost when the other tunnel's device went", 300-n)
	}

	// One whose name the host has for something else is missed by its tunnel alone, and made as soon as it can be.
	b.node.MustRun("ip", "link", "add", "t-2", "type", "veth", "peer", "name", "taken")
	b.write(t, string(text))
	must(t, b.node, b.bin, "reload", "--socket", b.socket)
	if d := deviceOf(t, b, "t-2"); !strings.Contains(d.Problem, "there is an interface of that name already") {
		t.Errorf("a device that cannot be made: %+v", d)
	}
	b.node.MustRun("ip", "link", "del", "t-2")
	eventually(t, "t-2 learns again", func() bool { return deviceOf(t, b, "t-2").Learned == 2 })
}

// vtysh gives FRR in the guest commands.
func (b *bed) vtysh(t *testing.T, commands ...string) string {
	t.Helper()
	text := "vtysh --vty_socket /tmp/frr --config_dir /tmp/frr"
	for _, c := range commands {
		text += fmt.Sprintf(" -c %q", c)
	}
	return b.sh(t, text)
}

// priorities are those of the learned routes to a prefix in the Internet table, the best first.
func (b *bed) priorities(t *testing.T, prefix string) (list []uint32) {
	t.Helper()
	for _, r := range show[[]api.Route](t, b, "routes") {
		if r.Prefix == prefix && r.Account == "" && r.Source == "learned" {
			list = append(list, r.Priority)
		}
	}
	slices.Sort(list)
	return list
}

// manyPrefixes: the router announces 100,000 prefixes, a tenth in the short form, and withdraws them. edit changes its configuration.
func (b *bed) manyPrefixes(t *testing.T, through tunnel, edit func(conf string) string) {
	many := 10_000
	if full() {
		many = 100_000
	}
	// Made there: it is too long for a command line.
	conf := edit(bgpdConf(bgpPeer{through, []string{"MANY"}, "set community 13335:60010"}))
	b.sh(t, fmt.Sprintf("pid=$(cat /tmp/frr/bgpd.pid)\nkill $pid\ncat >/tmp/bgpd.conf <<'EOF'\n%s\nEOF", conf)+fmt.Sprintf(`
awk 'BEGIN { for (i = 0; i < %d; i++) printf "  network 10.%%d.%%d.%%d/26\n", int(i / 1024), int(i / 4) %% 256, i %% 4 * 64 }' >/tmp/many
sed -e '/MANY/{r /tmp/many' -e 'd}' /tmp/bgpd.conf >/tmp/frr/frr.conf
while kill -0 $pid 2>/dev/null; do sleep 0.1; done
/usr/lib/frr/bgpd -d -f /tmp/frr/frr.conf -z /tmp/frr/zserv.api -i /tmp/frr/bgpd.pid --vty_socket /tmp/frr -u frr -g frr`, many))
	await := func(what string, n int) {
		began := time.Now()
		for deviceOf(t, b, through.name).Learned != n {
			if time.Since(began) > 2*time.Minute {
				t.Fatalf("%s: after 2 minutes there are %d", what, deviceOf(t, b, through.name).Learned)
			}
			time.Sleep(100 * time.Millisecond)
		}
		t.Logf("%s after %v", what, time.Since(began))
	}
	await(fmt.Sprint(many, " prefixes are learned"), many)
	b.vtysh(t, "configure terminal", "route-map to-"+through.name+" deny 5", "exit")
	await("they are gone", 0)
}

// TestRootBGPIPsec: FRR at both ends, through an IPsec tunnel: strongSwan and a VTI of the Linux kernel on the customer's router. It is probed one way:
// into ESP, and back by the Internet.
func TestRootBGPIPsec(t *testing.T) {
	x := &ikeTunnel{number: 101, name: "ipsec", place: inGuest, vti: true, device: true, health: "{type: request, direction: unidirectional, interval: 200ms, recovery: {clean: 5, hold: 1s}}", proposals: "aes128gcm16-prfsha256-x25519", child: "aes128gcm16-x25519"}
	b := newIKEBed(t, []*ikeTunnel{x})
	b.run(t, b.ikeConfiguration())
	b.startSwans(t)
	b.swans[inGuest].MustCtl("--initiate", "--child", x.name)
	through := tunnel{name: x.name, interface4: "10.213.101.0/31", interface6: "fd00:213:101::a/127", customer4: "10.213.101.1", customer6: "fd00:213:101::b"}
	b.sh(t, "ip addr add 10.213.101.1/31 dev vti101; ip addr add fd00:213:101::b/127 dev vti101 nodad")
	// Only packets of the neighbour on the link are believed (RFC 5082), and the daemons speak BFD themselves.
	only := func(conf, neighbour string) string {
		line := " neighbor " + neighbour + " timers connect"
		return strings.Replace(conf, line, fmt.Sprintf(" neighbor %[1]s ttl-security hops 1\n neighbor %[1]s bfd\n", neighbour)+line, 1)
	}
	more := "\nip prefix-list customer4 permit 10.0.0.0/8 le 32\n" // what there are many of, below
	f := b.node.FRR(more + only(b.net.RoutingConf("bgp-frr.conf", "NODE4", address1, "THEIRS4", through.customer4, "THEIRS6", through.customer6, "ALLOWED4", "198.18.0.0/15", "ALLOWED6", "2001:db8:18:101::/64"), through.customer4))
	defer f.Stop()
	b.guestFRR(t, only(bgpdConf(bgpPeer{through, []string{"198.18.101.0/24", "2001:db8:18:101::/64", "198.19.77.0/24", "192.0.2.0/24"}, "set community 13335:60010"}), "10.213.101.0"), "bfdd", "bgpd")
	defer func() {
		if t.Failed() {
			t.Log(f.Show("show bgp summary"), f.Show("show bgp ipv4 unicast"), f.Show("show ip route"), b.vtysh(t, "show bgp summary"), must(t, b.node, "ip", "route"), must(t, b.node, "ip", "nexthop"))
		}
	}()
	eventually(t, "three prefixes are learned", func() bool { return deviceOf(t, b.bed, x.name).Learned == 3 })
	eventually(t, "the daemons' BFD is up", func() bool { return strings.Contains(f.Show("show bfd peers brief"), "up") })
	for _, pair := range [][2]netip.Addr{{x.from4(), x.inside4()}, {x.from6(), x.inside6()}} {
		if err := b.echo(pair[0], pair[1]); err != nil {
			t.Error(err)
		}
	}
	eventually(t, "probes into ESP are answered by the Internet", func() bool { h := b.healthOf(t, x.name); return h.State == "healthy" && h.Answered > 10 })
	wire := b.rt.Capture("vc", "icmp and src host "+x.outer())
	time.Sleep(time.Second)
	if n := len(b.net.Tshark(wire.Stop(), "icmp.type == 0 and ip.dst == "+endpoint4, "frame.number")); n < 3 {
		t.Errorf("%d answers came by the Internet in a second", n)
	}
	if full() {
		b.manyPrefixes(t, through, func(conf string) string { return only(conf, "10.213.101.0") })
	}
	b.balance(t)
	b.end(t)
}

// bothLearn: one of two nodes speaks BGP with the router, through IPsec, whichever node the router's packets come to; and both have what it learns, as
// their birds tell each other.
func (b *clusterBed) bothLearn(t *testing.T) {
	t.Helper()
	x := b.tunnels[0]
	through := tunnel{name: x.name, interface4: fmt.Sprintf("10.213.%d.0/31", x.number), interface6: fmt.Sprintf("fd00:213:%d::a/127", x.number),
		customer4: fmt.Sprintf("10.213.%d.1", x.number), customer6: fmt.Sprintf("fd00:213:%d::b", x.number)}
	addresses := map[*bed][3]string{b.bed: {address1, address2, b.second.name}, b.second: {address2, address1, b.name}}
	for node, a := range addresses {
		text := node.birdConf(a[0], through) + b.net.RoutingConf("bgp-bird-node.conf", "NODE4", a[0], "OTHER4", a[1], "OTHERNAME", a[2])
		defer node.node.Bird(text).Stop()
	}
	learned := func() bool {
		return deviceOf(t, b.bed, x.name).Learned == 2 && deviceOf(t, b.second, x.name).Learned == 2
	}
	defer func() {
		if t.Failed() {
			for node := range addresses {
				t.Log(must(t, node.node, "sh", "-c", "for s in /tmp/causeway-*/*/"+node.node.Name+"-bird/ctl; do birdc -s $s show protocols all; birdc -s $s show route all table all; done; ip route show table 101; ip -s link show "+x.name))
			}
		}
	}()
	await(t, "both nodes have not learned", learned)
	first, second := deviceOf(t, b.bed, x.name), deviceOf(t, b.second, x.name)
	if first.Node != second.Node || first.Node == "" {
		t.Errorf("who speaks: %+v, %+v", first, second)
	}
	speaker, other := b.bed, b.second
	if first.Node == b.second.name {
		speaker, other = b.second, b.bed
	}
	passed := deviceOf(t, other, x.name).PassedOn
	for _, way := range []string{toFirst, toSecond} {
		b.spray(way)
		before := deviceOf(t, speaker, x.name).ToKernel
		time.Sleep(5 * time.Second) // the hold time is nine, a third of it for each side to say something
		if after := deviceOf(t, speaker, x.name); after.ToKernel == before || !learned() {
			t.Errorf("all packets come to one node (%s): %+v", way, after)
		}
	}
	if d := deviceOf(t, other, x.name); d.FromKernel > 0 || d.Unsent == 0 || d.PassedOn == passed {
		t.Errorf("the node that does not speak: %+v", d)
	}
	for _, node := range []*bed{b.bed, b.second} {
		for _, r := range show[[]api.Route](t, node, "routes") {
			if r.Prefix == "198.18.101.0/25" && (r.Source != "learned" || r.Kind != "tunnel" || !r.Active) {
				t.Errorf("%s: %+v", node.name, r)
			}
		}
	}
	b.spray(toBoth)
	b.manyPings(t, "by learned routes", b.bed, b.second)

	t.Logf("%s speaks", speaker.name)
	if speaker == b.bed {
		return // it has the store
	}
	b.kill(t, speaker)
	b.spray(toFirst)
	began := time.Now()
	await(t, "nobody speaks in its place", func() bool { d := deviceOf(t, other, x.name); return d.Node == other.name && d.Learned == 2 })
	t.Logf("the node that speaks was killed: another one has the session and the routes after %v", time.Since(began))
	b.manyPings(t, "another one speaks", other)
	speaker.start()
	b.joined(t)
	b.spray(toBoth)
}
