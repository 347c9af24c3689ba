package auth

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"

	"causeway/control/ike/message"
)

// TestVerifyRefuses has a peer for each way in which a certificate may be wrong. All are signed by its key.
func TestVerifyRefuses(t *testing.T) {
	w := newWorkshop(t)
	w.authority("ca")
	w.authority("stranger")
	middle := sheet{subject: "/O=Example/CN=middle", extensions: authorityExtensions, days: "30"}
	w.issue("middle", "p256", "ca", middle)
	w.issue("version1", "p256", "ca", sheet{subject: "/O=Example/CN=version1"})
	w.issue("leafca", "p256", "ca", sheet{subject: "/O=Example/CN=leafca", extensions: "keyUsage=digitalSignature\nbasicConstraints=CA:FALSE\n"})
	w.issue("nosign", "p256", "ca", sheet{subject: "/O=Example/CN=nosign", extensions: "keyUsage=cRLSign\nbasicConstraints=critical,CA:TRUE\n"})
	w.issue("short", "p256", "ca", sheet{subject: "/O=Example/CN=short", extensions: "keyUsage=keyCertSign\nbasicConstraints=critical,CA:TRUE,pathlen:0\n"})
	w.issue("deep", "p256", "short", sheet{subject: "/O=Example/CN=deep", extensions: authorityExtensions})
	w.issue("limited", "p256", "ca", sheet{subject: "/O=Example/CN=limited", extensions: authorityExtensions + "nameConstraints=critical,permitted;DNS:example.org\n"})
	w.issue("good", "p256", "ca", edge)
	w.issue("bymiddle", "p256", "middle", edge)
	for _, issuer := range []string{"version1", "leafca", "nosign", "deep", "limited", "stranger"} {
		w.issue("by"+issuer, "p256", issuer, edge)
	}
	w.issue("sha1", "p256", "ca", sheet{subject: edge.subject, extensions: edge.extensions, options: []string{"-sha1"}})
	w.issue("encipher", "p256", "ca", sheet{subject: edge.subject, extensions: edgeNames + "keyUsage=keyEncipherment,keyAgreement\n"})
	w.issue("code", "p256", "ca", sheet{subject: edge.subject, extensions: edgeNames + "extendedKeyUsage=codeSigning,emailProtection,1.3.6.1.5.5.7.3.5\n"})
	w.issue("critical", "p256", "ca", sheet{subject: edge.subject, extensions: edgeNames + "1.2.3.4=critical,ASN1:NULL\n"})
	w.issue("rsa1024", "rsa1024", "ca", edge)
	w.issue("p224", "p224", "ca", edge)

	if v := w.parse("version1").Version; v != 1 {
		t.Fatalf("openssl made a certificate of version %d where 1 is wanted", v)
	}
	trust, now, octets := w.trust("ca"), time.Now(), []byte("octets")
	weeks := func(n int) time.Time { return now.AddDate(0, 0, 7*n) }
	for _, c := range []struct {
		name  string
		certs []string
		id    string
		now   time.Time
		say   []string // none: it is accepted
	}{
		{"good", []string{"good"}, "edge.example.net", now, nil},
		{"good with its root", []string{"good", "ca"}, "edge.example.net", now, nil},
		{"good with what it does not need", []string{"good", "stranger", "version1", "bymiddle"}, "edge.example.net", now, nil},
		{"intermediate", []string{"bymiddle", "middle"}, "edge.example.net", now, nil},
		{"intermediate behind another", []string{"bymiddle", "stranger", "middle"}, "edge.example.net", now, nil},
		{"intermediate missing", []string{"bymiddle"}, "edge.example.net", now, []string{"CN=edge", "CN=middle", "CN=ca"}},
		{"intermediate expired", []string{"bymiddle", "middle"}, "edge.example.net", weeks(5), []string{"CN=middle", "was valid until"}},
		{"expired", []string{"good"}, "edge.example.net", weeks(60), []string{"CN=edge", "was valid until", w.parse("good").NotAfter.UTC().Format(time.RFC3339)}},
		{"not yet valid", []string{"good"}, "edge.example.net", weeks(-1), []string{"CN=edge", "is not valid before", w.parse("good").NotBefore.UTC().Format(time.RFC3339)}},
		{"another authority", []string{"bystranger"}, "edge.example.net", now, []string{"CN=stranger", "CN=ca"}},
		{"another authority sent along", []string{"bystranger", "stranger"}, "edge.example.net", now, []string{"CN=stranger", "CN=ca"}},
		{"issued by version 1", []string{"byversion1", "version1"}, "edge.example.net", now, []string{"does not lead"}},
		{"issued by no authority", []string{"byleafca", "leafca"}, "edge.example.net", now, []string{"does not lead"}},
		{"issued by one that may not certify", []string{"bynosign", "nosign"}, "edge.example.net", now, []string{"does not lead"}},
		{"issued too deep", []string{"bydeep", "deep", "short"}, "edge.example.net", now, []string{"CN=short"}},
		{"issued outside the names permitted", []string{"bylimited", "limited"}, "edge.example.net", now, []string{"cannot be believed"}},
		{"issued with SHA-1", []string{"sha1"}, "edge.example.net", now, []string{"SHA1"}},
		{"for encryption", []string{"encipher"}, "edge.example.net", now, []string{"CN=edge", "not for signatures"}},
		{"for code", []string{"code"}, "edge.example.net", now, []string{"CN=edge", "not for IKE"}},
		{"with an unknown critical extension", []string{"critical"}, "edge.example.net", now, []string{"critical"}},
		{"with a short key", []string{"rsa1024"}, "edge.example.net", now, []string{"1024 bits"}},
		{"with a short curve", []string{"p224"}, "edge.example.net", now, []string{"P-224"}},
		{"with a short key in the chain", []string{"good", "rsa1024"}, "edge.example.net", now, []string{"1024 bits"}},
		{"another name", []string{"good"}, "other.example.net", now, []string{"other.example.net", "edge.example.net"}},
		{"another DN", []string{"good"}, "C=DE, O=Example, CN=other", now, []string{"CN=other", "CN=edge"}},
		{"a key ID", []string{"good"}, "keyid:edge.example.net", now, []string{"KEY_ID"}},
		{"too many", strings.Split(strings.Repeat("good,", maxChain)+"good", ","), "edge.example.net", now, []string{"8 at most"}},
		{"none", nil, "edge.example.net", now, []string{"no X.509"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := &workshop{t, w.dir}
			var a message.Auth
			if len(c.certs) > 0 {
				key, err := readKey(w.path(c.certs[0] + ".key"))
				if err != nil {
					t.Fatal(err)
				}
				if checkKey(key.Public()) == nil {
					if a, err = signRFC7427(key, octets, []uint16{hashSHA256}); err != nil {
						t.Fatal(err)
					}
				}
			}
			err := trust.Verify(w.certs(c.certs...), mustID(t, c.id), a, octets, c.now)
			if c.say == nil {
				if err != nil {
					t.Error(err)
				}
				return
			}
			mustSay(t, err, c.say...)
		})
	}
}

// TestVerifyProof has the right certificate, and not its key.
func TestVerifyProof(t *testing.T) {
	w := newWorkshop(t)
	w.authority("ca")
	w.issue("edge", "p256", "ca", edge)
	w.issue("other", "p256", "ca", edge)
	trust, id, octets := w.trust("ca"), mustID(t, "edge.example.net"), []byte("octets")
	sign := func(name string) message.Auth {
		a, err := w.load(name).Sign(octets, []uint16{2}, true)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	verify := func(certs []message.Cert, a message.Auth) error {
		return trust.Verify(certs, id, a, octets, time.Now())
	}
	if err := verify(w.certs("edge"), sign("edge")); err != nil {
		t.Error(err)
	}
	mustSay(t, verify(w.certs("edge"), sign("other")), "another key")
	mustSay(t, verify(w.certs("edge"), message.Auth{Method: message.AuthSharedKey, Data: make([]byte, 32)}), "shared key")
	mustSay(t, verify(w.certs("edge"), message.Auth{Method: 13}), "method 13")
	mustSay(t, verify(w.certs("edge"), message.Auth{Method: message.AuthRSA, Data: make([]byte, 256)}), "SHA-1")
	mustSay(t, (*Trust)(nil).Verify(w.certs("edge"), id, sign("edge"), octets, time.Now()), "no authority")

	der := w.certs("edge")[0].Data
	for name, certs := range map[string][]message.Cert{
		"of another encoding": {{Encoding: 12, Data: der}},
		"garbage":             {{Encoding: 4, Data: []byte("text")}},
		"empty":               {{Encoding: 4}},
		"with bytes behind":   {{Encoding: 4, Data: append(bytes.Clone(der), 0)}},
		"cut off":             {{Encoding: 4, Data: der[:len(der)-1]}},
		"huge":                {{Encoding: 4, Data: make([]byte, maxCertificate+1)}},
		"huge in the chain":   {{Encoding: 4, Data: der}, {Encoding: 4, Data: make([]byte, maxCertificate+1)}},
	} {
		if verify(certs, sign("edge")) == nil {
			t.Errorf("%s: is accepted", name)
		}
	}
	revocations := message.Cert{Encoding: 7, Data: []byte("a list of revocations")}
	if err := verify([]message.Cert{revocations, {Encoding: 4, Data: der}}, sign("edge")); err != nil {
		t.Errorf("beside a payload of another encoding: %v", err)
	}
}

// TestIntermediatesBounded has a stranger who wants to see us try out all orders of authorities that could all have signed
// each other.
func TestIntermediatesBounded(t *testing.T) {
	w := newWorkshop(t)
	w.authority("ca")
	w.issue("same", "p521", "ca", sheet{subject: "/CN=same", extensions: authorityExtensions})
	var chain []*x509.Certificate
	for i := range maxChain - 1 {
		w.issue("same", "p521", "same", sheet{subject: "/CN=same", extensions: fmt.Sprintf("%ssubjectAltName=DNS:%d.example.net\n", authorityExtensions, i)})
		chain = append(chain, w.parse("same"))
	}
	w.issue("middle", "p256", "ca", sheet{subject: "/CN=middle", extensions: authorityExtensions})
	w.issue("leaf", "p256", "ca", edge)
	chain = append(chain, w.parse("middle"), w.parse("leaf"))
	got := intermediates(chain)
	if len(got) != maxAlike+1 || !got[maxAlike].Equal(w.parse("middle")) {
		t.Errorf("%d of %d are tried", len(got), len(chain))
	}
}

// TestUsages has the extended key usages that routers are given.
func TestUsages(t *testing.T) {
	w := newWorkshop(t)
	w.authority("ca")
	for i, extensions := range []string{"basicConstraints=CA:FALSE", "keyUsage=nonRepudiation", "keyUsage=critical,digitalSignature,keyEncipherment", "extendedKeyUsage=anyExtendedKeyUsage",
		"extendedKeyUsage=clientAuth", "extendedKeyUsage=serverAuth,codeSigning", "extendedKeyUsage=codeSigning,1.3.6.1.5.5.8.2.2", "extendedKeyUsage=critical,1.3.6.1.5.5.7.3.17"} {
		w.issue("p256", "p256", "ca", sheet{subject: "/CN=edge", extensions: extensions + "\n"})
		c := w.load("p256")
		a, err := c.Sign([]byte("octets"), []uint16{2}, true)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.trust("ca").Verify(c.Certs(), mustID(t, "CN=edge"), a, []byte("octets"), time.Now()); err != nil {
			t.Errorf("%d, %s: %v", i, extensions, err)
		}
	}
}

func TestLoadTrust(t *testing.T) {
	w := newWorkshop(t)
	w.authority("ca")
	w.authority("other")
	w.issue("edge", "p256", "ca", edge)
	w.issue("version1", "p256", "ca", sheet{subject: "/CN=version1"})
	w.issue("rsa1024", "rsa1024", "ca", sheet{subject: "/CN=weak", extensions: authorityExtensions})
	w.write("two.pem", append(w.read("ca.pem"), w.read("other.pem")...))
	w.write("reversed.pem", append(append(w.read("other.pem"), w.read("ca.pem")...), w.read("other.pem")...))
	w.write("many.pem", bytes.Repeat(w.read("ca.pem"), maxAuthorities+1))
	w.write("empty.pem", []byte("text"))
	w.write("garbage.pem", append(w.read("ca.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("text")})...))
	for name, say := range map[string]string{"edge": "no authority", "version1": "no authority", "rsa1024": "1024 bits", "many": "more than 32",
		"empty": "no certificate", "garbage": "certificate 2", "absent": "no such file"} {
		_, err := LoadTrust(w.path(name + ".pem"))
		mustSay(t, err, say)
	}
	two := w.trust("two")
	if !two.Equal(w.trust("reversed")) || two.Equal(w.trust("ca")) || two.Equal(nil) || !(*Trust)(nil).Equal(nil) {
		t.Error("Equal does not compare the authorities")
	}
}

// TestRequests compares the hashes of keys with openssl's.
func TestRequests(t *testing.T) {
	w := newWorkshop(t)
	w.authority("ca")
	w.authority("other")
	w.write("two.pem", append(w.read("ca.pem"), w.read("other.pem")...))
	want := map[string]bool{}
	for _, name := range []string{"ca", "other"} {
		public := w.run(w.run(w.read(name+".pem"), "openssl", "x509", "-noout", "-pubkey"), "openssl", "pkey", "-pubin", "-outform", "DER")
		want[fmt.Sprintf("%x", w.run(public, "openssl", "dgst", "-sha1", "-binary"))] = true
	}
	requests := w.trust("two").Requests()
	for _, r := range requests {
		if r.Encoding != message.CertX509 || !want[fmt.Sprintf("%x", r.Authorities)] {
			t.Errorf("%+v is not one of %v", r, want)
		}
		delete(want, fmt.Sprintf("%x", r.Authorities))
	}
	if len(want) != 0 {
		t.Errorf("%v are not asked for", want)
	}
}
