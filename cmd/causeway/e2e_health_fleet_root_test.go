package main_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"causeway/control/api"
)

// TestRootHealthFleet: two nodes probe tunnels to one router together. The way of one of them to the customer breaks, alone in its data center and as a
// data center of its own: that one uses another tunnel, the other one goes on, and who looks sees where it is broken.
func TestRootHealthFleet(t *testing.T) {
	var tunnels []greTunnel
	for k := 1; k <= 2; k++ {
		tunnels = append(tunnels, newTunnel(k, fmt.Sprintf("t%d", k), endpoint4, []string{"health_check: {type: request, interval: 100ms, recovery: {clean: 10, hold: 2s}}"}))
	}
	b := newHealthFleet(t, tunnels)
	b.startIn(t, tunnels, "ams1", "ams1")
	b.loses(t, tunnels, "ams1", func(h api.Health) bool {
		d := h.Datacenters[0]
		return d.Datacenter == "ams1" && d.Healthy == 1 && d.Down == 1 && slices.Contains(d.Disagree, "edge-2")
	})
	b.startIn(t, tunnels, "ams1", "fra1")
	b.loses(t, tunnels, "fra1", func(h api.Health) bool {
		return len(h.Datacenters) == 2 && h.Datacenters[0].State == "healthy" && h.Datacenters[1].Datacenter == "fra1" && h.Datacenters[1].State == "down" && h.Fleet == "degraded"
	})
	// What the node cannot send at all is not the customer's fault, and said so.
	b.node.Route("unreachable", tunnels[1].customer)
	await(t, "the tunnel without a way is not down", func() bool { return b.healthOf(t, "t2").State == "down" })
	if h := b.healthOf(t, "t2"); !strings.HasPrefix(h.Leg, "what goes into it does not leave this node: ") {
		t.Errorf("a tunnel without a way: %q", h.Leg)
	}
	for _, x := range []*bed{b.second, b.bed} {
		x.balance(t)
		x.end(t)
	}
}

// newHealthFleet is a bed of two nodes and a guest with GRE tunnels. What is behind the first tunnel the second one reaches too.
func newHealthFleet(t *testing.T, tunnels []greTunnel) *clusterBed {
	t.Helper()
	b := &clusterBed{ikeBed: &ikeBed{bed: newBed(t, bedOptions{guest: true})}, files: t.TempDir()}
	b.addSecond(t)
	b.guestTunnels(t, tunnels)
	tunnels[1].prefixes = append(tunnels[1].prefixes, tunnels[0].prefixes[0])
	return b
}

// startIn starts both nodes in these data centers, and waits until each has all tunnels healthy.
func (b *clusterBed) startIn(t *testing.T, tunnels []greTunnel, first, second string) {
	t.Helper()
	b.spray(toBoth)
	routes := []string{"routes:", "  - {prefix: 198.18.1.0/24, nexthop: t1, priority: 100}", "  - {prefix: 198.18.1.0/24, nexthop: t2, priority: 200}"}
	for _, x := range []struct {
		*bed
		address, datacenter string
	}{{b.bed, address1, first}, {b.second, address2, second}} {
		x.more = fmt.Sprintf(", address: %s, datacenter: %s", x.address, x.datacenter)
		x.run(t, x.configuration(plain(tunnels), append([]string{b.section(x.bed)}, routes...)...))
	}
	b.joined(t)
	for _, x := range []*bed{b.bed, b.second} {
		for _, name := range []string{"t1", "t2"} {
			await(t, x.name+" does not find "+name+" healthy", func() bool { h := x.healthOf(t, name); return h.State == "healthy" && h.Answered > 5 })
		}
	}
	await(t, "the nodes do not know each other", func() bool {
		h := b.healthOf(t, "t1")
		return len(h.Datacenters) > 0 && h.Datacenters[0].Healthy+10*len(h.Datacenters) == map[bool]int{true: 2 + 10, false: 1 + 20}[first == second]
	})
}

// loses breaks the second node's way to the customer's end of the first tunnel, and mends it. sees says what the first node must be told of that.
func (b *clusterBed) loses(t *testing.T, tunnels []greTunnel, datacenter string, sees func(api.Health) bool) {
	t.Helper()
	b.spray(toSecond)
	flow := b.inet.Start("ping", "-q", "-i", "0.01", "-c", "700", "-W", "1", tunnels[0].behind4().String())
	time.Sleep(time.Second)
	before := carriedBy(t, b.second, "t2")
	b.rt.MustRun("nft", fmt.Sprintf(`table ip cut {
	chain forward { type filter hook forward priority 0; iifname "m1" ip daddr %s drop
	}
}`, tunnels[0].customer))
	began := time.Now()
	await(t, "the second node does not notice", func() bool { return b.second.healthOf(t, "t1").State == "down" })
	noticed := time.Since(began)
	await(t, "the first node does not see where it is broken", func() bool { return sees(b.healthOf(t, "t1")) })
	text := must(t, b.node, b.bin, "show", "health", "--socket", b.socket)
	if !strings.Contains(text, "t1 in "+datacenter+": d") {
		t.Errorf("show health says nothing of it:\n%s", text)
	}
	t.Logf("%s: the node whose way is broken knows after %v; the other one after %v, and says\n%s", datacenter, noticed, time.Since(began), text)
	received := pinged(t, flow, 700)
	t.Logf("of 700 packets through the node whose way broke, 100 a second, %d were lost", 700-received)
	if received < 600 {
		t.Errorf("%d packets were lost, which is more than a second", 700-received)
	}
	if n := carriedBy(t, b.second, "t2") - before; n < 300 {
		t.Errorf("the second tunnel has carried %d packets", n)
	}
	if h := b.healthOf(t, "t1"); h.State != "healthy" {
		t.Errorf("the first node, whose way is good: %+v", h)
	}
	if h := b.second.healthOf(t, "t1"); !strings.Contains(h.Leg, "the way") {
		t.Errorf("where the second node finds it broken: %q", h.Leg)
	}
	b.rt.MustRun("nft", "delete", "table", "ip", "cut")
	await(t, "the second node does not find it healthy again", func() bool { return b.second.healthOf(t, "t1").State == "healthy" })
	before = carriedBy(t, b.second, "t1")
	must(t, b.inet, "ping", "-q", "-i", "0.01", "-c", "100", tunnels[0].behind4().String())
	if n := carriedBy(t, b.second, "t1") - before; n < 100 {
		t.Errorf("the first tunnel carries %d packets again", n)
	}
	b.spray(toBoth)
}
