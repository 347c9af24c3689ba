package esp

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"testing"

	"causeway/crypto/aesgcm"
)

// bed is what the tests share.
type bed struct {
	t      *testing.T
	rng    *rand.Rand
	vault  *aesgcm.Vault
	source *IVSource
	sealer *Sealer
	opener *Opener
}

func newBed(t *testing.T) *bed {
	t.Helper()
	b := &bed{t: t, rng: rand.New(rand.NewPCG(1, 2)), vault: aesgcm.NewVault(aesgcm.Options{Unlocked: true}), opener: new(Opener)}
	t.Cleanup(func() {
		if err := b.vault.Close(); err != nil {
			t.Error(err)
		}
	})
	var err error
	if b.source, err = NewIVSource(0xabcde, 1000); err != nil {
		t.Fatal(err)
	}
	b.source.Reserve(1 << 30)
	b.sealer = NewSealer(b.source)
	return b
}

func (b *bed) key(s Suite) []byte {
	k := make([]byte, s.KeySize())
	for i := range k {
		k[i] = byte(b.rng.Uint32())
	}
	return k
}

func (b *bed) outbound(p Params, first uint64) *Outbound {
	b.t.Helper()
	sa, err := NewOutbound(b.vault, p, first)
	if err != nil {
		b.t.Fatal(err)
	}
	sa.Mark(1<<64 - 1)
	return sa
}

func (b *bed) inbound(p Params, window int) *Inbound {
	b.t.Helper()
	sa, err := NewInbound(b.vault, p, window)
	if err != nil {
		b.t.Fatal(err)
	}
	return sa
}

// pair makes both ends of an association.
func (b *bed) pair(s Suite, esn bool, window int) (*Outbound, *Inbound) {
	p := Params{SPI: 0x1000 + uint32(s), Suite: s, Key: b.key(s), ESN: esn}
	return b.outbound(p, 1), b.inbound(p, window)
}

// seal makes one packet in a batch of its own.
func (b *bed) seal(sa *Outbound, text []byte, next uint8) []byte {
	b.t.Helper()
	frame := make([]byte, 32+len(text)+64)
	copy(frame[32:], text)
	from, to, v := b.sealer.Add(sa, frame, 32, 32+len(text), next)
	if v != OK {
		b.t.Fatalf("%d bytes: %v", len(text), v)
	}
	b.sealer.Seal()
	return frame[from:to]
}

// open opens one packet in a batch of its own.
func (b *bed) open(sa *Inbound, packet []byte) (text []byte, next uint8, v Verdict) {
	b.opener.Reset()
	if v := b.opener.Add(sa, packet); v != OK {
		return nil, 0, v
	}
	b.opener.Open()
	from, to, next, v := b.opener.Result(0)
	return packet[from:to], next, v
}

// TestChaChaVector is the packet of RFC 7634, appendix A.
func TestChaChaVector(t *testing.T) {
	b := newBed(t)
	key := decode(t, "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3")
	packet := decode(t, "010203040000000510111213141516172403942"+
		"8b97f417e3c13753a4f05087b67c352e6a7fab1b982d466ef407ae5c614ee8099d52844eb61aa95dfab4c02f72aa71e7c4c4f64c9befe2facc638e8f3cb"+
		"ec163fac469b502773f6fb94e664da9165b82829f641e076aaa8266b7fb0f7b11b369907e1ad43")
	text := decode(t, "45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec100007362708090a0b0c0d0e0f101112131415161718191a1b"+
		"1c1d1e1f202122232425262728292a2b2c2d2e2f3031323334353637")
	got, next, v := b.open(b.inbound(Params{SPI: 0x01020304, Suite: ChaCha20Poly1305, Key: key}, 64), bytes.Clone(packet))
	if v != OK || next != NextIPv4 || !bytes.Equal(got, text) {
		t.Errorf("%v, next header %d, %x", v, next, got)
	}
	source, err := NewIVSource(0x10111, 0x21314151617)
	if err != nil {
		t.Fatal(err)
	}
	source.Reserve(1 << 43)
	b.sealer = NewSealer(source)
	if sealed := b.seal(b.outbound(Params{SPI: 0x01020304, Suite: ChaCha20Poly1305, Key: key}, 5), text, NextIPv4); !bytes.Equal(sealed, packet) {
		t.Errorf("sealed\n%x, want\n%x", sealed, packet)
	}
}

func decode(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestSizes compares the arithmetic of sizes with packets, and its two directions with each other.
func TestSizes(t *testing.T) {
	b := newBed(t)
	for s := AES128GCM16; s < suiteEnd; s++ {
		out, _ := b.pair(s, false, 0)
		for n := 20; n < 100; n++ {
			packet := b.seal(out, make([]byte, n), NextIPv4)
			if len(packet) != s.PacketLen(n) || len(packet) > s.Before()+n+s.Behind() {
				t.Errorf("%v: a text of %d bytes makes %d, not %d", s, n, len(packet), s.PacketLen(n))
			}
		}
		for room := 60; room < 1600; room++ {
			n := s.MaxText(room)
			if n > 0 && (s.PacketLen(n) > room || s.PacketLen(n+1) <= room) {
				t.Errorf("%v: %d bytes hold a text of %d, whose packet has %d", s, room, n, s.PacketLen(n))
			}
		}
	}
}

// TestBatch: packets of many associations in one batch, opened in another order than they were sealed.
func TestBatch(t *testing.T) {
	b := newBed(t)
	type flow struct {
		out *Outbound
		in  *Inbound
	}
	var flows []flow
	for s := AES128GCM16; s < suiteEnd; s++ {
		for _, esn := range []bool{false, true} {
			out, in := b.pair(s, esn, 128)
			flows = append(flows, flow{out, in})
		}
	}
	type packet struct {
		flow
		data, text []byte
	}
	for range 100 {
		var packets []packet
		for !b.sealer.Full() {
			f := flows[b.rng.IntN(len(flows))]
			text := inner(b.rng, 20+b.rng.IntN(1400))
			frame := append(append(make([]byte, 40), text...), make([]byte, 64)...)
			from, to, v := b.sealer.Add(f.out, frame, 40, 40+len(text), NextIPv4)
			if v != OK {
				t.Fatal(v)
			}
			packets = append(packets, packet{f, frame[from:to], text})
		}
		b.sealer.Seal()
		b.rng.Shuffle(len(packets), func(i, j int) { packets[i], packets[j] = packets[j], packets[i] })
		b.opener.Reset()
		for _, p := range packets {
			if v := b.opener.Add(p.in, p.data); v != OK {
				t.Fatal(v)
			}
		}
		b.opener.Open()
		for i, p := range packets {
			from, to, next, v := b.opener.Result(i)
			if v != OK || next != NextIPv4 || !bytes.Equal(p.data[from:to], p.text) {
				t.Fatalf("%v: %v, next header %d, %d bytes of %d", p.in.Suite(), v, next, to-from, len(p.text))
			}
		}
	}
}

// TestReplayInOneBatch: the window moves after authentication, packet by packet, so the second of two is refused even
// where both were checked before either was authentic; and a forged packet moves nothing.
func TestReplayInOneBatch(t *testing.T) {
	b := newBed(t)
	for s := AES128GCM16; s < suiteEnd; s++ {
		out, in := b.pair(s, false, 64)
		packet := b.seal(out, inner(b.rng, 60), NextIPv4)
		forged := bytes.Clone(packet)
		forged[7] = 200 // far ahead: would push the true one out of the window
		forged[len(forged)-1] ^= 1
		b.opener.Reset()
		for _, p := range [][]byte{forged, bytes.Clone(packet), bytes.Clone(packet)} {
			if v := b.opener.Add(in, p); v != OK {
				t.Fatal(v)
			}
		}
		b.opener.Open()
		for i, want := range []Verdict{Forged, OK, Replayed} {
			if _, _, _, v := b.opener.Result(i); v != want {
				t.Errorf("%v: packet %d is %v, want %v", s, i, v, want)
			}
		}
	}
}

// TestRefusals: an association knows what it sent, received and refused.
func TestRefusals(t *testing.T) {
	b := newBed(t)
	for s := AES128GCM16; s < suiteEnd; s++ {
		out, in := b.pair(s, false, 64)
		packet := b.seal(out, inner(b.rng, 60), NextIPv4)
		again, forged := bytes.Clone(packet), bytes.Clone(packet)
		forged[7], forged[len(forged)-1] = 9, forged[len(forged)-1]^1
		for _, p := range [][]byte{packet, again, forged, forged[:9], make([]byte, 1<<16+200)} {
			b.open(in, p)
		}
		if _, _, v := b.sealer.Add(out, make([]byte, 1<<17), 100, 1<<17-100, NextIPv4); v != Room && s.info().kind == kindGCM {
			t.Errorf("%v: a packet of 2^17 bytes is sealed: %v", s, v)
		}
		refused := map[Verdict]uint64{}
		for v := OK; v < Verdicts; v++ {
			if n := in.Refused(v); n > 0 {
				refused[v] = n
			}
		}
		if in.Packets() != 1 || in.Bytes() != 60 || fmt.Sprint(refused) != fmt.Sprint(map[Verdict]uint64{Replayed: 1, Forged: 1, Short: 2}) {
			t.Errorf("%v: received %d packets with %d bytes, refused %v", s, in.Packets(), in.Bytes(), refused)
		}
		if s.info().kind == kindGCM && (out.Packets() != 1 || out.Bytes() != 60 || out.Refused(Room) != 1 || out.Next() != 2) {
			t.Errorf("%v: sent %d packets with %d bytes, refused %d", s, out.Packets(), out.Bytes(), out.Refused(Room))
		}
	}
}

// TestTruncations: every shorter packet is refused, and none is touched before it is checked.
func TestTruncations(t *testing.T) {
	b := newBed(t)
	for s := AES128GCM16; s < suiteEnd; s++ {
		out, in := b.pair(s, false, 64)
		packet := b.seal(out, inner(b.rng, 60), NextIPv4)
		for n := headerLen; n < len(packet); n++ {
			if _, _, v := b.open(in, bytes.Clone(packet[:n])); v != Short && v != Forged {
				t.Errorf("%v: the first %d of %d bytes are %v", s, n, len(packet), v)
			}
		}
		if _, _, v := b.open(in, packet); v != OK {
			t.Errorf("%v: the whole packet is %v", s, v)
		}
	}
}

// TestPadding: what an authentic peer must not send, and what it may.
func TestPadding(t *testing.T) {
	b := newBed(t)
	for _, c := range []struct {
		name  string
		tail  []byte // behind 10 bytes of text: padding, its length, next header
		want  Verdict
		bytes int
	}{
		{"none", []byte{0, NextIPv4}, OK, 10},
		{"four more than needed", []byte{1, 2, 3, 4, 4, NextIPv6}, OK, 10},
		{"all of the text", []byte{14, NextIPv4}, Padding, 0},
		{"zero", []byte{0, 0, 0, 0, 4, NextIPv4}, Padding, 0},
		{"the last wrong", []byte{1, 2, 3, 3, 4, NextIPv4}, Padding, 0},
		{"eight more", []byte{1, 2, 3, 4, 5, 6, 7, 8, 8, NextIPv4}, OK, 10},
		{"the third of eight wrong", []byte{1, 2, 4, 4, 5, 6, 7, 8, 8, NextIPv4}, Padding, 0},
		{"longer than the packet", []byte{255, NextIPv4}, Padding, 0},
		{"dummy", []byte{1, 2, 3, 4, 4, NoNextHeader}, Dummy, 0},
	} {
		p := Params{SPI: 0x9999, Suite: NullSHA256, Key: b.key(NullSHA256)}
		in := b.inbound(p, 64)
		packet := append(decode(t, "0000999900000001"), make([]byte, 10)...)
		packet = append(append(packet, c.tail...), make([]byte, 16)...)
		in.single.seal(packet, 0, false)
		text, _, v := b.open(in, packet)
		if v != c.want || len(text) != c.bytes {
			t.Errorf("%s: %v with %d bytes, want %v with %d", c.name, v, len(text), c.want, c.bytes)
		}
	}
}

// TestNumbersEnd: the last number is used, and then none: not the first again.
func TestNumbersEnd(t *testing.T) {
	b := newBed(t)
	p := Params{SPI: 0x2000, Suite: AES128GCM16, Key: b.key(AES128GCM16)}
	frame := make([]byte, 200)
	add := func(sa *Outbound) Verdict {
		_, _, v := b.sealer.Add(sa, frame, 40, 100, NextIPv4)
		b.sealer.Seal()
		return v
	}
	sa := b.outbound(p, 1<<32-2)
	for i, want := range []Verdict{OK, OK, Exhausted, Exhausted} {
		if v := add(sa); v != want {
			t.Errorf("without ESN, packet %d: %v, want %v", i, v, want)
		}
	}
	p.ESN = true
	sa = b.outbound(p, 1<<32-2)
	for i := range 4 {
		if v := add(sa); v != OK {
			t.Errorf("with ESN, packet %d: %v", i, v)
		}
	}
	sa = b.outbound(p, 10)
	sa.Mark(12)
	for i, want := range []Verdict{OK, OK, Unmarked} {
		if v := add(sa); v != want {
			t.Errorf("marked up to 12, packet %d: %v, want %v", i, v, want)
		}
	}
	sa.Mark(13)
	if v := add(sa); v != OK || sa.Next() != 13 {
		t.Errorf("marked up to 13: %v, next %d", v, sa.Next())
	}
}

func TestLifetimes(t *testing.T) {
	b := newBed(t)
	for _, life := range []Life{{SoftPackets: 2, HardPackets: 3}, {SoftBytes: 120, HardBytes: 180}} {
		p := Params{SPI: 0x2000, Suite: AES256GCM16, Key: b.key(AES256GCM16), Life: life}
		out, in := b.outbound(p, 1), b.inbound(p, 64)
		for i := range 3 {
			if soft := i >= 2; out.Soft() != soft || in.Soft() != soft {
				t.Errorf("%+v, packet %d: soft limit reached: %v and %v, want %v", life, i, out.Soft(), in.Soft(), soft)
			}
			if _, _, v := b.open(in, b.seal(out, inner(b.rng, 60), NextIPv4)); v != OK {
				t.Errorf("%+v, packet %d: %v", life, i, v)
			}
		}
		frame := make([]byte, 200)
		if _, _, v := b.sealer.Add(out, frame, 40, 100, NextIPv4); v != Expired {
			t.Errorf("%+v: sending: %v, want %v", life, v, Expired)
		}
		if v := b.opener.Add(in, make([]byte, 100)); v != Expired {
			t.Errorf("%+v: receiving: %v, want %v", life, v, Expired)
		}
	}
}

// TestRoom: what does not fit the frame changes nothing.
func TestRoom(t *testing.T) {
	b := newBed(t)
	for s := AES128GCM16; s < suiteEnd; s++ {
		out, _ := b.pair(s, false, 0)
		frame := make([]byte, 200)
		exact := s.PacketLen(60) - s.Before()
		for _, c := range []struct {
			start, end int
			want       Verdict
		}{
			{s.Before() - 1, s.Before() + 59, Room}, {200 - exact + 1, 260 - exact + 1, Room},
			{100, 99, Room}, {s.Before(), s.Before() + 60, OK}, {200 - exact, 260 - exact, OK},
		} {
			before, next := bytes.Clone(frame), out.Next()
			_, _, v := b.sealer.Add(out, frame, c.start, c.end, NextIPv4)
			if v != c.want {
				t.Errorf("%v: a text at %d to %d: %v, want %v", s, c.start, c.end, v, c.want)
			}
			if v != OK && (!bytes.Equal(frame, before) || out.Next() != next) {
				t.Errorf("%v: something changed though the verdict was %v", s, v)
			}
			b.sealer.Seal()
		}
	}
}

func TestWrongParams(t *testing.T) {
	b := newBed(t)
	good := Params{SPI: 0x1000, Suite: AES128GCM16, Key: make([]byte, 20)}
	for want, change := range map[string]func(*Params){
		"esp: spi 0xff: 0 to 255 are reserved":              func(p *Params) { p.SPI = 255 },
		"esp: suite 0 does not exist":                       func(p *Params) { p.Suite = 0 },
		"esp: a key for aes128gcm16 has 20 bytes, not 16":   func(p *Params) { p.Key = p.Key[:16] },
		"esp: a key for aes128-sha256 has 48 bytes, not 20": func(p *Params) { p.Suite = AES128SHA256 },
	} {
		p := good
		change(&p)
		if _, err := NewOutbound(b.vault, p, 1); err == nil || err.Error() != want {
			t.Errorf("sending: %v, want %s", err, want)
		}
		if _, err := NewInbound(b.vault, p, 64); err == nil || err.Error() != want {
			t.Errorf("receiving: %v, want %s", err, want)
		}
	}
	if _, err := NewOutbound(b.vault, good, 0); err == nil {
		t.Error("sequence numbers may begin with 0")
	}
	for _, n := range []int{-1, MaxWindow + 1} {
		if _, err := NewInbound(b.vault, good, n); err == nil {
			t.Errorf("a window of %d packets is possible", n)
		}
	}
	if _, err := ParseSuite("rot13"); err == nil || err.Error() != `esp: "rot13" is no encryption: there are aes128gcm16, aes256gcm16, `+
		`chacha20poly1305, aes128-sha256, aes256-sha256, aes128-sha1, aes256-sha1, null-sha256, null-sha1` {
		t.Error(err)
	}
}

func TestNothingIsAllocated(t *testing.T) {
	b := newBed(t)
	for s := AES128GCM16; s < suiteEnd; s++ {
		out, in := b.pair(s, true, 1024)
		text := inner(b.rng, 600)
		frame := make([]byte, 1000)
		b.sealer.Add(out, frame, 40, 640, NextIPv4) // an HMAC prepares itself with its first packet
		b.sealer.Seal()
		if n := testing.AllocsPerRun(100, func() {
			copy(frame[40:], text)
			from, to, v := b.sealer.Add(out, frame, 40, 640, NextIPv4)
			b.sealer.Seal()
			b.opener.Reset()
			w := b.opener.Add(in, frame[from:to])
			b.opener.Open()
			if _, _, _, x := b.opener.Result(0); v != OK || w != OK || x != OK {
				t.Fatal(v, w, x)
			}
		}); n != 0 {
			t.Errorf("%v: %v allocations", s, n)
		}
	}
}
