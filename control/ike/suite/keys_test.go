package suite

import (
	"bytes"
	"crypto/hmac"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"causeway/crypto/esp"
)

// slowPlus is prf+ as RFC 7296, section 2.13, writes it: T1 | T2 | ..., T1 = prf(K, S | 1), T2 = prf(K, T1 | S | 2)...
func slowPlus(p PRF, key, seed []byte, n int) (all []byte) {
	var t []byte
	for i := 1; len(all) < n; i++ {
		m := hmac.New(p.hash(), key)
		m.Write(slices.Concat(t, seed, []byte{byte(i)}))
		t = m.Sum(nil)
		all = slices.Concat(all, t)
	}
	return all[:n]
}

func TestPlusAgainstOracle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := rapid.SampledFrom([]PRF{PRFHMACSHA1, PRFHMACSHA256, PRFHMACSHA384, PRFHMACSHA512}).Draw(t, "prf")
		key, seed := rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "key"), rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "seed")
		n := rapid.IntRange(0, 10*p.Size()).Draw(t, "n")
		if got, want := p.Plus(key, seed, n), slowPlus(p, key, seed, n); !bytes.Equal(got, want) || cap(got) != n {
			t.Errorf("%d bytes, capacity %d: %x, want %x", n, cap(got), got, want)
		}
	})
}

// TestPublishedKeys is a case of NIST's CAVP for IKEv2 (SP 800-135, SHA-1, a secret of 1024 bits): the keys of an IKE SA, of its child
// without and with a key exchange, and SKEYSEED of a rekey. 132 bytes are just what aes128-sha1-prfsha1 has.
func TestPublishedKeys(t *testing.T) {
	ni, nr := unhex("3651fef5c9c35e93"), unhex("c09a8b90a3f04d59")
	secret := unhex(`d084a30166a50fb7325c3960874a839449ef9741c2f4f947d0201dd8c1269273d79509f37e3ca3eb4fa2fe2a28254e289cd3f34dad4eb4df1a07685a4b8a94fa
		61e2491f7598b3ce65547ff133b3f63d1ac4175eaa695033f3cedb026a6873a36455172a8540b8a5d23a0143bed0390ee49b168269d75fffee9fb62be965993c`)
	next := unhex(`52f00ab174c25d5b7139ae5ff4e8e9eddee5992d2e36adf8a559ffd90dab1442e4fbe429d320c0f33552a17d1557fa41ea70e8fb916c4fa27ed52b5f8ebd8461
		afa78f1159159a64055ac5f6319e29c28eae58cbc6847770f32c3fed1d04750484f854790f95e9ec01bc5bc461f24966462e359511329305038e94deb6dd42c2`)
	s := IKE{Encr: AESCBC, KeyBits: 128, Integ: HMACSHA1, PRF: PRFHMACSHA1, KE: MODP2048}

	seed := Seed(s.PRF, secret, ni, nr)
	if want := unhex("cd2e8050137832245f1dbacc6e4f0a92f94d45d6"); !bytes.Equal(seed, want) {
		t.Errorf("SKEYSEED %x", seed)
	}
	k := s.Keys(seed, ni, nr, 0x8e5c3ae507221684, 0xb1f201bb155c3acd)
	for _, key := range []struct {
		name string
		got  []byte
		want string
	}{
		{"SK_d", k.D, "6f1b12cad3cbe097b35430356d869d54cddb0198"},
		{"SK_ai", k.Ai, "ec859174d53ceb92dddedbe2436db69f60977c58"},
		{"SK_ar", k.Ar, "fa63bbb667f8d36920b109baae8f6c61a9ac49fe"},
		{"SK_ei", k.Ei, "da01843225d080ec5539d5881a25521f"},
		{"SK_er", k.Er, "fb2a0a91874a9c0a27fcc2d717eb8963"},
		{"SK_pi", k.Pi, "a9e3a89c7ab264757284c28cf8c3ca40576f4220"},
		{"SK_pr", k.Pr, "b052b1fb8e9ad60ba3c80557323331a8cbb89f20"},
	} {
		if !bytes.Equal(key.got, unhex(key.want)) {
			t.Errorf("%s is %x, want %s", key.name, key.got, key.want)
		}
	}
	if bytes.Count(seed, []byte{0}) != len(seed) {
		t.Error("SKEYSEED is not wiped")
	}
	for _, c := range []struct {
		secret []byte
		want   string
	}{
		{nil, `4727dc0ef94eb326ce131cf282fb652faa638ad0ddae3786a11bcc0309876009f8c485de011ad962c5b1ca8a41ff8145445749079c5686e26ffebbc342f06981
			f3da745e11ca0976`},
		{next, `b109c21ad4c0797768c1cec9e63554681e48f224bca7f23c20c4ea7041983451e9aa1d5408656c8a975ff1b9d9a12c75ffeb64bdecb30174664cccb4e14f1c37
			7b7f6d1525af77c7`},
	} {
		i, r := ESP{Suite: esp.AES128SHA1}.Keys(s.PRF, k.D, c.secret, ni, nr)
		if got := slices.Concat(i, r); !bytes.Equal(got, unhex(c.want)) || len(i) != 36 {
			t.Errorf("KEYMAT %x, want %s", got, c.want)
		}
	}
	if got := NextSeed(s.PRF, k.D, next, ni, nr); !bytes.Equal(got, unhex("3b03bce748c96d5e8306918d2ff89b68f0648da3")) {
		t.Errorf("SKEYSEED of the rekey is %x", got)
	}
}

// TestMoreSecrets: secrets of additional key exchanges come behind the nonces (RFC 9370, section 2.2.4).
func TestMoreSecrets(t *testing.T) {
	d, secret, ni, nr, one, two := []byte("d"), []byte("secret"), []byte("ni"), []byte("nr"), []byte("one"), []byte("two")
	p := PRFHMACSHA384
	if got, want := NextSeed(p, d, secret, ni, nr, one, two), p.Sum(d, []byte("secretninronetwo")); !bytes.Equal(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
	s := ESP{Suite: esp.AES256GCM16}
	i, r := s.Keys(p, d, secret, ni, nr, one, two)
	if want := slowPlus(p, d, []byte("secretninronetwo"), 72); !bytes.Equal(slices.Concat(i, r), want) || len(i) != 36 {
		t.Errorf("%x %x, want %x", i, r, want)
	}
	if string(secret) != "secret" || string(one) != "one" {
		t.Error("the caller's secrets are wiped")
	}
}

// TestKeyLengths: each algorithm's keys have the length of its RFC, and none reaches into the next one.
func TestKeyLengths(t *testing.T) {
	for words, want := range map[string][3]int{ // D, A, E
		"aes256gcm16-prfsha384-ecp384":      {48, 0, 36},
		"aes128gcm16-prfsha256-ecp384":      {32, 0, 20},
		"chacha20poly1305-prfsha512-x25519": {64, 0, 36},
		"aes256-sha512-prfsha512-modp4096":  {64, 64, 32},
		"aes128-sha384-prfsha384-modp3072":  {48, 48, 16},
		"aes256-sha256-prfsha256-modp2048":  {32, 32, 32},
		"aes128-sha1-prfsha1-modp1536":      {20, 20, 16},
	} {
		s := mustIKE(t, words)
		k := s.Keys(make([]byte, s.PRF.Size()), []byte("ni"), []byte("nr"), 1, 2)
		for _, b := range [][]byte{k.D, k.Ai, k.Ar, k.Ei, k.Er, k.Pi, k.Pr} {
			if cap(b) != len(b) {
				t.Errorf("%s: a key reaches into the next one", words)
			}
		}
		if got := [3]int{len(k.D), len(k.Ai), len(k.Ei)}; got != want || len(k.Pi) != want[0] || len(k.Ar) != want[1] || len(k.Er) != want[2] {
			t.Errorf("%s: %v, want %v", words, got, want)
		}
		if _, err := s.NewCipher(k.Ei, k.Ai); err != nil {
			t.Errorf("%s: %v", words, err)
		}
		k.Wipe()
		for _, b := range [][]byte{k.D, k.Ai, k.Ar, k.Ei, k.Er, k.Pi, k.Pr} {
			if bytes.Count(b, []byte{0}) != len(b) {
				t.Errorf("%s: %x is left", words, b)
			}
		}
	}
}

func mustIKE(t testing.TB, words string) IKE {
	t.Helper()
	p, err := ParseIKE(words, true)
	if err != nil {
		t.Fatal(err)
	}
	s, err := IKEOf(p)
	if err != nil {
		t.Fatal(err)
	}
	if s.String() != words {
		t.Errorf("%s is written as %s", words, s)
	}
	return s
}

// TestKeysAreNotPrinted: whatever is printed, and in whatever way, no key is.
func TestKeysAreNotPrinted(t *testing.T) {
	key := bytes.Repeat([]byte{0xc7}, 32)
	k := Keys{D: key, Ai: key, Ar: key, Ei: key, Er: key, Pi: key, Pr: key}
	c, err := IKE{Encr: AESCBC, KeyBits: 256, Integ: HMACSHA256}.NewCipher(key, key)
	if err != nil {
		t.Fatal(err)
	}
	o := &Offer{method: MODP2048, secret: key}
	wrapped := struct {
		K Keys
		P *Keys
		C *Cipher
		O *Offer
	}{k, &k, c, o}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%q", "%d"} {
		for _, v := range []any{k, &k, c, o, wrapped, []Keys{k}, []*Cipher{c}} {
			text := strings.ToLower(fmt.Sprintf(verb, v))
			for _, trace := range []string{"c7c7", "199 199", "0xc7, 0xc7", `\xc7\xc7`, "\xc7\xc7"} {
				if strings.Contains(text, trace) {
					t.Errorf("%s of %T shows keys: %.80q", verb, v, text)
				}
			}
		}
	}
}
