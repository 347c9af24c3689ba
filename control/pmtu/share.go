package pmtu

import (
	"net/netip"
	"time"
)

// A Path is what was learned of the way to a tunnel's customer, as nodes tell each other: an error comes to whichever node the anycast
// route leads it to, and is about the packets of all.
type Path struct {
	Tunnel   string        `json:"tunnel"`
	Endpoint netip.Addr    `json:"endpoint"`
	Customer netip.Addr    `json:"customer"`
	Outer    int           `json:"outer"` // the largest outer packet, in bytes
	Left     time.Duration `json:"left"`  // until it is forgotten
}

// Share has tell called with what an ICMP error has taught, also when it is known already. It is not called for what was Heard, and must
// not call the Learner. Before errors come.
func (l *Learner) Share(tell func(Path)) { l.share = tell }

// Hear takes what another node has learned. It is bounded as what an error says.
func (l *Learner) Hear(p Path, now time.Time) {
	least := least4
	if p.Endpoint.Is6() {
		least = least6
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, t := range l.tunnels[pair{p.Endpoint, p.Customer}] {
		if t.Name == p.Tunnel && t.Believe && p.Left > 0 {
			l.lower(t, max(p.Outer, least), now, min(p.Left, lifetime))
		}
	}
}

// Own lists what errors that came to this node have taught, and is not forgotten.
func (l *Learner) Own(now time.Time) (list []Path) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, tunnels := range l.tunnels {
		for _, t := range tunnels {
			if t.learned != 0 && t.own && now.Before(t.expires) {
				list = append(list, t.shared(now))
			}
		}
	}
	return list
}

func (t *tunnel) shared(now time.Time) Path {
	return Path{t.Name, t.Endpoint, t.CustomerEndpoint, t.path, t.expires.Sub(now)}
}
