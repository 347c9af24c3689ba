package sketch

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// Hash mixes one word with a seed. Who does not know the seed cannot tell which words collide.
func Hash(seed, v uint64) uint64 { return fold(v^seed^0x9e3779b97f4a7c15, seed^0xd1b54a32d192ed03) }

// HashAddr mixes an address with a seed. An IPv4 address and the same one mapped into IPv6 have the same hash; zones are left out.
func HashAddr(seed uint64, a netip.Addr) uint64 {
	b := a.As16()
	return Hash(Hash(seed, binary.BigEndian.Uint64(b[:8])), binary.BigEndian.Uint64(b[8:]))
}

// fold is the product of two words in 128 bits, with its halves added up without carry; twice, so that each bit reaches all.
func fold(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	hi, lo = bits.Mul64(hi^lo^0xa0761d6478bd642f, 0xe7037ed1a0b428db)
	return hi ^ lo
}
