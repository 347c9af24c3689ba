package pmtu

import (
	"testing"
	"time"
)

// What one node learns another one has, for as long, within the same bounds, and does not tell on.
func TestPathsAreShared(t *testing.T) {
	here, there := newBed(), newBed()
	var told, echoed []Path
	here.Share(func(p Path) { told = append(told, p) })
	there.Share(func(p Path) { echoed = append(echoed, p) })
	packet := error4(endpoint4, 3, 4, 1400, quote{src: endpoint4, dst: customer4, proto: 50, total: 1496, gre: words(0x2001, 1)})
	if v := take4(here.Learner, 1, packet, start); v != Lowered {
		t.Fatal(v)
	}
	if len(told) != 1 || told[0].Tunnel != "esp" || told[0].Outer != 1400 || told[0].Left != lifetime {
		t.Fatalf("told %+v", told)
	}
	later := start.Add(4 * time.Minute)
	list := here.Own(later)
	if len(list) != 1 || list[0].Left != lifetime-4*time.Minute {
		t.Fatalf("known for later: %+v", list)
	}
	there.Hear(list[0], later)
	if here.mtu[7] == 0 || there.mtu[7] != here.mtu[7] || there.mtu[1] != 0 {
		t.Errorf("here %v, there %v", here.mtu, there.mtu)
	}
	if len(echoed) > 0 || len(there.Own(later)) > 0 {
		t.Error("what was heard is told on: it would never be forgotten")
	}
	there.Expire(start.Add(lifetime - time.Second))
	if there.mtu[7] == 0 {
		t.Error("forgotten too early")
	}
	there.Expire(start.Add(lifetime))
	if there.mtu[7] != 0 {
		t.Error("it outlives what it was learned from")
	}

	for what, p := range map[string]Path{
		"another customer":  {"esp", endpoint4, router4, 1400, lifetime},
		"another tunnel":    {"nobody", endpoint4, customer4, 1400, lifetime},
		"over already":      {"esp", endpoint4, customer4, 1400, -time.Second},
		"larger":            {"esp", endpoint4, customer4, 9000, lifetime},
		"a tunnel with off": {"off", endpoint4, tunnels[3].CustomerEndpoint, 1400, lifetime},
		"addresses of none": {},
	} {
		b := newBed()
		b.Hear(p, start)
		for id, mtu := range b.mtu {
			if mtu != 0 {
				t.Errorf("%s: tunnel %d is lowered to %d", what, id, mtu)
			}
		}
	}
	b := newBed()
	b.Hear(Path{"plain", endpoint4, customer4, 1, time.Hour}, start)
	b.Hear(Path{"six", endpoint6, customer6, -5, time.Hour}, start)
	if b.mtu[1] != least4-24 || b.mtu[6] != least6-44 {
		t.Errorf("less than any path carries: %v", b.mtu)
	}
	b.Expire(start.Add(lifetime))
	if b.mtu[1] != 0 {
		t.Error("it is believed for longer than an error would be")
	}
}
