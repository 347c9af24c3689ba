package ike

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"causeway/control/ike/message"
)

// FuzzDaemon gives a daemon datagrams that are not from a peer: as they are, and behind the header of an SA that it has.
func FuzzDaemon(f *testing.F) {
	f.Add([]byte{}, uint8(0))
	f.Add(initRequest(f, 7, nil), uint8(0))
	f.Add(initRequest(f, 7, func(c *message.Contents) {
		c.Notifies = []message.Notify{{Type: message.NotifyCookie, Data: make([]byte, 17)}}
	}), uint8(1))
	f.Add([]byte("\x2e\x00\x00\x08\x00\x00\x00\x00"), uint8(3))
	f.Fuzz(func(t *testing.T, d []byte, how uint8) {
		onBed(t, Options{CookiesFrom: int(how%2) + 1}, func(b *bed) {
			b.usual()
			b.up()
			s := b.right.of("cust-a")[0]
			b.right.Receive(rightPort, leftPort, d)
			h := message.Header{SPIi: s.SPIi, SPIr: s.SPIr, Major: 2, Exchange: message.ExchangeType(34 + how%11), Initiator: true, ID: uint32(how % 5), Response: how&64 != 0}
			h.First, h.Length = message.PayloadType(how), message.HeaderLen+len(d)
			b.right.Receive(rightPort, leftPort, append(h.Append(nil), d...))
			synctest.Wait()
			time.Sleep(time.Minute)
			b.agree()
			b.counts(1, 1)
		})
	})
}

// FuzzPeer is a peer that is authentic and says anything: payloads as they are, one message for each chunk, in any exchange. The
// daemon must not panic, and what it has installed must be what it knows of.
func FuzzPeer(f *testing.F) {
	seed := func(c *message.Contents, exchange byte) []byte {
		first, text := c.Append(nil)
		return append([]byte{exchange, byte(first), byte(len(text) >> 8), byte(len(text))}, text...)
	}
	tun := tunnelOf(f, true, usualIKE, usualESP)
	child := &message.Contents{SA: numbered(tun.ChildProposals, spiBytes(4711)), Nonce: newNonce(), TSi: selectorsOf(nil), TSr: selectorsOf(nil),
		KE: &message.KE{Method: 31, Data: bytes.Repeat([]byte{9}, 32)}}
	rekey := *child
	rekey.Notifies = []message.Notify{{Type: message.NotifyRekeySA, Protocol: message.ProtocolESP, SPI: spiBytes(0x1001)}}
	ike := &message.Contents{SA: numbered(tun.Proposals, spi64(99)), Nonce: newNonce(), KE: child.KE}
	gone := &message.Contents{Deletes: []message.Delete{{Protocol: message.ProtocolESP, SPIs: []uint32{0x1001, 4711}}}}
	all := &message.Contents{Deletes: []message.Delete{{Protocol: message.ProtocolIKE}}}
	f.Add(seed(&message.Contents{}, 37))
	f.Add(seed(child, 36))
	f.Add(seed(&rekey, 36))
	f.Add(append(seed(&rekey, 36), seed(gone, 37)...))
	f.Add(append(seed(ike, 36), seed(child, 36)...))
	f.Add(append(seed(child, 36), seed(all, 37)...))
	f.Add(append(seed(ike, 44), seed(ike, 43)...))
	f.Fuzz(func(t *testing.T, script []byte) {
		onBed(t, Options{}, func(b *bed) {
			b.usual()
			b.up()
			left := b.left.of("cust-a")[0]
			for id, n := left.NextRequest, 0; len(script) >= 4 && n < 20; n++ {
				size := min(int(script[2])<<8|int(script[3]), len(script)-4)
				text := script[4 : 4+size]
				h := message.Header{SPIi: left.SPIi, SPIr: left.SPIr, Major: 2, Exchange: message.ExchangeType(script[0]), Initiator: true, ID: id}
				d, err := left.sealOne(h, message.Sealed{First: message.PayloadType(script[1])}, text)
				if err != nil {
					t.Fatal(err)
				}
				b.right.Receive(rightPort, leftPort, d)
				synctest.Wait()
				script = script[4+size:]
				id++
			}
			b.wire.set(func(w *wire) { w.closed = true })
			known := 0
			for _, s := range b.right.of("cust-a") {
				s.mu.Lock()
				known += len(s.Children) + len(s.Graves)
				s.mu.Unlock()
			}
			if n := len(b.planes[1].pairs()); n != known {
				t.Errorf("%d pairs are installed, %d are known\n%s", n, known, b.log)
			}
			time.Sleep(10 * time.Minute) // the peer is silent
			if n := len(b.planes[1].pairs()); n != 0 {
				t.Errorf("%d pairs outlive their IKE SAs\n%s", n, b.log)
			}
		})
	})
}
