package main

import (
	"slices"
	"testing"
)

// TestCluster runs two nodes with twenty tunnels through everything that is measured. How long it takes says nothing.
func TestCluster(t *testing.T) {
	var names []string
	for _, r := range results(t, "cluster") {
		names = append(names, r.Name)
		if r.Unit == "" || r.Samples == 0 {
			t.Errorf("%+v", r)
		}
	}
	const of = "cluster/nodes=2/tunnels=20/delay=1ms/"
	if want := []string{of + "set", of + "rest", of + "usable", of + "answered", of + "sustained", of + "late"}; !slices.Equal(names, want) {
		t.Errorf("results %q, want %q", names, want)
	}
}
