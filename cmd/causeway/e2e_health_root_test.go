package main_test

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"causeway/control/api"
)

// healthOf is what the node says of a tunnel's probes.
func (b *bed) healthOf(t *testing.T, tunnel string) (h api.Health) {
	t.Helper()
	for _, h := range show[[]api.Health](t, b, "health") {
		if h.Tunnel == tunnel {
			return h
		}
	}
	t.Fatalf("tunnel %s is not probed", tunnel)
	return h
}

// TestRootHealth: a node probes tunnels to a Linux kernel, in each way that there is. When one does not carry packets any more another
// one takes its place within a second, and gives it back.
func TestRootHealth(t *testing.T) {
	b := newBed(t, bedOptions{guest: true})
	const often = "interval: 100ms, recovery: {hold: 3s}"
	probes := []string{
		"{type: request, " + often + "}",
		"{type: reply, " + often + "}",
		"{type: request, family: ipv6, rate: high}",
		"{type: reply, family: ipv6, rate: high}",
		"{type: request, target: 198.18.5.10, rate: high}", // the host behind
		"{type: request, direction: unidirectional, interval: 200ms}",
		"{type: reply, direction: unidirectional, rate: high}",
		"{type: reply, interval: 200ms}", // through a firewall, later
	}
	var tunnels []greTunnel
	for i := range probes {
		endpoint := endpoint4
		if i == 2 || i == 3 || i == 6 {
			endpoint = endpoint6
		}
		tunnels = append(tunnels, newTunnel(i+1, fmt.Sprintf("t%d", i+1), endpoint, nil))
	}
	b.guestTunnels(t, tunnels)
	// What is behind the first tunnel the second one reaches too.
	tunnels[1].prefixes = append(tunnels[1].prefixes, "198.18.1.0/24")
	routes := []string{"routes:", "  - {prefix: 198.18.1.0/24, nexthop: t1, priority: 100}", "  - {prefix: 198.18.1.0/24, nexthop: t2, priority: 200}"}
	b.run(t, b.configuration(plain(tunnels), routes...))
	b.warm(t, tunnels)
	for i, p := range probes {
		tunnels[i].extra = []string{"health_check: " + p}
	}
	b.write(t, b.configuration(plain(tunnels), routes...))
	must(t, b.node, b.bin, "reload", "--socket", b.socket)
	for _, x := range tunnels {
		eventually(t, x.name+" is healthy, and its probes are answered", func() bool {
			h := b.healthOf(t, x.name)
			return h.State == "healthy" && h.Answered > 5 && h.RTT > 0
		})
	}
	b.balance(t)
	b.breakLegs(t, tunnels)

	flow := b.inet.Start("ping", "-q", "-i", "0.01", "-c", "700", "-W", "1", tunnels[0].behind4().String())
	time.Sleep(time.Second)
	before := carriedBy(t, b, "t2")
	b.sh(t, "ip link set g1 down")
	eventually(t, "the first tunnel is down", func() bool { return b.healthOf(t, "t1").State == "down" })
	if h := b.healthOf(t, "t1"); h.Penalty != 1_000_000 || h.Why == "" || h.Lost < 3 {
		t.Errorf("down: %+v", h)
	}
	t.Logf("causeway show health\n%s", must(t, b.node, b.bin, "show", "health", "--socket", b.socket))
	if err := flow.Wait(startLimit); err != nil {
		t.Logf("ping: %v", err)
	}
	m := regexp.MustCompile(`700 packets transmitted, (\d+) received`).FindStringSubmatch(flow.Log())
	if m == nil {
		t.Fatalf("ping printed %s", flow.Log())
	}
	received, _ := strconv.Atoi(m[1])
	t.Logf("of 700 packets, 100 a second, %d were lost when the tunnel broke", 700-received)
	if received < 600 {
		t.Errorf("%d packets were lost, which is more than a second", 700-received)
	}
	if after := carriedBy(t, b, "t2"); after-before < 400 {
		t.Errorf("the second tunnel has carried %d packets", after-before)
	}
	if h := b.healthOf(t, "t2"); h.State != "healthy" {
		t.Errorf("the second tunnel: %+v", h)
	}

	b.sh(t, "ip link set g1 up && ip addr replace 10.213.1.1/31 dev g1 && ip route replace default dev g1 table 101")
	eventually(t, "the first tunnel is degraded, no more down", func() bool {
		h := b.healthOf(t, "t1")
		return h.State == "degraded" && h.Penalty == 500_000
	})
	eventually(t, "the first tunnel is healthy", func() bool { return b.healthOf(t, "t1").State == "healthy" })
	first := carriedBy(t, b, "t1")
	must(t, b.inet, "ping", "-q", "-i", "0.01", "-c", "100", tunnels[0].behind4().String())
	if n := carriedBy(t, b, "t1") - first; n < 100 {
		t.Errorf("the first tunnel carries %d packets again", n)
	}
	b.balance(t)
	b.end(t)
}

// breakLegs breaks a part of the way of two tunnels, and the node says which.
func (b *bed) breakLegs(t *testing.T, tunnels []greTunnel) {
	t.Helper()
	b.sh(t, fmt.Sprintf(`modprobe -a iptable_filter iptable_raw xt_conntrack && iptables-legacy -A FORWARD -i g8 -m conntrack --ctstate INVALID -j DROP &&
		iptables-legacy -t raw -A PREROUTING -s %s -d %s -j DROP`, endpoint4, tunnels[5].customer))
	defer b.sh(t, "iptables-legacy -F FORWARD && iptables-legacy -t raw -F PREROUTING")
	flow := b.srv.Start("ping", "-q", "-i", "0.1", "-I", tunnels[5].behind4().String(), "-W", "1", "-c", "40", inet4) // whose answers are lost
	eventually(t, "the tunnel behind a firewall is down, and it is known why", func() bool {
		h := b.healthOf(t, "t8")
		return h.State == "down" && strings.Contains(h.Leg, "answers requests") && strings.Contains(h.Leg, "firewall")
	})
	eventually(t, "the tunnel that carries packets one way alone is down, and it is known which", func() bool {
		h := b.healthOf(t, "t6")
		return h.State == "down" && strings.Contains(h.Leg, "packets still come out of the tunnel")
	})
	if h := b.healthOf(t, "t7"); h.State != "healthy" || h.Leg != "" {
		t.Errorf("one that nothing has happened to: %+v", h)
	}
	_ = flow.Wait(startLimit) // it has lost packets
	t.Logf("causeway show health\n%s", must(t, b.node, b.bin, "show", "health", "--socket", b.socket))
}

// carriedBy is how many packets went into a tunnel.
func carriedBy(t *testing.T, b *bed, tunnel string) int {
	t.Helper()
	for _, v := range show[[]api.Tunnel](t, b, "tunnels") {
		if v.Name == tunnel {
			return int(v.TXPackets)
		}
	}
	return 0
}

// probesComeHome: of the answers to each node's probes every other one comes to the other node, and none is lost.
func (b *clusterBed) probesComeHome(t *testing.T) {
	t.Helper()
	for _, x := range []*bed{b.bed, b.second} {
		await(t, "the tunnel is not healthy at "+x.name, func() bool { return x.healthOf(t, "four").State == "healthy" })
	}
	for _, x := range []*bed{b.bed, b.second} {
		before := x.healthOf(t, "four")
		await(t, "no more answers come to "+x.name, func() bool { return x.healthOf(t, "four").Answered >= before.Answered+10 })
		after := x.healthOf(t, "four")
		if after.Lost != before.Lost {
			t.Errorf("%s: %d probes are lost", x.name, after.Lost-before.Lost)
		}
		if after.Every != 2*after.Interval || len(after.Datacenters) != 1 || after.Datacenters[0].Healthy != 2 || after.Fleet != "healthy" {
			t.Errorf("%s does not share the probing: %+v", x.name, after)
		}
	}
}

// downWithoutSA: a tunnel whose customer ends its IPsec SA is down at once, at both nodes, and no more when there is another one.
func (b *clusterBed) downWithoutSA(t *testing.T) {
	t.Helper()
	if err := b.swanctl("--terminate", "--ike")(b.tunnels[0]); err != nil {
		t.Fatal(err)
	}
	for _, x := range []*bed{b.bed, b.second} {
		await(t, "without an IPsec SA the tunnel is not down at "+x.name, func() bool {
			h := x.healthOf(t, "four")
			return h.State == "down" && strings.Contains(h.Why, "no IPsec SA")
		})
	}
	if err := b.initiates(b.tunnels[0]); err != nil {
		t.Fatal(err)
	}
	for _, x := range []*bed{b.bed, b.second} {
		await(t, "with an IPsec SA the tunnel is still down at "+x.name, func() bool { return x.healthOf(t, "four").State != "down" })
	}
}
