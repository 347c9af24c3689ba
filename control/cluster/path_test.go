package cluster

import (
	"net/netip"
	"testing"
	"time"

	"causeway/control/pmtu"
)

// What one node has learned of a path all others are told, and itself not; what is not sealed is not believed.
func TestPathsAreTold(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "a")
	hub := b.start("hub").joined()
	a := b.start("a").joined()
	hub.sees(1)
	want := pmtu.Path{Tunnel: "cust-a", Endpoint: netip.MustParseAddr("192.0.2.1"), Customer: netip.MustParseAddr("2001:db8::2"), Outer: 1400, Left: time.Minute}
	if err := a.engine.Conn.Publish(subjectPaths, []byte(`{"node":"x","path":{"tunnel":"cust-a"}}`)); err != nil {
		t.Fatal(err)
	}
	a.TellPath(want)
	select {
	case got := <-hub.paths:
		if got != want {
			t.Errorf("told %+v, want %+v", got, want)
		}
	case <-time.After(patience):
		t.Error("nobody is told")
	}
	if len(hub.paths) > 0 || len(a.paths) > 0 {
		t.Error("told twice, or to itself, or not sealed")
	}
}
