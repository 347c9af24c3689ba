package pipeline

import (
	"net/netip"
	"sync/atomic"

	"causeway/pipeline/fib"
)

// Forwarding holds what changes often: routes, neighbours, equal-cost groups and the state of tunnels. It has one
// writer, the control side's route mirror, and changes in place by atomic stores; the workers read it without locks.
// What is taken out may be used again only after Engine.Quiesce.
type Forwarding struct {
	neighbours []atomic.Uint64
	groups     []atomic.Pointer[fib.Group]
	tunnels    []tunnelState
	vrfs       []*VRF // 0 is the Internet table
}

// A VRF is a routing table: number 0 is the Internet's, each account has one of its own.
type VRF struct {
	Account string // "" for the Internet table
	V4      *fib.Table4
	V6      *fib.Table6
	id      uint16
	peers   []uint16 // accounts that it may send to laterally
}

// ID is the table's number.
func (v *VRF) ID() int { return int(v.id) }

// A neighbour is one word: bits 16-63 its link address (first octet highest), bits 4-15 the link, bit 0 set once
// it is resolved.
const (
	neighbourResolved  = 1
	neighbourLinkShift = 4
	neighbourMACShift  = 16
)

// SetNeighbour publishes slot i: frames to it leave by the link, to the link address mac. With resolved false the
// slot only names the link: packets to it are dropped with a reason and the kernel is asked.
func (f *Forwarding) SetNeighbour(i, link int, mac [6]byte, resolved bool) {
	v := uint64(link)<<neighbourLinkShift | mac48(mac)<<neighbourMACShift
	if resolved {
		v |= neighbourResolved
	}
	f.neighbours[i].Store(v)
}

// SetGroup publishes an equal-cost group; nil takes it away.
func (f *Forwarding) SetGroup(i int, g *fib.Group) { f.groups[i].Store(g) }

// SetTunnelRoute publishes the leaf that leads to the customer endpoint of tunnel id.
func (f *Forwarding) SetTunnelRoute(id int, l Leaf) { f.tunnels[id].setLeaf(l) }

// SetPathMTU publishes the largest inner packet that the path of tunnel id carries, 0 for no limit but the
// tunnel's own. It may be called by a goroutine other than the routes' writer.
func (f *Forwarding) SetPathMTU(id, mtu int) { f.tunnels[id].setPathMTU(mtu) }

// PathMTU returns the learned path MTU of tunnel id, 0 for none.
func (f *Forwarding) PathMTU(id int) int { _, mtu := f.tunnels[id].load(); return mtu }

// TunnelRoute returns the leaf that leads to the customer endpoint of tunnel id.
func (f *Forwarding) TunnelRoute(id int) Leaf { l, _ := f.tunnels[id].load(); return l }

// VRFs returns the routing tables, the Internet's first.
func (f *Forwarding) VRFs() []*VRF { return f.vrfs }

// A ResolveRequest is a worker's wish that the kernel resolve a neighbour.
type ResolveRequest struct {
	Link int
	Addr netip.Addr // invalid: the neighbour in slot Slot
	Slot int
}

func mac48(m [6]byte) uint64 {
	return uint64(m[0])<<40 | uint64(m[1])<<32 | uint64(m[2])<<24 | uint64(m[3])<<16 | uint64(m[4])<<8 | uint64(m[5])
}
