package message

import (
	"bytes"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"
)

// recordings adds the messages of testdata, which scapy and strongSwan have written, and what is within the encrypted ones.
func recordings(f *testing.F, message func(b []byte), within func(first PayloadType, text []byte)) {
	for _, digits := range recorded[scapyRecord](f, "scapy.json").Messages {
		message(unhex(digits))
	}
	for _, m := range recorded[swanRecord](f, "strongswan.json").Messages {
		b := unhex(m.Message)
		message(b)
		if m.Plain != "" {
			within(PayloadType(b[HeaderLen]), unhex(m.Plain))
		}
	}
}

// FuzzParse: what is parsed and appended is parsed as the same again, and appended as the same bytes. Payloads that are
// known but not kept (CP, EAP) and unknown ones are gone by then.
func FuzzParse(f *testing.F) {
	first, b := full().Append(nil)
	f.Add(byte(first), b)
	f.Add(byte(PayloadSA), chain(PayloadSA, plain(proposal(0, 1, 3, []byte{1, 2, 3, 4}, 1, transform(true, 1, 12, 0x80, 1, 0, 1)))))
	f.Add(byte(PayloadTSi), chain(PayloadTSi, plain([]byte{1, 0, 0, 0, 9, 0, 0, 4}), PayloadCP, plain(nil), PayloadEAP, plain(nil)))
	f.Add(byte(PayloadDelete), plain([]byte{1, 0, 0, 0}))
	f.Add(byte(99), chain(PayloadType(99), plain([]byte("unknown"))))
	f.Add(byte(NoNextPayload), []byte{})
	recordings(f, func(b []byte) { f.Add(b[16], b[HeaderLen:]) }, func(first PayloadType, text []byte) { f.Add(byte(first), text) })
	f.Fuzz(func(t *testing.T, first byte, b []byte) {
		before := bytes.Clone(b)
		c, err := Parse(PayloadType(first), b)
		if !bytes.Equal(b, before) {
			t.Fatal("Parse wrote into the message")
		}
		if err != nil {
			if c != nil || err.Error() == "" {
				t.Fatalf("%v with %v", err, c)
			}
			return
		}
		for _, id := range []*ID{c.IDi, c.IDr} {
			if id != nil && !id.Equal(*id) {
				t.Errorf("%s is not itself", id)
			}
		}
		next, out := c.Append(nil)
		again, err := Parse(next, out)
		if err != nil {
			t.Fatalf("%v: %x", err, out)
		}
		first2, out2 := again.Append(nil)
		if first2 != next || !bytes.Equal(out, out2) {
			t.Fatalf("%v %x\n%v %x", next, out, first2, out2)
		}
		c.HasCP, c.HasEAP = false, false
		if len(c.Notifies) == len(again.Notifies) {
			c.Notifies, again.Notifies = nil, nil // cookies and rekeyed SAs moved to the front
		}
		if diff := cmp.Diff(c, again, sameContents); diff != "" {
			t.Fatal(diff)
		}
	})
}

// FuzzHeader: a header that is parsed is appended as it was, but for reserved flags.
func FuzzHeader(f *testing.F) {
	f.Add(Header{SPIi: 1, First: PayloadSA, Major: 2, Exchange: IKESAInit, Initiator: true, Length: HeaderLen}.Append(nil))
	f.Add(append(Header{Major: 3, Minor: 15, Response: true, HigherVersion: true, Length: HeaderLen + 1}.Append(nil), 0))
	recordings(f, func(b []byte) { f.Add(b) }, func(PayloadType, []byte) {})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseHeader(b)
		if err != nil {
			return
		}
		want := bytes.Clone(b[:HeaderLen])
		want[19] &= flagInitiator | flagVersion | flagResponse
		if got := h.Append(nil); h.Length != len(b) || !bytes.Equal(got, want) {
			t.Errorf("%x\nwant %x", got, want)
		}
	})
}

// FuzzSealed: a frame that is accepted ends where the message does, and is written as it was.
func FuzzSealed(f *testing.F) {
	for _, s := range []Sealed{{First: PayloadIDi}, {}, {First: PayloadIDi, Fragment: 1, Fragments: 2}, {Fragment: 2, Fragments: 2}} {
		f.Add(append(AppendSealedHeader(nil, Header{SPIi: 1, SPIr: 2, Major: 2, Exchange: IKEAuth}, s, 24), make([]byte, 24)...))
	}
	recordings(f, func(b []byte) { f.Add(b) }, func(PayloadType, []byte) {})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseHeader(b)
		if err != nil {
			return
		}
		s, err := ParseSealed(h, b)
		if err != nil {
			return
		}
		if s.At < HeaderLen+payloadHeader || s.At > len(b) {
			t.Fatalf("the IV of %d bytes is at %d", len(b), s.At)
		}
		want := bytes.Clone(b[:s.At])
		want[19] &= flagInitiator | flagVersion | flagResponse
		want[HeaderLen+1] = 0 // critical bit and reserved bits
		if got := AppendSealedHeader(nil, h, s, len(b)-s.At); !bytes.Equal(got, want) {
			t.Errorf("%x\nwant %x", got, want)
		}
	})
}

// FuzzIDString: whatever a peer calls itself, nothing but printable characters reaches a terminal or a log.
func FuzzIDString(f *testing.F) {
	for _, s := range []string{"", "edge.example.net", "192.0.2.1", "a\x00\xff\u202e\x1b[31m", "#1"} {
		f.Add(byte(IDFQDN), []byte(s))
		f.Add(byte(IDKeyID), []byte(s))
	}
	for _, dn := range opensslNames {
		f.Add(byte(IDDN), unhex(dn.der))
	}
	f.Fuzz(func(t *testing.T, kind byte, data []byte) {
		id := ID{IDType(kind), data}
		if s := id.String(); strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q has what cannot be printed", s)
		}
		if !id.Equal(ID{IDType(kind), bytes.Clone(data)}) {
			t.Error("an identity is not equal to itself")
		}
	})
}
