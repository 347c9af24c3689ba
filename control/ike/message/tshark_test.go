package message

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"maps"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// tshark reads messages in UDP datagrams of port 500: a row for each, with all values of a field joined by commas.
func tshark(t *testing.T, messages [][]byte, fields ...string) (rows [][]string) {
	t.Helper()
	for _, tool := range []string{"text2pcap", "tshark"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("needs %s: run scripts/deps.sh, or: apt-get install -y --no-install-recommends tshark", tool)
		}
	}
	var dump strings.Builder
	for _, m := range messages {
		for at := 0; at < len(m); at += 16 {
			fmt.Fprintf(&dump, "%06x % x\n", at, m[at:min(at+16, len(m))])
		}
	}
	text, capture := filepath.Join(t.TempDir(), "dump.txt"), filepath.Join(t.TempDir(), "ike.pcap")
	if err := os.WriteFile(text, []byte(dump.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("text2pcap", "-q", "-u", "500,500", text, capture).CombinedOutput(); err != nil {
		t.Fatalf("text2pcap: %v\n%s", err, out)
	}
	args := []string{"-r", capture, "-n", "-T", "fields", "-E", "separator=|"}
	for _, f := range fields {
		args = append(args, "-e", f)
	}
	out, err := exec.Command("tshark", args...).Output()
	if err != nil {
		t.Fatalf("tshark %s: %v", strings.Join(args, " "), err)
	}
	for line := range strings.Lines(string(out)) {
		rows = append(rows, strings.Split(strings.TrimSuffix(line, "\n"), "|"))
	}
	return rows
}

// TestJudgedByTshark: Wireshark finds in what we write what we put there, and nothing malformed.
func TestJudgedByTshark(t *testing.T) {
	c := full()
	c.Certs = []Cert{{CertX509, certificate(t)}}
	c.Auth.Data = unhex("0a 300806062b0601050507 5a5a5a5a") // the length of an AlgorithmIdentifier, it, a signature
	c.Vendors = c.Vendors[:1]
	h := Header{SPIi: 0x0102030405060708, SPIr: 0x1112131415161718, Major: 2, Exchange: CreateChildSA, Initiator: true, ID: 9}
	plain := h.Append(nil)
	h.First, plain = c.Append(plain)
	h.Length = len(plain)
	copy(plain, h.Append(nil))
	h.Exchange, h.Initiator, h.Response = IKEAuth, false, true
	sealed := append(AppendSealedHeader(nil, h, Sealed{First: PayloadIDr}, 40), make([]byte, 40)...)
	part := append(AppendSealedHeader(nil, h, Sealed{First: PayloadIDr, Fragment: 1, Fragments: 2}, 40), make([]byte, 40)...)

	messages := [][]byte{plain, sealed, part}
	want := map[string][]string{
		"isakmp.ispi":                                  {"0102030405060708", "0102030405060708", "0102030405060708"},
		"isakmp.rspi":                                  {"1112131415161718", "1112131415161718", "1112131415161718"},
		"isakmp.version":                               {"0x20", "0x20", "0x20"},
		"isakmp.exchangetype":                          {"36", "35", "35"},
		"isakmp.flags":                                 {"0x08", "0x20", "0x20"},
		"isakmp.messageid":                             {"0x00000009", "0x00000009", "0x00000009"},
		"isakmp.length":                                {fmt.Sprint(len(plain)), fmt.Sprint(len(sealed)), fmt.Sprint(len(part))},
		"isakmp.typepayload":                           {"41,41,35,37,38,36,39,33,2,3,3,3,3,3,3,2,3,3,3,34,40,44,45,41,41,42,42,43", "46", "53"},
		"isakmp.prop.number":                           {"1,2"},
		"isakmp.prop.protoid":                          {"1,3"},
		"isakmp.prop.transforms":                       {"6,3"},
		"isakmp.spisize":                               {"0,4,8,4,0,0,4,0"},
		"isakmp.tf.id.encr":                            {"20,28,12"},
		"isakmp.tf.id.prf":                             {"6"},
		"isakmp.tf.id.integ":                           {"12"},
		"isakmp.tf.id.dh":                              {"20"},
		"isakmp.tf.id.esn":                             {"1"},
		"isakmp.ike2.attr.key_length":                  {"256,128"},
		"isakmp.key_exchange.dh_group":                 {"31"},
		"isakmp.key_exchange.data":                     {hex.EncodeToString(c.KE.Data)},
		"isakmp.nonce":                                 {hex.EncodeToString(c.Nonce)},
		"isakmp.id.data.fqdn":                          {"edge.example.net"},
		"isakmp.id.data.ipv6_addr":                     {"2001:db8::1"},
		"isakmp.cert.encoding":                         {"4"},
		"isakmp.certreq.type":                          {"4"},
		"isakmp.auth.method":                           {"14"},
		"isakmp.notify.msgtype":                        {"16390,16393,16396,16431"},
		"isakmp.delete.spi":                            {"c0000003,c0000004"},
		"isakmp.ts.start_ipv4":                         {"192.0.2.0,198.51.100.1"},
		"isakmp.ts.end_ipv4":                           {"192.0.2.255,198.51.100.1"},
		"isakmp.ts.start_ipv6":                         {"2001:db8::"},
		"isakmp.ts.end_ipv6":                           {"2001:db8::ffff"},
		"isakmp.ts.start_port":                         {"0,53,65535"},
		"isakmp.ts.end_port":                           {"65535,53,0"},
		"isakmp.ts.protoid":                            {"0,17,6"},
		"isakmp.vid_bytes":                             {hex.EncodeToString([]byte("causeway"))},
		"isakmp.frag.number":                           {"", "", "1"},
		"isakmp.frag.total":                            {"", "", "2"},
		"isakmp.notify.data.signature_hash_algorithms": {"2,3"},
		"_ws.malformed":                                {"", "", ""},
	}
	fields := slices.Sorted(maps.Keys(want))
	rows := tshark(t, messages, fields...)
	if len(rows) != len(messages) {
		t.Fatalf("tshark has %d messages of %d", len(rows), len(messages))
	}
	for i, row := range rows {
		for k, field := range fields {
			if i < len(want[field]) && row[k] != want[field][i] {
				t.Errorf("message %d: %s is %q, want %q", i+1, field, row[k], want[field][i])
			}
		}
	}
}

// certificate is one that Wireshark can read.
func certificate(t *testing.T) []byte {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	form := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "edge"}}
	der, err := x509.CreateCertificate(rand.Reader, form, form, public, private)
	if err != nil {
		t.Fatal(err)
	}
	return der
}
