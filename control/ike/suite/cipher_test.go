package suite

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"causeway/control/ike/message"
)

// cipherWords has each algorithm of the encrypted payload.
var cipherWords = []string{
	"aes256gcm16-prfsha384-ecp384", "aes128gcm16-prfsha256-ecp384", "chacha20poly1305-prfsha256-x25519", "aes256-sha512-prfsha512-ecp384",
	"aes128-sha384-prfsha384-ecp384", "aes256-sha256-prfsha256-ecp384", "aes128-sha1-prfsha1-ecp384",
}

// cipherOf has keys that are not random.
func cipherOf(t testing.TB, words string) (c *Cipher, e, a []byte) {
	t.Helper()
	s := mustIKE(t, words)
	k := s.Keys(slices.Repeat([]byte{1}, s.PRF.Size()), []byte("ni"), []byte("nr"), 1, 2)
	c, err := s.NewCipher(k.Ei, k.Ai)
	if err != nil {
		t.Fatal(err)
	}
	return c, k.Ei, k.Ai
}

// sealed is a message with a text, and where its IV is.
func sealed(c *Cipher, text []byte, counter uint64) (b []byte, at int) {
	b = message.AppendSealedHeader(nil, message.Header{SPIi: 1, SPIr: 2, Major: 2, Exchange: message.IKEAuth}, message.Sealed{First: message.PayloadIDi}, c.Len(len(text)))
	return c.Seal(b, text, counter), len(b)
}

// TestRoundTrip: texts of all lengths come back, the message is as long as Len said, and nothing of the caller's is written to.
func TestRoundTrip(t *testing.T) {
	for _, words := range cipherWords {
		c, _, _ := cipherOf(t, words)
		for n := range 70 {
			text := bytes.Repeat([]byte{0xee}, n)
			b, at := sealed(c, text, uint64(n))
			h, err := message.ParseHeader(b)
			if err != nil {
				t.Fatalf("%s: %v", words, err)
			}
			s, err := message.ParseSealed(h, b)
			if err != nil || s.At != at || len(b)-at != c.Len(n) {
				t.Fatalf("%s: %+v, %v: %d bytes from the IV, Len says %d", words, s, err, len(b)-at, c.Len(n))
			}
			if n > 8 && bytes.Contains(b, text[:8]) {
				t.Errorf("%s: the text can be read", words)
			}
			got, err := c.Open(b, at)
			if err != nil || !bytes.Equal(got, bytes.Repeat([]byte{0xee}, n)) {
				t.Errorf("%s, %d bytes: %x, %v", words, n, got, err)
			}
		}
	}
}

// TestIVs: counter modes have the counter, CBC has random ones.
func TestIVs(t *testing.T) {
	for _, words := range cipherWords {
		c, _, _ := cipherOf(t, words)
		one, at := sealed(c, []byte("text"), 0x0102030405060708)
		two, _ := sealed(c, []byte("text"), 0x0102030405060708)
		switch {
		case c.aead != nil && (hex.EncodeToString(one[at:at+8]) != "0102030405060708" || !bytes.Equal(one, two)):
			t.Errorf("%s: IV %x", words, one[at:at+8])
		case c.aead == nil && bytes.Equal(one[at:at+16], two[at:at+16]):
			t.Errorf("%s: IV %x twice", words, one[at:at+16])
		}
	}
}

// TestEveryBit: a message of which one bit is another is refused, wherever it is.
func TestEveryBit(t *testing.T) {
	for _, words := range cipherWords {
		c, _, _ := cipherOf(t, words)
		good, at := sealed(c, []byte("a text of some bytes"), 7)
		for bit := range 8 * len(good) {
			bad := slices.Clone(good)
			bad[bit/8] ^= 1 << (bit % 8)
			if text, err := c.Open(bad, at); err == nil || text != nil {
				t.Errorf("%s: bit %d of %d: %q", words, bit, 8*len(good), text)
			}
		}
	}
}

// TestTruncatedMessages: no part of a message is one, and neither is a longer one.
func TestTruncatedMessages(t *testing.T) {
	for _, words := range cipherWords {
		c, _, _ := cipherOf(t, words)
		good, at := sealed(c, []byte("a text of some bytes"), 7)
		for n := range good {
			if _, err := c.Open(slices.Clone(good[:n]), at); err == nil {
				t.Errorf("%s: the first %d of %d bytes", words, n, len(good))
			}
		}
		for n := 1; n <= 48; n++ {
			if _, err := c.Open(append(slices.Clone(good), make([]byte, n)...), at); err == nil {
				t.Errorf("%s: %d more bytes", words, n)
			}
		}
		for _, at := range []int{-1, at - 1, at + 1, len(good) - 1, len(good), len(good) + 1} {
			if _, err := c.Open(slices.Clone(good), at); err == nil {
				t.Errorf("%s: the IV at %d", words, at)
			}
		}
	}
}

// TestKeysOfWrongLengths are refused.
func TestKeysOfWrongLengths(t *testing.T) {
	for _, words := range cipherWords {
		s := mustIKE(t, words)
		_, e, a := cipherOf(t, words)
		for _, k := range [][2][]byte{{e[1:], a}, {append([]byte{0}, e...), a}, {nil, a}, {e, append([]byte{0}, a...)}} {
			if c, err := s.NewCipher(k[0], k[1]); err == nil || c != nil {
				t.Errorf("%s: keys of %d and %d bytes", words, len(k[0]), len(k[1]))
			}
		}
	}
	for _, s := range []IKE{{}, {Encr: Null}, {Encr: 99}, {Encr: AESGCM16}, {Encr: AESCBC, KeyBits: 128}, {Encr: AESCBC, KeyBits: 128, Integ: 99},
		{Encr: AESGCM16, KeyBits: message.UnknownAttribute}} {
		if c, err := s.NewCipher(make([]byte, 16), nil); err == nil {
			t.Errorf("%s: %v", s, c)
		}
	}
}

// TestRFC7634 is the message of RFC 7634, appendix B: an INFORMATIONAL request with a notification.
func TestRFC7634(t *testing.T) {
	s := IKE{Encr: ChaCha20Poly1305, PRF: PRFHMACSHA256, KE: X25519}
	c, err := s.NewCipher(unhex("808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f a0a1a2a3"), nil)
	if err != nil {
		t.Fatal(err)
	}
	head := unhex("c0c1c2c3c4c5c6c7 d0d1d2d3d4d5d6d7 2e202500 00000009 00000045 29000029")
	text := unhex("0000000c00004001 0000000a")
	whole := slices.Concat(head, unhex("1011121314151617 610394701f8d017f7c12924889 6b71bfe25236efd7cdc67066906315b2"))
	if got := c.Seal(slices.Clone(head), text, 0x1011121314151617); !bytes.Equal(got, whole) {
		t.Errorf("sealed\n%x, want\n%x", got, whole)
	}
	h, err := message.ParseHeader(whole)
	if err != nil {
		t.Fatal(err)
	}
	p, err := message.ParseSealed(h, whole)
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.Open(whole, p.At)
	if err != nil || !bytes.Equal(got, text) {
		t.Fatalf("opened %x, %v", got, err)
	}
	contents, err := message.Parse(p.First, got)
	if err != nil || len(contents.Notifies) != 1 || contents.Notifies[0].Type != message.NotifySetWindowSize {
		t.Errorf("%+v, %v", contents, err)
	}
}

// TestWycheproofAEAD: the nonce is salt and IV, the additional data the message before them. The last byte of a text says how much
// padding is before it.
func TestWycheproofAEAD(t *testing.T) {
	for file, s := range map[string]IKE{"aes_gcm_test.json": {Encr: AESGCM16}, "chacha20_poly1305_test.json": {Encr: ChaCha20Poly1305}} {
		opened, refused := 0, 0
		for _, g := range wycheproofFile(t, file) {
			for _, v := range g.Tests {
				if s.KeyBits = 8 * len(v.Key); g.IVSize != 96 || g.TagSize != 128 || len(v.Msg) == 0 || s.KeyBits == 192 {
					continue
				}
				c, err := s.NewCipher(slices.Concat(v.Key, v.IV[:4]), nil)
				if err != nil {
					t.Fatalf("%s %d: %v", file, v.ID, err)
				}
				b := slices.Concat(v.AAD, v.IV[4:], v.CT, v.Tag)
				text, err := c.Open(b, len(v.AAD))
				keep := len(v.Msg) - 1 - int(v.Msg[len(v.Msg)-1])
				switch {
				case v.Result == "invalid" && err != errICV, v.Result == "valid" && keep < 0 && err != errPadding,
					v.Result == "valid" && keep >= 0 && (err != nil || !bytes.Equal(text, v.Msg[:keep])):
					t.Errorf("%s %d (%s, %s): %x, %v", file, v.ID, v.Comment, v.Result, text, err)
				case err == nil:
					opened++
				default:
					refused++
				}
			}
		}
		if opened < 20 || refused < 20 {
			t.Errorf("%s: only %d opened and %d refused", file, opened, refused)
		}
	}
}

// resealed is a message with AES-CBC and any padded text, which Seal would not write.
func resealed(t *testing.T, c *Cipher, padded []byte) (b []byte, at int) {
	t.Helper()
	b, at = sealed(c, padded[:len(padded)-1], 0)
	out := make([]byte, len(padded))
	c.encrypt.SetIV(b[at : at+16])
	c.encrypt.CryptBlocks(out, padded)
	b = append(b[:at+16], out...)
	return append(b, c.tag(b)...), at
}

// TestPadding: any contents and up to 255 bytes of padding are accepted, more than there is text is not (RFC 7296, section 3.14).
func TestPadding(t *testing.T) {
	for _, words := range []string{"aes256-sha256-prfsha256-ecp384", "aes128-sha1-prfsha1-ecp384"} {
		c, _, _ := cipherOf(t, words)
		for _, size := range []int{16, 32, 256, 272} {
			for padding := range 256 {
				padded := bytes.Repeat([]byte{0x5a}, size)
				padded[size-1] = byte(padding)
				b, at := resealed(t, c, padded)
				text, err := c.Open(b, at)
				if keep := size - 1 - padding; keep < 0 && err != errPadding || keep >= 0 && (err != nil || len(text) != keep) {
					t.Errorf("%s: %d bytes with a padding of %d: %d bytes, %v", words, size, padding, len(text), err)
				}
			}
		}
	}
}

// TestJudgedByOpenSSL: what AES-CBC and HMAC made of a message is decrypted and authenticated by OpenSSL.
func TestJudgedByOpenSSL(t *testing.T) {
	openssl := func(in []byte, args ...string) []byte {
		t.Helper()
		cmd := exec.Command("openssl", args...)
		cmd.Stdin = bytes.NewReader(in)
		var errs bytes.Buffer
		cmd.Stderr = &errs
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("openssl %s: %v: %s", strings.Join(args, " "), err, errs.Bytes())
		}
		return out
	}
	for _, v := range []struct {
		words, cipher, digest string
		icv                   int
	}{
		{"aes256-sha512-prfsha512-ecp384", "-aes-256-cbc", "SHA512", 32}, {"aes128-sha384-prfsha384-ecp384", "-aes-128-cbc", "SHA384", 24},
		{"aes256-sha256-prfsha256-ecp384", "-aes-256-cbc", "SHA256", 16}, {"aes128-sha1-prfsha1-ecp384", "-aes-128-cbc", "SHA1", 12},
	} {
		c, e, a := cipherOf(t, v.words)
		text := []byte("nineteen bytes here")
		b, at := sealed(c, text, 0)
		end := len(b) - v.icv
		plain := openssl(b[at+16:end], "enc", "-d", v.cipher, "-nopad", "-K", hex.EncodeToString(e), "-iv", hex.EncodeToString(b[at:at+16]))
		if want := append(slices.Clone(text), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12); !bytes.Equal(plain, want) {
			t.Errorf("%s: OpenSSL decrypts %x, want %x", v.words, plain, want)
		}
		mac := openssl(b[:end], "mac", "-digest", v.digest, "-macopt", "hexkey:"+hex.EncodeToString(a), "HMAC")
		if want := fmt.Sprintf("%X", b[end:]); !strings.HasPrefix(string(mac), want) {
			t.Errorf("%s: OpenSSL's ICV is %s, want %s...", v.words, mac, want)
		}
	}
}

// TestCipherAllocatesNothing: neither into a buffer that is long enough, nor in place.
func TestCipherAllocatesNothing(t *testing.T) {
	for _, words := range cipherWords {
		c, _, _ := cipherOf(t, words)
		text := make([]byte, 300)
		b := make([]byte, message.HeaderLen+4, 1000)
		whole := c.Seal(b, text, 1)
		into := make([]byte, len(whole))
		if n := testing.AllocsPerRun(100, func() {
			c.Seal(b, text, 2)
			copy(into, whole)
			if _, err := c.Open(into, len(b)); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", words, n)
		}
	}
}

// FuzzOpen: nothing that a stranger sends is opened, and nothing panics.
func FuzzOpen(f *testing.F) {
	var list []*Cipher
	for _, words := range cipherWords {
		c, _, _ := cipherOf(f, words)
		list = append(list, c)
		b, at := sealed(c, []byte("text"), 1)
		for i := len(b) - c.icv; i < len(b); i++ { // one byte would be put right again by chance
			b[i] ^= 0x55
		}
		f.Add(b, at)
	}
	f.Fuzz(func(t *testing.T, b []byte, at int) {
		for i, c := range list {
			if text, err := c.Open(slices.Clone(b), at); err == nil {
				t.Errorf("%s: %x", cipherWords[i], text)
			}
		}
	})
}
