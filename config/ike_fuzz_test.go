package config

import (
	"strings"
	"testing"
)

// FuzzIKEWords: identities, proposals and durations, without the YAML around them.
func FuzzIKEWords(f *testing.F) {
	for _, s := range []string{
		"192.0.2.7", "2001:db8::7", "::ffff:192.0.2.7", "fe80::1%eth0", "edge.example.net", "@edge", "user@example.net", "@#0a0b", "keyid:x", "fqdn:a", "CN=a, O=b", "%any", "=,", "@", "@#",
		"aes256gcm16-prfsha384-ecp384-ke1_mlkem768", "aes128-sha256-x25519-esn-noesn", "null-sha1", "aes256-aes128-sha1-sha256-modp1536", "-", "ke7_mlkem1024", "chacha20poly1305-ecp256",
		"30s", "1d12h", "1.5h", "-1h", "65535d23h", "d",
	} {
		f.Add(s, true)
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, s string, child bool) {
		if id, err := comparableIdentity(s); (id == "") == (err == nil) || err != nil && strings.ContainsAny(err.Error(), "\n\r") {
			t.Errorf("%q: %q, %v", s, id, err)
		}
		if life, err := parseDuration(s); err == nil && strings.Contains(s, "d") && life < 0 {
			t.Errorf("%q: %v", s, life)
		}
		d := &decoder{where: map[string]position{}}
		i := &IPsec{ReplayWindow: 1, AllowNull: true, IKE: &IKE{AllowWeak: true, ChildProposals: []string{s}}}
		p := proposal{value: value{d: d}, child: child, text: s}
		if p.read() {
			p.check()
			p.permitted(i)
		}
		for _, e := range d.errs {
			if strings.ContainsAny(e.Message, "\n\r") || e.Message == "" {
				t.Errorf("%q: %q", s, e.Message)
			}
		}
		// what is accepted for packets chooses each of its ciphers with each of its hashes
		ciphers, hashes := len(p.of(encryptionWord)), max(len(p.of(integrityWord)), 1)
		if n := len(i.childEncryptions()); child && len(d.errs) == 0 && n != ciphers*hashes {
			t.Errorf("%q: %d encryptions of %d ciphers and %d hashes", s, n, ciphers, hashes)
		}
	})
}
