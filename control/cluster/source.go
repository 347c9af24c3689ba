package cluster

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"time"
)

// A peer behind a NAT may come from another place at any moment, and its packets to any node. Each node tells where the newest authentic
// packet of a child came from, if that is not where its peer is thought to be; the node that has the IKE SA moves the peer, for all
// (RFC 7296, section 2.23).

const subjectSources = "causeway.sources"

// How often nodes tell, and how long what was told counts.
const (
	sourceTime = 500 * time.Millisecond
	sourceKept = 4 * sourceTime
)

// A source as it is told: SPI, the highest sequence number that the teller has received, address as IPv6, and port, big endian.
const (
	sourceLen  = 4 + 8 + 16 + 2
	maxSources = 4096 // in one message; the next telling has more
)

// A source is where another node has got the newest packet of a child from.
type source struct {
	from netip.AddrPort
	at   time.Time
}

// tellSources tells where packets have come from, if it is time.
func (c *Cluster) tellSources(now time.Time) {
	if !due(&c.sourcesTold, sourceTime, now) {
		return
	}
	var b []byte
	c.plane.Moved(func(spi uint32, highest uint64, from netip.AddrPort) {
		if len(b) < maxSources*sourceLen {
			b = appendSource(b, spi, highest, from)
		}
	})
	if len(b) > 0 {
		_ = c.say(subjectSources, subjectSources, b) // if it is lost, the next telling has it
	}
}

func appendSource(b []byte, spi uint32, highest uint64, from netip.AddrPort) []byte {
	b = binary.BigEndian.AppendUint32(b, spi)
	b = binary.BigEndian.AppendUint64(b, highest)
	addr := from.Addr().As16()
	return binary.BigEndian.AppendUint16(append(b, addr[:]...), from.Port())
}

// A toldSource is one of a message.
type toldSource struct {
	highest uint64
	from    netip.AddrPort
}

func parseSources(b []byte) (map[uint32]toldSource, error) {
	if len(b)%sourceLen != 0 {
		return nil, errors.New("sources that are told are none")
	}
	list := map[uint32]toldSource{}
	for ; len(b) > 0; b = b[sourceLen:] {
		addr, port := netip.AddrFrom16([16]byte(b[12:28])).Unmap(), binary.BigEndian.Uint16(b[28:])
		if port == 0 || addr.IsUnspecified() {
			return nil, errors.New("a source that is told is none")
		}
		list[binary.BigEndian.Uint32(b)] = toldSource{binary.BigEndian.Uint64(b[4:]), netip.AddrPortFrom(addr, port)}
	}
	return list, nil
}

// takeSources notes what another node tells of children that are there. A packet older than what came to any node says nothing: it may be
// late, or a copy that somebody sends from elsewhere to a node that has not had it.
func (c *Cluster) takeSources(text []byte) error {
	list, err := parseSources(text)
	if err != nil {
		return err
	}
	for spi, s := range list {
		if s.highest < c.highestOf(spi) {
			continue
		}
		c.mu.Lock()
		if h := c.held[spi]; h != nil && h.kind == child {
			h.source = source{s.from, time.Now()}
		}
		c.mu.Unlock()
	}
	return nil
}
