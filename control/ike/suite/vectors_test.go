package suite

import (
	"bytes"
	"crypto/mlkem"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/c2sp/wycheproof"
)

// octets are bytes that stand as hexadecimal digits in JSON.
type octets []byte

func (o *octets) UnmarshalText(text []byte) (err error) {
	*o, err = hex.AppendDecode(nil, text)
	return err
}

func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		panic(err)
	}
	return b
}

// A group of tests of Wycheproof; each kind of file has some of the fields.
type group struct {
	Curve   string
	IVSize  int
	TagSize int
	Tests   []struct {
		ID                         int `json:"tcId"`
		Comment, Result            string
		Flags                      []string
		Public, Private, Shared    octets // ECDH
		Key, Msg, Tag, IV, AAD, CT octets // MAC, AEAD
		Seed, EK, C, K, DK         octets // ML-KEM
	}
}

// wycheproofFile reads one of project Wycheproof's files.
func wycheproofFile(t *testing.T, name string) []group {
	t.Helper()
	text, err := fs.ReadFile(wycheproof.TestVectors, name)
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ TestGroups []group }
	if err := json.Unmarshal(text, &file); err != nil || len(file.TestGroups) == 0 {
		t.Fatalf("%s: %d groups, %v", name, len(file.TestGroups), err)
	}
	return file.TestGroups
}

// offerOf has the private key of a test.
func offerOf(t *testing.T, method uint16, private []byte) *Offer {
	t.Helper()
	curve, prefix := curveOf(method)
	key, err := curve.NewPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return &Offer{method: method, ecdh: key, public: key.PublicKey().Bytes()[len(prefix):]}
}

// TestPublishedExchanges has RFC 5903, section 8, and RFC 7748, section 6.1.
func TestPublishedExchanges(t *testing.T) {
	for _, v := range []struct {
		method               uint16
		i, gi, r, gr, secret string
	}{
		{ECP256, "C88F01F5 10D9AC3F 70A292DA A2316DE5 44E9AAB8 AFE84049 C62A9C57 862D1433",
			`DAD0B653 94221CF9 B051E1FE CA5787D0 98DFE637 FC90B9EF 945D0C37 72581180
			 5271A046 1CDB8252 D61F1C45 6FA3E59A B1F45B33 ACCF5F58 389E0577 B8990BB3`,
			"C6EF9C5D 78AE012A 011164AC B397CE20 88685D8F 06BF9BE0 B283AB46 476BEE53",
			`D12DFB52 89C8D4F8 1208B702 70398C34 2296970A 0BCCB74C 736FC755 4494BF63
			 56FBF3CA 366CC23E 8157854C 13C58D6A AC23F046 ADA30F83 53E74F33 039872AB`,
			"D6840F6B 42F6EDAF D13116E0 E1256520 2FEF8E9E CE7DCE03 812464D0 4B9442DE"},
		{ECP384, "099F3C70 34D4A2C6 99884D73 A375A67F 7624EF7C 6B3C0F16 0647B674 14DCE655 E35B5380 41E649EE 3FAEF896 783AB194",
			`667842D7 D180AC2C DE6F74F3 7551F557 55C7645C 20EF73E3 1634FE72 B4C55EE6 DE3AC808 ACB4BDB4 C88732AE E95F41AA
			 9482ED1F C0EEB9CA FC498462 5CCFC23F 65032149 E0E144AD A0241815 35A0F38E EB9FCFF3 C2C947DA E69B4C63 4573A81C`,
			"41CB0779 B4BDB85D 47846725 FBEC3C94 30FAB46C C8DC5060 855CC9BD A0AA2942 E0308312 916B8ED2 960E4BD5 5A7448FC",
			`E558DBEF 53EECDE3 D3FCCFC1 AEA08A89 A987475D 12FD950D 83CFA417 32BC509D 0D1AC43A 0336DEF9 6FDA41D0 774A3571
			 DCFBEC7A ACF31964 72169E83 8430367F 66EEBE3C 6E70C416 DD5F0C68 759DD1FF F83FA401 42209DFF 5EAAD96D B9E6386C`,
			"11187331 C279962D 93D60424 3FD592CB 9D0A926F 422E4718 7521287E 7156C5C4 D6031355 69B9E9D0 9CF5D4A2 70F59746"},
		{ECP521, `0037 ADE9319A 89F4DABD B3EF411A ACCCA512 3C61ACAB 57B5393D CE476081 72A095AA 85A30FE1 C2952C67 71D937BA 9777F595 7B2639BA
			 B072462F 68C27A57 382D4A52`,
			`0015 417E84DB F28C0AD3 C2787133 49DC7DF1 53C897A1 891BD98B AB4357C9 ECBEE1E3 BF42E00B 8E380AEA E57C2D10 75649418 85942AF5
			 A7F46017 23C4195D 176CED3E
			 017C AE20B664 1D2EEB69 5786D8C9 46146239 D099E18E 1D5A514C 739D7CB4 A10AD8A7 88015AC4 05D7799D C75E7B7D 5B6CF226 1A6A7F15
			 07438BF0 1BEB6CA3 926F9582`,
			`0145 BA99A847 AF43793F DD0E872E 7CDFA16B E30FDC78 0F97BCCC 3F078380 201E9C67 7D600B34 3757A3BD BF2A3163 E4C2F869 CCA7458A
			 A4A4EFFC 311F5CB1 51685EB9`,
			`00D0 B3975AC4 B799F5BE A16D5E13 E9AF971D 5E9B984C 9F39728B 5E573973 5A219B97 C356436A DC6E95BB 0352F6BE 64A6C291 2D4EF2D0
			 433CED2B 61716400 12D9460F
			 015C 68226383 956E3BD0 66E797B6 23C27CE0 EAC2F551 A10C2C72 4D985207 7B87220B 6536C5C4 08A1D2AE BB8E86D6 78AE49CB 57091F47
			 32296579 AB44FCD1 7F0FC56A`,
			`0114 4C7D79AE 6956BC8E DB8E7C78 7C4521CB 086FA644 07F97894 E5E6B2D7 9B04D142 7E73CA4B AA240A34 78685981 0C06B3C7 15A3A8CC
			 3151F2BE E417996D 19F3DDEA`},
		{X25519, "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a", "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
			"5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb", "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
			"4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"},
	} {
		i, r := offerOf(t, v.method, unhex(v.i)), offerOf(t, v.method, unhex(v.r))
		if !bytes.Equal(i.Public(), unhex(v.gi)) || !bytes.Equal(r.Public(), unhex(v.gr)) {
			t.Errorf("%s: public values %x, %x", MethodName(v.method), i.Public(), r.Public())
		}
		a, errA := i.Finish(unhex(v.gr))
		b, errB := r.Finish(unhex(v.gi))
		if errA != nil || errB != nil || !bytes.Equal(a, unhex(v.secret)) || !bytes.Equal(b, a) {
			t.Errorf("%s: secrets %x and %x: %v, %v", MethodName(v.method), a, b, errA, errB)
		}
	}
}

// TestWycheproofExchanges: points that are not on the curve and those of small order, secrets with leading zeros, and more.
func TestWycheproofExchanges(t *testing.T) {
	for file, method := range map[string]uint16{"ecdh_secp256r1_ecpoint_test.json": ECP256, "ecdh_secp384r1_ecpoint_test.json": ECP384,
		"ecdh_secp521r1_ecpoint_test.json": ECP521, "x25519_test.json": X25519} {
		valid, refused := 0, 0
		for _, g := range wycheproofFile(t, file) {
			for _, c := range g.Tests {
				peer := c.Public
				if method != X25519 {
					if len(peer) == 0 || peer[0] != 4 {
						continue // RFC 5903 has points that are not compressed alone
					}
					peer = peer[1:]
				}
				private := c.Private
				if curve, _ := curveOf(method); method != X25519 { // as long as the group's order, without the sign's byte of ASN.1
					size := map[uint16]int{ECP256: 32, ECP384: 48, ECP521: 66}[method]
					private = append(make([]byte, max(0, size-len(private))), private[max(0, len(private)-size):]...)
					if _, err := curve.NewPrivateKey(private); err != nil {
						t.Fatalf("%s %d: %v", file, c.ID, err)
					}
				}
				secret, err := offerOf(t, method, private).Finish(peer)
				zero := method == X25519 && bytes.Count(c.Shared, []byte{0}) == 32 // must be refused (RFC 8031, section 3.2)
				if want := c.Result != "invalid" && !zero; want != (err == nil) || want && !bytes.Equal(secret, c.Shared) {
					t.Errorf("%s %d (%s, %s): %x, %v", file, c.ID, c.Comment, c.Result, secret, err)
				}
				if err == nil {
					valid++
				} else {
					refused++
				}
			}
		}
		if valid < 100 || refused < 5 {
			t.Errorf("%s: only %d are valid and %d refused", file, valid, refused)
		}
	}
}

// TestWycheproofKEM: the initiator's key decapsulates what another implementation encapsulated, also ciphertexts that were tampered
// with, whose secret is another one (FIPS 203, section 6.3); lengths and coefficients that are wrong are refused by both sides.
func TestWycheproofKEM(t *testing.T) {
	for method, name := range map[uint16]string{MLKEM768: "mlkem_768", MLKEM1024: "mlkem_1024"} {
		opened, refused := 0, 0
		for _, g := range wycheproofFile(t, name+"_test.json") {
			for _, c := range g.Tests {
				o := &Offer{method: method}
				var err error
				if method == MLKEM768 {
					if o.kem768, err = mlkem.NewDecapsulationKey768(c.Seed); err == nil {
						o.public = o.kem768.EncapsulationKey().Bytes()
					}
				} else {
					if o.kem1k, err = mlkem.NewDecapsulationKey1024(c.Seed); err == nil {
						o.public = o.kem1k.EncapsulationKey().Bytes()
					}
				}
				if err != nil {
					if c.Result != "invalid" {
						t.Errorf("%s %d: seed: %v", name, c.ID, err)
					}
					continue
				}
				secret, err := o.Finish(c.C)
				switch {
				case c.Result == "valid" && (err != nil || !bytes.Equal(secret, c.K) || len(c.EK) > 0 && !bytes.Equal(o.Public(), c.EK)):
					t.Errorf("%s %d (%s): %x, %v", name, c.ID, c.Comment, secret, err)
				case c.Result == "invalid" && err == nil:
					t.Errorf("%s %d (%s): accepted", name, c.ID, c.Comment)
				case err == nil:
					opened++
				default:
					refused++
				}
			}
		}
		for _, g := range wycheproofFile(t, name+"_encaps_test.json") {
			for _, c := range g.Tests {
				public, secret, err := Respond(method, c.EK)
				if want := c.Result != "invalid"; want != (err == nil) || want && (len(public) != len(c.C) || len(secret) != 32) {
					t.Errorf("%s encapsulation %d (%s, %s): %v", name, c.ID, c.Comment, c.Result, err)
				}
				if err != nil {
					refused++
				}
			}
		}
		if opened < 100 || refused < 100 {
			t.Errorf("%s: only %d opened and %d refused", name, opened, refused)
		}
	}
}

// TestExchangesAgree: both sides of each method have the same secret, of the right length, and another one the next time.
func TestExchangesAgree(t *testing.T) {
	for _, m := range []struct {
		method                 uint16
		public, answer, secret int
	}{
		{MODP1536, 192, 192, 192}, {MODP2048, 256, 256, 256}, {MODP3072, 384, 384, 384}, {MODP4096, 512, 512, 512},
		{ECP256, 64, 64, 32}, {ECP384, 96, 96, 48}, {ECP521, 132, 132, 66}, {X25519, 32, 32, 32},
		{MLKEM768, 1184, 1088, 32}, {MLKEM1024, 1568, 1568, 32},
	} {
		name := MethodName(m.method)
		o, err := NewOffer(m.method)
		if err != nil {
			t.Fatal(err)
		}
		answer, theirs, err := Respond(m.method, o.Public())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		ours, err := o.Finish(answer)
		if err != nil || !bytes.Equal(ours, theirs) || len(o.Public()) != m.public || len(answer) != m.answer || len(ours) != m.secret {
			t.Errorf("%s: %d, %d, %d bytes, the secrets are the same: %v, %v", name, len(o.Public()), len(answer), len(ours), bytes.Equal(ours, theirs), err)
		}
		if _, other, _ := Respond(m.method, o.Public()); bytes.Equal(other, ours) {
			t.Errorf("%s: two exchanges have one secret", name)
		}
		for _, bad := range [][]byte{nil, answer[1:], append([]byte{0}, answer...), append(slices.Clone(answer), 0)} {
			if _, err := o.Finish(bad); err == nil {
				t.Errorf("%s: an answer of %d bytes is accepted", name, len(bad))
			}
		}
		for _, bad := range [][]byte{nil, o.Public()[1:], append([]byte{0}, o.Public()...), append(slices.Clone(o.Public()), 0)} {
			if _, _, err := Respond(m.method, bad); err == nil {
				t.Errorf("%s: an offer of %d bytes is accepted", name, len(bad))
			}
		}
		o.Wipe()
		if _, err := o.Finish(answer); err == nil {
			t.Errorf("%s: an offer that was wiped still works", name)
		}
	}
	for _, unknown := range []uint16{0, 1, 2, 22, 32, 35, 38, 65535} {
		if _, err := NewOffer(unknown); err == nil {
			t.Errorf("method %d", unknown)
		}
		if _, _, err := Respond(unknown, make([]byte, 32)); err == nil {
			t.Errorf("method %d", unknown)
		}
	}
}

// TestPRFs has Wycheproof's HMACs and those of RFC 4231 and RFC 2202.
func TestPRFs(t *testing.T) {
	for file, prf := range map[string]PRF{"hmac_sha1_test.json": PRFHMACSHA1, "hmac_sha256_test.json": PRFHMACSHA256,
		"hmac_sha384_test.json": PRFHMACSHA384, "hmac_sha512_test.json": PRFHMACSHA512} {
		valid := 0
		for _, g := range wycheproofFile(t, file) {
			for _, c := range g.Tests {
				got := prf.Sum(c.Key, c.Msg[:len(c.Msg)/2], c.Msg[len(c.Msg)/2:])
				if len(got) != prf.Size() {
					t.Fatalf("%s: %d bytes, Size is %d", file, len(got), prf.Size())
				}
				if right := bytes.Equal(got[:g.TagSize/8], c.Tag); right != (c.Result == "valid") {
					t.Errorf("%s %d: %x", file, c.ID, got)
				}
				if c.Result == "valid" {
					valid++
				}
			}
		}
		if valid < 20 {
			t.Errorf("%s: only %d are valid", file, valid)
		}
	}
	for _, v := range []struct {
		prf             PRF
		key, data, want string
	}{
		{PRFHMACSHA1, "4a656665", hex.EncodeToString([]byte("what do ya want for nothing?")), "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"},
		{PRFHMACSHA256, "4a656665", hex.EncodeToString([]byte("what do ya want for nothing?")), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"},
		{PRFHMACSHA384, "4a656665", hex.EncodeToString([]byte("what do ya want for nothing?")),
			"af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649"},
		{PRFHMACSHA512, "4a656665", hex.EncodeToString([]byte("what do ya want for nothing?")),
			"164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737"},
		{PRFHMACSHA256, strings.Repeat("aa", 131), hex.EncodeToString([]byte("Test Using Larger Than Block-Size Key - Hash Key First")),
			"60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"},
	} {
		if got := v.prf.Sum(unhex(v.key), unhex(v.data)); !bytes.Equal(got, unhex(v.want)) {
			t.Errorf("%d: %x", v.prf, got)
		}
	}
}
