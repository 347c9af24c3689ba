package ike

import (
	"bytes"
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

// switchTime is when packets leave through a new pair at the latest (DESIGN 4.4).
const switchTime = time.Second

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

// withoutKE is what IKE_AUTH may offer: its child has the keys of the IKE SA (RFC 7296, section 1.2).
func withoutKE(list []message.Proposal) []message.Proposal {
	out := slices.Clone(list)
	for i := range out {
		out[i].Transforms = slices.DeleteFunc(slices.Clone(out[i].Transforms), func(t message.Transform) bool {
			return t.Type == message.TransformKeyExchangeMethod || t.Type >= message.TransformAdditionalKE1
		})
	}
	return out
}

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
		return no(message.NotifyNoProposalChosen, fmt.Errorf("the peer offers %s: %w", wordsOf(offered), err))
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
	if len(s.Children) >= maxChildren || s.peerChild(n.spiOut) != nil {
		return no(message.NotifyNoAdditionalSAs, fmt.Errorf("there are %d children, or one has the peer's SPI %#x", len(s.Children), n.spiOut))
	}
	if refusal, why := n.answerKE(c); refusal != nil {
		if refusal.Type != message.NotifyInvalidKEPayload { // that is how a group is agreed on
			s.childFailed(why)
		}
		return refusal
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
	for _, t := range c.Notifies {
		if t.Type.Error() {
			return refusedError{t.Type, t.Data}
		}
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

// A refusedError is an error that the peer answered.
type refusedError struct {
	is   message.NotifyType
	data []byte
}

func (e refusedError) Error() string { return "the peer answered " + e.is.String() }

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
		Local: local, Remote: remote, Endpoint: s.Local.Addr(), Peer: s.peerESP(), UDP: udp, NAT: s.NATThere, Life: lifeOf(n.tunnel)}
	if err := s.d.plane.Install(c); err != nil {
		return nil, err
	}
	s.d.logChild(c)
	clear(n.secret)
	now := time.Now()
	child := &ChildState{SPIIn: n.spiIn, SPIOut: n.spiOut, Suite: n.suite, Local: n.local, Remote: n.remote, UDP: udp,
		Made: now, Rekey: now.Add(jittered(n.tunnel.ChildLife)), Expire: now.Add(n.tunnel.ChildLife)}
	n.spiIn, n.made = 0, child
	// A pair that was deleted receives for a while, and packets would leave through it too: the peer takes none.
	deleted := len(s.graves) > 0 && !s.hasPairFor(child)
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

// hasPairFor reports whether a pair carries packets that are within the selectors of another.
func (s *ikeSA) hasPairFor(c *ChildState) bool {
	return slices.ContainsFunc(s.Children, func(o *ChildState) bool {
		return len(narrow(o.Local, c.Local)) > 0 && len(narrow(o.Remote, c.Remote)) > 0
	})
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
	s.d.failed(s.Tunnel, err.Error())
	s.warn("no child SA", "why", err)
}

// createChild asks for a pair: one more, or one in place of old (RFC 7296, sections 1.3.1 and 1.3.3).
func (s *ikeSA) createChild(old *ChildState, method uint16, done func(error)) {
	n := &negotiation{tunnel: s.tunnel, begun: true, ni: newNonce()}
	local, remote := selectorsOf(s.tunnel.Local), selectorsOf(s.tunnel.Remote)
	if old != nil {
		old.rekeying = true
		local, remote = old.Local, old.Remote
	}
	end := func(err error) {
		n.wipe(s.d)
		if old != nil {
			old.rekeying = false
			delete(s.collision, old.SPIIn)
		}
		if err != nil {
			s.childFailed(err)
		}
		if done != nil {
			done(err)
		}
	}
	var offer *suite.Offer
	s.ask(&request{exchange: message.CreateChildSA, ofChild: true,
		contents: func() *message.Contents {
			if old != nil && (s.child(old.SPIIn) != old || old.Replaced || old.deleting) {
				end(nil)
				return nil
			}
			c, err := s.offerChild(n, old, method, &offer)
			if err != nil {
				end(err)
				return nil
			}
			c.TSi, c.TSr = local, remote
			return c
		},
		done: func(c *message.Contents) {
			defer func() {
				if offer != nil {
					offer.Wipe()
				}
			}()
			if c == nil {
				end(errors.New(s.why))
				return
			}
			err := s.takeChild(n, old, c, offer, local, remote)
			var refused refusedError
			if errors.As(err, &refused) {
				s.childRefused(n, old, refused, method, done)
				return
			}
			if err != nil {
				end(err)
				return
			}
			s.followUp(n.suite.AddKE, c, func(secrets [][]byte, err error) {
				if err != nil {
					end(err)
					return
				}
				n.more = secrets
				child, err := s.install(n, false)
				if err != nil {
					end(err)
					return
				}
				s.takeOver(old, child, n)
				end(nil)
			})
		}})
}

// offerChild makes the request for a pair.
func (s *ikeSA) offerChild(n *negotiation, old *ChildState, method uint16, offer **suite.Offer) (*message.Contents, error) {
	var err error
	if n.spiIn, err = s.d.plane.ReserveSPI(); err != nil {
		return nil, err
	}
	c := &message.Contents{SA: numbered(s.childProposals(old), spiBytes(n.spiIn)), Nonce: n.ni}
	if old != nil {
		c.Notifies = append(c.Notifies, message.Notify{Type: message.NotifyRekeySA, Protocol: message.ProtocolESP, SPI: spiBytes(old.SPIIn)})
	}
	if method == 0 {
		method = firstMethod(s.childProposals(old))
	}
	if method != 0 {
		if *offer, err = suite.NewOffer(method); err != nil {
			return nil, err
		}
		c.KE = &message.KE{Method: method, Data: (*offer).Public()}
	}
	return c, nil
}

// childProposals are what may be agreed on for a pair. One that takes the place of another has its algorithms: a responder chooses
// by its own taste, which may be for something weaker.
func (s *ikeSA) childProposals(old *ChildState) []message.Proposal {
	if old == nil {
		return s.tunnel.ChildProposals
	}
	stays, err := suite.ParseESP(suite.ESP{Suite: old.Suite.Suite, ESN: old.Suite.ESN}.String(), true, true)
	if err != nil {
		return s.tunnel.ChildProposals
	}
	var list []message.Proposal
	for _, p := range s.tunnel.ChildProposals {
		p.Transforms = slices.DeleteFunc(slices.Clone(p.Transforms), func(t message.Transform) bool {
			return t.Type != message.TransformKeyExchangeMethod && t.Type < message.TransformAdditionalKE1 && !slices.Contains(stays.Transforms, t)
		})
		if !slices.ContainsFunc(stays.Transforms, func(t message.Transform) bool { return !slices.Contains(p.Transforms, t) }) {
			list = append(list, p)
		}
	}
	if len(list) == 0 { // the configuration has changed
		return s.tunnel.ChildProposals
	}
	return list
}

// takeChild takes the response to offerChild.
func (s *ikeSA) takeChild(n *negotiation, old *ChildState, c *message.Contents, offer *suite.Offer, local, remote []message.Selector) error {
	if err := n.takeChoice(c, s.childProposals(old), local, remote); err != nil {
		return err
	}
	if c.Nonce == nil {
		return errors.New("the peer's response has no nonce")
	}
	n.nr = slices.Clone(c.Nonce)
	if n.suite.KE == 0 {
		return nil
	}
	if offer == nil || c.KE == nil || c.KE.Method != n.suite.KE {
		return fmt.Errorf("the peer chose %s without that key exchange", n.suite)
	}
	var err error
	n.secret, err = offer.Finish(c.KE.Data)
	return err
}

// Waits after a refusal that passes (RFC 7296, section 2.25).
const busyTime = 5 * time.Second

// childRefused does what a refusal asks for.
func (s *ikeSA) childRefused(n *negotiation, old *ChildState, refused refusedError, method uint16, done func(error)) {
	n.wipe(s.d)
	if old != nil {
		old.rekeying = false
	}
	tell := func(err error) {
		if done != nil {
			done(err)
		}
	}
	if old != nil && (s.child(old.SPIIn) != old || old.Replaced) { // meanwhile the peer has replaced it
		tell(nil)
		return
	}
	switch refused.is {
	case message.NotifyInvalidKEPayload:
		if len(refused.data) == 2 && method == 0 {
			if m := binary.BigEndian.Uint16(refused.data); offers(s.tunnel.ChildProposals, m) {
				s.createChild(old, m, done)
				return
			}
		}
	case message.NotifyChildSANotFound:
		if old != nil {
			s.note("the peer does not have a child SA any more", "spi_in", fmt.Sprintf("%#x", old.SPIIn))
			s.bury(old)
			s.createChild(nil, 0, done)
			return
		}
	case message.NotifyTemporaryFailure:
		if old != nil {
			old.Rekey = time.Now().Add(jittered(2 * busyTime))
			tell(refused)
			return
		}
	}
	if old != nil {
		old.Rekey = time.Now().Add(jittered(4 * busyTime))
	}
	s.childFailed(refused)
	tell(refused)
}

// A collision is a pair that the peer has made in place of one for which we ask for another.
type collision struct {
	low   []byte // the lower nonce of that exchange
	child *ChildState
}

// takeOver lets a new pair take the place of old. If the peer has made one too, the one of the exchange with the lowest of the four
// nonces is deleted, by whoever made it (RFC 7296, section 2.8.1).
func (s *ikeSA) takeOver(old, child *ChildState, n *negotiation) {
	if old == nil {
		s.use(child)
		return
	}
	if c := s.collision[old.SPIIn]; c != nil && bytes.Compare(lower(n.ni, n.nr), c.low) < 0 {
		s.note("both sides rekeyed: ours is deleted", "spi_in", fmt.Sprintf("%#x", child.SPIIn))
		child.Replaced = true
		s.deleteChild(child)
		return
	}
	s.d.counts.rekeyedChildren.Add(1)
	s.use(child)
	old.Replaced, old.Expire = true, time.Now().Add(replacedTime)
	if s.child(old.SPIIn) == old {
		s.deleteChild(old)
	}
}

func lower(a, b []byte) []byte {
	if bytes.Compare(a, b) < 0 {
		return a
	}
	return b
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
		done: func(*message.Contents) { s.bury(c) }})
}

// bury forgets a pair. Packets that were sent before are still taken for a while.
func (s *ikeSA) bury(c *ChildState) {
	i := slices.Index(s.Children, c)
	if i < 0 {
		return
	}
	s.Children = slices.Delete(s.Children, i, i+1)
	s.graves = append(s.graves, grave{c.SPIIn, time.Now().Add(graveTime)})
	for _, o := range s.Children { // DESIGN 4.4: outbound switches on DELETE
		if !o.Switch.IsZero() && !o.Replaced {
			s.use(o)
		}
	}
	s.note("child SA deleted", "spi_in", fmt.Sprintf("%#x", c.SPIIn), "spi_out", fmt.Sprintf("%#x", c.SPIOut), "replaced", c.Replaced)
}
