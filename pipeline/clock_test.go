package pipeline

import (
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// A replay of an hour takes no hour, and comes out the same each time: fragments wait by the clock of who polls, and ICMP
// errors are limited by it.
func TestPollAtIsTheClock(t *testing.T) {
	b := newBed(t, 1, tunnelSpec("a"))
	first := ip(customer4, endpoint4, layers.IPProtocolGRE).(*layers.IPv4)
	first.Flags = layers.IPv4MoreFragments
	b.queues[0][0].Put(framed(serialize(t, first, gopacket.Payload(make([]byte, 64)))))
	for _, c := range []struct {
		at            time.Duration
		held, timeout uint64
	}{
		{time.Hour, 1, 0},
		{time.Hour + fragmentTimeout - 1, 1, 0},
		{time.Hour + fragmentTimeout, 0, 1},
	} {
		b.engine.PollAt(0, c.at)
		if got := b.engine.Total(); got.Held != c.held || got.Dropped[FragmentTimeout] != c.timeout {
			t.Errorf("at %v: %d held, %d given up", c.at, got.Held, got.Dropped[FragmentTimeout])
		}
	}
	expired := udp(t, inetHost4, behind4, 9, func(l gopacket.SerializableLayer) { l.(*layers.IPv4).TTL = 1 })
	for i := range icmpBurst + 9 {
		b.queues[0][0].Put(framed(expired))
		b.engine.PollAt(0, 2*time.Hour)
		if got, want := b.engine.Total().ICMPErrors, uint64(min(i+1, icmpBurst)); got != want {
			t.Fatalf("%d ICMP errors after %d packets at one moment, want %d", got, i+1, want)
		}
	}
}
