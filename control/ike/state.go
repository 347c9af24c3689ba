package ike

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	"causeway/control/ike/message"
	"causeway/control/ike/suite"
)

// StateVersion is the version of State that this release writes.
const StateVersion = 1

// State is all of an established IKE SA that outlives one exchange: whoever has it can go on with the SA. It holds keys,
// so it must be sealed wherever it leaves the process.
type State struct {
	Version int
	Tunnel  string

	SPIi, SPIr uint64
	Initiator  bool // we began the SA

	Suite suite.IKE
	Keys  *suite.Keys

	Local, Remote     netip.AddrPort
	NATHere, NATThere bool // who is behind a NAT
	LocalID, RemoteID message.ID

	Fragmentation bool // the peer takes fragments (RFC 7383)

	NextRequest  uint32 // message ID of our next request
	NextResponse uint32 // message ID of the peer's next request
	Answer       Answer // what was answered to the request before
	Pending      *Outstanding

	Established, Rekey, Expire time.Time
	Children                   []*ChildState
}

// An Answer is a response that is sent again when its request comes again (RFC 7296, section 2.1).
type Answer struct {
	Request   [32]byte // SHA-256 of the request's first datagram
	Datagrams [][]byte
}

// Outstanding is a request of ours that has no response yet.
type Outstanding struct {
	Exchange  message.ExchangeType
	ID        uint32
	Datagrams [][]byte
}

// A ChildState is a pair of child SAs. Its keys are the dataplane's alone.
type ChildState struct {
	SPIIn, SPIOut uint32
	Suite         suite.ESP
	Local, Remote []message.Selector
	UDP           bool

	Made, Rekey, Expire time.Time

	// Replaced: a newer pair has taken its place, and whoever replaced it is about to delete it.
	Replaced bool
	// Replaces is our SPI of the pair whose place it takes because the peer wanted so; 0: it takes none.
	Replaces uint32
	// Switch is when packets leave through it at the latest; zero: they do.
	Switch time.Time

	rekeying, deleting bool
	packetsIn          uint64 // seen the last time, for DPD
}

// marshal is the state as it would be stored.
func (s *State) marshal() ([]byte, error) { return json.Marshal(s) }

// parseState reads what marshal wrote, here or in a release with the same version or an older one.
func parseState(b []byte) (*State, error) {
	s := new(State)
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("state of an IKE SA: %w", err)
	}
	if s.Version < 1 || s.Version > StateVersion {
		return nil, fmt.Errorf("state of an IKE SA: version %d, this release reads up to %d", s.Version, StateVersion)
	}
	if s.Keys == nil {
		return nil, fmt.Errorf("state of an IKE SA %016x: has no keys", s.spi())
	}
	return s, nil
}

// spi is our SPI, by which datagrams find the SA.
func (s *State) spi() uint64 {
	if s.Initiator {
		return s.SPIi
	}
	return s.SPIr
}

// child finds a pair by our SPI, peerChild by the peer's.
func (s *State) child(spiIn uint32) *ChildState {
	for _, c := range s.Children {
		if c.SPIIn == spiIn {
			return c
		}
	}
	return nil
}

func (s *State) peerChild(spiOut uint32) *ChildState {
	for _, c := range s.Children {
		if c.SPIOut == spiOut {
			return c
		}
	}
	return nil
}

// resume goes on with an established SA of which this daemon has the state. The dataplane has its children.
func (d *Daemon) resume(st *State) (*ikeSA, error) {
	s := d.newSA(st.Initiator)
	s.State = *st
	if s.tunnel = d.index.Load().byName[st.Tunnel]; s.tunnel == nil {
		return nil, fmt.Errorf("state of an IKE SA %016x: there is no tunnel %q", st.spi(), st.Tunnel)
	}
	keys := st.Keys
	s.Keys = nil // setKeys wipes those before
	if err := s.setKeys(keys); err != nil {
		return nil, err
	}
	d.mu.Lock()
	taken := d.bySPI[st.spi()] != nil
	if !taken {
		d.bySPI[st.spi()] = s
	}
	d.mu.Unlock()
	if taken {
		return nil, fmt.Errorf("state of an IKE SA %016x: it lives here already", st.spi())
	}
	s.do(func() {
		s.phase, s.heard = established, time.Now()
		if p := st.Pending; p != nil { // it is asked again, as it was: the peer may have answered
			s.pending = &request{exchange: p.Exchange, id: p.ID, datagrams: p.Datagrams, next: s.heard, done: func(*message.Contents) {}}
		}
		d.establish(s)
	})
	return s, nil
}
