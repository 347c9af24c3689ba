package health

import (
	"strings"
	"testing"
	"time"

	"causeway/pipeline/wire"
)

// While probes are lost it is said where, as far as that is known.
func TestLeg(t *testing.T) {
	isRequest := func(packet []byte) bool { return packet[wire.IPv4Len+wire.ICMPOffType] == wire.ICMP4Echo }
	for _, c := range []struct {
		name     string
		kind     Kind
		answered func(packet []byte) bool
		others   uint64 // packets that come out of the tunnel meanwhile
		want     string
	}{
		{"all is well", Reply, func([]byte) bool { return true }, 9, ""},
		{"a firewall that knows of connections", Reply, isRequest, 0, "10.213.0.11 answers requests"},
		{"the same, and traffic", Reply, isRequest, 9, "10.213.0.11 answers requests"},
		{"the way there", Request, func([]byte) bool { return false }, 9, "packets still come out"},
		{"nothing", Reply, func([]byte) bool { return false }, 0, "nothing else comes out"},
	} {
		t.Run(c.name, func(t *testing.T) {
			onRouter(t, tunnelOf(c.kind, false), func(t *testing.T, r *router) {
				broken, out := false, uint64(100)
				r.prober.opts.Received = func(string) uint64 { return out }
				r.prober.opts.Send = func(_ string, packet []byte) bool {
					if !broken || c.answered(packet) {
						r.take(packet)
					}
					return true
				}
				time.Sleep(time.Minute)
				if leg := r.prober.Reports()[0].Leg; leg != "" {
					t.Errorf("before: %s", leg)
				}
				broken = true
				time.Sleep(2 * time.Second)
				out += c.others
				time.Sleep(10 * time.Second)
				if leg := r.prober.Reports()[0].Leg; !strings.Contains(leg, c.want) || (leg == "") != (c.want == "") {
					t.Errorf("got %q, want %q", leg, c.want)
				}
				if s := r.prober.Reports()[0]; (s.State == Down) != (c.want != "") {
					t.Errorf("what is asked to find the leg counts as a probe: %+v", s)
				}
				broken = false
				time.Sleep(10 * time.Second)
				if leg := r.prober.Reports()[0].Leg; leg != "" {
					t.Errorf("afterwards: %s", leg)
				}
			})
		})
	}
}

// Replies that are lost are looked into with a request now and then, no more.
func TestLegIsCheap(t *testing.T) {
	onRouter(t, tunnelOf(Reply, false), func(t *testing.T, r *router) {
		n := 0
		r.prober.opts.Send = func(_ string, packet []byte) bool {
			if packet[wire.IPv4Len+wire.ICMPOffType] == wire.ICMP4Echo {
				n++
			}
			return true
		}
		time.Sleep(10 * time.Minute)
		if n < 50 || n > 61 {
			t.Errorf("%d requests in ten minutes", n)
		}
	})
}
