package message

import (
	"bytes"
	"slices"
	"testing"
)

// TestTolerated has what a strict reader might refuse, and we do not.
func TestTolerated(t *testing.T) {
	prf := transform(true, 2, 5)
	sa := func(proposals ...[]byte) []byte { return plain(bytes.Join(proposals, nil)) }
	twice := func(kind PayloadType, b []byte) []byte { return chain(kind, plain(b), kind, plain(b)) }
	for _, c := range []struct {
		name  string
		first PayloadType
		b     []byte
	}{
		// section 3.3.1: numbers are 1, 2 and so on, and that of an answer is the one which was chosen
		{"proposal numbers with gaps", PayloadSA, sa(proposal(2, 1, 1, nil, 1, prf), proposal(0, 4, 1, nil, 1, prf))},
		{"a single proposal of any number", PayloadSA, sa(proposal(0, 7, 1, nil, 1, prf))},
		{"an SPI of any size for an unknown protocol", PayloadSA, sa(proposal(0, 1, 9, []byte("abc"), 1, prf))},
		// section 3.5
		{"the reserved bytes of an identity", PayloadIDi, plain([]byte("\x02\x01\x02\x03a"))},
		{"an identity of an unknown type", PayloadIDi, plain([]byte{77, 0, 0, 0, 0, 13})},
		{"a key identity with line breaks", PayloadIDi, plain([]byte("\x0b\x00\x00\x00a\r\n"))},
		// section 3.7
		{"a certificate request of another encoding", PayloadCertReq, plain(slices.Concat([]byte{12}, load(30)))},
		{"a certificate request for any authority", PayloadCertReq, plain([]byte{4})},
		// section 3.10: the SPI of a notification about the IKE SA must be empty
		{"a notification of IKE with an SPI", PayloadNotify, plain(slices.Concat([]byte{1, 8, 0x40, 0}, load(8)))},
		{"a notification of an unknown protocol", PayloadNotify, plain([]byte{9, 0, 0x40, 0})},
		// section 3.11
		{"a deletion of no SAs", PayloadDelete, plain([]byte{3, 4, 0, 0})},
		// what may come several times
		{"two certificates", PayloadCert, twice(PayloadCert, []byte{4, 1})},
		{"two certificate requests", PayloadCertReq, twice(PayloadCertReq, []byte{4})},
		{"two notifications", PayloadNotify, twice(PayloadNotify, []byte{0, 0, 0x40, 0})},
		{"two deletions", PayloadDelete, twice(PayloadDelete, []byte{1, 0, 0, 0})},
		{"two vendor IDs", PayloadVendor, twice(PayloadVendor, []byte{1})},
	} {
		if _, err := Parse(c.first, c.b); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// TestClipped: appending to one payload cannot reach the next.
func TestClipped(t *testing.T) {
	b := chain(PayloadNonce, plain(load(16)), PayloadVendor, plain([]byte{1, 2}))
	c, err := Parse(PayloadNonce, b)
	if err != nil {
		t.Fatal(err)
	}
	if _ = append(c.Nonce, 0xee); b[20] == 0xee || !bytes.Equal(c.Vendors[0], []byte{1, 2}) {
		t.Error("appending to the nonce has changed the next payload")
	}
}

// TestMappedSelectors: an IPv6 range whose addresses are IPv4 ones in IPv6 form stays of IPv6.
func TestMappedSelectors(t *testing.T) {
	want := []Selector{ts(0, 0, 65535, "::ffff:10.0.0.0", "::ffff:10.0.0.255")}
	first, b := (&Contents{TSr: want}).Append(nil)
	if c, err := Parse(first, b); err != nil || !slices.Equal(c.TSr, want) || len(b) != 48 {
		t.Errorf("%+v, %v in %d bytes, want %+v", c, err, len(b), want)
	}
}

// opensslNames are distinguished names as OpenSSL 3.0 has written them: the subjects of
//
//	openssl req -x509 -newkey ed25519 -nodes -keyout /dev/null -utf8 -multivalue-rdn -outform der -subj SUBJECT
var opensslNames = []struct{ subject, der, text string }{
	{"/C=CH/O=Example/CN=edge.example.net", "303a310b30090603550406130243483110300e060355040a0c074578616d706c653119301706035504030c10656467652e6578616d706c652e6e6574",
		"C=CH, O=Example, CN=edge.example.net"},
	{"/C=DE/ST=Bayern/L=München/O=Acme, Inc./OU=a/CN=x/emailAddress=a@b.example", "307a310b3009060355040613024445310f300d06035504080c0642617965726e3111" +
		"300f06035504070c084dc3bc6e6368656e31133011060355040a0c0a41636d652c20496e632e310a3008060355040b0c0161310a300806035504030c0178311a301806092a864886f70d01" +
		"0901160b6140622e6578616d706c65", "C=DE, ST=Bayern, L=München, O=Acme, Inc., OU=a, CN=x, E=a@b.example"},
	{"/DC=net/DC=example/UID=u1/CN=c+SN=doe", "305a31133011060a0992268993f22c64011916036e657431173015060a0992268993f22c64011916076578616d706c6531123010060a099226" +
		"8993f22c6401010c0275313116300806035504030c0163300a06035504040c03646f65", "DC=net, DC=example, UID=u1, CN=c, SN=doe"},
}

func TestOpenSSLNames(t *testing.T) {
	for _, n := range opensslNames {
		if got := (ID{IDDN, unhex(n.der)}).String(); got != n.text {
			t.Errorf("%s is %q, want %q", n.subject, got, n.text)
		}
	}
}
