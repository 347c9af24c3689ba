package ike

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"causeway/control/ike/auth"
	"causeway/control/ike/message"
	"causeway/control/ike/suite"
)

// Times that an SA has to become established, and to answer again after it has failed.
const (
	openTime   = 30 * time.Second
	failedTime = 10 * time.Second
)

const nonceLen = 32

// A handshake is what an SA needs until it is established.
type handshake struct {
	ni, nr            []byte
	request, response []byte // IKE_SA_INIT, what is signed
	chosen            message.Proposal

	offer  *suite.Offer
	method uint16 // of offer
	cookie []byte
	tries  int

	repeats int  // of the IKE_SA_INIT response
	doubted bool // an answer to IKE_SA_INIT has refused

	more         []uint16 // additional key exchanges that are to come
	authI, authR []byte   // IntAuth_i and IntAuth_r (RFC 9242, section 3.3.2)
	hashes       []uint16 // that the peer can verify signatures of
	rfc7427      bool
	certWanted   bool
	spiIn        uint32 // of the first child
}

func (hs *handshake) wipe(d *Daemon) {
	if hs.offer != nil {
		hs.offer.Wipe()
	}
	if hs.spiIn != 0 {
		d.plane.ReleaseSPI(hs.spiIn)
		hs.spiIn = 0
	}
}

// intAuth adds a message of IKE_INTERMEDIATE to what is authenticated: IntAuth(n) = prf(SK_p(n), IntAuth(n-1) | A | P).
func (hs *handshake) intAuth(prf suite.PRF, key []byte, fromInitiator bool, h message.Header, first message.PayloadType, text []byte) {
	chain := &hs.authR
	if fromInitiator {
		chain = &hs.authI
	}
	*chain = prf.Sum(key, *chain, intAuthInput(h, first, text))
}

func newNonce() []byte {
	b := make([]byte, nonceLen)
	rand.Read(b)
	return b
}

// receiveInit does with an IKE_SA_INIT request what can be done at once.
func (d *Daemon) receiveInit(local, remote netip.AddrPort, h message.Header, b []byte) {
	if h.Exchange != message.IKESAInit || h.Response || h.ID != 0 || h.SPIi == 0 || len(b) > maxInit {
		d.counts.malformed.Add(1)
		return
	}
	cookie, nonce, ok := peek(h, b)
	if !ok {
		d.counts.malformed.Add(1)
		return
	}
	if d.refuses() { // the peer asks again, and another node may answer
		d.counts.storeAway.Add(1)
		return
	}
	if d.loaded(remote.Addr()) && !d.cookies.check(d.common(), cookie, remote, h.SPIi, nonce) {
		if cookie != nil {
			d.counts.cookieWrong.Add(1)
		}
		d.counts.cookiesSent.Add(1)
		fresh := d.cookies.make(d.common(), remote, h.SPIi, nonce)
		d.answerOpenly(local, remote, h, message.Notify{Type: message.NotifyCookie, Data: fresh[:]})
		return
	}
	key := initKey{remote, sha256.Sum256(b)}
	d.mu.Lock()
	s := d.byInit[key]
	d.mu.Unlock()
	if s != nil { // it came again
		try(d.pool.known, func() { s.do(func() { s.repeatInit(local, remote) }) })
		return
	}
	own := slices.Clone(b)
	if !try(d.pool.fresh, func() { d.respondInit(local, remote, h, own, key) }) {
		d.counts.overload.Add(1)
	}
}

// loaded reports whether peers of a source have to send cookies: when there is much to do, and when the source itself has begun much.
// Somebody else may write its address: that must not use up what the source may have half open.
func (d *Daemon) loaded(source netip.Addr) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.half >= d.opts.CookiesFrom || len(d.pool.fresh) > freshDepth/2 || d.perSource[sourceOf(source)] >= max(d.opts.PerSource/8, 1)
}

// repeatInit sends the IKE_SA_INIT response again.
func (s *ikeSA) repeatInit(local, remote netip.AddrPort) {
	if s.phase == proving && s.hs != nil && s.hs.repeats < maxRepeats {
		s.hs.repeats++
		s.d.transmit(local, remote, s.hs.response)
	}
}

// maxRepeats is how often an IKE_SA_INIT response is sent again: it is larger than a request can be, and whoever asks may have written
// another's address.
const maxRepeats = 8

// maxInit is the largest IKE_SA_INIT request, in bytes: it is kept while the SA is half open.
const maxInit = 8 << 10

// respondInit answers an IKE_SA_INIT request (RFC 7296, section 1.2).
func (d *Daemon) respondInit(local, remote netip.AddrPort, h message.Header, b []byte, key initKey) {
	c, err := message.Parse(h.First, b[message.HeaderLen:])
	var critical *message.CriticalError
	switch {
	case errors.As(err, &critical):
		d.counts.malformed.Add(1)
		d.answerOpenly(local, remote, h, message.Notify{Type: message.NotifyUnsupportedCriticalPayload, Data: []byte{byte(critical.Type)}})
		return
	case err != nil || c.SA == nil || c.KE == nil || c.Nonce == nil:
		d.counts.malformed.Add(1)
		d.answerOpenly(local, remote, h, message.Notify{Type: message.NotifyInvalidSyntax})
		return
	}
	chosen, err := d.chooseIKE(local.Addr(), remote.Addr(), c)
	if err != nil {
		d.counts.failed.Add(1)
		d.warnStranger("no proposal chosen", "endpoint", local.Addr(), "remote", remote, "offered", offered(c.SA), "why", err)
		for _, t := range d.index.Load().byPair[addressPair{local.Addr(), remote.Addr()}] {
			d.suspected(t.Name, fmt.Sprintf("no proposal chosen: %v", err))
		}
		d.answerOpenly(local, remote, h, message.Notify{Type: message.NotifyNoProposalChosen})
		return
	}
	su, err := suite.IKEOf(chosen)
	if err != nil {
		d.answerOpenly(local, remote, h, message.Notify{Type: message.NotifyNoProposalChosen})
		return
	}
	if c.KE.Method != su.KE { // RFC 7296, section 1.3
		d.answerOpenly(local, remote, h, message.Notify{Type: message.NotifyInvalidKEPayload, Data: binary.BigEndian.AppendUint16(nil, su.KE)})
		return
	}
	s := d.newSA(false)
	s.do(func() {
		if !d.admit(s, key) {
			s.phase = dead
			return
		}
		if err := s.acceptInit(local, remote, h, b, c, chosen, su); err != nil {
			d.counts.malformed.Add(1)
			d.answerOpenly(local, remote, h, message.Notify{Type: message.NotifyInvalidSyntax})
			s.end(err.Error())
		}
	})
}

// chooseIKE picks a proposal that a tunnel of these addresses permits.
func (d *Daemon) chooseIKE(endpoint, customer netip.Addr, c *message.Contents) (message.Proposal, error) {
	own := d.index.Load().proposals(endpoint, customer)
	if len(own) == 0 {
		return message.Proposal{}, fmt.Errorf("no tunnel with ike: has the endpoint %v", endpoint)
	}
	if c.Notify(message.NotifyIntermediateExchangeSupported) == nil { // RFC 9370, section 2.2.1
		own = slices.DeleteFunc(slices.Clone(own), needsIntermediate)
	}
	return suite.Choose(own, c.SA)
}

// acceptInit makes a half-open SA of a request that is good.
func (s *ikeSA) acceptInit(local, remote netip.AddrPort, h message.Header, b []byte, c *message.Contents, chosen message.Proposal, su suite.IKE) error {
	public, secret, err := suite.Respond(su.KE, c.KE.Data)
	if err != nil {
		return err
	}
	defer clear(secret)
	s.SPIi, s.SPIr = h.SPIi, s.d.enter(s)
	s.Local, s.Remote, s.Suite = local, remote, su
	s.phase, s.expire = proving, time.Now().Add(openTime)
	s.NextResponse = 1
	s.hs = &handshake{ni: c.Nonce, nr: newNonce(), request: b, chosen: chosen, more: su.AddKE}
	s.takeInitNotifies(c)
	if err := s.setKeys(su.Keys(suite.Seed(su.PRF, secret, s.hs.ni, s.hs.nr), s.hs.ni, s.hs.nr, s.SPIi, s.SPIr)); err != nil {
		return err
	}
	answer := &message.Contents{SA: []message.Proposal{chosen}, KE: &message.KE{Method: su.KE, Data: public}, Nonce: s.hs.nr, Notifies: s.initNotifies()}
	if c.Notify(message.NotifyIntermediateExchangeSupported) == nil {
		answer.Notifies = slices.DeleteFunc(answer.Notifies, func(n message.Notify) bool { return n.Type == message.NotifyIntermediateExchangeSupported })
	}
	answer.CertReqs = s.d.index.Load().requests(local.Addr())
	out := message.Header{SPIi: s.SPIi, SPIr: s.SPIr, Major: 2, Exchange: message.IKESAInit, Response: true}
	s.hs.response = openMessage(out, answer)
	s.d.transmit(local, remote, s.hs.response)
	return nil
}

// initNotifies are what both sides say in IKE_SA_INIT.
func (s *ikeSA) initNotifies() []message.Notify {
	return []message.Notify{
		{Type: message.NotifyNATDetectionSourceIP, Data: natHash(s.SPIi, s.SPIr, s.Local)},
		{Type: message.NotifyNATDetectionDestinationIP, Data: natHash(s.SPIi, s.SPIr, s.Remote)},
		{Type: message.NotifyFragmentationSupported},
		{Type: message.NotifySignatureHashAlgorithms, Data: auth.HashAlgorithms()},
		{Type: message.NotifyIntermediateExchangeSupported},
	}
}

// takeInitNotifies reads what the peer says. In a request the responder's SPI is not known yet.
func (s *ikeSA) takeInitNotifies(c *message.Contents) {
	s.Fragmentation = c.Notify(message.NotifyFragmentationSupported) != nil
	if n := c.Notify(message.NotifySignatureHashAlgorithms); n != nil {
		s.hs.hashes, _ = auth.ParseHashAlgorithms(n.Data)
		s.hs.rfc7427 = true
	}
	s.hs.certWanted = len(c.CertReqs) > 0
	spir := s.SPIr
	if !s.initiator {
		spir = 0
	}
	s.NATThere, s.NATHere = natDetected(c, s.SPIi, spir, s.Local, s.Remote)
}

// initiate begins to negotiate a tunnel, unless that is under way: two negotiations would leave two IKE SAs.
func (d *Daemon) initiate(t *Tunnel) *ikeSA {
	s := d.newSA(true)
	s.tunnel, s.Tunnel = t, t.Name
	d.mu.Lock()
	if o := d.opening[t.Name]; o != nil {
		d.mu.Unlock()
		return o
	}
	d.opening[t.Name] = s
	d.mu.Unlock()
	s.do(func() {
		s.SPIi = d.enter(s)
		s.Local, s.Remote = netip.AddrPortFrom(t.Endpoint, Port), netip.AddrPortFrom(t.Customer, Port)
		s.expire = time.Now().Add(2 * openTime)
		s.hs = &handshake{ni: newNonce(), method: firstMethod(t.Proposals)}
		s.askInit()
	})
	return s
}

// askInit sends the IKE_SA_INIT request, first or again with what the peer wants in it.
func (s *ikeSA) askInit() {
	if s.hs.offer == nil {
		o, err := suite.NewOffer(s.hs.method)
		if err != nil {
			s.end(err.Error())
			return
		}
		s.hs.offer = o
	}
	c := &message.Contents{SA: numbered(s.tunnel.Proposals, nil), KE: &message.KE{Method: s.hs.method, Data: s.hs.offer.Public()}, Nonce: s.hs.ni}
	if s.hs.cookie != nil {
		c.Notifies = append(c.Notifies, message.Notify{Type: message.NotifyCookie, Data: s.hs.cookie})
	}
	c.Notifies = append(c.Notifies, s.initNotifies()...)
	s.hs.request = openMessage(message.Header{SPIi: s.SPIi, Major: 2, Exchange: message.IKESAInit, Initiator: true}, c)
	s.ask(&request{exchange: message.IKESAInit, datagrams: [][]byte{s.hs.request},
		contents: func() *message.Contents { return c },
		done: func(c *message.Contents) {
			if c == nil {
				s.end(fmt.Sprintf("%v does not answer", s.Remote))
			}
		}})
}

// receiveInitResponse takes the answer to askInit. It is not authenticated yet: what is wrong with it is noted, and the peer may
// still answer otherwise.
func (s *ikeSA) receiveInitResponse(local, remote netip.AddrPort, h message.Header, b []byte) {
	c, err := message.Parse(h.First, b[message.HeaderLen:])
	if err != nil {
		s.why = "the answer to IKE_SA_INIT was not understood: " + err.Error()
		return
	}
	if n := c.Notify(message.NotifyCookie); n != nil && c.SA == nil && len(n.Data) > 0 && len(n.Data) <= 64 {
		if s.hs.tries++; s.hs.tries <= maxRestarts {
			s.hs.cookie = slices.Clone(n.Data)
			s.restartInit()
		}
		return
	}
	if n := c.Notify(message.NotifyInvalidKEPayload); n != nil && len(n.Data) == 2 {
		if s.hs.tries++; s.hs.tries <= maxRestarts {
			s.otherMethod(binary.BigEndian.Uint16(n.Data))
		}
		return
	}
	for _, n := range c.Notifies {
		if n.Type.Error() {
			s.doubt(fmt.Sprintf("the peer answered %v to %s", n.Type, wordsOf(s.tunnel.Proposals)))
			return
		}
	}
	if c.SA == nil || c.KE == nil || c.Nonce == nil || h.SPIr == 0 {
		return
	}
	if err := s.takeInit(h, b, c); err != nil {
		s.doubt(err.Error())
	}
}

// maxRestarts is how often an answer may have IKE_SA_INIT begin again, with a cookie or another key exchange.
const maxRestarts = 4

// doubtTime is how long another answer is waited for after one that refuses.
const doubtTime = 2 * time.Second

// doubt ends the negotiation soon, unless another answer comes: this one was not authenticated, and somebody else may have sent it
// (RFC 7296, section 2.21.1).
func (s *ikeSA) doubt(why string) {
	if s.hs.doubted {
		return // the first one counts
	}
	s.hs.doubted = true
	s.why, s.expire = why, time.Now().Add(doubtTime)
}

func (s *ikeSA) restartInit() {
	s.pending, s.Pending = nil, nil
	s.askInit()
}

// otherMethod begins again with the key exchange that the peer wants, if we offered it.
func (s *ikeSA) otherMethod(method uint16) {
	if method == s.hs.method || !offers(s.tunnel.Proposals, method) {
		s.why = fmt.Sprintf("the peer wants %s, which was not offered", suite.MethodName(method))
		return
	}
	s.hs.offer.Wipe()
	s.hs.offer, s.hs.method = nil, method
	s.restartInit()
}

// takeInit takes the peer's choice.
func (s *ikeSA) takeInit(h message.Header, b []byte, c *message.Contents) error {
	if len(c.SA) != 1 {
		return fmt.Errorf("the peer chose %d proposals", len(c.SA))
	}
	if err := suite.Check(c.SA[0], numbered(s.tunnel.Proposals, nil)); err != nil {
		return fmt.Errorf("the peer chose %s: %w", suite.Words(c.SA[0]), err)
	}
	su, err := suite.IKEOf(c.SA[0])
	if err != nil {
		return err
	}
	if su.KE != s.hs.method || c.KE.Method != su.KE {
		return fmt.Errorf("the peer chose %s and sent %s", suite.MethodName(su.KE), suite.MethodName(c.KE.Method))
	}
	if len(su.AddKE) > 0 && c.Notify(message.NotifyIntermediateExchangeSupported) == nil {
		return errors.New("the peer chose an additional key exchange without IKE_INTERMEDIATE")
	}
	secret, err := s.hs.offer.Finish(c.KE.Data)
	if err != nil {
		return err
	}
	defer clear(secret)
	s.SPIr, s.Suite, s.phase = h.SPIr, su, proving
	s.hs.nr, s.hs.response, s.hs.chosen, s.hs.more = slices.Clone(c.Nonce), b, c.SA[0], su.AddKE
	s.takeInitNotifies(c)
	if s.NATHere || s.NATThere { // RFC 7296, section 2.23
		s.Local, s.Remote = netip.AddrPortFrom(s.Local.Addr(), NATPort), netip.AddrPortFrom(s.Remote.Addr(), NATPort)
	}
	if err := s.setKeys(su.Keys(suite.Seed(su.PRF, secret, s.hs.ni, s.hs.nr), s.hs.ni, s.hs.nr, s.SPIi, s.SPIr)); err != nil {
		return err
	}
	s.pending, s.Pending = nil, nil
	s.NextRequest = 1
	s.why, s.expire = "", time.Now().Add(2*openTime)
	s.goOn()
	return nil
}

// goOn sends the request that comes next for an initiator: IKE_INTERMEDIATE for each additional key exchange, then IKE_AUTH.
func (s *ikeSA) goOn() {
	if len(s.hs.more) > 0 {
		s.askIntermediate()
		return
	}
	s.askAuth()
}

// fail ends an SA that was not established; its answers are sent again for a while.
func (s *ikeSA) fail(why string) {
	s.d.failed(s.Tunnel, why)
	s.d.counts.failed.Add(1)
	s.d.warnStranger("negotiation failed", s.about([]any{"why", why})...)
	s.phase, s.why, s.expire = failed, why, time.Now().Add(failedTime)
}
