package pipeline

import "causeway/pipeline/fib"

// A Leaf is what a route leads to: a kind in the upper bits and an index whose meaning the kind gives.
// It is the Value that the forwarding tables (package fib) hold, so that a look-up needs no second table to know
// what happens to the packet. The zero Leaf means that there is no route.
type Leaf = fib.Value

// Kind says what becomes of a packet whose destination a Leaf covers.
type Kind uint32

// The kinds of leaves.
const (
	KindNone          Kind = iota // no route
	KindNeighbour                 // index: slot of the neighbour table
	KindTunnel                    // index: tunnel id
	KindGroup                     // index: group of equal-cost members
	KindGlean                     // index: link; the destination is on the link itself and its neighbour is not known yet
	KindKernel                    // an address of the host, or reachable only over an interface that is not a port
	KindTunnelAddress             // index: tunnel id; the destination is our own interface address inside it
	KindBlackhole                 // dropped without a word (RTN_BLACKHOLE)
	KindUnreachable               // dropped with an ICMP error (RTN_UNREACHABLE, RTN_PROHIBIT)
	kinds
)

const (
	leafIndexBits = 24
	leafIndexMask = 1<<leafIndexBits - 1

	// MaxTunnels, MaxNeighbours and MaxGroups bound the indexes of leaves, and with them the memory that every
	// worker reads.
	MaxTunnels    = 1 << 17
	MaxNeighbours = 1 << 16
	MaxGroups     = 1 << 12
	MaxLinks      = 1 << 12

	// BlackholeScope is the index of a KindBlackhole whose destination has routes in other places alone.
	BlackholeScope = 1

	// BlackholeUnlearned is that of one whose destination is a customer's, whose router has announced no route to it.
	BlackholeUnlearned = 2
)

// MakeLeaf packs a kind and its index.
func MakeLeaf(k Kind, index int) Leaf {
	return Leaf(uint32(k)<<leafIndexBits | uint32(index)&leafIndexMask)
}

// LeafKind returns the kind of l.
func LeafKind(l Leaf) Kind { return Kind(l >> leafIndexBits) }

// LeafIndex returns the index of l.
func LeafIndex(l Leaf) int { return int(l & leafIndexMask) }

var kindNames = [kinds]string{
	"none", "neighbour", "tunnel", "group", "glean", "kernel", "tunnel-address", "blackhole", "unreachable",
}

// String names the kind as `causeway show routes` prints it.
func (k Kind) String() string {
	if k >= kinds {
		return "invalid"
	}
	return kindNames[k]
}
