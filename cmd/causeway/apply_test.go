package main

import (
	"fmt"
	"testing"

	"causeway/control/api"
)

// What became of a document at each node that lives decides the exit status.
func TestOutcome(t *testing.T) {
	f := fleet{api.Fleet{Nodes: []api.FleetNode{
		{Name: "a", State: "self", Runs: 3},
		{Name: "b", State: "live", Runs: 3, Why: "not kept"},
		{Name: "c", State: "live", Runs: 2, Refused: 3, Why: "no such endpoint"},
		{Name: "d", State: "live", Runs: 2},
		{Name: "e", State: "silent", Runs: 1},
		{Name: "f", State: "refused"},
	}}}
	runs, refused, late, flawed := f.outcome(3)
	if got, want := fmt.Sprint(runs, refused, late, flawed), "2 [c] [d] [b]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
