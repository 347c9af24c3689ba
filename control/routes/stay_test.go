package routes

import (
	"testing"
	"time"

	"causeway/pipeline"
)

const twoTunnels = `
endpoints: [192.0.2.1]
tunnels:
  - {name: a1, account: acme, endpoint: 192.0.2.1, customer_endpoint: 198.51.100.2, interface_address: 10.213.0.0/31, prefixes: [203.0.113.0/24]}
  - {name: a2, account: acme, endpoint: 192.0.2.1, customer_endpoint: 198.51.100.3, interface_address: 10.213.0.2/31, prefixes: [203.0.113.0/24]}
routes:
  - {prefix: 203.0.113.0/24, account: acme, nexthop: a1}
  - {prefix: 203.0.113.0/24, account: acme, nexthop: a2}
`

// When a tunnel of several comes back, flows stay with the others until they are silent, or the operator wants otherwise. New ones do not
// wait: a part of the flows that nobody uses moves at once.
func TestFlowsStay(t *testing.T) {
	e := newEngine(t, 2)
	b := newMirror(e)
	b.kernel()
	now := time.Unix(1_800_000_000, 0)
	b.m.groups.now = func() time.Time { return now }
	pass := func(d time.Duration) {
		for end := now.Add(d); now.Before(end); now = now.Add(time.Second) {
			b.m.groups.sweep()
		}
	}
	id := map[pipeline.Leaf]string{}
	for _, file := range []string{twoTunnels, twoTunnels + "steering: {stay: off}\n"} {
		configure(t, e, b.m, parse(t, "p2", file))
		for _, name := range []string{"a1", "a2"} {
			n, _ := e.TunnelID(name)
			id[pipeline.MakeLeaf(pipeline.KindTunnel, n)] = name
		}
	}
	configure(t, e, b.m, parse(t, "p2", twoTunnels))
	// pick is the tunnel of each of some flows, one a part.
	pick := func(parts int) (list []string) {
		for i := range parts {
			l := lookup(e, "acme", "203.0.113.7")
			if pipeline.LeafKind(l) == pipeline.KindGroup {
				l = b.m.groups.list[pipeline.LeafIndex(l)].fib.Pick(uint32(i) << 24)
			}
			list = append(list, id[l])
		}
		return list
	}
	const active = 100 // the first parts have flows
	differ := func(a, b []string) (n int) {
		for i := range a {
			if a[i] != b[i] {
				n++
			}
		}
		return n
	}
	share := func(list []string) (n int) {
		for _, name := range list {
			if name == "a1" {
				n++
			}
		}
		return n
	}
	first := pick(active)
	b.m.SetPenalty("a1", 1_000_000)
	without := pick(active)
	if share(without) > 0 || differ(first, without) != share(first) {
		t.Fatalf("a1 is down: it has %d flows, and %d moved", share(without), differ(first, without))
	}
	pass(10 * time.Second)
	pick(active)
	b.m.SetPenalty("a1", 0)
	if n := differ(without, pick(active)); n > 0 {
		t.Errorf("a1 is back: %d flows moved", n)
	}
	if n := share(pick(256)[active:]); n != 128 {
		t.Errorf("a1 is back: it has %d of the parts without flows, want its whole share", n)
	}
	pass(40 * time.Second)
	pick(10) // the first of them go on
	pass(60 * time.Second)
	if late := b.m.Stats().Late; late != 0 {
		t.Errorf("%d parts are elsewhere than the weights say", late)
	}

	configure(t, e, b.m, parse(t, "p2", twoTunnels))
	pass(300 * time.Second)
	all := pick(256)
	b.m.SetPenalty("a2", 1_000_000)
	if n := share(pick(256)); n != 256 {
		t.Errorf("a2 is down: %d", n)
	}
	b.m.SetPenalty("a2", 0)
	if n := share(pick(256)); n != 256 {
		t.Errorf("a2 is back: a1 has %d flows", n)
	}
	if late := b.m.Stats().Late; late != 128 {
		t.Errorf("%d parts are elsewhere", late)
	}
	if n := b.m.Rebalance(); n != 128 {
		t.Errorf("%d parts are said to have moved", n)
	}
	if n := share(pick(256)); n != 128 || share(all) != 128 {
		t.Errorf("after rebalance a1 has %d flows", n)
	}
	if late := b.m.Stats().Late; late != 0 {
		t.Errorf("%d parts are elsewhere after rebalance", late)
	}

	b.m.SetPenalty("a2", 1_000_000)
	pick(256)
	b.m.SetPenalty("a2", 0)
	pass(40 * time.Second)
	pick(10) // these go on, and the others have ended
	pass(40 * time.Second)
	if n := share(pick(256)); n != 128 || share(pick(10)) != 10 {
		t.Errorf("most flows have ended: a1 has %d", n)
	}

	configure(t, e, b.m, parse(t, "p2", twoTunnels+"steering: {stay: off}\n"))
	b.m.SetPenalty("a2", 1_000_000)
	pick(256)
	b.m.SetPenalty("a2", 0)
	if n := share(pick(256)); n != 128 {
		t.Errorf("with stay: off a1 has %d flows", n)
	}
}
