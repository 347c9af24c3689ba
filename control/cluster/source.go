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

// A source as it is told: SPI, address as IPv6, and port, big endian.
const (
	sourceLen  = 4 + 16 + 2
	maxSources = 4096 // in one message; the next telling has more
)

// A source is where another node has got the newest packet of a child from.
type source struct {
	from netip.AddrPort
	at   time.Time
}

// tellSources tells where packets have come from, if it is time.
func (c *Cluster) tellSources(now time.Time) {
	c.mu.Lock()
	early := now.Sub(c.sourcesTold) < sourceTime
	if !early {
		c.sourcesTold = now
	}
	c.mu.Unlock()
	if early {
		return
	}
	var b []byte
	c.plane.Moved(func(spi uint32, from netip.AddrPort) {
		if len(b) < maxSources*sourceLen {
			b = appendSource(b, spi, from)
		}
	})
	if len(b) > 0 {
		_ = c.say(subjectSources, subjectSources, b) // if it is lost, the next telling has it
	}
}

func appendSource(b []byte, spi uint32, from netip.AddrPort) []byte {
	b = binary.BigEndian.AppendUint32(b, spi)
	addr := from.Addr().As16()
	return binary.BigEndian.AppendUint16(append(b, addr[:]...), from.Port())
}

func parseSources(b []byte) (map[uint32]netip.AddrPort, error) {
	if len(b)%sourceLen != 0 {
		return nil, errors.New("sources that are told are none")
	}
	list := map[uint32]netip.AddrPort{}
	for ; len(b) > 0; b = b[sourceLen:] {
		addr, port := netip.AddrFrom16([16]byte(b[4:20])).Unmap(), binary.BigEndian.Uint16(b[20:])
		if port == 0 || addr.IsUnspecified() {
			return nil, errors.New("a source that is told is none")
		}
		list[binary.BigEndian.Uint32(b)] = netip.AddrPortFrom(addr, port)
	}
	return list, nil
}

// takeSources notes what another node tells of children that are there.
func (c *Cluster) takeSources(text []byte) error {
	list, err := parseSources(text)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for spi, from := range list {
		if h := c.held[spi]; h != nil && h.kind == child {
			h.source = source{from, time.Now()}
		}
	}
	return nil
}
