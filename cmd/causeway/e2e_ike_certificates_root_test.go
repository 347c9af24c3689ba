package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// certificateKinds are the keys that certificates are made for, in the words of strongSwan's pki.
var certificateKinds = []struct{ name, kind, size string }{
	{"rsa", "rsa", "2048"},
	{"ecdsa256", "ecdsa", "256"},
	{"ecdsa384", "ecdsa", "384"},
	{"ecdsa521", "ecdsa", "521"},
	{"ed25519", "ed25519", ""},
}

// certificateVariants are each kind of certificate, and the types of identity that a certificate may bear.
func certificateVariants() []variant {
	var list []variant
	for _, k := range certificateKinds {
		list = append(list, variant{"cert-" + k.name, func(x *ikeTunnel) {
			x.credential, x.localID, x.remoteID = k.name, subject("node", k.name), subject("cust", k.name)
		}})
	}
	for _, id := range []struct{ name, local, remote string }{
		{"cert-fqdn", "node.example.net", "cust.example.net"},
		{"cert-rfc822", "node@example.net", "cust@example.net"},
		{"cert-ipv4", "10.9.8.1", "10.9.8.2"},
		{"cert-ipv6", "2001:db8:98::1", "2001:db8:98::2"},
	} {
		list = append(list, variant{id.name, func(x *ikeTunnel) {
			x.credential, x.localID, x.remoteID = "ecdsa256", id.local, id.remote
		}})
	}
	return list
}

func subject(who, kind string) string { return "C=CH, O=Example, CN=" + who + "-" + kind }

// makeCertificates makes an authority, and with each kind of key a certificate for the node and one for customers, in the
// layout of swanctl's directory. strongSwan's pki makes them.
func makeCertificates(t *testing.T, dir string) {
	t.Helper()
	for _, d := range []string{"x509", "x509ca", "private"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	pki := func(file string, args ...string) string {
		t.Helper()
		out, err := exec.Command("pki", append(args, "--outform", "pem")...).Output()
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, file), out, 0o600)
		}
		if err != nil {
			t.Fatalf("pki %v: %v", args, err)
		}
		return filepath.Join(dir, file)
	}
	authority := pki("ca.key", "--gen", "--type", "ecdsa", "--size", "384")
	ca := pki("x509ca/ca.pem", "--self", "--ca", "--in", authority, "--type", "ecdsa", "--dn", "C=CH, O=Example, CN=authority")
	names := map[string][]string{
		"node": {"node.example.net", "node@example.net", "10.9.8.1", "2001:db8:98::1"},
		"cust": {"cust.example.net", "cust@example.net", "10.9.8.2", "2001:db8:98::2", "fragments.example.net"},
	}
	for _, k := range certificateKinds {
		for who, others := range names {
			gen := []string{"--gen", "--type", k.kind}
			if k.size != "" {
				gen = append(gen, "--size", k.size)
			}
			key := pki("private/"+who+"-"+k.name+".pem", gen...)
			issue := []string{"--issue", "--in", key, "--type", "priv", "--cacert", ca, "--cakey", authority, "--dn", subject(who, k.name)}
			for _, san := range others {
				issue = append(issue, "--san", san)
			}
			pki("x509/"+who+"-"+k.name+".pem", issue...)
		}
	}
}

// files returns what strongSwan needs of them, by name.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	m := map[string]string{}
	for _, pattern := range []string{"x509/cust-*", "private/cust-*", "x509ca/*"} {
		paths, _ := filepath.Glob(filepath.Join(dir, pattern))
		for _, p := range paths {
			text, err := os.ReadFile(p)
			if err != nil {
				t.Fatal(err)
			}
			name, _ := filepath.Rel(dir, p)
			m[name] = string(text)
		}
	}
	return m
}
