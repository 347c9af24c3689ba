package cluster

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"causeway/control/ike"
)

// IKE datagrams that come to a node which does not have their SA go to the one that has it, with the addresses that they came from and
// to: that node answers from the endpoint as if it had got them itself. They go from node to node in ESP (DESIGN 4.6), which needs no
// store; where that does not work, sealed, by the cluster's connections.

// A forwardee takes datagrams that another node has got. It does not keep them.
type forwardee interface {
	Forwarded(local, remote netip.AddrPort, datagram []byte)
}

// writerBits is where the number of a process stands in the SPIs of its IKE SAs.
const writerBits = 44

// SPI returns the number of this process and 44 random bits. See ike.Fleet.
func (f fleet) SPI() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return uint64(f.writer.ID)<<writerBits | rand.Uint64N(1<<writerBits)
}

// subjectIKE is where datagrams for a node are said; its name follows.
const subjectIKE = "causeway.ike."

func forwardPlace(node string) string { return "ike|" + node }

// Forward: see ike.Fleet.
func (f fleet) Forward(spi uint64, local, remote netip.AddrPort, datagram []byte) bool {
	node := f.nodeOf(spi)
	if node == "" || !f.forwards.allow(time.Now()) {
		return false
	}
	message := appendForwarded(nil, local, remote, datagram)
	return f.opts.Direct != nil && f.opts.Direct(node, message) || f.say(subjectIKE+node, forwardPlace(node), message) == nil
}

// Linked reports whether anything that is said to another node can leave this one.
func (c *Cluster) Linked() bool { return c.engine.Link() != 0 }

// TakeDirect takes a message that another node has given to its Options.Direct. It does not keep it.
func (c *Cluster) TakeDirect(message []byte) {
	if err := c.takeForwarded(message); err != nil {
		c.complain(err)
	}
}

// nodeOf is the other node that has an SA, or whose process has made its SPI; "": none that may live.
func (c *Cluster) nodeOf(spi uint64) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.known(spi); s.Where == ike.There {
		return s.Node
	}
	now := c.now()
	for name, l := range c.members {
		// One that is not heard any more may be cut off from the store, and negotiate for its data center.
		if uint64(l.member.Writer) == spi>>writerBits && c.mayLive(l, now) {
			return name
		}
	}
	return ""
}

// A forwarded datagram: two addresses, each with its length in front, and the datagram.
func appendForwarded(b []byte, local, remote netip.AddrPort, datagram []byte) []byte {
	for _, a := range []netip.AddrPort{local, remote} {
		text, _ := a.MarshalBinary() // which does not fail
		b = append(append(b, byte(len(text))), text...)
	}
	return append(b, datagram...)
}

var errForwarded = errors.New("a forwarded datagram is none")

func parseForwarded(b []byte) (local, remote netip.AddrPort, datagram []byte, err error) {
	for _, a := range []*netip.AddrPort{&local, &remote} {
		if len(b) == 0 || len(b) < 1+int(b[0]) {
			return local, remote, nil, errForwarded
		}
		text := b[1 : 1+int(b[0])]
		if err := a.UnmarshalBinary(text); err != nil || !a.IsValid() || a.Addr().Zone() != "" {
			return local, remote, nil, errForwarded
		}
		b = b[1+len(text):]
	}
	return local, remote, b, nil
}

// takeForwarded takes a datagram that another node has got.
func (c *Cluster) takeForwarded(text []byte) error {
	local, remote, datagram, err := parseForwarded(text)
	if err == nil {
		c.ike.Forwarded(local, remote, datagram)
	}
	return err
}

// How many datagrams a node forwards at most: whoever knows the number of a process can write its SPIs.
const (
	forwardRate  = 20_000 // in a second
	forwardBurst = 2_000
)

// A bucket lets so much pass.
type bucket struct {
	mu   sync.Mutex
	left float64
	last time.Time
}

func (b *bucket) allow(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left = min(b.left+forwardRate*now.Sub(b.last).Seconds(), forwardBurst)
	b.last = now
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}

// Of the nodes that live and can do something, one is the first for a name: which one it is changes for a name only when that node comes or
// goes (rendezvous hashing).

// Leads: see ike.Fleet.
func (f fleet) Leads(tunnel string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.trouble == "" && winner(f.candidates(f.now()), tunnel) == f.opts.Member.Name
}

// candidates are the nodes that live, have the key of the epoch and do not stop, with this one, of the lowest precedence that there is. It
// is called with the lock held.
func (c *Cluster) candidates(now time.Time) (list []string) {
	lowest := Draining
	add := func(name string, p Precedence) {
		if p < lowest {
			lowest, list = p, nil
		}
		if p == lowest {
			list = append(list, name)
		}
	}
	if !c.leaving {
		add(c.opts.Member.Name, c.yields)
	}
	for name, l := range c.members {
		if l.live(now) && l.member.Epoch >= c.keys.Current() {
			add(name, l.member.Yields)
		}
	}
	return list
}

// winner is the node with the highest hash of its name and another.
func winner(nodes []string, name string) (best string) {
	var most uint64
	for _, n := range nodes {
		h := sha256.Sum256([]byte(n + "|" + name))
		if x := binary.BigEndian.Uint64(h[:]); best == "" || x > most || x == most && n < best {
			best, most = n, x
		}
	}
	return best
}

// CookieKeys: see ike.Fleet.
func (f fleet) CookieKeys() [][32]byte { return f.keys.Derive("causeway cookies") }
