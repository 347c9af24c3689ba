package message

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"net/netip"
	"os"
	"os/exec"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// crafted runs testdata/craft.py.
func crafted(t *testing.T) map[string][]byte {
	t.Helper()
	const python = "/usr/bin/python3" // where Debian's python3-scapy is installed
	if _, err := os.Stat(python); err != nil {
		t.Fatalf("needs scapy: %v: apt-get install -y python3-scapy", err)
	}
	cmd := exec.Command(python, "testdata/craft.py")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("testdata/craft.py: %v\n%s\nif scapy is missing: apt-get install -y python3-scapy", err, stderr.Bytes())
	}
	var text map[string]string
	if err := json.Unmarshal(out, &text); err != nil {
		t.Fatal(err)
	}
	messages := map[string][]byte{}
	for name, s := range text {
		if messages[name], err = hex.DecodeString(s); err != nil {
			t.Fatal(err)
		}
	}
	return messages
}

// TestScapy reads what scapy writes, and writes the same.
func TestScapy(t *testing.T) {
	const spii, spir = 0x0102030405060708, 0x1112131415161718
	v6 := Selector{0, 0, 65535, netip.MustParseAddr("2001:db8::"), netip.MustParseAddr("2001:db8::ffff")}
	messages := crafted(t)
	for name, want := range map[string]struct {
		h Header
		c *Contents
	}{
		"init": {Header{Exchange: IKESAInit, Initiator: true, First: PayloadNotify}, &Contents{
			SA: []Proposal{
				{1, ProtocolIKE, nil, []Transform{{TransformEncryption, 20, 256}, {TransformEncryption, 28, 0}, {TransformPRF, 6, 0}, {TransformKeyExchangeMethod, 20, 0}}},
				{2, ProtocolIKE, nil, []Transform{{TransformEncryption, 12, 128}, {TransformPRF, 5, 0}, {TransformIntegrity, 12, 0}, {TransformKeyExchangeMethod, 14, 0}}}},
			KE:       &KE{20, bytes.Repeat([]byte{9}, 96)},
			Nonce:    bytes.Repeat([]byte{0xa5}, 32),
			Notifies: []Notify{{Type: NotifyCookie, Data: []byte("biscuit")}, {Type: NotifyNATDetectionSourceIP, Data: bytes.Repeat([]byte{1}, 20)}},
			Vendors:  [][]byte{[]byte("scapy")}}},
		"auth": {Header{Exchange: IKEAuth, Response: true, ID: 1, First: PayloadIDi}, &Contents{
			IDi: &ID{IDFQDN, []byte("edge.example.net")}, IDr: &ID{IDIPv4, []byte{192, 0, 2, 1}},
			Certs: []Cert{{CertX509, []byte("leaf")}}, CertReqs: []CertReq{{CertX509, bytes.Repeat([]byte{7}, 20)}},
			Auth: &Auth{AuthSharedKey, []byte("proof")},
			SA:   []Proposal{{1, ProtocolESP, []byte{0xc0, 0, 0, 1}, []Transform{{TransformEncryption, 20, 128}, {TransformSequenceNumbers, 0, 0}}}},
			TSi:  []Selector{{6, 80, 443, netip.MustParseAddr("192.0.2.0"), netip.MustParseAddr("192.0.2.255")}, v6}, TSr: []Selector{v6}}},
		"delete": {Header{Exchange: Informational, Initiator: true, Response: true, ID: 2, First: PayloadDelete}, &Contents{
			Deletes: []Delete{{ProtocolESP, []uint32{0xc0000003, 0xc0000004}}, {ProtocolIKE, nil}}}},
	} {
		b := messages[name]
		want.h.SPIi, want.h.SPIr, want.h.Major, want.h.Length = spii, spir, 2, len(b)
		h, err := ParseHeader(b)
		if err != nil || h != want.h {
			t.Errorf("%s: %+v, want %+v: %v", name, h, want.h, err)
			continue
		}
		c, err := Parse(h.First, b[HeaderLen:])
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(want.c, c, sameContents, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if first, out := want.c.Append(want.h.Append(nil)); first != want.h.First || !bytes.Equal(out, b) {
			t.Errorf("%s: we write\n%x, scapy\n%x", name, out, b)
		}
	}
	for name, s := range map[string]Sealed{"sealed": {First: PayloadIDi, At: 32}, "fragment": {Fragment: 2, Fragments: 3, At: 36}} {
		b := messages[name]
		h, err := ParseHeader(b)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ParseSealed(h, b); err != nil || got != s {
			t.Errorf("%s: %+v, want %+v: %v", name, got, s, err)
		}
		if out := AppendSealedHeader(nil, h, s, 40); !bytes.Equal(out, b[:s.At]) {
			t.Errorf("%s: we write\n%x, scapy\n%x", name, out, b)
		}
	}
}
