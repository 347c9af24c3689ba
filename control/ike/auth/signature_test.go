package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/asn1"
	"encoding/pem"
	"strings"
	"testing"

	"causeway/control/ike/message"
)

// A signatureCase is a signature that openssl makes: with which kind of key, how, and what it is to us.
type signatureCase struct {
	name, kind string
	options    []string // of openssl dgst and openssl req
	algorithm  algorithm
	refused    string // what the error says
}

var signatures = []signatureCase{
	{"pss-256", "rsa", pssOptions("sha256", "digest"), algorithm{schemePSS, crypto.SHA256, 32}, ""},
	{"pss-384", "rsa", pssOptions("sha384", "digest"), algorithm{schemePSS, crypto.SHA384, 48}, ""},
	{"pss-512", "rsa", pssOptions("sha512", "digest"), algorithm{schemePSS, crypto.SHA512, 64}, ""},
	{"pss-256-long-salt", "rsa", pssOptions("sha256", "max"), algorithm{schemePSS, crypto.SHA256, 256 - 32 - 2}, ""},
	{"pss-256-short-salt", "rsa", pssOptions("sha256", "20"), algorithm{}, "SHA-1"}, // 20 is the default, and left out
	{"pss-256-shorter-salt", "rsa", pssOptions("sha256", "16"), algorithm{}, "at least 32"},
	{"pss-256-mask", "rsa", append(pssOptions("sha256", "digest"), "-sigopt", "rsa_mgf1_md:sha512"), algorithm{}, "same hash"},
	{"pss-1", "rsa", pssOptions("sha1", "digest"), algorithm{}, "SHA-1"},
	{"pkcs1-256", "rsa", []string{"-sha256"}, algorithm{scheme: schemePKCS1, hash: crypto.SHA256}, ""},
	{"pkcs1-384", "rsa", []string{"-sha384"}, algorithm{scheme: schemePKCS1, hash: crypto.SHA384}, ""},
	{"pkcs1-512", "rsa", []string{"-sha512"}, algorithm{scheme: schemePKCS1, hash: crypto.SHA512}, ""},
	{"pkcs1-1", "rsa", []string{"-sha1"}, algorithm{}, "RSA with SHA-1"},
	{"pkcs1-224", "rsa", []string{"-sha224"}, algorithm{}, "RSA with SHA-224"},
	{"ecdsa-256-p256", "p256", []string{"-sha256"}, algorithm{scheme: schemeECDSA, hash: crypto.SHA256}, ""},
	{"ecdsa-512-p256", "p256", []string{"-sha512"}, algorithm{scheme: schemeECDSA, hash: crypto.SHA512}, ""},
	{"ecdsa-384-p384", "p384", []string{"-sha384"}, algorithm{scheme: schemeECDSA, hash: crypto.SHA384}, ""},
	{"ecdsa-512-p521", "p521", []string{"-sha512"}, algorithm{scheme: schemeECDSA, hash: crypto.SHA512}, ""},
	{"ecdsa-1-p256", "p256", []string{"-sha1"}, algorithm{}, "ECDSA with SHA-1"},
	{"ed25519", "ed25519", nil, algorithm{scheme: schemeEd25519}, ""},
}

func pssOptions(hash, salt string) []string {
	return []string{"-" + hash, "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:" + salt}
}

// identifier is the AlgorithmIdentifier that openssl writes into a certificate signed so.
func (w *workshop) identifier(c signatureCase) []byte {
	w.t.Helper()
	w.haveKey(c.kind)
	args := append([]string{"req", "-x509", "-new", "-key", c.kind + ".key", "-subj", "/CN=a", "-outform", "DER"}, c.options...)
	der := once("identifier of "+c.name, func() []byte { return w.run(nil, "openssl", args...) })
	var cert struct {
		TBS, Algorithm asn1.RawValue
		Signature      asn1.BitString
	}
	if _, err := asn1.Unmarshal(der, &cert); err != nil {
		w.t.Fatal(err)
	}
	return cert.Algorithm.FullBytes
}

// sign makes an AUTH payload with openssl.
func (w *workshop) sign(c signatureCase, octets []byte) message.Auth {
	w.t.Helper()
	name := w.identifier(c)
	w.write("octets", octets)
	var signature []byte
	if c.kind == "ed25519" {
		signature = w.run(nil, "openssl", "pkeyutl", "-sign", "-rawin", "-inkey", c.kind+".key", "-in", "octets")
	} else {
		signature = w.run(nil, "openssl", append(append([]string{"dgst"}, c.options...), "-sign", c.kind+".key", "octets")...)
	}
	return message.Auth{Method: message.AuthSignature, Data: append(append([]byte{byte(len(name))}, name...), signature...)}
}

// TestSignaturesOfOpenSSL verifies, or refuses, what openssl has signed.
func TestSignaturesOfOpenSSL(t *testing.T) {
	w := newWorkshop(t)
	octets := []byte("what both sides have seen")
	for _, c := range signatures {
		a := w.sign(c, octets)
		key := w.haveKey(c.kind)
		err := verifyAuth(key.Public(), a, octets)
		if c.refused != "" {
			mustSay(t, err, c.refused)
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		for name, bad := range map[string]message.Auth{
			"another method": {Method: message.AuthECDSA521, Data: a.Data},
			"shared key":     {Method: message.AuthSharedKey, Data: a.Data},
			"RSA":            {Method: message.AuthRSA, Data: a.Data},
			"last bit":       {Method: a.Method, Data: append(a.Data[:len(a.Data)-1:len(a.Data)-1], a.Data[len(a.Data)-1]^1)},
			"cut off":        {Method: a.Method, Data: a.Data[:len(a.Data)-1]},
			"a byte behind":  {Method: a.Method, Data: append(a.Data[:len(a.Data):len(a.Data)], 0)},
			"no signature":   {Method: a.Method, Data: a.Data[:1+int(a.Data[0])]},
			"cut name":       {Method: a.Method, Data: a.Data[:int(a.Data[0])]},
			"no name":        {Method: a.Method, Data: append([]byte{0}, a.Data[1+int(a.Data[0]):]...)},
			"nothing":        {Method: a.Method},
		} {
			if verifyAuth(key.Public(), bad, octets) == nil {
				t.Errorf("%s: %s is accepted", c.name, name)
			}
		}
		mustSay(t, verifyAuth(key.Public(), a, append(octets, '!')), "wrong")
	}
}

// TestSignatureOfAnotherKind offers each algorithm to each other kind of key.
func TestSignatureOfAnotherKind(t *testing.T) {
	w := newWorkshop(t)
	octets := []byte("octets")
	for _, c := range signatures {
		if c.refused != "" {
			continue
		}
		a := w.sign(c, octets)
		for _, kind := range []string{"rsa", "p384", "ed25519"} {
			key := w.haveKey(kind)
			if err := verifyAuth(key.Public(), a, octets); err == nil && kind != c.kind {
				t.Errorf("%s is accepted for a key of kind %s", c.name, kind)
			}
		}
	}
}

// judge lets openssl verify a signature of ours.
func (w *workshop) judge(c signatureCase, octets, signature []byte) {
	w.t.Helper()
	w.write("octets", octets)
	w.write("signature", signature)
	w.haveKey(c.kind)
	if c.kind == "ed25519" {
		w.run(nil, "openssl", "pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", c.kind+".pub", "-in", "octets", "-sigfile", "signature")
		return
	}
	w.run(nil, "openssl", append(append([]string{"dgst"}, c.options...), "-verify", c.kind+".pub", "-signature", "signature", "octets")...)
}

// TestSign lets openssl judge our signatures, each with the hashes that lead to it.
func TestSign(t *testing.T) {
	w := newWorkshop(t)
	octets := []byte("what both sides have seen")
	byName := map[string]signatureCase{}
	for _, c := range signatures {
		byName[c.name] = c
	}
	for _, c := range []struct {
		want  string
		peers []uint16
	}{
		{"pss-256", []uint16{1, 2, 3, 4, 5}},
		{"pss-256", []uint16{4, 2}},
		{"pss-384", []uint16{4, 3, 1}},
		{"pss-512", []uint16{4}},
		{"ecdsa-256-p256", []uint16{2, 3, 4}},
		{"ecdsa-512-p256", []uint16{4, 5}},
		{"ecdsa-384-p384", []uint16{2, 3, 4}},
		{"ecdsa-512-p521", []uint16{2, 3, 4}},
		{"ed25519", []uint16{2, 3, 4, 5}},
	} {
		s := byName[c.want]
		key := w.haveKey(s.kind)
		a, err := signRFC7427(key, octets, c.peers)
		if err != nil {
			t.Errorf("%s: %v", c.want, err)
			continue
		}
		name := w.identifier(s)
		if a.Method != message.AuthSignature || int(a.Data[0]) != len(name) || string(a.Data[1:1+len(name)]) != string(name) {
			t.Errorf("%s: method %d, %x; want %x", c.want, a.Method, a.Data, name)
			continue
		}
		w.judge(s, octets, a.Data[1+len(name):])
		if err := verifyAuth(key.Public(), a, octets); err != nil {
			t.Errorf("%s: %v", c.want, err)
		}
	}
}

// TestSignRefuses has peers that our key is of no use with.
func TestSignRefuses(t *testing.T) {
	w := newWorkshop(t)
	for _, c := range []struct {
		kind    string
		peers   []uint16
		rfc7427 bool
		say     string
	}{
		{"rsa", nil, true, "[]"},
		{"rsa", []uint16{1, 5}, true, "[1 5]"},
		{"rsa", nil, false, "RFC 7427"},
		{"p256", []uint16{1}, true, "[1]"},
		{"ed25519", []uint16{2, 3, 4}, true, "RFC 8420"},
		{"ed25519", nil, false, "RFC 7427"},
	} {
		key := w.haveKey(c.kind)
		var err error
		if c.rfc7427 {
			_, err = signRFC7427(key, []byte("octets"), c.peers)
		} else {
			_, err = signRFC4754(key, []byte("octets"))
		}
		mustSay(t, err, c.say)
	}
}

// vectors4754 are those of RFC 4754, section 8: the public key, and the signature of "abc".
var vectors4754 = []struct {
	curve  elliptic.Curve
	method message.AuthMethod
	public string // x and y
	data   string // r and s
}{
	{elliptic.P256(), message.AuthECDSA256,
		"2442a5cc0ecd015fa3ca31dc8e2bbc70bf42d60cbca20085e0822cb04235e970" + "6fc98bd7e50211a4a27102fa3549df79ebcb4bf246b80945cddfe7d509bbfd7d",
		"cb28e0999b9c7715fd0a80d8e47a77079716cbbf917dd72e97566ea1c066957c" + "86fa3bb4e26cad5bf90b7f81899256ce7594bb1ea0c89212748bff3b3d5b0315"},
	{elliptic.P384(), message.AuthECDSA384,
		"96281bf8dd5e0525ca049c048d345d3082968d10fedf5c5aca0c64e6465a97ea5ce10c9dfec21797415710721f437922" +
			"447688ba94708eb6e2e4d59f6ab6d7edff9301d249fe49c33096655f5d502fad3d383b91c5e7edaa2b714cc99d5743ca",
		"fb017b914e29149432d8bac29a514640b46f53ddab2c69948084e2930f1c8f7e08e07c9c63f2d21a07dcb56a6af56eb3" +
			"b263a1305e057f984d38726a1b46874109f417bca112674c528262a40a629af1cbb9f516ce0fa7d2ff630863a00e8b9f"},
	{elliptic.P521(), message.AuthECDSA521,
		"0151518f1af0f563517edd5485190df95a4bf57b5cba4cf2a9a3f6474725a35f7afe0a6ddeb8bedbcd6a197e592d40188901cecd650699c9b5e456aea5add19052a8" +
			"006f3b142ea1bfff7e2837ad44c9e4ff6d2d34c73184bbad90026dd5e6e85317d9df45cad7803c6c20035b2f3ff63aff4e1ba64d1c077577da3f4286c58f0aeae643",
		"0154fd3836af92d0dca57dd5341d3053988534fde8318fc6aaaab68e2e6f4339b19f2f281a7e0b22c269d93cf8794a9278880ed7dbb8d9362caeacee544320552251" +
			"017705a7030290d1ceb605a9a1bb03ff9cdd521e87a696ec926c8c10c8362df4975367101f67d1cf9bccbf2f3d239534fa509e70aac851ae01aac68d62f866472660"},
}

func TestRFC4754(t *testing.T) {
	var keys []*ecdsa.PublicKey
	for _, v := range vectors4754 {
		key, err := ecdsa.ParseUncompressedPublicKey(v.curve, append([]byte{4}, unhex(v.public)...))
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
	}
	for i, v := range vectors4754 {
		data := unhex(v.data)
		if err := verifyAuth(keys[i], message.Auth{Method: v.method, Data: data}, []byte("abc")); err != nil {
			t.Errorf("method %d: %v", v.method, err)
		}
		mustSay(t, verifyAuth(keys[i], message.Auth{Method: v.method, Data: data}, []byte("abd")), "wrong")
		mustSay(t, verifyAuth(keys[i], message.Auth{Method: v.method, Data: data[1:]}, []byte("abc")), "bytes")
		mustSay(t, verifyAuth(keys[i], message.Auth{Method: v.method, Data: make([]byte, len(data))}, []byte("abc")), "wrong")
		for j, other := range keys {
			if j != i {
				mustSay(t, verifyAuth(other, message.Auth{Method: v.method, Data: data}, []byte("abc")), "method")
			}
		}
	}
}

// TestSignRFC4754 lets openssl judge r and s, in the form that it knows.
func TestSignRFC4754(t *testing.T) {
	w := newWorkshop(t)
	octets := []byte("octets")
	for _, c := range signatures {
		if c.refused != "" || c.kind[0] != 'p' || c.name == "ecdsa-512-p256" || c.algorithm.scheme != schemeECDSA {
			continue
		}
		key := w.haveKey(c.kind)
		for range 2 {
			a, err := signRFC4754(key, octets)
			if err != nil {
				t.Fatal(err)
			}
			if err := verifyAuth(key.Public(), a, octets); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			der, err := derECDSA(a.Data)
			if err != nil {
				t.Fatal(err)
			}
			w.judge(c, octets, der)
		}
	}
}

// TestRawECDSA has signatures that do not fit, which no signer makes.
func TestRawECDSA(t *testing.T) {
	for _, der := range []string{"", tlv(0x30), tlv(0x30, integer(1)), tlv(0x30, integer(0), integer(1)), tlv(0x30, integer(1), integer(1), integer(1)),
		tlv(0x30, integer(1), integer(1)) + "\x00", tlv(0x30, tlv(2, strings.Repeat("\x7f", 33)), integer(1)), tlv(0x30, tlv(2, "\xff"), integer(1))} {
		if raw, err := rawECDSA([]byte(der), 32); err == nil {
			t.Errorf("%x: %x", der, raw)
		}
	}
	raw, err := rawECDSA([]byte(tlv(0x30, integer(1), integer(0x102))), 4)
	if err != nil || string(raw) != "\x00\x00\x00\x01\x00\x00\x01\x02" {
		t.Errorf("%x, %v", raw, err)
	}
}

// TestKeysRefused has keys that nothing is done with.
func TestKeysRefused(t *testing.T) {
	w := newWorkshop(t)
	for kind, say := range map[string]string{"rsa1024": "1024 bits"} {
		key := w.haveKey(kind)
		mustSay(t, checkKey(key.Public()), say)
	}
	mustSay(t, checkKey(nil), "unknown kind")
	key, _ := pem.Decode(w.run(nil, "openssl", append([]string{"genpkey"}, kinds["ed448"]...)...))
	_, err := parseKey(key)
	mustSay(t, err, "unknown kind")
}
