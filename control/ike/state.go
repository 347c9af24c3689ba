package ike

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
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

	Phase Phase     // established, replaced or deleting
	Until time.Time // when it is gone, if it is replaced or deleting

	Established, Rekey, Expire time.Time
	Children                   []*ChildState
	Graves                     []Grave
}

// A Grave is a child that was deleted and is removed later: packets that were sent before may still come.
type Grave struct {
	SPIIn uint32
	At    time.Time
}

// An Answer is a response that is sent again when its request comes again (RFC 7296, section 2.1).
type Answer struct {
	Request   [32]byte // SHA-256 of the request's first datagram
	Datagrams [][]byte
}

// Outstanding is a request of ours that has no response yet, and what its response has to be understood with.
type Outstanding struct {
	Exchange  message.ExchangeType
	ID        uint32
	Datagrams [][]byte

	Child   *Asked `json:",omitempty"` // it asks for a pair
	IKE     *Asked `json:",omitempty"` // it asks for another IKE SA in place of this one
	Deletes uint32 `json:",omitempty"` // our SPI of the pair that it deletes
}

// Asked is our side of a CREATE_CHILD_SA exchange that is under way.
type Asked struct {
	SPI      uint64 // ours, of what is to be
	Replaces uint32 // our SPI of the pair whose place it is to take; 0: none
	Nonce    []byte
	Method   uint16 // of the key exchange; 0: there is none
	Private  []byte // of suite.Offer.Private
	Repeated bool   // with the key exchange that the peer wanted
}

func (a *Asked) wipe() {
	if a != nil {
		clear(a.Private)
	}
}

// wipe ends all keys that the state has.
func (s *State) wipe() {
	if s.Keys != nil {
		s.Keys.Wipe()
	}
	if p := s.Pending; p != nil {
		p.Child.wipe()
		p.IKE.wipe()
	}
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

	begun              bool // by us: the peer has it since it answered
	rekeying, deleting bool
	packetsIn          uint64 // seen the last time, for DPD
}

// marshal is the state as it is stored. Whoever gets it should wipe it.
func (s *State) marshal() ([]byte, error) { return json.Marshal(s) }

// snapshot is the state of the SA as it is now, for other nodes.
func (s *ikeSA) snapshot() ([]byte, error) {
	s.Phase, s.Until = s.phase, s.expire
	if s.d.fleet == nil {
		return s.marshal()
	}
	told := s.State
	told.Children, told.Graves = nil, slices.Clone(s.Graves)
	for _, c := range s.Children {
		own := *c
		told.Children = append(told.Children, &own)
	}
	told.atTimes(s.d.fleet.Common)
	return told.marshal()
}

// atTimes changes all times of a state.
func (s *State) atTimes(f func(time.Time) time.Time) {
	all := []*time.Time{&s.Until, &s.Established, &s.Rekey, &s.Expire}
	for _, c := range s.Children {
		all = append(all, &c.Made, &c.Rekey, &c.Expire, &c.Switch)
	}
	for i := range s.Graves {
		all = append(all, &s.Graves[i].At)
	}
	for _, t := range all {
		*t = f(*t)
	}
}

// parseState reads what marshal wrote, here or in a release with the same version or an older one.
func parseState(b []byte) (*State, error) {
	s := new(State)
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("state of an IKE SA: %w", err)
	}
	if s.Version < 1 || s.Version > StateVersion {
		return nil, fmt.Errorf("state of an IKE SA: version %d, this release reads up to %d", s.Version, StateVersion)
	}
	switch {
	case s.Keys == nil:
		return nil, fmt.Errorf("state of an IKE SA %016x: has no keys", s.spi())
	case s.Phase != established && s.Phase != replaced && s.Phase != deleting:
		return nil, fmt.Errorf("state of an IKE SA %016x: is in phase %d", s.spi(), s.Phase)
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
