package ike

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"causeway/control/ike/message"
	"causeway/control/ike/suite"
)

// What an attacker has tried with success once.

// lose drops what a datagram's header says.
func (b *bed) lose(drop func(from netip.Addr, h message.Header) bool) {
	b.wire.set(func(w *wire) {
		w.tap = func(from, _ netip.AddrPort, d []byte) []byte {
			if h, err := message.ParseHeader(d); err == nil && drop(from.Addr(), h) {
				return nil
			}
			return d
		}
	})
}

// blind counts the seconds, of so many, in which an end sends by a pair that the other does not have.
func (b *bed) blind(from int, span time.Duration) (blind time.Duration) {
	const step = 100 * time.Millisecond
	for end := time.Now().Add(span); time.Now().Before(end); time.Sleep(step) {
		u := b.planes[from].used("cust-a")
		o := b.planes[1-from]
		o.mu.Lock()
		if u != nil && o.children[u.SPIOut] == nil {
			blind += step
		}
		o.mu.Unlock()
	}
	return blind
}

// A peer gives up the new IKE SA while the old one waits to be deleted: a tunnel that we begin is begun again.
func TestBegunAgainAfterReplacement(t *testing.T) {
	onBed(t, Options{}, func(b *bed) {
		l := tunnelOf(b.t, true, usualIKE, usualESP)
		l.Initiate = true
		b.right.SetTunnels([]*Tunnel{tunnelOf(b.t, false, usualIKE, usualESP)})
		b.left.SetTunnels([]*Tunnel{l})
		time.Sleep(5 * time.Second)
		b.agree()
		old := b.right.of("cust-a")[0].spi()
		b.lose(func(from netip.Addr, h message.Header) bool {
			return h.Exchange == message.Informational && h.SPIr == old && from == rightAddr
		})
		if err := b.right.Rekey(b.t.Context(), "cust-a", true); err != nil {
			b.t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
		for _, s := range b.right.of("cust-a") {
			s.do(func() { s.deleteSelf("right gives it up") })
		}
		time.Sleep(2 * time.Second)
		b.wire.set(func(w *wire) { w.tap = nil })
		time.Sleep(2 * time.Minute)
		b.agree()
		b.counts(1, 1)
	})
}

// A key is revoked while the request to replace its IKE SA waits: the new one is deleted too.
func TestRevokedKeyHasNoHeirs(t *testing.T) {
	onBed(t, Options{}, func(b *bed) {
		b.usual()
		b.up()
		release := make(chan bool)
		for range b.right.opts.Workers { // all are busy for a moment
			b.right.pool.known <- func() { <-release }
		}
		synctest.Wait()
		go b.left.Rekey(b.t.Context(), "cust-a", true)
		time.Sleep(100 * time.Millisecond)
		other := tunnelOf(b.t, false, usualIKE, usualESP)
		other.PSK = []byte("another key, because others know the one before")
		b.right.SetTunnels([]*Tunnel{other})
		close(release)
		time.Sleep(2 * time.Minute)
		b.counts(0, 0)
	})
}

// replaceAtRight lets another IKE SA take the place of s, as if the peer had asked for it.
func (b *bed) replaceAtRight(s *ikeSA) {
	n := b.right.newSA(false)
	s.do(func() {
		n.SPIi, n.SPIr, n.Suite = 1, b.right.enter(n), s.Suite
		n.do(func() { _ = n.setKeys(s.Suite.Keys(make([]byte, 48), newNonce(), newNonce(), 1, 2)) })
		s.giveWayTo(n)
	})
}

// An IKE SA that began before its tunnel was given other settings, and is established afterwards.
func TestStaleNegotiation(t *testing.T) {
	onBed(t, Options{}, func(b *bed) {
		b.usual()
		b.up()
		s := b.right.of("cust-a")[0]
		other := *tunnelOf(b.t, false, usualIKE, usualESP)
		other.PSK = []byte("another key, because others know the one before")
		b.right.index.Store(newIndex([]*Tunnel{&other})) // as SetTunnels does, before it looks for SAs
		b.replaceAtRight(s)
		time.Sleep(time.Minute)
		if n := len(b.right.of("cust-a")); n > 0 || len(b.planes[1].pairs()) > 0 {
			b.t.Errorf("%d IKE SAs of other settings", n)
		}
	})
}

// A peer that replaces its IKE SA all the time, and answers nothing, has few.
func TestIKESAsAreBounded(t *testing.T) {
	onBed(t, Options{}, func(b *bed) {
		b.usual()
		b.up()
		// Of what right asks, the deletions of old ones among them, nothing arrives.
		b.lose(func(from netip.Addr, h message.Header) bool { return from == rightAddr && !h.Response })
		for range 100 {
			list := b.right.of("cust-a")
			s := list[len(list)-1]
			b.replaceAtRight(s)
			synctest.Wait()
		}
		b.right.mu.Lock()
		defer b.right.mu.Unlock()
		if n := len(b.right.bySPI); n > perTunnel {
			b.t.Errorf("%d IKE SAs", n)
		}
	})
}

// A DELETE that waits behind the rekeying of its IKE SA is sent in the new one.
func TestDeletionOutlivesReplacement(t *testing.T) {
	onBed(t, Options{}, func(b *bed) {
		b.usual()
		b.up()
		s := b.left.of("cust-a")[0]
		s.do(func() {
			s.rekeySelf(nil)
			s.deleteChild(s.Children[0])
		})
		time.Sleep(5 * time.Second)
		b.counts(1, 0)
	})
}

// An initiator that cannot take the pair says so, and the responder goes on with the one before.
func TestPairGivenBack(t *testing.T) {
	refuse := func(b *bed, err error) {
		b.planes[0].mu.Lock()
		defer b.planes[0].mu.Unlock()
		b.planes[0].refuse = err
	}
	onBed(t, Options{}, func(b *bed) {
		b.usual()
		b.up()
		refuse(b, errors.New("no memory for keys"))
		if err := b.left.Rekey(b.t.Context(), "cust-a", false); err == nil {
			b.t.Fatal("rekeyed")
		}
		refuse(b, nil)
		if blind := b.blind(1, 2*time.Minute); blind > 0 {
			b.t.Errorf("for %v right sent by a pair that left does not have", blind)
		}
		b.agree()
		b.counts(1, 1)
	})
	onBed(t, Options{}, func(b *bed) { // the first one: no SPI stays reserved, which the bed checks
		b.usual()
		refuse(b, errors.New("no memory for keys"))
		if err := b.left.Initiate(b.t.Context(), "cust-a"); err == nil {
			b.t.Fatal("established with a pair")
		}
		time.Sleep(5 * time.Second)
		b.counts(1, 0)
	})
}

// The response with a new pair is lost for four seconds, as with a peer that asks again only then: no packet leaves by it before.
func TestSwitchWaitsForThePeer(t *testing.T) {
	onBed(t, Options{}, func(b *bed) {
		b.usual()
		b.up()
		b.lose(func(from netip.Addr, h message.Header) bool {
			return h.Response && h.Exchange == message.CreateChildSA && from == rightAddr
		})
		time.AfterFunc(4*time.Second, func() { b.wire.set(func(w *wire) { w.tap = nil }) })
		go b.left.Rekey(b.t.Context(), "cust-a", false)
		if blind := b.blind(1, 10*time.Second); blind > 0 {
			b.t.Errorf("for %v right sent by a pair that left did not have", blind)
		}
		b.agree()
		b.counts(1, 1)
	})
}

// A dryPlane has no IVs for a while.
type dryPlane struct {
	*plane
	dry atomic.Bool
}

func (p *dryPlane) IV() (uint64, error) {
	if p.dry.Load() {
		return 0, errors.New("no IV is reserved")
	}
	return p.plane.IV()
}

// An answer that cannot be sealed is sealed when the request comes again: what it says has been done.
func TestAnswerWithoutIV(t *testing.T) {
	onBed(t, Options{}, func(b *bed) {
		b.usual()
		p := &dryPlane{plane: b.planes[1]}
		b.right.plane = p
		b.up()
		p.dry.Store(true)
		time.AfterFunc(300*time.Millisecond, func() { p.dry.Store(false) })
		if err := b.left.Rekey(b.t.Context(), "cust-a", false); err != nil {
			b.t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		b.agree()
		b.counts(1, 1)
	})
}

// The key of cookies is not zero, from which anybody could make them.
func TestFirstCookies(t *testing.T) {
	onBed(t, Options{CookiesFrom: 1}, func(b *bed) {
		b.usual()
		b.answerTo(initRequest(b.t, 1, nil)) // now all need one
		nonce := newNonce()
		for at := slot(time.Now()) - 1; at <= slot(time.Now())+1; at++ {
			made := cookieOf([32]byte{}, at, netip.AddrPortFrom(leftAddr, Port), 99, nonce)
			c := b.answerTo(initRequest(b.t, 99, func(c *message.Contents) {
				c.Nonce, c.Notifies = nonce, []message.Notify{{Type: message.NotifyCookie, Data: made[:]}}
			}))
			if c.SA != nil {
				b.t.Errorf("a made-up cookie of slot %d is taken", at)
			}
		}
	})
}

// Answers to IKE_SA_INIT are not authenticated: one that refuses ends nothing when the peer's own comes too (RFC 7296, section 2.21.1).
func TestForgedRefusals(t *testing.T) {
	for name, c := range map[string]*message.Contents{
		"NO_PROPOSAL_CHOSEN": refuse(message.NotifyNoProposalChosen),
		"a choice that was not offered": {SA: numbered(tunnelOf(t, true, "aes128-sha1-modp1536", usualESP).Proposals, nil), Nonce: newNonce(),
			KE: &message.KE{Method: suite.MODP1536, Data: make([]byte, 192)}},
	} {
		t.Run(name, func(t *testing.T) {
			onBed(t, Options{}, func(b *bed) {
				b.usual()
				forged := false
				b.wire.set(func(w *wire) {
					w.tap = func(from, to netip.AddrPort, d []byte) []byte {
						h, err := message.ParseHeader(d)
						if err == nil && h.Exchange == message.IKESAInit && !h.Response && !forged {
							forged = true
							answer := openMessage(message.Header{SPIi: h.SPIi, SPIr: 5, Major: 2, Exchange: h.Exchange, Response: true}, c)
							go b.left.Receive(from, to, answer)
						}
						return d
					}
				})
				b.up()
			})
		})
	}
	// One that stays alone counts.
	onBed(t, Options{}, func(b *bed) {
		b.left.SetTunnels([]*Tunnel{tunnelOf(b.t, true, usualIKE, usualESP)})
		b.right.SetTunnels([]*Tunnel{tunnelOf(b.t, false, "aes128-sha256-modp2048", usualESP)})
		begun := time.Now()
		err := b.left.Initiate(b.t.Context(), "cust-a")
		if took := time.Since(begun); err == nil || took > 2*doubtTime {
			b.t.Errorf("%v after %v", err, took)
		}
	})
}

// A fragment that is not wanted is not decrypted: it must not be what an answer is sent again for.
func TestForgedFragmentIsNotAnswered(t *testing.T) {
	onBed(t, Options{DatagramBytes: 500}, func(b *bed) {
		const words = "aes256gcm16-prfsha384-x25519-ke1_mlkem768"
		b.left.SetTunnels([]*Tunnel{tunnelOf(b.t, true, words, usualESP)})
		b.right.SetTunnels([]*Tunnel{tunnelOf(b.t, false, words, usualESP)})
		var forged []byte
		b.wire.set(func(w *wire) {
			w.tap = func(from, to netip.AddrPort, d []byte) []byte {
				h, err := message.ParseHeader(d)
				switch {
				case err != nil || h.Response || from.Addr() != leftAddr:
				case h.Exchange == message.IKEAuth:
					return nil // the answer to IKE_INTERMEDIATE stays the last one
				case h.Exchange == message.IKEIntermediate && forged == nil: // before the last fragment comes
					forged = message.AppendSealedHeader(nil, h, message.Sealed{First: message.PayloadKE, Fragment: 1, Fragments: maxFragments + 1}, 0)
					time.AfterFunc(time.Millisecond/2, func() { b.right.Receive(to, from, forged) })
				}
				return d
			}
		})
		ctx, cancel := context.WithTimeout(b.t.Context(), 100*time.Millisecond)
		defer cancel()
		_ = b.left.Initiate(ctx, "cust-a") // it cannot end
		list := b.heard()
		b.right.Receive(rightPort, netip.MustParseAddrPort("203.0.113.77:500"), forged)
		synctest.Wait()
		if len(*list) > 0 {
			b.t.Errorf("%d bytes that nobody has authenticated are answered with %d datagrams", len(forged), len(*list))
		}
	})
}

// Pairs that were deleted a moment ago count: the dataplane has them.
func TestGravesCount(t *testing.T) {
	onBed(t, Options{}, func(b *bed) {
		b.usual()
		b.up()
		s := b.left.of("cust-a")[0]
		most := 0
		for range 2 * maxChildren {
			s.do(func() { s.createChild(nil, nil) })
			time.Sleep(5 * time.Millisecond)
			s.do(func() {
				if n := len(s.Children); n > 0 {
					s.deleteChild(s.Children[n-1])
				}
			})
			time.Sleep(3 * time.Millisecond)
			most = max(most, len(b.planes[1].pairs()))
		}
		if most > maxChildren || most < maxChildren/2 {
			b.t.Errorf("the responder has %d pairs, at most %d were to be", most, maxChildren)
		}
	})
}

// The IKE_SA_INIT response is not sent again and again to whoever may have another's address.
func TestRepeatsAreBounded(t *testing.T) {
	onBed(t, Options{}, func(b *bed) {
		b.usual()
		request := initRequest(b.t, 7, nil)
		list := b.heard()
		for range 100 {
			b.right.Receive(rightPort, leftPort, request)
			synctest.Wait()
		}
		if n := len(*list); n > 1+maxRepeats || n < 2 {
			b.t.Errorf("%d answers to one request", n)
		}
	})
}

// A pair with a life so short that its end comes before the peer has got the response with it is not replaced before.
func TestRekeyWaitsForThePeer(t *testing.T) {
	onBed(t, Options{}, func(b *bed) {
		l, r := tunnelOf(b.t, true, usualIKE, usualESP), tunnelOf(b.t, false, usualIKE, usualESP)
		r.ChildLife = 6 * time.Second
		b.left.SetTunnels([]*Tunnel{l})
		b.right.SetTunnels([]*Tunnel{r})
		b.up()
		b.lose(func(from netip.Addr, h message.Header) bool {
			return h.Response && h.Exchange == message.CreateChildSA && from == rightAddr
		})
		time.AfterFunc(5500*time.Millisecond, func() { b.wire.set(func(w *wire) { w.tap = nil }) })
		go b.left.Rekey(b.t.Context(), "cust-a", false)
		time.Sleep(20 * time.Second)
		if strings.Contains(b.log.String(), "the peer does not have a child SA any more") {
			b.t.Error("asked about a pair that the peer did not have yet")
		}
	})
}
