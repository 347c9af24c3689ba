//go:build previous

package main_test

import (
	"os"
	"testing"
)

// TestRootPrevious: a node of another release, whose causeway CAUSEWAY_PREVIOUS names, and one of this work together: either is the hub, and
// either is killed. `make test-previous` builds that one.
func TestRootPrevious(t *testing.T) {
	other := os.Getenv("CAUSEWAY_PREVIOUS")
	if other == "" {
		t.Fatal("CAUSEWAY_PREVIOUS names no causeway: see make test-previous")
	}
	for _, hub := range []bool{true, false} {
		name := "the other node is the previous release"
		if hub {
			name = "the hub is the previous release"
		}
		t.Run(name, func(t *testing.T) {
			b := newClusterBed(t, threeTunnels())
			x := b.second
			if hub {
				x = b.bed
			}
			x.bin = other
			b.goesOn(t)
		})
	}
}
