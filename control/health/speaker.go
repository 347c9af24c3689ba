package health

import (
	"hash/fnv"
	"maps"
	"slices"
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
func (p *Prober) speakerCenter(x *probed) string {
	if len(p.team.datacenters) == 0 {
		return p.opts.Datacenter
	}
	names := append(slices.Collect(maps.Keys(p.team.datacenters)), p.opts.Datacenter)
	slices.Sort(names)
	return first(names, x.tag)
}

// speaker is the node that speaks for a tunnel, or one that knows better.
func (p *Prober) speaker(x *probed) string {
	if center := p.speakerCenter(x); center != p.opts.Datacenter {
		return p.team.datacenters[center].teller
	}
	return first(p.team.members, x.tag)
}

// Speaker is the node that speaks BFD for a tunnel, or, in another data center, one that knows which does; "": nobody.
func (p *Prober) Speaker(tunnel string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if x := p.tunnels[tunnel]; x != nil && x.BFD {
		return p.speaker(x)
	}
	return ""
}

// Version changes when speakers may have changed.
func (p *Prober) Version() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.team.version
}
