package routes

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"causeway/pipeline"
)

func TestRootNeighbours(t *testing.T) {
	h := newHost(t)
	h.ip(h.node, "route add 192.0.2.0/24 via 10.0.0.1")
	h.ip(h.node, "-6 route add 2001:db8::/32 via fd00:1::1")
	h.resolved(0, "10.0.0.1", true) // asked for in advance
	h.resolved(1, "fd00:1::1", true)
	h.soon("10.0.0.1", h.hop(0, "10.0.0.1")) // a resolved host on a connected prefix has its own route
	h.within(time.Second, "kept fresh by the kernel", "true", func() string {
		for _, n := range h.m.Neighbours() {
			if n.Addr.String() == "10.0.0.1" {
				return fmt.Sprint(n.Managed)
			}
		}
		return ""
	})

	// A worker's wish: a host that answers gets its route, one that does not stays unresolved.
	h.ip(h.world, "addr add 10.0.0.2/24 dev w0")
	h.m.mu.Lock()
	for _, a := range []string{"10.0.0.2", "10.0.0.3"} {
		h.m.wish(pipeline.ResolveRequest{Link: 0, Addr: netip.MustParseAddr(a), Slot: -1})
	}
	h.m.mu.Unlock()
	h.within(time.Second, "10.0.0.2", h.hop(0, "10.0.0.2"), func() string { return h.m.at("", "10.0.0.2") })
	h.soon("10.0.0.3", fmt.Sprintf("glean %d", h.port[0]))

	// It is away: the kernel gives up, its route goes, the connected prefix shows again.
	h.ip(h.node, "neigh replace 10.0.0.2 dev p0 nud failed")
	h.soon("10.0.0.2", fmt.Sprintf("glean %d", h.port[0]))
	h.ip(h.node, "neigh replace 10.0.0.2 lladdr 02:00:00:00:00:99 dev p0 nud permanent")
	h.soon("10.0.0.2", h.hop(0, "10.0.0.2"))
	// A longer route elsewhere makes it no host of this link.
	h.ip(h.node, "route add 10.0.0.0/30 via 10.0.1.1")
	h.soon("10.0.0.2", h.hop(1, "10.0.1.1"))
	h.ip(h.node, "route del 10.0.0.0/30")
	h.soon("10.0.0.2", h.hop(0, "10.0.0.2"))
	if out := run(t, "ip", "-n", h.node, "neigh", "show", "10.0.0.2"); !strings.Contains(out, "PERMANENT") {
		t.Errorf("a permanent entry was changed: %s", out)
	}
}

// The kernel keeps a neighbour fresh for as long as it is used: not longer, and not beyond the daemon.
func TestRootNeighboursAreReleased(t *testing.T) {
	h := newHost(t)
	managed := func(addr string) string {
		return fmt.Sprint(strings.Contains(run(t, "ip", "-n", h.node, "neigh", "show", addr), "managed"))
	}
	is := func(addr, want string) {
		t.Helper()
		h.within(2*time.Second, addr+" managed", want, func() string { return managed(addr) })
	}
	h.ip(h.world, "addr add 10.0.0.2/24 dev w0")
	h.ip(h.node, "neigh replace 10.0.1.77 lladdr 02:00:00:00:00:77 dev p1 nud reachable managed") // somebody else's
	h.ip(h.node, "route add 192.0.2.0/24 via 10.0.0.1")
	h.ip(h.node, "route add 198.51.100.0/24 via 10.0.0.77") // nobody has that address
	h.ip(h.node, "-6 route add 2001:db8::/32 via fd00:1::1")
	for _, a := range []string{"10.0.0.1", "10.0.0.77", "fd00:1::1"} {
		is(a, "true")
	}

	h.ip(h.node, "route del 198.51.100.0/24")
	is("10.0.0.77", "false")
	h.ip(h.node, "route add 198.51.100.0/24 via 10.0.0.2")
	is("10.0.0.2", "true")
	h.ip(h.node, "neigh replace 10.0.0.2 lladdr 02:00:00:00:00:99 dev p0 nud permanent")

	h.stop()
	for _, a := range []string{"10.0.0.1", "10.0.0.2", "fd00:1::1"} {
		if managed(a) != "false" {
			t.Errorf("%s: the kernel still keeps it fresh after the end", a)
		}
	}
	if managed("10.0.1.77") != "true" {
		t.Error("the mark of a neighbour that the daemon never asked for was taken")
	}
	if out := run(t, "ip", "-n", h.node, "neigh", "show", "10.0.0.2"); !strings.Contains(out, "PERMANENT") {
		t.Errorf("a permanent entry was changed: %s", out)
	}
	if out := run(t, "ip", "-n", h.node, "neigh", "show", "10.0.0.1"); !strings.Contains(out, "lladdr") {
		t.Errorf("the kernel's own traffic lost its neighbour: %s", out)
	}
}
