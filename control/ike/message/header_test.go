package message

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
)

// TestHeaderBytes has the layout of RFC 7296, section 3.1, with all fields apart from each other.
func TestHeaderBytes(t *testing.T) {
	h := Header{SPIi: 0x0102030405060708, SPIr: 0x1112131415161718, First: PayloadSK, Major: 2, Minor: 1, Exchange: Informational,
		Initiator: true, ID: 0x21222324, Length: HeaderLen}
	want := unhex("0102030405060708 1112131415161718 2e 21 25 08 21222324 0000001c")
	if got := h.Append([]byte{9})[1:]; !bytes.Equal(got, want) {
		t.Errorf("%x\nwant %x", got, want)
	}
	for flags := range 256 {
		b := slices.Clone(want)
		b[19] = byte(flags)
		got, err := ParseHeader(b)
		if err != nil {
			t.Fatal(err)
		}
		expect := h
		expect.Initiator, expect.HigherVersion, expect.Response = flags&8 != 0, flags&16 != 0, flags&32 != 0
		if got != expect {
			t.Errorf("flags %#x: %+v, want %+v", flags, got, expect)
		}
		if again := got.Append(nil); again[19] != byte(flags)&0x38 { // reserved bits are sent as zero
			t.Errorf("flags %#x are written as %#x", flags, again[19])
		}
	}
}

// TestHeaderLengths: the message is as long as it says, at least a header, and at most what UDP carries.
func TestHeaderLengths(t *testing.T) {
	for _, c := range []struct {
		size  int
		claim uint32
		good  bool
	}{
		{0, 0, false}, {27, 27, false}, {28, 28, true}, {28, 27, false}, {28, 29, false}, {28, 0, false}, {28, 28 + 1<<31, false},
		{29, 28, false}, {1500, 1500, true}, {MaxLen, MaxLen, true}, {MaxLen + 1, MaxLen + 1, false}, {28 + 1<<16, 28, false},
	} {
		b := make([]byte, c.size)
		if c.size >= HeaderLen {
			b[7] = 1
			binary.BigEndian.PutUint32(b[24:], c.claim)
		}
		h, err := ParseHeader(b)
		if (err == nil) != c.good || c.good && h.Length != c.size {
			t.Errorf("%d bytes that claim to be %d: %+v, %v", c.size, c.claim, h, err)
		}
	}
}

// TestHeaderWithoutSPI: the initiator's SPI is never 0 (RFC 7296, section 3.1).
func TestHeaderWithoutSPI(t *testing.T) {
	if h, err := ParseHeader(Header{SPIr: 1, Major: 2, Length: HeaderLen}.Append(nil)); err == nil {
		t.Errorf("%+v", h)
	}
}

// TestSealedRoundTrip: whole, the first fragment and a later one.
func TestSealedRoundTrip(t *testing.T) {
	h := Header{SPIi: 1, SPIr: 2, Major: 2, Exchange: IKEAuth, Response: true, ID: 7}
	for _, c := range []struct {
		s  Sealed
		at int
	}{
		{Sealed{First: PayloadIDr}, 32},
		{Sealed{First: NoNextPayload}, 32}, // an empty INFORMATIONAL
		{Sealed{First: PayloadIDi, Fragment: 1, Fragments: 1}, 36},
		{Sealed{First: PayloadIDi, Fragment: 1, Fragments: 3}, 36},
		{Sealed{Fragment: 2, Fragments: 2}, 36},
		{Sealed{Fragment: 65535, Fragments: 65535}, 36},
	} {
		b := AppendSealedHeader(nil, h, c.s, 24)
		if len(b) != c.at {
			t.Errorf("%+v: the IV is at %d", c.s, len(b))
		}
		b = append(b, make([]byte, 24)...)
		got, err := ParseHeader(b)
		if err != nil {
			t.Fatal(err)
		}
		s, err := ParseSealed(got, b)
		want := c.s
		want.At = c.at
		if err != nil || s != want {
			t.Errorf("%+v, want %+v: %v", s, want, err)
		}
	}
}

// TestSealedRefuses: anything but one encrypted payload up to the end (RFC 7296, section 3.14), and fragments whose numbers
// cannot be (RFC 7383, section 2.5).
func TestSealedRefuses(t *testing.T) {
	h := Header{SPIi: 1, Major: 2, Exchange: IKEAuth}
	whole := append(AppendSealedHeader(nil, h, Sealed{First: PayloadIDi}, 24), make([]byte, 24)...)
	part := append(AppendSealedHeader(nil, h, Sealed{First: PayloadIDi, Fragment: 1, Fragments: 2}, 24), make([]byte, 24)...)
	edit := func(b []byte, at int, values ...byte) []byte {
		b = slices.Clone(b)
		copy(b[at:], values)
		return b
	}
	for name, b := range map[string][]byte{
		"another payload":                  edit(whole, 16, byte(PayloadSA)),
		"none":                             edit(whole, 16, 0),
		"header alone":                     whole[:28],
		"payload header cut off":           whole[:31],
		"fragment numbers cut off":         part[:35],
		"shorter than the message":         edit(whole, 30, 0, 27),
		"longer than the message":          edit(whole, 30, 0, 29),
		"length 0":                         edit(whole, 30, 0, 0),
		"fragment 0":                       edit(part, 32, 0, 0),
		"fragment 0 of 0":                  edit(part, 32, 0, 0, 0, 0),
		"fragment 1 of 0":                  edit(part, 34, 0, 0),
		"fragment 3 of 2":                  edit(part, 32, 0, 3),
		"a later fragment with a type":     edit(part, 32, 0, 2),
		"the last of very many has a type": edit(part, 32, 0xff, 0xff, 0xff, 0xff),
	} {
		h, err := ParseHeader(edit(b, 24, 0, 0, 0, byte(len(b))))
		if err != nil {
			t.Fatal(err)
		}
		if s, err := ParseSealed(h, b); err == nil {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

// TestNoAllocations: what anybody may send does not make garbage before its SPIs are known and its ICV is right.
func TestNoAllocations(t *testing.T) {
	h := Header{SPIi: 1, SPIr: 2, Major: 2, Exchange: IKEAuth}
	good := append(AppendSealedHeader(nil, h, Sealed{First: PayloadIDi, Fragment: 1, Fragments: 2}, 24), make([]byte, 24)...)
	bad := slices.Clone(good)
	bad[33] = 9
	var sink Sealed
	for name, f := range map[string]func(){
		"ParseHeader":               func() { h, _ = ParseHeader(good) },
		"ParseHeader, wrong length": func() { ParseHeader(good[:30]) },
		"ParseSealed":               func() { sink, _ = ParseSealed(h, good) },
		"ParseSealed, refused":      func() { sink, _ = ParseSealed(h, bad) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
	_ = sink
}
