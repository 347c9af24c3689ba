package attack

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"
)

// report tells of an attack at a host; end is when it was last seen, for those that have ended.
func (d *Detector) report(h *host, v Vector, c Change, rate float64, end time.Time) {
	e := h.tracks[v].evidence
	a := e.attack(h, v, d.id(h, v, e.since))
	if !end.IsZero() {
		a.End = max(end.Unix(), a.Start) // the clock may have been set back
	}
	d.tell(Event{Change: c, Vector: v, Rate: rate, Attack: a, Sources: e.peers.Top(keptPeers), Headers: e.samples()})
}

// id names an attack: 32 hex digits, the same in all events of it and in those of no other.
func (d *Detector) id(h *host, v Vector, since time.Time) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %s %d %d", d.config.Node, h.account, h.addr, v, since.UnixNano()))
	return hex.EncodeToString(sum[:16])
}
