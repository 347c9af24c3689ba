package config

import (
	"net/netip"
	"time"
)

// BFD is how the other end of a tunnel is spoken to by Bidirectional Forwarding
// Detection. Its fields are named after the file's.
type BFD struct {
	Local, Remote netip.Addr // our interface address, of the family that is spoken, and the router
	Multihop      bool       // RFC 5883: the router is further away than one hop
	Interval      time.Duration
	Multiplier    int
	Hold          time.Duration // that the tunnel is degraded when the session is up again
}

var bfdSchema = schema{fields: []string{"interval", "multiplier", "family", "multihop", "hold"}}

var (
	bfdIntervalBounds = durationBounds{20 * time.Millisecond, 10 * time.Second,
		"a machine with something else to do for a moment would look dead", "probes notice as soon, and cost less"}
	bfdHoldBounds = durationBounds{time.Second, time.Hour,
		"a link that comes and goes would take routes with it", "nobody waits for so long"}
)

// bfd decodes the session of a tunnel, after its addresses.
func (d *decoder) bfd(f fields, t *Tunnel) {
	v, ok := f.get("bfd")
	if !ok {
		return
	}
	m, ok := v.mapping(bfdSchema)
	if !ok {
		return
	}
	b := &BFD{Interval: 100 * time.Millisecond, Multiplier: 3, Hold: 30 * time.Second}
	m.time("interval", bfdIntervalBounds, &b.Interval)
	m.number("multiplier", 1, 50, &b.Multiplier)
	m.time("hold", bfdHoldBounds, &b.Hold)
	if v, ok := m.get("multihop"); ok {
		v.boolean(&b.Multihop)
	}
	from, ok := m.insideFamily(t)
	if !ok {
		return // that is a mistake of its own
	}
	b.Local, b.Remote = from.Addr(), otherHost(from)
	t.BFD = b
}

// insideFamily decodes family: it returns our interface address of that family, ipv4 unless it says otherwise.
func (m fields) insideFamily(t *Tunnel) (netip.Prefix, bool) {
	from := t.InterfaceAddress
	if v, ok := m.get("family"); ok {
		if i, _ := v.word("ipv4", "ipv6"); i == 1 {
			if from = t.InterfaceAddress6; !from.IsValid() {
				v.fail("ipv6 needs interface_address6 of the tunnel: write it, or ipv4")
			}
		}
	}
	return from, from.IsValid()
}

func sameBFD(a, b *BFD) bool { return a == b || a != nil && b != nil && *a == *b }
