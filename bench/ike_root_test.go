package main

import (
	"strings"
	"testing"
)

// TestRootIKE negotiates with both responders once, and has tunnels that are rekeyed.
func TestRootIKE(t *testing.T) {
	needRoot(t)
	all := results(t, "ike")
	if want := len(ikeSuites) + 4; len(all) != want {
		t.Fatalf("%d results, want %d: %+v", len(all), want, all)
	}
	for _, r := range all {
		tunnels := strings.HasPrefix(r.Name, "ike/tunnels=")
		if r.Unit == "" || r.Note == "" || tunnels != (r.InitiatorNS > 0) || !tunnels && (r.AgainstNS <= 0 || r.Ratio <= 0 || r.GoalNS <= 0) {
			t.Errorf("%+v", r)
		}
	}
}
