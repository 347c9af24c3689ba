package node

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"causeway/config"
	"causeway/control/ike/auth"
	"causeway/control/ike/suite"
)

// proposalWords are all words that packages config and suite know, and some that neither does.
var proposalWords = append([]string{
	"aes256gcm16", "aes128gcm16", "chacha20poly1305", "aes256", "aes128", "null", "sha1", "sha256", "sha384", "sha512", "prfsha1", "prfsha256", "prfsha384",
	"prfsha512", "modp1536", "modp2048", "modp3072", "modp4096", "ecp256", "ecp384", "ecp521", "x25519", "esn", "noesn",
}, "aes192", "AES256", "curve25519", "mlkem768", "ke1_x25519", "ke0_mlkem768", "ke8_mlkem768", "none")

// likelyWords are a group of words that make a proposal together, to which others are added.
var likelyWords = []string{"aes256gcm16-prfsha384-ecp384", "aes256gcm16", "aes128gcm16-x25519", "aes128-sha256-modp2048", "aes256-sha1", "null-sha256", ""}

// TestProposalsOfConfigAndSuite: package config checks the words of a proposal, package suite makes a proposal of them. They accept the same.
func TestProposalsOfConfigAndSuite(t *testing.T) {
	words := slices.Clone(proposalWords)
	for n := '1'; n <= '7'; n++ {
		words = append(words, "ke"+string(n)+"_mlkem768", "ke"+string(n)+"_mlkem1024")
	}
	accepted := 0
	rapid.Check(t, func(t *rapid.T) {
		list := strings.FieldsFunc(rapid.SampledFrom(likelyWords).Draw(t, "begins"), func(r rune) bool { return r == '-' })
		list = append(list, rapid.SliceOfN(rapid.SampledFrom(words), 0, 4).Draw(t, "words")...)
		text := strings.Join(list, "-")
		weak, null, child := rapid.Bool().Draw(t, "weak"), rapid.Bool().Draw(t, "null"), rapid.Bool().Draw(t, "child")
		if text == "" {
			return
		}
		field := "proposals"
		if child {
			field = "child_proposals"
		}
		_, inConfig := config.Parse("test.yaml", []byte(head+fmt.Sprintf("tunnels:\n  - {name: t, type: ipsec, endpoint: 192.0.2.1, customer_endpoint: 198.51.100.2, "+
			"interface_address: 10.0.0.1/31, allow_null_cipher: %v, ike: {psk: 0123456789abcdef, allow_weak: %v, %s: [%s]}}\n", null, weak, field, text)))
		var inSuite error
		if child {
			_, inSuite = suite.ParseESP(text, weak, null)
		} else {
			_, inSuite = suite.ParseIKE(text, weak)
		}
		if (inConfig == nil) != (inSuite == nil) {
			t.Errorf("%s (child %v, weak %v, null %v):\nconfig: %v\nsuite: %v", text, child, weak, null, inConfig, inSuite)
		}
		if inConfig == nil {
			accepted++
		}
	})
	if accepted == 0 {
		t.Error("no proposal was accepted")
	}
}

// TestEveryWordOfSuite: what is offered where nothing is configured can also be configured.
func TestEveryWordOfSuite(t *testing.T) {
	for _, weak := range []bool{false, true} {
		var ike, child []string
		for _, p := range suite.DefaultIKE(weak) {
			ike = append(ike, suite.Words(p))
		}
		for _, p := range suite.DefaultESP(weak, weak) {
			child = append(child, suite.Words(p))
		}
		c := parse(t, head+fmt.Sprintf("tunnels:\n  - {name: t, type: ipsec, endpoint: 192.0.2.1, customer_endpoint: 198.51.100.2, interface_address: 10.0.0.1/31, "+
			"allow_null_cipher: %v, ike: {psk: 0123456789abcdef, allow_weak: %v, proposals: [%s], child_proposals: [%s]}}\n",
			weak, weak, strings.Join(ike, ", "), strings.Join(child, ", ")))
		tunnels, _, err := ikeTunnels(c)
		if err != nil || len(tunnels) != 1 || len(tunnels[0].Proposals) != len(ike) || len(tunnels[0].ChildProposals) != len(child) {
			t.Fatalf("%d tunnels, %v", len(tunnels), err)
		}
		for i, p := range tunnels[0].Proposals {
			if suite.Words(p) != ike[i] {
				t.Errorf("%s became %s", ike[i], suite.Words(p))
			}
		}
		for i, p := range tunnels[0].ChildProposals {
			if suite.Words(p) != child[i] {
				t.Errorf("%s became %s", child[i], suite.Words(p))
			}
		}
	}
}

// TestIdentitiesOfTheFile: what config takes for an identity auth takes too, and both say of the same ones that they are equal.
func TestIdentitiesOfTheFile(t *testing.T) {
	identities := []string{"edge.example.net", "EDGE.example.net", "edge", "192.0.2.7", "2001:db8::7", "2001:DB8:0::7", "user@example.net", "User@Example.net",
		"ä@example.net", "@edge.example.net", "fqdn:edge.example.net", "fqdn:192.0.2.7", "@#616263", "keyid:abc", "keyid:#616263", "keyid:ABC", "@#", "a b", "*",
		"CN=edge", "cn = EDGE", "C=CH, O=Example  AG, CN=edge", "c=ch,o=example ag,cn=Edge", "E=a@b.c", "email=a@b.c", "emailAddress=a@b.c", "SN=x", "serialNumber=x",
		"GN=x", "T=x", "UID=x", "DC=net, DC=example", "STREET=x", "CN=", "=x", "CN=*", "X=y", "192.0.2.7%eth0", "::ffff:192.0.2.7", "mail:x@y.z", "%any"}
	equal := map[string]string{}
	for _, s := range identities {
		c, err := config.Parse("x.yaml", []byte(head+fmt.Sprintf("tunnels:\n  - {name: t, type: ipsec, endpoint: 192.0.2.1, customer_endpoint: 198.51.100.2, "+
			"interface_address: 10.0.0.1/31, ike: {psk: 0123456789abcdef, remote_id: %q}}\n", s)))
		if err != nil {
			continue
		}
		tunnels, _, err := ikeTunnels(c)
		if err != nil {
			t.Errorf("config takes %q, and auth does not: %v", s, err)
			continue
		}
		equal[s] = auth.Comparable(tunnels[0].RemoteID)
	}
	for a := range equal {
		for b := range equal {
			if a == b {
				continue
			}
			_, err := config.Parse("x.yaml", []byte(head+fmt.Sprintf("tunnels:\n"+
				"  - {name: t, type: ipsec, endpoint: 192.0.2.1, interface_address: 10.0.0.1/31, ike: {psk: 0123456789abcdef, remote_id: %q}}\n"+
				"  - {name: u, type: ipsec, endpoint: 192.0.2.1, interface_address: 10.0.0.3/31, ike: {psk: 0123456789abcdef, remote_id: %q}}\n", a, b)))
			if same := equal[a] == equal[b]; same != (err != nil) {
				t.Errorf("%q and %q: auth says that they are the same: %v; config says %v", a, b, same, err)
			}
		}
	}
}

// TestFaultsOfCertificates: each has the place of its field in the file; one that has expired is a warning, because the other tunnels
// have nothing to do with it.
func TestFaultsOfCertificates(t *testing.T) {
	dir := t.TempDir()
	file := func(name, kind string, der []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, until := range map[string]time.Duration{"good": time.Hour, "old": -time.Hour} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		x := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{"edge.example.net"}, IsCA: true,
			BasicConstraintsValid: true, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(until)}
		der, err := x509.CreateCertificate(rand.Reader, x, x, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		private, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		file(name+".pem", "CERTIFICATE", der)
		file(name+".key", "PRIVATE KEY", private)
	}
	for _, x := range []struct{ certificate, key, ca, id, fault, warning string }{
		{"good.pem", "good.key", "good.pem", "edge.example.net", "", ""},
		{"good.pem", "good.key", "good.pem", "another.example.net", `ike.local_id: certificate "CN=good" is not that of another.example.net`, ""},
		{"none.pem", "good.key", "good.pem", "edge.example.net", "ike.certificate: ", ""},
		{"good.pem", "none.key", "good.pem", "edge.example.net", "ike.key: ", ""},
		{"good.pem", "old.key", "good.pem", "edge.example.net", "ike.key: the private key in ", ""},
		{"good.pem", "good.key", "good.key", "edge.example.net", "ike.ca: ", ""},
		{"old.pem", "old.key", "good.pem", "edge.example.net", "", `ike.certificate: certificate "CN=old" was valid until`},
	} {
		c, err := config.Parse("x.yaml", fmt.Appendf([]byte(head), "tunnels:\n  - {name: t, type: ipsec, endpoint: 192.0.2.1, interface_address: 10.0.0.1/31,\n"+
			"    ike: {certificate: %s/%s, key: %[1]s/%[3]s, ca: %[1]s/%[4]s, local_id: %[5]s, remote_id: cust.example.net}}\n", dir, x.certificate, x.key, x.ca, x.id))
		var warnings []config.Warning
		if err == nil { // some are found without looking into the files
			warnings, err = CheckIKE(c)
		}
		if (err == nil) != (x.fault == "") || err != nil && (!strings.Contains(err.Error(), x.fault) || !strings.HasPrefix(err.Error(), "x.yaml:")) {
			t.Errorf("%+v: %v", x, err)
		}
		if len(warnings) > 1 || (len(warnings) == 0) != (x.warning == "") || len(warnings) > 0 && !strings.Contains(fmt.Sprint(warnings[0]), x.warning) {
			t.Errorf("%+v: %v", x, warnings)
		}
	}
}
