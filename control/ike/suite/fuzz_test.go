package suite

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"causeway/control/ike/message"
)

// FuzzParseIKE: what is accepted is written and read as the same again, and chosen from itself makes an IKE SA.
func FuzzParseIKE(f *testing.F) {
	for _, p := range DefaultIKE(true) {
		f.Add(Words(p), true)
	}
	f.Add("aes256gcm16-prfsha384-ecp384-ke1_mlkem768-ke7_mlkem1024", false)
	f.Add("ke1_-ke9_x25519-aes128", false)
	f.Fuzz(func(t *testing.T, text string, weak bool) {
		p, err := ParseIKE(text, weak)
		if err != nil {
			return
		}
		again, err := ParseIKE(Words(p), weak)
		if err != nil || !cmp.Equal(p, again) {
			t.Fatalf("%s: %s, %s, %v", text, Words(p), Words(again), err)
		}
		chosen, err := Choose([]message.Proposal{p}, []message.Proposal{p})
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		s, err := IKEOf(chosen)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		k := s.Keys(make([]byte, s.PRF.Size()), []byte("ni"), []byte("nr"), 1, 2)
		if _, err := s.NewCipher(k.Ei, k.Ai); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	})
}

// FuzzParseESP is the same for child SAs.
func FuzzParseESP(f *testing.F) {
	for _, p := range DefaultESP(true, true) {
		f.Add(Words(p), true, true)
	}
	f.Add("null-sha1-esn-noesn", true, false)
	f.Fuzz(func(t *testing.T, text string, weak, null bool) {
		p, err := ParseESP(text, weak, null)
		if err != nil {
			return
		}
		again, err := ParseESP(Words(p), weak, null)
		if err != nil || !cmp.Equal(p, again) {
			t.Fatalf("%s: %s, %s, %v", text, Words(p), Words(again), err)
		}
		chosen, err := Choose([]message.Proposal{p}, []message.Proposal{p})
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		s, err := ESPOf(chosen)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		i, r := s.Keys(PRFHMACSHA256, []byte("d"), nil, []byte("ni"), []byte("nr"))
		if len(i) != s.Suite.KeySize() || len(r) != len(i) {
			t.Fatalf("%s: %d and %d bytes", s, len(i), len(r))
		}
	})
}

// FuzzChoose: whatever a peer offers, what is chosen is what it believes, and what the oracle chooses.
func FuzzChoose(f *testing.F) {
	for _, list := range [][]message.Proposal{DefaultIKE(true), DefaultESP(true, true)} {
		for i := range list {
			list[i].Number = uint8(i + 1)
			if list[i].Protocol == message.ProtocolESP {
				list[i].SPI = []byte{1, 2, 3, 4}
			}
		}
		_, b := (&message.Contents{SA: list}).Append(nil)
		f.Add(b)
	}
	own := append(DefaultIKE(true), DefaultESP(true, true)...)
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := message.Parse(message.PayloadSA, b)
		if err != nil {
			return
		}
		chosen, err := Choose(own, c.SA)
		want, ok := slowChoose(own, c.SA)
		if ok != (err == nil) || ok && !cmp.Equal(want, chosen, cmpopts.EquateEmpty()) {
			t.Fatalf("%s, %v, want %s, %v", Words(chosen), err, Words(want), ok)
		}
		if err != nil {
			return
		}
		if err := Check(chosen, c.SA); err != nil {
			t.Fatal(err)
		}
		if chosen.Protocol == message.ProtocolIKE {
			_, err = IKEOf(chosen)
		} else {
			_, err = ESPOf(chosen)
		}
		if err != nil {
			t.Fatal(err)
		}
	})
}
