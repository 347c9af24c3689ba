package main

import (
	"fmt"
	"net/netip"
	"testing"

	"causeway/analytics/attack"
	"causeway/analytics/sketch"
	"causeway/analytics/store"
	"causeway/config"
)

// The configuration has a threshold for each vector, by its name.
func TestThresholds(t *testing.T) {
	text := "interfaces: [{name: eth0}]\nanalytics:\n  attacks:\n"
	for v := range attack.Vectors {
		text += fmt.Sprintf("    %s: %d\n", vectorName(v), 100+v)
	}
	c, err := config.Parse("c.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	for v, n := range thresholds(c.Analytics.Attacks) {
		if n != float64(100+v) {
			t.Errorf("%v: %v packets a second, want %d", attack.Vector(v), n, 100+v)
		}
	}
	some := thresholds(map[string]int64{"syn_ack_flood": 0})
	if all := attack.DefaultConfig().Thresholds; some[attack.SYNACKFlood] != 0 || some[attack.SYNFlood] != all[attack.SYNFlood] {
		t.Errorf("%v", some)
	}
}

// The webhook is told who attacks, of a scan too, whose event has its targets.
func TestSourcesOfAttacks(t *testing.T) {
	entries := []sketch.Entry[netip.Addr]{{Key: netip.MustParseAddr("192.0.2.1")}, {Key: netip.MustParseAddr("192.0.2.2")}}
	for v, want := range map[attack.Vector]string{attack.SYNFlood: "[192.0.2.1 192.0.2.2]", attack.Scan: "[192.0.2.66]"} {
		if got := fmt.Sprint(sourcesOf(&attack.Event{Vector: v, Attack: store.Attack{Src: "192.0.2.66"}, Sources: entries})); got != want {
			t.Errorf("%v: %s, want %s", v, got, want)
		}
	}
}
