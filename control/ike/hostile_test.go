package ike

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"causeway/control/ike/message"
	"causeway/control/ike/suite"
)

// initRequest is an IKE_SA_INIT request as left would send it.
func initRequest(t testing.TB, spi uint64, change func(*message.Contents)) []byte {
	t.Helper()
	p, err := suite.ParseIKE(usualIKE, false)
	if err != nil {
		t.Fatal(err)
	}
	o, err := suite.NewOffer(suite.X25519)
	if err != nil {
		t.Fatal(err)
	}
	c := &message.Contents{SA: numbered([]message.Proposal{p}, nil), KE: &message.KE{Method: suite.X25519, Data: o.Public()}, Nonce: newNonce()}
	if change != nil {
		change(c)
	}
	return openMessage(message.Header{SPIi: spi, Major: 2, Exchange: message.IKESAInit, Initiator: true}, c)
}

// heard collects what right answers, and lets nothing through.
func (b *bed) heard() *[][]byte {
	list := new([][]byte)
	b.wire.mu.Lock()
	defer b.wire.mu.Unlock()
	b.wire.tap = func(from, _ netip.AddrPort, d []byte) []byte {
		if from.Addr() == rightAddr {
			*list = append(*list, d)
		}
		return nil
	}
	return list
}

var (
	rightPort = netip.AddrPortFrom(rightAddr, Port)
	leftPort  = netip.AddrPortFrom(leftAddr, Port)
)

// answerTo gives right a datagram and returns the notification of its answer, without encryption.
func (b *bed) answerTo(d []byte) *message.Contents {
	b.t.Helper()
	list := b.heard()
	b.right.Receive(rightPort, leftPort, d)
	synctest.Wait()
	if len(*list) == 0 {
		return nil
	}
	last := (*list)[len(*list)-1]
	h, err := message.ParseHeader(last)
	if err != nil || !h.Response {
		b.t.Fatalf("answer %x: %v", last, err)
	}
	c, err := message.Parse(h.First, last[message.HeaderLen:])
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

func TestRefusedInitRequests(t *testing.T) {
	unknown := func(critical byte) func([]byte) []byte {
		return func(d []byte) []byte { // an unknown payload in front
			p := []byte{byte(d[16]), critical, 0, 8, 1, 2, 3, 4}
			d = slices.Insert(d, message.HeaderLen, p...)
			d[16] = 99
			binary.BigEndian.PutUint32(d[24:], uint32(len(d)))
			return d
		}
	}
	for _, tc := range []struct {
		name   string
		change func(*message.Contents)
		bytes  func([]byte) []byte
		want   message.NotifyType // 0: it is taken; 1<<15: no answer
	}{
		{"good", nil, nil, 0},
		{"unknown payload", nil, unknown(0), 0},
		{"unknown critical payload", nil, unknown(0x80), message.NotifyUnsupportedCriticalPayload},
		{"other group", func(c *message.Contents) {
			p, _ := suite.ParseIKE("aes256gcm16-prfsha384-ecp256-x25519", false)
			c.SA = numbered([]message.Proposal{p}, nil)
			o, _ := suite.NewOffer(suite.ECP256)
			c.KE = &message.KE{Method: suite.ECP256, Data: o.Public()}
		}, nil, message.NotifyInvalidKEPayload},
		{"no common proposal", func(c *message.Contents) {
			p, _ := suite.ParseIKE("aes128-sha256-modp2048", false)
			c.SA = numbered([]message.Proposal{p}, nil)
		}, nil, message.NotifyNoProposalChosen},
		{"no key exchange", func(c *message.Contents) { c.KE = nil }, nil, message.NotifyInvalidSyntax},
		{"no proposal", func(c *message.Contents) { c.SA = nil }, nil, message.NotifyInvalidSyntax},
		{"bad public value", func(c *message.Contents) { c.KE.Data = make([]byte, 32) }, nil, message.NotifyInvalidSyntax},
		{"short public value", func(c *message.Contents) { c.KE.Data = c.KE.Data[:31] }, nil, message.NotifyInvalidSyntax},
		{"version 3", nil, func(d []byte) []byte { d[17] = 0x30; return d }, message.NotifyInvalidMajorVersion},
		{"version 1", nil, func(d []byte) []byte { d[17] = 0x10; return d }, 1 << 15},
		{"minor version 7", nil, func(d []byte) []byte { d[17] = 0x27; return d }, 0},
		{"no nonce", func(c *message.Contents) { c.Nonce = nil }, nil, 1 << 15},
		{"short nonce", func(c *message.Contents) { c.Nonce = c.Nonce[:15] }, nil, 1 << 15},
		{"message ID 1", nil, func(d []byte) []byte { d[23] = 1; return d }, 1 << 15},
		{"SPI 0", nil, func(d []byte) []byte { clear(d[:8]); return d }, 1 << 15},
		{"a response", nil, func(d []byte) []byte { d[19] |= 0x20; return d }, 1 << 15},
		{"cut off", nil, func(d []byte) []byte { return d[:len(d)-1] }, 1 << 15},
		{"header alone", nil, func(d []byte) []byte { return d[:27] }, 1 << 15},
	} {
		t.Run(tc.name, func(t *testing.T) {
			onBed(t, Options{}, func(b *bed) {
				b.usual()
				d := initRequest(b.t, 77, tc.change)
				if tc.bytes != nil {
					d = tc.bytes(d)
				}
				c := b.answerTo(d)
				switch {
				case tc.want == 1<<15:
					if c != nil {
						b.t.Fatalf("answered with %+v", c)
					}
				case c == nil:
					b.t.Fatal("not answered")
				case tc.want == 0:
					if c.SA == nil || c.KE == nil || c.Nonce == nil {
						b.t.Fatalf("refused: %+v", c.Notifies)
					}
				case c.Notify(tc.want) == nil:
					b.t.Fatalf("answered %+v, want %v", c.Notifies, tc.want)
				case tc.want == message.NotifyInvalidKEPayload:
					if n := c.Notify(tc.want); len(n.Data) != 2 || binary.BigEndian.Uint16(n.Data) != suite.X25519 {
						b.t.Fatalf("asks for %x", n.Data)
					}
				}
				if half, _, _ := b.halfOpen(); (half > 0) != (tc.want == 0) {
					b.t.Fatalf("%d half-open SAs", half)
				}
			})
		})
	}
}

func TestCookies(t *testing.T) {
	onBed(t, Options{CookiesFrom: 1, PerSource: 3}, func(b *bed) {
		b.usual()
		if c := b.answerTo(initRequest(b.t, 1, nil)); c.SA == nil {
			b.t.Fatal("the first needs no cookie")
		}
		nonce := newNonce()
		with := func(spi uint64, cookie []byte) []byte {
			return initRequest(b.t, spi, func(c *message.Contents) {
				c.Nonce = nonce
				if cookie != nil {
					c.Notifies = []message.Notify{{Type: message.NotifyCookie, Data: cookie}}
				}
			})
		}
		n := b.answerTo(with(2, nil)).Notify(message.NotifyCookie)
		if half, _, _ := b.halfOpen(); n == nil || half != 1 {
			b.t.Fatalf("no cookie asked for, or %d half-open SAs", half)
		}
		good := bytes.Clone(n.Data)
		for i := range good {
			bad := bytes.Clone(good)
			bad[i] ^= 1
			if c := b.answerTo(with(2, bad)); c.Notify(message.NotifyCookie) == nil {
				b.t.Fatalf("a cookie with byte %d changed is taken", i)
			}
		}
		if c := b.answerTo(with(3, good)); c.Notify(message.NotifyCookie) == nil {
			b.t.Fatal("a cookie is taken with another SPI")
		}
		if c := b.answerTo(with(2, good)); c.SA == nil {
			b.t.Fatal("the cookie is not taken")
		}
		time.Sleep(cookieLife + time.Second)
		b.answerTo(with(5, nil)) // a new secret
		if c := b.answerTo(with(2, good)); c.Notify(message.NotifyCookie) != nil {
			b.t.Fatal("a cookie of the secret before is not taken")
		}
		time.Sleep(2 * cookieLife)
		b.answerTo(with(6, nil))
		if b.right.cookies.check(time.Now(), good, leftPort, 2, nonce) {
			b.t.Fatal("a cookie is taken for ever")
		}
	})
}

// TestSourceIsAskedForCookies has somebody write a customer's address: it is asked for cookies, and the customer gets in with one.
func TestSourceIsAskedForCookies(t *testing.T) {
	onBed(t, Options{PerSource: 16}, func(b *bed) {
		b.usual()
		for spi := range uint64(2) {
			if c := b.answerTo(initRequest(b.t, spi+1, nil)); c.SA == nil {
				b.t.Fatal("the first ones need no cookie")
			}
		}
		taken := 0
		for spi := uint64(10); spi < 50; spi++ {
			nonce := newNonce()
			ask := func(cookie []byte) []byte {
				return initRequest(b.t, spi, func(c *message.Contents) {
					c.Nonce = nonce
					if cookie != nil {
						c.Notifies = []message.Notify{{Type: message.NotifyCookie, Data: cookie}}
					}
				})
			}
			n := b.answerTo(ask(nil)).Notify(message.NotifyCookie)
			if n == nil {
				b.t.Fatal("no cookie is asked for")
			}
			list := b.heard()
			b.right.Receive(rightPort, leftPort, ask(bytes.Clone(n.Data)))
			synctest.Wait()
			taken += len(*list)
		}
		if half, _, _ := b.halfOpen(); half != 16 || taken != 14 {
			b.t.Fatalf("%d half-open SAs, %d with cookies: want all that a source may have", half, taken)
		}
	})
}

func TestHalfOpenIsBounded(t *testing.T) {
	onBed(t, Options{HalfOpen: 20, PerSource: 16, CookiesFrom: 1 << 30}, func(b *bed) {
		b.usual()
		heard := b.heard()
		for i := range 50 {
			from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), uint16(1000+i))
			b.right.Receive(rightPort, from, initRequest(b.t, uint64(i+1), nil))
			synctest.Wait()
		}
		if half, known, _ := b.halfOpen(); half != 20 || known != 20 {
			b.t.Fatalf("%d half-open SAs, %d in the table, want 20", half, known)
		}
		time.Sleep(openTime + time.Second)
		synctest.Wait()
		if half, known, sources := b.halfOpen(); half != 0 || known != 0 || sources != 0 {
			b.t.Fatalf("%d half-open SAs are left", half)
		}
		for i := range 50 {
			b.right.Receive(rightPort, leftPort, initRequest(b.t, uint64(i+1), nil))
			synctest.Wait()
		}
		if half, _, _ := b.halfOpen(); half != 2 {
			b.t.Fatalf("%d half-open SAs of one source without cookies, want 2", half)
		}
		for i := range 50 { // and who shows that it is at its address may have more, within bounds too
			nonce := newNonce()
			request := func(cookie []byte) []byte {
				return initRequest(b.t, uint64(i+1), func(c *message.Contents) {
					c.Nonce = nonce
					if cookie != nil {
						c.Notifies = []message.Notify{{Type: message.NotifyCookie, Data: cookie}}
					}
				})
			}
			*heard = nil
			b.right.Receive(rightPort, leftPort, request(nil))
			synctest.Wait()
			if len(*heard) != 1 {
				b.t.Fatalf("%d answers to a request without cookie", len(*heard))
			}
			c, err := message.Parse(message.PayloadNotify, (*heard)[0][message.HeaderLen:])
			if err != nil || len(c.Notifies) != 1 || c.Notifies[0].Type != message.NotifyCookie {
				b.t.Fatalf("no cookie: %v", err)
			}
			b.right.Receive(rightPort, leftPort, request(c.Notifies[0].Data))
			synctest.Wait()
		}
		if half, _, _ := b.halfOpen(); half != 16 {
			b.t.Fatalf("%d half-open SAs of one source with cookies, want 16", half)
		}
	})
}

func TestFirstChecksAllocateNothing(t *testing.T) {
	d := New(Options{Transport: &silent{}, Dataplane: newPlane("x", 1), CookiesFrom: 1})
	d.half = 1 // everybody needs a cookie
	good := initRequest(t, 5, nil)
	known := bytes.Clone(good)
	binary.BigEndian.PutUint64(known[8:], 99)
	for name, datagram := range map[string][]byte{"short": good[:20], "length": good[:len(good)-1], "no nonce": func() []byte {
		x := bytes.Clone(good[:message.HeaderLen])
		x[16] = 0
		binary.BigEndian.PutUint32(x[24:], message.HeaderLen)
		return x
	}(), "unknown SPI": known} {
		if n := testing.AllocsPerRun(100, func() { d.Receive(rightPort, leftPort, datagram) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

type silent struct{}

func (*silent) Send(_, _ netip.AddrPort, _ []byte) error { return nil }

// A man in the middle changes what the two want; each change has to fail, none may weaken.
func TestDowngrades(t *testing.T) {
	const both = "aes256gcm16-prfsha384-ecp384-x25519-ke1_mlkem768"
	strip := func(c *message.Contents) {
		for i := range c.SA {
			c.SA[i].Transforms = slices.DeleteFunc(c.SA[i].Transforms, func(t message.Transform) bool { return t.Type >= message.TransformAdditionalKE1 })
		}
	}
	for name, change := range map[string]func(request bool, c *message.Contents){
		"additional key exchange taken out of the request": func(request bool, c *message.Contents) { strip(c) },
		"additional key exchange taken out of the response": func(request bool, c *message.Contents) {
			map[bool]func(*message.Contents){false: strip, true: func(*message.Contents) {}}[request](c)
		},
		"IKE_INTERMEDIATE taken out": func(_ bool, c *message.Contents) {
			c.Notifies = slices.DeleteFunc(c.Notifies, func(n message.Notify) bool { return n.Type == message.NotifyIntermediateExchangeSupported })
		},
		"signature hashes taken out": func(_ bool, c *message.Contents) {
			c.Notifies = slices.DeleteFunc(c.Notifies, func(n message.Notify) bool { return n.Type == message.NotifySignatureHashAlgorithms })
		},
		"nonce changed": func(request bool, c *message.Contents) {
			if !request {
				c.Nonce = bytes.Clone(c.Nonce)
				c.Nonce[0] ^= 1
			}
		},
		"fragmentation taken out": func(request bool, c *message.Contents) {
			if request {
				c.Notifies = slices.DeleteFunc(c.Notifies, func(n message.Notify) bool { return n.Type == message.NotifyFragmentationSupported })
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			onBed(t, Options{}, func(b *bed) {
				l, r := tunnelOf(b.t, true, both, usualESP), tunnelOf(b.t, false, both, usualESP)
				weak, _ := suite.ParseIKE(usualIKE, false) // both permit it, second
				l.Proposals, r.Proposals = append(l.Proposals, weak), append(r.Proposals, weak)
				b.left.SetTunnels([]*Tunnel{l})
				b.right.SetTunnels([]*Tunnel{r})
				b.wire.tap = func(from, _ netip.AddrPort, d []byte) []byte {
					h, err := message.ParseHeader(d)
					if err != nil || h.Exchange != message.IKESAInit {
						return d
					}
					c, err := message.Parse(h.First, d[message.HeaderLen:])
					if err != nil || c.SA == nil {
						return d
					}
					change(!h.Response, c)
					return openMessage(h, c)
				}
				if err := b.left.Initiate(b.t.Context(), "cust-a"); err == nil {
					b.t.Fatal("established")
				}
			})
		})
	}
}

// Datagrams of an established SA that are changed, repeated or made up change nothing.
func TestForgeries(t *testing.T) {
	onBed(t, Options{}, func(b *bed) {
		b.usual()
		var seen [][]byte
		b.wire.tap = func(_, to netip.AddrPort, d []byte) []byte {
			if to.Addr() == rightAddr {
				seen = append(seen, bytes.Clone(d))
			}
			return d
		}
		b.up()
		if err := b.left.Rekey(b.t.Context(), "cust-a", false); err != nil {
			b.t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		b.wire.mu.Lock()
		forged := slices.Clone(seen)
		b.wire.mu.Unlock()
		next := func() uint32 {
			s := b.right.of("cust-a")[0]
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.NextResponse
		}
		before := next()
		backwards := slices.Clone(forged)
		slices.Reverse(backwards)
		forged = append(forged, backwards...)
		for _, d := range forged {
			b.right.Receive(rightPort, leftPort, d)
			for i := 0; i < len(d); i += 7 {
				x := bytes.Clone(d)
				x[i] ^= 0x41
				b.right.Receive(rightPort, leftPort, x)
			}
			b.right.Receive(rightPort, leftPort, d[:len(d)/2])
			synctest.Wait()
		}
		if n := next(); n != before {
			b.t.Fatalf("the next message ID was %d and is %d", before, n)
		}
		time.Sleep(time.Minute)
		b.agree()
		b.counts(1, 1)
		if err := b.left.Rekey(b.t.Context(), "cust-a", true); err != nil {
			b.t.Fatal(err)
		}
	})
}

func TestFragmentsAreBounded(t *testing.T) {
	var r reassembly
	frag := func(n, of uint16) message.Sealed { return message.Sealed{Fragment: n, Fragments: of} }
	if r.wants(1, frag(1, maxFragments+1)) {
		t.Error("65 fragments are wanted")
	}
	if err := r.add(1, frag(1, 3), make([]byte, 100), maxMessage); err != nil {
		t.Fatal(err)
	}
	if r.wants(1, frag(1, 3)) {
		t.Error("a fragment is wanted twice")
	}
	if r.wants(1, frag(1, 2)) {
		t.Error("larger fragments are taken among smaller ones (RFC 7383, section 2.6)")
	}
	if err := r.add(1, frag(2, 5), []byte("x"), maxMessage); err != nil || r.total != 5 || r.have != 1 {
		t.Errorf("smaller fragments do not begin anew: %v, %+v", err, r)
	}
	var err error
	for i := uint16(1); i <= maxFragments && err == nil; i++ {
		err = r.add(2, frag(i, maxFragments), make([]byte, 2000), maxMessage)
	}
	if err == nil || !strings.Contains(err.Error(), "more than") || r.bytes != 0 {
		t.Errorf("128,000 bytes are kept: %v", err)
	}
}

// halfOpen counts right's half-open SAs, and those in its tables.
func (b *bed) halfOpen() (half, known, sources int) {
	b.right.mu.Lock()
	defer b.right.mu.Unlock()
	return b.right.half, len(b.right.bySPI), len(b.right.perSource)
}

func TestIKESAsPerTunnelAreBounded(t *testing.T) {
	onBed(t, Options{}, func(b *bed) {
		b.usual()
		for i := range 8 {
			b.left.initiate(b.left.index.Load().byName["cust-a"])
			time.Sleep(3 * time.Second)
			if n := len(b.right.of("cust-a")); n > perTunnel {
				b.t.Fatalf("%d IKE SAs after %d", n, i+1)
			}
		}
		time.Sleep(10 * time.Second)
		b.counts(perTunnel, perTunnel)
		b.agree()
	})
}

func TestHostileText(t *testing.T) {
	id := message.ID{Type: message.IDFQDN, Data: []byte("a\nlevel=ERROR \x1b[31m")}
	if s := fmt.Sprint(id); strings.ContainsAny(s, "\n\x1b") {
		t.Errorf("%q can break the log", s)
	}
}
