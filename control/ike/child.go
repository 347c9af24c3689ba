package ike

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"causeway/control/ike/message"
	"causeway/control/ike/sa"
	"causeway/control/ike/suite"
	"causeway/crypto/esp"
)

// maxChildren is how many pairs of child SAs an IKE SA may have: policy-based routers make one for each pair of networks.
const maxChildren = 256

// switchTime is when packets leave through a new pair at the latest. DESIGN 4.4 has one second, in which a peer that has not got the response
// does not ask again yet (strongSwan does after four): what we sent would be lost.
const switchTime = 5 * time.Second

// A negotiation is a pair of child SAs that is being agreed on.
type negotiation struct {
	tunnel        *Tunnel
	begun         bool // by us
	spiIn, spiOut uint32
	chosen        message.Proposal
	suite         suite.ESP
	ni, nr        []byte
	public        []byte // of our key exchange, where we answer
	secret        []byte
	more          [][]byte // secrets of additional key exchanges
	local, remote []message.Selector

	answered uint32      // our SPI in the response
	made     *ChildState // once it is installed
}

func (n *negotiation) wipe(d *Daemon) {
	clear(n.secret)
	for _, m := range n.more {
		clear(m)
	}
	if n.spiIn != 0 {
		d.plane.ReleaseSPI(n.spiIn)
		n.spiIn = 0
	}
}

func spiBytes(spi uint32) []byte { return binary.BigEndian.AppendUint32(nil, spi) }

// acceptChild agrees to a child that the peer wants, or says why not.
func (s *ikeSA) acceptChild(n *negotiation, c *message.Contents, first bool) *message.Notify {
	no := func(t message.NotifyType, why error) *message.Notify {
		s.childFailed(why)
		return &message.Notify{Type: t}
	}
	own, offered := n.tunnel.ChildProposals, c.SA
	if first {
		own, offered = withoutKE(own), withoutKE(offered)
	}
	if len(offered) == 0 || c.TSi == nil || c.TSr == nil {
		return no(message.NotifyInvalidSyntax, errors.New("the peer's request has no proposals or no traffic selectors"))
	}
	var err error
	if n.chosen, err = suite.Choose(own, offered); err != nil {
		return no(message.NotifyNoProposalChosen, fmt.Errorf("the peer offers %w", err))
	}
	if n.suite, err = suite.ESPOf(n.chosen); err != nil {
		return no(message.NotifyNoProposalChosen, fmt.Errorf("%s: %w", suite.Words(n.chosen), err))
	}
	if len(n.chosen.SPI) != 4 {
		return no(message.NotifyNoProposalChosen, fmt.Errorf("%s with an SPI of %d bytes", suite.Words(n.chosen), len(n.chosen.SPI)))
	}
	n.spiOut = binary.BigEndian.Uint32(n.chosen.SPI)
	n.local, n.remote = narrow(selectorsOf(n.tunnel.Local), c.TSr), narrow(selectorsOf(n.tunnel.Remote), c.TSi)
	if len(n.local) == 0 || len(n.remote) == 0 {
		return no(message.NotifyTSUnacceptable, fmt.Errorf("the peer's selectors %s === %s are outside of ours", textOf(c.TSi), textOf(c.TSr)))
	}
	if err := s.roomFor(n); err != nil {
		return no(message.NotifyNoAdditionalSAs, err)
	}
	if refusal, why := n.answerKE(c); refusal != nil {
		if refusal.Type != message.NotifyInvalidKEPayload { // that is how a group is agreed on
			s.childFailed(why)
		}
		return refusal
	}
	if !s.d.mayMakePair(n.tunnel.Name) {
		return no(message.NotifyTemporaryFailure, errors.New("the store is away, and this tunnel has had its share of the SPIs that were reserved before"))
	}
	if n.spiIn, err = s.d.plane.ReserveSPI(); err != nil {
		return no(message.NotifyNoAdditionalSAs, err)
	}
	n.answered = n.spiIn
	if len(n.suite.AddKE) > 0 {
		return nil // installed when the additional key exchanges are done
	}
	if _, err := s.install(n, false); err != nil {
		n.wipe(s.d)
		return no(message.NotifyNoAdditionalSAs, err)
	}
	return nil
}

// roomFor says why there cannot be one more pair. Those that were deleted a moment ago count: the dataplane has them.
func (s *ikeSA) roomFor(n *negotiation) error {
	if have := len(s.Children) + len(s.Graves); have >= maxChildren {
		return fmt.Errorf("there are %d pairs, with those that were deleted in the last %v: at most %d", have, graveTime, maxChildren)
	}
	if s.peerChild(n.spiOut) != nil {
		return fmt.Errorf("another pair has the peer's SPI %#x", n.spiOut)
	}
	return nil
}

// answerKE does the key exchange of a child with perfect forward secrecy.
func (n *negotiation) answerKE(c *message.Contents) (*message.Notify, error) {
	if n.suite.KE == 0 {
		return nil, nil
	}
	if c.KE == nil || c.KE.Method != n.suite.KE {
		return &message.Notify{Type: message.NotifyInvalidKEPayload, Data: binary.BigEndian.AppendUint16(nil, n.suite.KE)},
			fmt.Errorf("the peer has to begin again with %s", suite.MethodName(n.suite.KE))
	}
	var err error
	if n.public, n.secret, err = suite.Respond(n.suite.KE, c.KE.Data); err != nil {
		return &message.Notify{Type: message.NotifyInvalidSyntax}, err
	}
	return nil, nil
}

// answer completes the response that agrees.
func (n *negotiation) answer(c *message.Contents) {
	p := n.chosen
	p.SPI = spiBytes(n.answered)
	c.SA = []message.Proposal{p}
	c.TSi, c.TSr = n.remote, n.local
	if n.public != nil {
		c.KE = &message.KE{Method: n.suite.KE, Data: n.public}
	}
}

// takeChoice takes the response to a child that we offered.
func (n *negotiation) takeChoice(c *message.Contents, own []message.Proposal, local, remote []message.Selector) error {
	if err := refusalIn(c); err != nil {
		return err
	}
	if len(c.SA) != 1 || len(c.SA[0].SPI) != 4 {
		return errors.New("the peer chose no child, or several")
	}
	n.chosen = c.SA[0]
	if err := suite.Check(n.chosen, numbered(own, nil)); err != nil {
		return fmt.Errorf("the peer chose %s: %w", suite.Words(n.chosen), err)
	}
	var err error
	if n.suite, err = suite.ESPOf(n.chosen); err != nil {
		return err
	}
	if !within(c.TSi, local) || !within(c.TSr, remote) {
		return fmt.Errorf("the peer's selectors %s === %s are outside of what was offered", textOf(c.TSi), textOf(c.TSr))
	}
	n.spiOut = binary.BigEndian.Uint32(n.chosen.SPI)
	n.local, n.remote = slices.Clone(c.TSi), slices.Clone(c.TSr)
	return nil
}

// install makes the pair and gives it to the dataplane. Packets leave through it at once if use, else when the peer has used it.
func (s *ikeSA) install(n *negotiation, use bool) (*ChildState, error) {
	local, okLocal := prefixesOf(n.local)
	remote, okRemote := prefixesOf(n.remote)
	if !okLocal || !okRemote {
		return nil, fmt.Errorf("the selectors are more than %d prefixes", maxPrefixes)
	}
	i, r := n.suite.Keys(s.Suite.PRF, s.Keys.D, n.secret, n.ni, n.nr, n.more...)
	keyOut, keyIn := i, r
	if !n.begun {
		keyOut, keyIn = r, i
	}
	defer clear(i)
	defer clear(r)
	udp := s.NATHere || s.NATThere
	c := &sa.Child{Tunnel: s.Tunnel, SPIIn: n.spiIn, SPIOut: n.spiOut, Suite: n.suite.Suite, ESN: n.suite.ESN, KeyIn: keyIn, KeyOut: keyOut,
		Local: local, Remote: remote, Endpoint: s.Local.Addr(), Peer: s.peerESP(), UDP: udp, NAT: s.NATThere, Agreed: n.begun, Life: lifeOf(n.tunnel),
		Expires: time.Now().Add(n.tunnel.ChildLife)}
	if err := s.d.plane.Install(c); err != nil {
		return nil, err
	}
	s.d.logChild(c)
	clear(n.secret)
	now := time.Now()
	child := &ChildState{SPIIn: n.spiIn, SPIOut: n.spiOut, Suite: n.suite, Local: n.local, Remote: n.remote, UDP: udp,
		Made: now, Rekey: now.Add(jittered(n.tunnel.ChildLife)), Expire: now.Add(n.tunnel.ChildLife)}
	child.begun = n.begun
	n.spiIn, n.made = 0, child
	s.d.succeeded(s.Tunnel)
	// A pair that was deleted receives for a while, and packets would leave through it too: the peer takes none.
	deleted := len(s.Graves) > 0 && !s.hasPairFor(child)
	s.Children = append(s.Children, child)
	if use || deleted {
		s.use(child)
	} else {
		child.Switch = now.Add(switchTime)
	}
	s.note("child SA installed", "spi_in", fmt.Sprintf("%#x", child.SPIIn), "spi_out", fmt.Sprintf("%#x", child.SPIOut),
		"suite", n.suite, "local", textOf(n.local), "customer", textOf(n.remote), "udp", udp)
	return child, nil
}

// postponeSwitch keeps packets on old pairs for longer: the peer, which asks again, has not got the answer with the new one.
func (s *ikeSA) postponeSwitch() {
	for _, c := range s.Children {
		if !c.Switch.IsZero() {
			c.Switch = time.Now().Add(switchTime)
		}
	}
}

// hasPairFor reports whether a pair carries packets that are within the selectors of another.
func (s *ikeSA) hasPairFor(c *ChildState) bool {
	return slices.ContainsFunc(s.Children, c.overlaps)
}

// hasLivePairFor is hasPairFor without pairs that end.
func (s *ikeSA) hasLivePairFor(c *ChildState) bool {
	return slices.ContainsFunc(s.Children, func(o *ChildState) bool { return !o.deleting && !o.Replaced && c.overlaps(o) })
}

// overlaps reports whether some packets lie within the selectors of both.
func (c *ChildState) overlaps(o *ChildState) bool {
	return len(narrow(o.Local, c.Local)) > 0 && len(narrow(o.Remote, c.Remote)) > 0
}

// use lets packets leave through a pair.
func (s *ikeSA) use(c *ChildState) {
	c.Switch = time.Time{}
	if err := s.d.plane.Use(s.Tunnel, c.SPIIn); err != nil {
		s.warn("child SA is not used", "spi_in", fmt.Sprintf("%#x", c.SPIIn), "error", err)
	}
}

// lifeOf spreads soft lifetimes, so that tunnels are not rekeyed all at once.
func lifeOf(t *Tunnel) esp.Life {
	return esp.Life{SoftPackets: jitteredCount(t.ChildPackets), HardPackets: t.ChildPackets, SoftBytes: jitteredCount(t.ChildBytes), HardBytes: t.ChildBytes}
}

// childFailed tells that a child was not agreed on.
func (s *ikeSA) childFailed(err error) {
	s.d.failed(s.Tunnel, short(err.Error()))
	s.warn("no child SA", "why", short(err.Error()))
}

// deleteChild tells the peer that a pair is no more used.
func (s *ikeSA) deleteChild(c *ChildState) {
	if c.deleting {
		return
	}
	c.deleting = true
	s.ask(&request{exchange: message.Informational, ofChild: true,
		contents: func() *message.Contents {
			if s.child(c.SPIIn) != c {
				return nil
			}
			return &message.Contents{Deletes: []message.Delete{{Protocol: message.ProtocolESP, SPIs: []uint32{c.SPIIn}}}}
		},
		remember: func(o *Outstanding) { o.Deletes = c.SPIIn },
		done:     s.deletedChild(c)})
}

// deletedChild takes the response to the deletion of a pair.
func (s *ikeSA) deletedChild(c *ChildState) func(answer *message.Contents) {
	return func(answer *message.Contents) {
		if answer != nil || s.phase != established { // else it was not asked, and a new IKE SA asks
			s.bury(c)
		}
	}
}

// bury forgets a pair. Packets that were sent before are still taken for a while.
func (s *ikeSA) bury(c *ChildState) {
	i := slices.Index(s.Children, c)
	if i < 0 {
		return
	}
	s.Children = slices.Delete(s.Children, i, i+1)
	s.Graves = append(s.Graves, Grave{c.SPIIn, time.Now().Add(graveTime)})
	if o := s.child(c.Replaces); o != nil && o.Replaced { // the peer could not take the pair that it wanted in place of this one
		o.Replaced = false
		o.Rekey, o.Expire = time.Now().Add(jittered(4*busyTime)), o.Made.Add(s.tunnel.ChildLife)
		s.use(o)
	}
	for _, o := range s.Children { // DESIGN 4.4: outbound switches on DELETE
		if !o.Switch.IsZero() && !o.Replaced {
			s.use(o)
		}
	}
	s.note("child SA deleted", "spi_in", fmt.Sprintf("%#x", c.SPIIn), "spi_out", fmt.Sprintf("%#x", c.SPIOut), "replaced", c.Replaced)
}
