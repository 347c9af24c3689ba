package suite

import (
	"bytes"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// A dhKey is a SubjectPublicKeyInfo whose bit string is an INTEGER (RFC 3279, section 2.3.3).
type dhKey struct {
	Group pkix.AlgorithmIdentifier
	Value asn1.BitString
}

// TestMODPJudgedByOpenSSL: OpenSSL makes a key of each group, which it knows by name, and derives what we do.
func TestMODPJudgedByOpenSSL(t *testing.T) {
	dir := t.TempDir()
	openssl := func(args ...string) []byte {
		t.Helper()
		cmd := exec.Command("openssl", args...)
		cmd.Dir = dir
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("openssl %q: %v: %s", args, err, stderr.Bytes())
		}
		return out
	}
	for method, group := range map[uint16]string{MODP1536: "modp_1536", MODP2048: "modp_2048", MODP3072: "modp_3072", MODP4096: "modp_4096"} {
		openssl("genpkey", "-algorithm", "DH", "-pkeyopt", "group:"+group, "-out", "theirs.pem")
		var key dhKey
		var y *big.Int
		if _, err := asn1.Unmarshal(openssl("pkey", "-in", "theirs.pem", "-pubout", "-outform", "DER"), &key); err != nil {
			t.Fatal(err)
		}
		if _, err := asn1.Unmarshal(key.Value.Bytes, &y); err != nil {
			t.Fatal(err)
		}
		ours, secret, err := Respond(method, y.FillBytes(make([]byte, modps[method]().size)))
		if err != nil {
			t.Fatalf("%s: %v", group, err)
		}
		value, err := asn1.Marshal(new(big.Int).SetBytes(ours))
		if err != nil {
			t.Fatal(err)
		}
		der, err := asn1.Marshal(dhKey{key.Group, asn1.BitString{Bytes: value, BitLength: 8 * len(value)}})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "ours.der"), der, 0o600); err != nil {
			t.Fatal(err)
		}
		// dh_pad keeps leading zeros, as RFC 7296, section 2.14, wants it.
		want := openssl("pkeyutl", "-derive", "-inkey", "theirs.pem", "-peerform", "DER", "-peerkey", "ours.der", "-pkeyopt", "dh_pad:1")
		if !bytes.Equal(secret, want) {
			t.Errorf("%s: the secret is %x, OpenSSL's is %x", group, secret, want)
		}
	}
}
