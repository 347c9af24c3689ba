package cluster

import (
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"causeway/control/ike/sa"
)

// Lifetimes in packets and bytes are of all nodes together (DESIGN 4.4): each tells what it has done with children that have such a
// lifetime, and the node that has their IKE SA adds it up and replaces them in time. The numbers of an association without ESN are each
// node's own; one that has used most of them says so too.

// usageTime is the time between two tellings.
const usageTime = time.Second

const subjectUsage = "causeway.usage"

// usageLen is a child's usage as it is told: SPI, packets and bytes in, packets and bytes out, big endian, and flags.
const usageLen = 4 + 4*8 + 1

// Flags of a usage.
const (
	usageSoft = 1 << iota
	usageHard
)

// tellUsage tells what this node has done, if it is time.
func (c *Cluster) tellUsage(now time.Time) {
	if !due(&c.usageTold, usageTime, now) {
		return
	}
	var b []byte
	c.plane.Limited(func(spi uint32, u sa.Usage) { b = appendUsage(b, spi, &u) })
	for len(b) > 0 {
		n := min(len(b), maxFloors*floorLen/usageLen*usageLen)
		name := c.opts.Member.Name
		_ = c.say(subjectUsage, subjectUsage, slices.Concat([]byte{byte(len(name))}, []byte(name), b[:n])) // the next telling has more
		b = b[n:]
	}
}

func appendUsage(b []byte, spi uint32, u *sa.Usage) []byte {
	b = binary.BigEndian.AppendUint32(b, spi)
	for _, n := range []uint64{u.PacketsIn, u.BytesIn, u.PacketsOut, u.BytesOut} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	var flags byte
	if u.SoftExpired {
		flags |= usageSoft
	}
	if u.HardExpired {
		flags |= usageHard
	}
	return append(b, flags)
}

// parseUsage reads what a node tells.
func parseUsage(b []byte) (node string, list map[uint32]sa.Usage, err error) {
	if len(b) < 1 || len(b) < 1+int(b[0]) || (len(b)-1-int(b[0]))%usageLen != 0 || b[0] == 0 {
		return "", nil, errors.New("usage that is told is none")
	}
	node, b, list = string(b[1:1+int(b[0])]), b[1+int(b[0]):], map[uint32]sa.Usage{}
	for ; len(b) > 0; b = b[usageLen:] {
		at := func(i int) uint64 { return binary.BigEndian.Uint64(b[4+8*i:]) }
		flags := b[usageLen-1]
		list[binary.BigEndian.Uint32(b)] = sa.Usage{PacketsIn: at(0), BytesIn: at(1), PacketsOut: at(2), BytesOut: at(3),
			SoftExpired: flags&usageSoft != 0, HardExpired: flags&usageHard != 0}
	}
	return node, list, nil
}

// takeUsage notes what another node tells of children that are there.
func (c *Cluster) takeUsage(text []byte) error {
	node, list, err := parseUsage(text)
	if err != nil || node == c.opts.Member.Name {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for spi, u := range list {
		h := c.held[spi]
		if h == nil || h.kind != child {
			continue
		}
		if h.elsewhere == nil {
			h.elsewhere = map[string]sa.Usage{}
		}
		h.elsewhere[node] = u
	}
	return nil
}

// together adds what other nodes have done with a child to what this one has.
func (c *Cluster) together(spi uint32, u sa.Usage) sa.Usage {
	highest := c.highestOf(spi)
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.held[spi]
	if h == nil {
		return u
	}
	for _, o := range h.elsewhere {
		u.PacketsIn, u.BytesIn, u.PacketsOut, u.BytesOut = u.PacketsIn+o.PacketsIn, u.BytesIn+o.BytesIn, u.PacketsOut+o.PacketsOut, u.BytesOut+o.BytesOut
		u.SoftExpired, u.HardExpired = u.SoftExpired || o.SoftExpired, u.HardExpired || o.HardExpired
	}
	u.SoftExpired = u.SoftExpired || over(&u, h.life.SoftPackets, h.life.SoftBytes)
	u.HardExpired = u.HardExpired || over(&u, h.life.HardPackets, h.life.HardBytes)
	if !u.Source.IsValid() && time.Since(h.source.at) < sourceKept {
		u.Source = h.source.from
	}
	u.PacketsIn = max(u.PacketsIn, highest) // one that came to another node says too that the peer uses the child, and lives
	return u
}

// over reports whether one of the directions has used up a lifetime; 0: it has no end.
func over(u *sa.Usage, packets, bytes uint64) bool {
	return packets > 0 && max(u.PacketsIn, u.PacketsOut) >= packets || bytes > 0 && max(u.BytesIn, u.BytesOut) >= bytes
}
