package pipeline

import (
	"math/bits"
	"slices"

	"causeway/crypto/esp"
)

// inboundSA is what a worker needs to know of each association for receiving.
type inboundSA struct {
	tunnel           int32
	peer4, endpoint4 uint32 // outer source and destination over IPv4, host order
	owner            uint8
	flags            saFlags
	_                uint16
}

type saFlags uint8

// Flags of inboundSA.
const (
	saUDP      saFlags = 1 << iota // packets in UDP are taken
	saPlain                        // packets without are
	saOuter6                       // over IPv6
	saAnywhere                     // packets in UDP may come from anywhere, until they are known to be authentic
	saNarrow                       // not all IPv4 packets lie within the selectors
	saNoted                        // it is noted where packets in UDP come from
	saNode                         // of another node: for takeForwarded
)

// inboundMore is what few packets need.
type inboundMore struct {
	peer6, endpoint6 [2]uint64
	selectors        selectors
	source           *PeerSource
}

func (e *Engine) inboundSA(id int, in *esp.Inbound, c *SASpec, s prefixes) inboundSA {
	sa := inboundSA{tunnel: int32(id), owner: uint8(e.OwnerOfSPI(in.SPI()))}
	set := func(on bool, bit saFlags) {
		if on {
			sa.flags |= bit
		}
	}
	set(c.UDP || c.Either, saUDP)
	set(!c.UDP || c.Either, saPlain)
	set(c.Endpoint.Is6(), saOuter6)
	set(c.NAT, saAnywhere)
	set(!s.any4(), saNarrow)
	set(c.Source != nil, saNoted)
	if c.Endpoint.Is4() {
		sa.peer4, sa.endpoint4 = word4(c.Peer.Addr()), word4(c.Endpoint)
	}
	return sa
}

func newInboundMore(c *SASpec, s selectors) *inboundMore {
	m := &inboundMore{selectors: s, source: c.Source}
	if c.Endpoint.Is6() {
		m.peer6, m.endpoint6 = words6(c.Peer.Addr().As16()), words6(c.Endpoint.As16())
	}
	return m
}

// spiIndex finds the association of an SPI, which the receiver has chosen, so that it needs nothing else (RFC 4301 4.1): a
// hash table with open addressing, at most half full. The associations keep their numbers as long as they are in it.
type spiIndex struct {
	list  []inboundSA
	in    []*esp.Inbound // of the same number
	more  []*inboundMore // likewise
	free  []uint32       // numbers that nobody has
	slots []spiSlot
	shift uint
}

type spiSlot struct {
	spi uint32
	at  uint32 // in list, plus 1; 0: free
}

func (x *spiIndex) clone() spiIndex {
	c := *x
	c.list, c.in, c.more = slices.Clone(x.list), slices.Clone(x.in), slices.Clone(x.more)
	c.free, c.slots = slices.Clone(x.free), slices.Clone(x.slots)
	return c
}

// add takes up an association whose SPI nobody has.
func (x *spiIndex) add(r *receiver) {
	if 2*(len(x.list)-len(x.free)+1) > len(x.slots) {
		x.grow()
	}
	var at uint32
	if n := len(x.free); n > 0 {
		at = x.free[n-1]
		x.free = x.free[:n-1]
		x.list[at], x.in[at], x.more[at] = r.sa, r.in, r.more
	} else {
		at = uint32(len(x.list))
		x.list, x.in, x.more = append(x.list, r.sa), append(x.in, r.in), append(x.more, r.more)
	}
	x.slots[x.place(r.in.SPI())] = spiSlot{r.in.SPI(), at + 1}
}

// remove gives up an association that is there. What stands behind it up to the next free place is put in anew: nothing may be
// free between where an SPI belongs and where it is.
func (x *spiIndex) remove(spi uint32) {
	i := x.place(spi)
	at := x.slots[i].at - 1
	x.list[at], x.in[at], x.more[at] = inboundSA{}, nil, nil
	x.free = append(x.free, at)
	x.slots[i] = spiSlot{}
	for {
		i = (i + 1) & uint32(len(x.slots)-1)
		moved := x.slots[i]
		if moved.at == 0 {
			return
		}
		x.slots[i] = spiSlot{}
		x.slots[x.place(moved.spi)] = moved
	}
}

// grow makes room for twice as many.
func (x *spiIndex) grow() {
	before := x.slots
	n := max(4, 2*len(before))
	x.slots, x.shift = make([]spiSlot, n), uint(32-bits.TrailingZeros(uint(n)))
	for _, s := range before {
		if s.at != 0 {
			x.slots[x.place(s.spi)] = s
		}
	}
}

// place is where an SPI is, or where it would be.
func (x *spiIndex) place(spi uint32) uint32 {
	for k := spi * goldenRatio >> x.shift; ; k++ {
		k &= uint32(len(x.slots) - 1)
		if s := &x.slots[k]; s.at == 0 || s.spi == spi {
			return k
		}
	}
}

// find is the number of an SPI's association in list; beyond its end if there is none.
func (x *spiIndex) find(spi uint32) uint32 {
	if len(x.slots) == 0 {
		return noSA
	}
	return x.slots[x.place(spi)].at - 1
}

const noSA = 1<<32 - 1
