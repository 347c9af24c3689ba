package suite

import "testing"

// BenchmarkExchange is what each side does of a key exchange: NewOffer and Finish, and Respond.
func BenchmarkExchange(b *testing.B) {
	for _, m := range []uint16{MODP1536, MODP2048, MODP3072, MODP4096, ECP256, ECP384, ECP521, X25519, MLKEM768, MLKEM1024} {
		o, err := NewOffer(m)
		if err != nil {
			b.Fatal(err)
		}
		answer, _, err := Respond(m, o.Public())
		if err != nil {
			b.Fatal(err)
		}
		b.Run(MethodName(m)+"/initiator", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				o, err := NewOffer(m)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := o.Finish(answer); err != nil && m < MLKEM768 { // a ciphertext for another key gives a secret all the same
					b.Fatal(err)
				}
			}
		})
		b.Run(MethodName(m)+"/responder", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := Respond(m, o.Public()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkCipher(b *testing.B) {
	for _, words := range cipherWords {
		c, _, _ := cipherOf(b, words)
		text := make([]byte, 300)
		head := make([]byte, 32, 1000)
		whole, into := c.Seal(nil, text, 1), make([]byte, 1000)
		b.Run(words+"/seal", func(b *testing.B) {
			b.ReportAllocs()
			for i := uint64(0); b.Loop(); i++ {
				c.Seal(head, text, i)
			}
		})
		b.Run(words+"/open", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Open(into[:copy(into, whole)], 0); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
