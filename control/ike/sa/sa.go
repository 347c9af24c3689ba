// Package sa is what IKE and the packet path agree on: pairs of ESP security associations that come and go while packets
// flow. Package control/ike makes them, package control/node has them.
package sa

import (
	"fmt"
	"net/netip"
	"time"

	"causeway/crypto/esp"
)

// A Child is a CHILD_SA: one association in each direction, under one pair of selectors.
type Child struct {
	Tunnel        string // the tunnel's name
	SPIIn, SPIOut uint32 // ours, of ReserveSPI, and the peer's
	Suite         esp.Suite
	ESN           bool
	KeyIn, KeyOut []byte // Suite.KeySize bytes each; the caller's, who should wipe them

	// Local and Remote are what may be behind us and behind the peer. Empty: anything.
	Local, Remote []netip.Prefix

	Endpoint netip.Addr     // our outer address
	Peer     netip.AddrPort // the peer's; the port counts with UDP alone
	UDP      bool           // ESP in UDP (RFC 3948); our port is 4500
	NAT      bool           // the peer is behind NAT: any source is believed once a packet is authentic

	// Agreed: the peer has it already, because we have asked for it. There is no way to tell a peer that what it has answered does not count:
	// where the child is replicated, not to be stored just now is no reason to give it up.
	Agreed bool

	Life    esp.Life  // in packets and bytes, of each direction
	Expires time.Time // nothing of it is used any more after this, whatever is heard or not
}

// Format hides the keys.
func (c *Child) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "%s in %#x out %#x %s", c.Tunnel, c.SPIIn, c.SPIOut, c.Suite)
}

// Usage is what was done with a child. Bytes are of texts, without ESP's own.
type Usage struct {
	PacketsIn, BytesIn, PacketsOut, BytesOut uint64
	SoftExpired, HardExpired                 bool // in either direction: Life, and sequence numbers without ESN

	// Source is where the newest authentic packet came from, if that is not the child's peer. Only with NAT.
	Source netip.AddrPort
}

// A Dataplane carries the packets of children. Any goroutine may call its methods.
type Dataplane interface {
	// ReserveSPI returns a random SPI for receiving, at least 256, that nobody in this node has. It stays reserved until
	// ReleaseSPI, or until the child that has got it is removed.
	ReserveSPI() (uint32, error)
	// ReleaseSPI gives up an SPI that no child has got.
	ReleaseSPI(spi uint32)

	// Install makes a child, whose inbound association receives when Install returns. The outbound one is used at once, before
	// those of other selectors, if the tunnel has none with these selectors; else from Use on, or when the last of the others
	// is removed. The SPI has been reserved; it is the child's from then on, unless Install fails. The keys are copied.
	Install(c *Child) error
	// Use makes the outbound association the one by which packets within its selectors leave, before the others of the tunnel
	// with the same selectors.
	Use(tunnel string, spiIn uint32) error
	// Remove ends children, both directions of each, and returns when no worker uses them and their keys are wiped. Those that
	// do not exist are passed over.
	Remove(tunnel string, spisIn ...uint32)
	// Move changes where the packets of a child go, and from where they are taken.
	Move(tunnel string, spiIn uint32, peer netip.AddrPort)
	// Usage returns what was done with a child, or false if there is none.
	Usage(tunnel string, spiIn uint32) (Usage, bool)

	// IV returns an IV for a counter-mode key of IKE's own. No other caller, worker or process gets the same. It fails when
	// none is reserved.
	IV() (uint64, error)
}
