package auth

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"causeway/control/ike/message"
)

// made is what openssl made once for all tests: private keys and AlgorithmIdentifiers by their names.
var made = map[string][]byte{}

func once(name string, do func() []byte) []byte {
	if _, ok := made[name]; !ok {
		made[name] = do()
	}
	return made[name]
}

// A workshop makes keys and certificates with openssl, whose word on them is not ours.
type workshop struct {
	t   testing.TB
	dir string
}

func newWorkshop(t testing.TB) *workshop {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Fatal("openssl is not here: apt-get install openssl")
	}
	return &workshop{t, t.TempDir()}
}

// run runs a program in the workshop's directory, and fails the test if it fails.
func (w *workshop) run(input []byte, program string, args ...string) []byte {
	w.t.Helper()
	out, err := w.try(input, program, args...)
	if err != nil {
		w.t.Fatalf("%s %s: %v", program, strings.Join(args, " "), err)
	}
	return out
}

func (w *workshop) try(input []byte, program string, args ...string) ([]byte, error) {
	var stderr bytes.Buffer
	c := exec.CommandContext(w.t.Context(), program, args...)
	c.Dir, c.Stdin, c.Stderr = w.dir, bytes.NewReader(input), &stderr
	out, err := c.Output()
	if err != nil {
		w.t.Logf("%s: %s", program, stderr.String())
	}
	return out, err
}

func (w *workshop) path(name string) string { return filepath.Join(w.dir, name) }

func (w *workshop) write(name string, data []byte) string {
	w.t.Helper()
	if err := os.WriteFile(w.path(name), data, 0o600); err != nil {
		w.t.Fatal(err)
	}
	return w.path(name)
}

func (w *workshop) read(name string) []byte {
	w.t.Helper()
	b, err := os.ReadFile(w.path(name))
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

// kinds are openssl's words for the kinds of key.
var kinds = map[string][]string{
	"rsa":     {"-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"},
	"rsa1024": {"-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"},
	"p224":    {"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-224"},
	"p256":    {"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"},
	"p384":    {"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"},
	"p521":    {"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"},
	"ed25519": {"-algorithm", "ED25519"},
	"ed448":   {"-algorithm", "ED448"},
}

// key makes NAME.key of a kind, and its public half, NAME.pub. They are the same in all tests.
func (w *workshop) key(name, kind string) crypto.Signer {
	w.t.Helper()
	once := func(what string, args ...string) []byte {
		return once(what+" "+kind+" "+name, func() []byte { return w.run(nil, "openssl", args...) })
	}
	w.write(name+".key", once("private", append([]string{"genpkey"}, kinds[kind]...)...))
	w.write(name+".pub", once("public", "pkey", "-in", name+".key", "-pubout"))
	key, err := readKey(w.path(name + ".key"))
	if err != nil && kind != "ed448" {
		w.t.Fatal(err)
	}
	return key
}

// haveKey makes KIND.key and KIND.pub.
func (w *workshop) haveKey(kind string) crypto.Signer { return w.key(kind, kind) }

const authorityExtensions = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n"

// authority makes NAME.key and NAME.pem, a root.
func (w *workshop) authority(name string) {
	w.t.Helper()
	w.key(name, "p256")
	w.write(name+".pem", once("root "+name, func() []byte {
		return w.run(nil, "openssl", "req", "-x509", "-new", "-key", name+".key", "-days", "3650", "-subj", "/O=Example/CN="+name,
			"-addext", "keyUsage=critical,keyCertSign,cRLSign")
	}))
}

// A sheet is what stands in a certificate. extensions are lines of openssl's configuration; none make one of version 1.
type sheet struct {
	subject, extensions string
	days                string
	options             []string
}

const edgeNames = "subjectAltName=DNS:edge.example.net,email:noc@example.net,IP:192.0.2.1,IP:2001:db8::1\n"

// edge is a certificate as a router's should be.
var edge = sheet{subject: "/C=DE/O=Example/CN=edge", extensions: edgeNames + "keyUsage=digitalSignature\nextendedKeyUsage=serverAuth\n"}

// issue makes NAME.key of a kind, and NAME.pem, signed by issuer.
func (w *workshop) issue(name, kind, issuer string, s sheet) {
	w.t.Helper()
	w.key(name, kind)
	days := s.days
	if days == "" {
		days = "365"
	}
	args := []string{"x509", "-new", "-force_pubkey", name + ".pub", "-subj", s.subject, "-CA", issuer + ".pem", "-CAkey", issuer + ".key", "-days", days}
	if s.extensions != "" {
		w.write(name+".ext", []byte(s.extensions))
		args = append(args, "-extfile", name+".ext")
	}
	w.write(name+".pem", w.run(nil, "openssl", append(args, s.options...)...))
}

// certs are CERT payloads with the certificates of files.
func (w *workshop) certs(names ...string) []message.Cert {
	w.t.Helper()
	var certs []message.Cert
	for _, name := range names {
		block, _ := pem.Decode(w.read(name + ".pem"))
		if block == nil {
			w.t.Fatalf("%s.pem is not PEM", name)
			return nil
		}
		certs = append(certs, message.Cert{Encoding: message.CertX509, Data: block.Bytes})
	}
	return certs
}

func (w *workshop) load(name string) *Certificate {
	w.t.Helper()
	c, err := LoadCertificate(w.path(name+".pem"), w.path(name+".key"))
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *workshop) trust(name string) *Trust {
	w.t.Helper()
	trust, err := LoadTrust(w.path(name + ".pem"))
	if err != nil {
		w.t.Fatal(err)
	}
	return trust
}

// parse is a certificate as Go sees it.
func (w *workshop) parse(name string) *x509.Certificate {
	w.t.Helper()
	c, err := x509.ParseCertificate(w.certs(name)[0].Data)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func mustID(t testing.TB, text string) message.ID {
	t.Helper()
	id, err := ParseID(text)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// mustSay fails the test unless err says all of what is wanted.
func mustSay(t *testing.T, err error, wanted ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one that says %q", wanted)
	}
	for _, want := range wanted {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not say %q", err, want)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("error %q has more than one line", err)
	}
}
