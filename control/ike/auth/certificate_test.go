package auth

import (
	"encoding/pem"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"causeway/control/ike/message"
)

// TestCertificates goes the whole way with each kind of key: issued by openssl, loaded, signed with, verified.
func TestCertificates(t *testing.T) {
	w := newWorkshop(t)
	w.authority("ca")
	octets, peers := []byte("octets"), []uint16{2, 3, 4, 5}
	for _, kind := range []string{"rsa", "p256", "p384", "p521", "ed25519"} {
		w.issue(kind, kind, "ca", edge)
		c := w.load(kind)
		for _, id := range []string{"edge.example.net", "noc@example.net", "192.0.2.1", "2001:db8::1", "C=DE, O=Example, CN=edge"} {
			if err := c.Matches(mustID(t, id)); err != nil {
				t.Errorf("%s: %v", kind, err)
			}
			a, err := c.Sign(octets, peers, true)
			if err != nil {
				t.Fatal(err)
			}
			if err := w.trust("ca").Verify(c.Certs(), mustID(t, id), a, octets, time.Now()); err != nil {
				t.Errorf("%s as %s: %v", kind, id, err)
			}
		}
		a, err := c.Sign(octets, nil, false)
		if kind[0] != 'p' {
			mustSay(t, err, "RFC 7427", "CN=edge")
		} else if err = w.trust("ca").Verify(c.Certs(), mustID(t, "192.0.2.1"), a, octets, time.Now()); err != nil {
			t.Errorf("%s with RFC 4754: %v", kind, err)
		}
	}
}

// TestCertificatesOfStrongSwan has a chain of strongSwan's pki, signed with RSA-PSS at the top.
func TestCertificatesOfStrongSwan(t *testing.T) {
	w := newWorkshop(t)
	pki := func(file string, args ...string) {
		w.write(file, w.run(nil, "pki", append(args, "--outform", "pem")...))
	}
	w.haveKey("rsa")
	pki("ca.pem", "--self", "--in", "rsa.key", "--ca", "--dn", "C=CH, O=strongSwan, CN=ca", "--rsa-padding", "pss", "--digest", "sha384")
	w.key("middle", "p384")
	pki("middle.pem", "--issue", "--cacert", "ca.pem", "--cakey", "rsa.key", "--rsa-padding", "pss", "--in", "middle.key", "--type", "priv", "--ca", "--dn", "C=CH, CN=middle")
	w.key("swan", "ed25519")
	pki("swan.pem", "--issue", "--cacert", "middle.pem", "--cakey", "middle.key", "--in", "swan.key", "--type", "priv", "--dn", "C=CH, O=strongSwan, CN=cust",
		"--san", "cust.example.net", "--san", "192.0.2.7", "--san", "noc@example.net", "--flag", "serverAuth", "--flag", "ikeIntermediate")
	w.write("chain.pem", append(w.read("swan.pem"), w.read("middle.pem")...))
	w.write("chain.key", w.read("swan.key"))
	c := w.load("chain")
	a, err := c.Sign([]byte("octets"), []uint16{hashIdentity}, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"C=CH, O=strongSwan, CN=cust", "cust.example.net", "192.0.2.7", "noc@example.net"} {
		if err := w.trust("ca").Verify(c.Certs(), mustID(t, id), a, []byte("octets"), time.Now()); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
}

// TestNamed has a subject as openssl encodes it, in UTF8Strings, where ParseID makes PrintableStrings.
func TestNamed(t *testing.T) {
	w := newWorkshop(t)
	w.authority("ca")
	w.issue("edge", "p256", "ca", edge)
	c, id := w.load("edge"), mustID(t, "c=de, o=example, cn=EDGE")
	named := c.Named(id)
	if string(named.Data) != string(w.parse("edge").RawSubject) || string(named.Data) == string(id.Data) || !SameID(named, id) {
		t.Errorf("%x is named %x", id.Data, named.Data)
	}
	for _, other := range []string{"edge.example.net", "C=DE, O=Example, CN=other"} {
		if id := mustID(t, other); !c.Named(id).Equal(id) {
			t.Errorf("%s is renamed to %v", other, c.Named(id))
		}
	}
}

// TestLoadChain has a file with an intermediate authority and a root behind the certificate.
func TestLoadChain(t *testing.T) {
	w := newWorkshop(t)
	w.authority("ca")
	w.issue("middle", "p256", "ca", sheet{subject: "/O=Example/CN=middle", extensions: authorityExtensions})
	w.issue("edge", "p256", "middle", edge)
	w.write("chain.pem", append(append(w.read("edge.pem"), w.read("middle.pem")...), w.read("ca.pem")...))
	w.write("chain.key", w.read("edge.key"))
	c := w.load("chain")
	if got, want := fmt.Sprint(c.Certs()), fmt.Sprint(w.certs("edge", "middle")); got != want {
		t.Error("the certificate and the intermediate authority are not what is sent")
	}
	if c.Equal(w.load("edge")) || !c.Equal(w.load("chain")) || c.Equal(nil) || !(*Certificate)(nil).Equal(nil) {
		t.Error("Equal does not look at the chain")
	}
	if err := c.Valid(time.Now()); err != nil {
		t.Error(err)
	}
	mustSay(t, c.Valid(time.Now().AddDate(2, 0, 0)), "CN=edge", "was valid until")
	mustSay(t, c.Valid(time.Now().AddDate(-1, 0, 0)), "CN=edge", "is not valid before")
}

func TestLoadCertificateRefuses(t *testing.T) {
	w := newWorkshop(t)
	w.authority("ca")
	w.issue("edge", "p256", "ca", edge)
	w.issue("other", "p256", "ca", edge)
	w.issue("usage", "p256", "ca", sheet{subject: "/CN=usage", extensions: "keyUsage=keyEncipherment\n"})
	w.issue("code", "p256", "ca", sheet{subject: "/CN=code", extensions: "extendedKeyUsage=codeSigning\n"})
	w.issue("rsa1024", "rsa1024", "ca", edge)
	w.issue("p224", "p224", "ca", edge)
	w.issue("ed448", "ed448", "ca", edge)
	w.run(nil, "openssl", "pkcs8", "-topk8", "-in", "edge.key", "-passout", "pass:secret", "-out", "pkcs8.key")
	w.run(nil, "openssl", "ec", "-in", "edge.key", "-aes128", "-passout", "pass:secret", "-out", "old.key")
	w.write("open.key", w.read("edge.key"))
	w.write("foreign.key", w.read("edge.key"))
	w.write("empty.key", nil)
	w.write("certificate.key", w.read("edge.pem"))
	w.write("garbage.key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("secret text")}))
	w.write("garbage.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("text")}))
	w.write("both.pem", append(w.read("edge.pem"), w.read("edge.key")...))
	w.write("cut.pem", append(w.read("edge.pem"), w.read("ca.pem")[:200]...))
	w.write("long.pem", []byte(strings.Repeat(string(w.read("edge.pem")), maxChain+1)))
	w.write("huge.pem", make([]byte, maxFile+1))
	w.write("reversed.pem", append(w.read("ca.pem"), w.read("edge.pem")...))
	for _, err := range []error{os.Chmod(w.path("open.key"), 0o640), os.Chown(w.path("foreign.key"), 65534, 65534), os.Mkdir(w.path("directory"), 0o700)} {
		if err != nil && os.Getuid() == 0 {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ cert, key, say string }{
		{"absent.pem", "edge.key", "absent.pem\": no such file"},
		{"edge.pem", "absent.key", "absent.key\": no such file"},
		{"directory", "edge.key", "not a file"},
		{"huge.pem", "edge.key", "1048576 at most"},
		{"edge.key", "edge.key", "PRIVATE KEY"},
		{"both.pem", "edge.key", "PRIVATE KEY"},
		{"empty.key", "edge.key", "no certificate in PEM"},
		{"garbage.pem", "edge.key", "certificate 1"},
		{"cut.pem", "edge.key", "does not end"},
		{"long.pem", "edge.key", "more than 8"},
		{"edge.pem", "open.key", "others may read the private key (0640)"},
		{"edge.pem", "foreign.key", "belongs to user 65534"},
		{"edge.pem", "empty.key", "no private key"},
		{"edge.pem", "garbage.key", "malformed"},
		{"edge.pem", "certificate.key", "no private key"},
		{"edge.pem", "pkcs8.key", "encrypted"},
		{"edge.pem", "old.key", "encrypted"},
		{"edge.pem", "other.key", "does not belong"},
		{"reversed.pem", "edge.key", "key usage"},
		{"usage.pem", "usage.key", "key usage"},
		{"code.pem", "code.key", "extended key usage"},
		{"rsa1024.pem", "rsa1024.key", "1024 bits"},
		{"p224.pem", "p224.key", "P-224"},
		{"ed448.pem", "ed448.key", "unknown kind"},
	} {
		if c.key == "foreign.key" && os.Getuid() != 0 {
			continue
		}
		_, err := LoadCertificate(w.path(c.cert), w.path(c.key))
		mustSay(t, err, c.say)
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("%v shows the key", err)
		}
	}
}

// TestLoadExpired has a certificate of strongSwan's pki, which takes dates.
func TestLoadExpired(t *testing.T) {
	w := newWorkshop(t)
	w.write("old.key", w.run(nil, "pki", "--gen", "--type", "ecdsa", "--size", "256", "--outform", "pem"))
	w.write("old.pem", w.run(nil, "pki", "--self", "--in", "old.key", "--type", "ecdsa", "--dn", "CN=old", "--outform", "pem",
		"--not-before", "01.01.20 00:00:00", "--not-after", "01.01.21 00:00:00"))
	c, err := LoadCertificate(w.path("old.pem"), w.path("old.key"))
	if err != nil {
		t.Fatalf("one that has expired keeps the node from starting: %v", err)
	}
	mustSay(t, c.Valid(time.Now()), "CN=old", "was valid until 20", "Z")
}

// TestKeyForms has all forms in which openssl writes a private key.
func TestKeyForms(t *testing.T) {
	w := newWorkshop(t)
	for _, kind := range []string{"rsa", "p256"} {
		key := w.haveKey(kind)
		program := map[string]string{"rsa": "rsa", "p256": "ec"}[kind]
		traditional := w.run(nil, "openssl", "pkey", "-in", kind+".key", "-traditional")
		if program == "ec" {
			traditional = append(w.run(nil, "openssl", "ecparam", "-name", "prime256v1"), traditional...)
		}
		w.write("traditional.key", traditional)
		again, err := readKey(w.path("traditional.key"))
		if err != nil {
			t.Errorf("%s: %v", kind, err)
			continue
		}
		if fmt.Sprint(again.Public()) != fmt.Sprint(key.Public()) {
			t.Errorf("%s: another key", kind)
		}
	}
}

// TestKeyHidden prints a certificate in all ways that a careless line of log may.
func TestKeyHidden(t *testing.T) {
	w := newWorkshop(t)
	w.authority("ca")
	w.issue("ed25519", "ed25519", "ca", edge)
	c := w.load("ed25519")
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		if got := fmt.Sprintf(verb, c); got != `certificate "C=DE, O=Example, CN=edge"` {
			t.Errorf("%s: %s", verb, got)
		}
	}
	if got := fmt.Sprint((*Certificate)(nil)); got != "no certificate" {
		t.Error(got)
	}
}

func TestMatches(t *testing.T) {
	w := newWorkshop(t)
	w.authority("ca")
	w.issue("edge", "p256", "ca", sheet{subject: "/C=DE/O=Example/CN=cn.example.net", extensions: "subjectAltName=DNS:edge.example.net,DNS:*.wild.example.net,email:noc@example.net,IP:192.0.2.1,IP:2001:db8::1,IP:::ffff:192.0.2.9,URI:urn:x\n"})
	w.issue("nobody", "p256", "ca", sheet{subject: "/", extensions: "subjectAltName=URI:urn:x\n"})
	c := w.load("edge")
	for text, same := range map[string]bool{
		"edge.example.net": true, "EDGE.example.net": true, "fqdn:192.0.2.1": false, "edge.example.net.": false, "cn.example.net": false,
		"a.wild.example.net": false, "noc@example.net": true, "abuse@example.net": false, "192.0.2.1": true, "192.0.2.9": false,
		"192.0.2.2": false, "2001:db8::1": true, "2001:db8::2": false, "C=DE, O=Example, CN=cn.example.net": true, "C=DE, O=Example": false,
		"O=Example, C=DE, CN=cn.example.net": false, "keyid:edge.example.net": false,
	} {
		err := c.Matches(mustID(t, text))
		if (err == nil) != same {
			t.Errorf("%s: %v", text, err)
		}
		if err != nil {
			mustSay(t, err, "edge.example.net", "noc@example.net", "192.0.2.1", "CN=cn.example.net")
		}
	}
	for name, id := range map[string]message.ID{
		"wildcard":         {Type: message.IDFQDN, Data: []byte("*.wild.example.net")},
		"empty name":       {Type: message.IDFQDN},
		"empty address":    {Type: message.IDIPv4},
		"long address":     {Type: message.IDIPv4, Data: unhex("20010db8000000000000000000000001")},
		"short address":    {Type: message.IDIPv6, Data: []byte{192, 0, 2, 1}},
		"mapped address":   {Type: message.IDIPv6, Data: unhex("00000000000000000000ffffc0000201")},
		"name behind zero": {Type: message.IDFQDN, Data: []byte("edge.example.net\x00.example.org")},
		"Kelvin sign":      {Type: message.IDFQDN, Data: []byte("edge.example.net\u212a")},
		"empty DN":         {Type: message.IDDN, Data: unhex("3000")},
		"malformed DN":     {Type: message.IDDN, Data: unhex("30")},
		"general name":     {Type: 10, Data: []byte("edge.example.net")},
		"type 0":           {},
	} {
		if c.Matches(id) == nil {
			t.Errorf("%s matches", name)
		}
		mustSay(t, w.load("nobody").Matches(id), "nobody")
	}
}
