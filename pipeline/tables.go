package pipeline

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"sync/atomic"
)

// Tables is the immutable snapshot of the configuration that the workers read, once per batch, through one atomic
// pointer. Nothing in it changes while a worker may read it.
type Tables struct {
	rx      []rxTunnel  // by tunnel id; an id that is free has flags == 0
	sources []sourceSet // by tunnel id: every inner source that the tunnel may use
	names   []string    // by tunnel id, for people
	devices []bool      // by tunnel id: the tunnel has a device
	index   tunnelIndex
	pairs   map[pair]bool // outer address pairs of all tunnels, to tell a wrong key from an unknown customer
	associations
	tags   []uint32 // by tunnel id: what names it between nodes; 0: nothing
	tagged tagIndex
	nodes  tagIndex // tunnels to other nodes

	sampling samplingTable

	endpoints4 []uint32
	endpoints6 [][16]byte

	vrfs  []*VRF
	links *[MaxLinks]link
	macs  [maxPorts]linkAddress // of each port; zero: not known, frames for any are taken

	errorSource4 uint32   // source of ICMP errors toward the Internet; 0: none
	errorSource6 [16]byte // unspecified: none
}

// Flags of rxTunnel and txTunnel.
const (
	tunLive uint8 = 1 << iota
	tunOuter6
	tunKey
	tunChecksum
	tunSequence
	tunClearDF
	tunInterface4
	tunInterface6
)

// rxTunnel is what decapsulation needs to know of a tunnel: two cache lines, of which a tunnel over IPv4 that
// carries IPv4 touches the first.
type rxTunnel struct {
	customer4, endpoint4 uint32 // outer source and destination, host order
	key                  uint32
	net4, mask4          uint32 // the first IPv4 prefix; net4 = 1, mask4 = 0 where there is none: no source matches
	vrf                  uint16
	flags                uint8
	_                    uint8
	net6, mask6          [2]uint64 // the first IPv6 prefix, likewise
	_                    [8]byte

	customer6, endpoint6 [2]uint64
	interface4           uint32 // our IPv4 interface address
	_                    [28]byte
}

// txTunnel is what encapsulation needs: two cache lines, of which a tunnel over IPv4 touches the second: the end of its
// header and what follows.
type txTunnel struct {
	_      [44]byte
	header [64]byte // outer IP and GRE header, right-aligned; length, DSCP, ECN and checksum are zero
	sum    uint32   // ones-complement sum of the outer IPv4 header as it stands in header
	clamp  int32    // MSSClamp
	vrf    uint16   // account
	mtu    uint16   // configured inner MTU
	hlen   uint8    // bytes of header in use
	flags  uint8
	owner  uint8 // worker that numbers the packets of a tunnel with sequence numbers, or of ESP
	way    way
	holder uint8 // which of those that had the number and the account, one after another, this one is
	ttl    uint8
	_      [2]byte
}

// A way is how enterTunnels encapsulates.
type way uint8

const (
	wayGeneral way = iota // not at all: toTunnel does
	wayGRE                // plain GRE over IPv4
	wayESP                // ESP over IPv4, any text
	wayESPInUDP
)

// maxHeader4 is more than an outer IPv4 and GRE header take, and lies in txTunnel's second line.
const maxHeader4 = 40

// A link is one place where frames leave.
type link struct {
	port  uint16
	vlan  uint16
	mtu   uint32
	mac   uint64 // 48 bits, the first octet highest
	addr4 uint32
	addr6 [16]byte
}

// sourceSet holds every inner source address of a tunnel. Most tunnels have one prefix, which stands in rxTunnel;
// the others are looked for here.
type sourceSet struct {
	prefixes4  []range4
	prefixes6  []netip.Prefix
	interface4 range4 // the interface's subnet: may be a source, but not toward the Internet
	interface6 netip.Prefix
	own6       [16]byte // our IPv6 interface address
}

// behind4 reports whether an address lies behind the tunnel.
func (s *sourceSet) behind4(a uint32) bool {
	for _, r := range s.prefixes4 {
		if r.contains(a) {
			return true
		}
	}
	return false
}

func (s *sourceSet) behind6(a netip.Addr) bool {
	for _, p := range s.prefixes6 {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// inside6 reports whether an address is in the subnet of the tunnel's interface.
func (s *sourceSet) inside6(a netip.Addr) bool {
	return s.interface6.IsValid() && s.interface6.Contains(a)
}

// range4 is an inclusive range of IPv4 addresses, host order.
type range4 struct{ first, last uint32 }

func (r range4) contains(a uint32) bool { return a-r.first <= r.last-r.first && r.last != 0 }

// tunnelIndex finds the tunnel of an outer address pair and key: a hash table of cache-line buckets of eight slots. A
// slot is found by its tag, all eight compared at once without a branch that could be predicted wrong; a hit is verified
// against rxTunnel, so tags may collide.
type tunnelIndex struct {
	buckets []tunnelBucket
	mask    uint32
}

type tunnelBucket struct {
	tags [2]uint64 // four 16-bit tags each, the first lowest; 0 is a free slot
	id   [8]uint32
	_    [16]byte
}

const (
	lanes    = 0x0001000100010001
	laneTops = 0x8000800080008000
)

// matching returns, for each of the four tags in word, whether it equals want: the top bit of its lane. Above the
// lowest match a lane may be wrong (a borrow), so only the lowest one counts.
func matching(word uint64, want uint16) uint64 {
	x := word ^ uint64(want)*lanes
	return (x - lanes) &^ x & laneTops
}

// slot returns the first slot of b with that tag, or 8 or more if there is none.
func (b *tunnelBucket) slot(want uint16) int {
	lo, hi := matching(b.tags[0], want), matching(b.tags[1], want)
	at := bits.TrailingZeros64(lo)
	if lo == 0 {
		at = 64 + bits.TrailingZeros64(hi)
	}
	return at / 16
}

func (b *tunnelBucket) tag(slot int) uint16 { return uint16(b.tags[slot/4] >> (slot % 4 * 16)) }

// hash4 mixes an outer IPv4 address pair (source<<32 | destination) with the GRE key; plain tunnels pass key 0
// and keyed 0.
func hash4(pair uint64, key uint32, keyed uint32) uint64 {
	h := pair ^ (uint64(key)<<1|uint64(keyed))*0x9e3779b97f4a7c15
	hi, lo := bits.Mul64(h^0xa0761d6478bd642f, 0xe7037ed1a0b428db)
	return hi ^ lo
}

func hash6(customer, endpoint [2]uint64, key uint32, keyed uint32) uint64 {
	a, b := bits.Mul64(customer[0]^0xa0761d6478bd642f, customer[1]^0xe7037ed1a0b428db)
	c, d := bits.Mul64(endpoint[0]^0x8ebc6af09c88c6e3, endpoint[1]^0x589965cc75374cc3)
	return hash4(a^b^bits.RotateLeft64(c^d, 17), key, keyed)
}

// tagOf is never 0, which marks a free slot.
func tagOf(h uint64) uint16 { return uint16(h>>48) | 1 }

// build makes the index of the tunnels; it doubles the buckets until each holds what hashes to it.
func (x *tunnelIndex) build(rx []rxTunnel) {
	for n := 1 << bits.Len(uint(len(rx)/2)); ; n *= 2 {
		x.buckets, x.mask = make([]tunnelBucket, n), uint32(n-1)
		if x.fill(rx) {
			return
		}
	}
}

func (x *tunnelIndex) fill(rx []rxTunnel) bool {
	for id := range rx {
		if rx[id].flags&tunLive == 0 {
			continue
		}
		h := rx[id].hash()
		b := &x.buckets[uint32(h)&x.mask]
		free := b.slot(0)
		if free >= len(b.id) {
			return false
		}
		b.tags[free/4] |= uint64(tagOf(h)) << (free % 4 * 16)
		b.id[free] = uint32(id)
	}
	return true
}

func (r *rxTunnel) hash() uint64 {
	keyed := uint32(0)
	if r.flags&tunKey != 0 {
		keyed = 1
	}
	if r.flags&tunOuter6 != 0 {
		return hash6(r.customer6, r.endpoint6, r.key, keyed)
	}
	return hash4(uint64(r.customer4)<<32|uint64(r.endpoint4), r.key, keyed)
}

// isEndpoint4 reports whether an IPv4 address (host order) is an endpoint. There are few.
func (t *Tables) isEndpoint4(a uint32) bool {
	for _, e := range t.endpoints4 {
		if e == a {
			return true
		}
	}
	return false
}

func (t *Tables) isEndpoint6(a []byte) bool {
	for i := range t.endpoints6 {
		if string(t.endpoints6[i][:]) == string(a[:16]) {
			return true
		}
	}
	return false
}

// tunnelState is what changes about a tunnel while it runs, one word read per packet: bits 0-31 the leaf that its
// customer endpoint's route leads to, bits 32-47 the learned path MTU for inner packets (0: none).
type tunnelState struct{ v atomic.Uint64 }

func (s *tunnelState) load() (l Leaf, pathMTU int) {
	v := s.v.Load()
	return Leaf(v), int(v >> 32 & 0xffff)
}

func (s *tunnelState) setLeaf(l Leaf) {
	for {
		old := s.v.Load()
		if s.v.CompareAndSwap(old, old&^0xffffffff|uint64(l)) {
			return
		}
	}
}

func (s *tunnelState) setPathMTU(mtu int) {
	for {
		old := s.v.Load()
		if s.v.CompareAndSwap(old, old&0xffffffff|uint64(mtu)<<32) {
			return
		}
	}
}

func words6(a [16]byte) [2]uint64 {
	return [2]uint64{binary.BigEndian.Uint64(a[:8]), binary.BigEndian.Uint64(a[8:])}
}

func word4(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}
