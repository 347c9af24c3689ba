package health

import (
	"hash/fnv"
	"maps"
	"slices"
	"time"
)

// The customer's router has one session of BFD with an address that all nodes have. So one node of the fleet speaks, and the others give it
// what comes for it. Which one it is all of them find alike: by rendezvous hashing (Thaler and Ravishankar, 1998), a data center and then a node
// of it. When one goes only its sessions move.

// first is the name that comes first for a tunnel.
func first(names []string, tunnel uint64) (name string) {
	var best uint64
	for _, n := range names {
		h := fnv.New64a()
		_, _ = h.Write([]byte(n)) // cannot fail
		// The hash of the name alone, mixed with the tunnel's: FNV does not spread what differs in its last bytes.
		x := (h.Sum64() ^ tunnel) * 0x9e3779b97f4a7c15
		if x ^= x >> 32; name == "" || x > best {
			name, best = n, x
		}
	}
	return name
}

// speakerCenter is the data center whose node speaks for a tunnel.
func (p *Prober) speakerCenter(tunnel uint64) string {
	if len(p.team.datacenters) == 0 {
		return p.opts.Datacenter
	}
	names := append(slices.Collect(maps.Keys(p.team.datacenters)), p.opts.Datacenter)
	slices.Sort(names)
	return first(names, tunnel)
}

// knows reports whether this node knows the others. One that has just started does not, and would take sessions from who has them.
func (p *Prober) knows(now time.Time) bool { return !now.Before(p.known) }

// speaker is the node that speaks for a tunnel, or one that knows better; "": nobody does yet.
func (p *Prober) speaker(tunnel uint64) string {
	if center := p.speakerCenter(tunnel); center != p.opts.Datacenter {
		return p.team.datacenters[center].teller
	}
	names := make([]string, 0, len(p.team.members))
	for _, name := range p.team.members {
		if p.team.knows[name] || name == p.opts.Node && p.knows(time.Now()) {
			names = append(names, name)
		}
	}
	return first(names, tunnel)
}

// Speaker is the node that speaks for a tunnel, be it probed or not, or, in another data center, one that knows which does; "": nobody.
func (p *Prober) Speaker(tunnel string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.speaker(tag(tunnel))
}

// Version changes when speakers may have changed.
func (p *Prober) Version() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.knows(time.Now()) {
		return p.team.version + 1
	}
	return p.team.version
}
