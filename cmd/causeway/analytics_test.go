package main

import (
	"fmt"
	"testing"

	"causeway/analytics/attack"
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
