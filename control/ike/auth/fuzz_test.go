package auth

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"testing"
	"time"
	"unicode/utf8"

	"causeway/control/ike/message"
)

// FuzzParseID asks that what is accepted is bounded, can be shown, and that a distinguished name is one to encoding/asn1 too.
func FuzzParseID(f *testing.F) {
	for _, text := range []string{"", "192.0.2.1", "2001:db8::1", "fe80::1%1", "edge.example.net", "@edge", "fqdn:edge", "noc@example.net", "@#00ff", "keyid:x",
		"keyid:#00", "asn1dn:#3000", "%any", "C=DE, O=Example, CN=edge", "/C=DE/O=a, b/CN=edge", "CN=\u00e4", "E=a@b", "CN=a+OU=b", "CN=,", "=", "/=", "DC=net,DC=example"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		id, err := ParseID(text)
		if err != nil {
			if id.Type == message.IDDN && id.Data != nil {
				t.Fatalf("%q: an error and an identity", text)
			}
			return
		}
		if len(id.Data) == 0 || len(id.Data) > maxDN {
			t.Fatalf("%q: %d bytes", text, len(id.Data))
		}
		if shown := idText(id); !utf8.ValidString(shown) || shown == "" {
			t.Fatalf("%q is shown as %q", text, shown)
		}
		if !SameID(id, id) {
			t.Fatalf("%q is not itself", text)
		}
		if id.Type == message.IDDN {
			var name pkix.RDNSequence
			if rest, err := asn1.Unmarshal(id.Data, &name); err != nil || len(rest) > 0 {
				t.Fatalf("%q is %x: %v", text, id.Data, err)
			}
		}
	})
}

// slowDN is a name in DER for encoding/asn1.
type slowDN []slowRDNSET

type slowRDNSET []slowAttribute // encoding/asn1 knows a set by its type's name

type slowAttribute struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
}

// FuzzDN offers bytes of a peer as a name, and compares what is accepted with encoding/asn1.
func FuzzDN(f *testing.F) {
	for _, text := range []string{"C=DE, O=Example, CN=edge", "CN=\u00e4, E=a@b, DC=x", "OU=a, OU=b"} {
		f.Add(mustID(f, text).Data)
	}
	for _, der := range []string{"3000", "30023100", "300f310d300b06035504031e0400650064", "300f310d300b06035504031e04d8000064", "300c310a30080603550403140161",
		"3016311430080603550403130161300806035504" + "0b130162", "300f310d300b0603550403040400010203"} {
		f.Add(unhex(der))
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		folded, err := foldDN(der)
		dnText(der)
		id := message.ID{Type: message.IDDN, Data: der}
		if !SameID(id, id) {
			t.Fatalf("%x is not itself", der)
		}
		if err != nil {
			return
		}
		rdns, _ := readDN(der)
		var slow slowDN
		rest, err := asn1.Unmarshal(der, &slow)
		if err != nil || len(rest) > 0 || len(slow) != len(rdns) {
			t.Fatalf("%x is accepted as %q, encoding/asn1 says %v, %d of %d parts", der, folded, err, len(slow), len(rdns))
		}
		for i, rdn := range rdns {
			for j, a := range rdn {
				if s := slow[i][j]; !s.Type.Equal(a.oid) || string(s.Value.Bytes) != string(a.value) {
					t.Fatalf("%x: attribute %d.%d is %v %x, encoding/asn1 says %v %x", der, i, j, a.oid, a.value, s.Type, s.Value.Bytes)
				}
			}
		}
	})
}

// FuzzParseAlgorithm accepts exactly what the oracle lists.
func FuzzParseAlgorithm(f *testing.F) {
	all := everyAlgorithm()
	n := 0
	for der := range all {
		if n++; n%500 == 1 || len(der) < 30 {
			f.Add([]byte(der))
		}
	}
	f.Add([]byte(tlv(0x30, pss)))
	f.Add([]byte(tlv(0x30, pss, tlv(0x30))))
	f.Fuzz(func(t *testing.T, der []byte) {
		got, err := parseAlgorithm(der)
		want, known := all[string(der)]
		if (err == nil) != known || got != want {
			t.Fatalf("%x: %+v, %v; want %+v", der, got, err, want)
		}
	})
}

// FuzzVerify offers a certificate and a proof of a stranger to a trust that believes another.
func FuzzVerify(f *testing.F) {
	w := newWorkshop(f)
	w.authority("ca")
	w.authority("stranger")
	w.issue("edge", "p256", "stranger", edge)
	trust, id := w.trust("ca"), mustID(f, "edge.example.net")
	a, err := w.load("edge").Sign([]byte("octets"), []uint16{hashSHA256}, true)
	if err != nil {
		f.Fatal(err)
	}
	certs := w.certs("edge", "stranger")
	f.Add(certs[0].Data, certs[1].Data, uint8(a.Method), a.Data)
	f.Add([]byte{}, []byte{}, uint8(message.AuthECDSA256), make([]byte, 64))
	now := time.Now()
	f.Fuzz(func(t *testing.T, leaf, authority []byte, method uint8, data []byte) {
		certs := []message.Cert{{Encoding: message.CertX509, Data: leaf}, {Encoding: message.CertX509, Data: authority}}
		a := message.Auth{Method: message.AuthMethod(method), Data: data}
		if trust.Verify(certs, id, a, []byte("octets"), now) == nil {
			t.Fatal("a stranger is believed")
		}
		if chain, err := parseChain(certs); err == nil {
			_ = verifyAuth(chain[0].PublicKey, a, []byte("octets"))
		}
	})
}

// FuzzParseHashAlgorithms keeps the numbers.
func FuzzParseHashAlgorithms(f *testing.F) {
	f.Add(HashAlgorithms())
	f.Add([]byte{0})
	f.Fuzz(func(t *testing.T, b []byte) {
		hashes, err := ParseHashAlgorithms(b)
		if err == nil && 2*len(hashes) != len(b) || len(hashes) > maxHashes {
			t.Fatalf("%x: %v", b, hashes)
		}
	})
}
