package esp

import (
	"bytes"
	_ "embed"
	"encoding/binary"
	"encoding/json"
	"slices"
	"testing"

	"causeway/crypto/aesgcm"
)

// gcmPackets are the ESP packets of draft-mcgrew-gcm-test-01, section 4, but for the one with a key of 192 bits. Key and
// salt are joined as in RFC 4106, section 8.1; the additional data is SPI and sequence number.
//
//go:embed testdata/draft-mcgrew-gcm-test-01.json
var gcmPackets []byte

// TestGCMPackets opens and seals published packets of RFC 4106, with and without ESN, on both paths.
func TestGCMPackets(t *testing.T) {
	var packets []struct{ Key, IV, AAD, Plaintext, Ciphertext, ICV string }
	if err := json.Unmarshal(gcmPackets, &packets); err != nil || len(packets) != 13 {
		t.Fatalf("%d packets, %v", len(packets), err)
	}
	for _, portable := range []bool{false, true} {
		vault := aesgcm.NewVault(aesgcm.Options{Unlocked: true, Portable: portable})
		for i, v := range packets {
			aad, iv, plain := decode(t, v.AAD), decode(t, v.IV), decode(t, v.Plaintext)
			spi := binary.BigEndian.Uint32(aad)
			p := Params{SPI: max(spi, reservedSPIs+1), Suite: AES128GCM16, Key: decode(t, v.Key), ESN: len(aad) == 12}
			if len(p.Key) == AES256GCM16.KeySize() {
				p.Suite = AES256GCM16
			}
			seq := uint64(binary.BigEndian.Uint32(aad[4:]))
			if p.ESN {
				seq = binary.BigEndian.Uint64(aad[4:])
			}
			sent := slices.Concat(aad[:4], aad[len(aad)-4:], iv, decode(t, v.Ciphertext), decode(t, v.ICV))
			text := plain[:len(plain)-2-int(plain[len(plain)-2])]
			b := &bed{t: t, vault: vault, opener: new(Opener)}

			in := b.inbound(p, 64)
			in.spi, in.window.top = spi, seq-1 // one of the SPIs is reserved
			got, next, verdict := b.open(in, bytes.Clone(sent))
			if verdict != OK || next != plain[len(plain)-1] || !bytes.Equal(got, text) {
				t.Errorf("packet %d: %v, next header %d, %x", i, verdict, next, got)
			}
			if seq == 1<<64-1 {
				continue // this number is never used: the association ends before it
			}
			at := binary.BigEndian.Uint64(iv)
			source, err := NewIVSource(uint32(at>>counterBits), at&(1<<counterBits-1))
			if err != nil {
				t.Fatal(err)
			}
			source.Reserve(1 << counterBits)
			b.sealer = NewSealer(source)
			out := b.outbound(p, seq)
			out.spi = spi
			if sealed := b.seal(out, text, next); !bytes.Equal(sealed, sent) {
				t.Errorf("packet %d: sealed\n%x, want\n%x", i, sealed, sent)
			}
		}
		if err := vault.Close(); err != nil {
			t.Error(err)
		}
	}
}
