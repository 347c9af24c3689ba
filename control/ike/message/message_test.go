package message

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// full has each payload that Append writes, in the order in which Parse finds them again.
func full() *Contents {
	nonce := bytes.Repeat([]byte{0xa5}, 32)
	return &Contents{
		SA: []Proposal{
			{1, ProtocolIKE, []byte{1, 2, 3, 4, 5, 6, 7, 8}, []Transform{{TransformEncryption, 20, 256}, {TransformEncryption, 28, 0}, {TransformPRF, 6, 0},
				{TransformKeyExchangeMethod, 20, 0}, {TransformAdditionalKE1, 36, 0}, {TransformAdditionalKE7, 0, 0}}},
			{2, ProtocolESP, []byte{0xc0, 0, 0, 1}, []Transform{{TransformEncryption, 12, 128}, {TransformIntegrity, 12, 0}, {TransformSequenceNumbers, 1, 0}}},
		},
		KE:       &KE{31, bytes.Repeat([]byte{9}, 32)},
		Nonce:    nonce,
		IDi:      &ID{IDFQDN, []byte("edge.example.net")},
		IDr:      &ID{IDIPv6, netip.MustParseAddr("2001:db8::1").AsSlice()},
		Certs:    []Cert{{CertX509, []byte("leaf")}, {CertX509, []byte("authority")}},
		CertReqs: []CertReq{{CertX509, bytes.Repeat([]byte{7}, 40)}},
		Auth:     &Auth{AuthSignature, []byte("proof")},
		Notifies: []Notify{
			{ProtocolNone, []byte{}, NotifyCookie, []byte("biscuit")},
			{ProtocolESP, []byte{0xc0, 0, 0, 2}, NotifyRekeySA, []byte{}},
			{ProtocolNone, []byte{}, NotifyMobIKESupported, []byte{}},
			{ProtocolNone, []byte{}, NotifySignatureHashAlgorithms, []byte{0, 2, 0, 3}},
		},
		Deletes: []Delete{{ProtocolESP, []uint32{0xc0000003, 0xc0000004}}, {ProtocolIKE, nil}},
		TSi: []Selector{{0, 0, 65535, netip.MustParseAddr("192.0.2.0"), netip.MustParseAddr("192.0.2.255")},
			{17, 53, 53, netip.MustParseAddr("2001:db8::"), netip.MustParseAddr("2001:db8::ffff")}},
		TSr:     []Selector{{6, 65535, 0, netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("198.51.100.1")}},
		Vendors: [][]byte{[]byte("causeway"), {}},
	}
}

var sameContents = cmp.Options{cmpopts.EquateComparable(netip.Addr{})}

// TestRoundTrip parses what was appended, behind bytes that are not the message's.
func TestRoundTrip(t *testing.T) {
	want := full()
	first, b := want.Append([]byte("before"))
	if first != PayloadNotify || !bytes.HasPrefix(b, []byte("before")) {
		t.Fatalf("begins with %v, %x", first, b[:8])
	}
	got, err := Parse(first, b[6:])
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, sameContents); diff != "" {
		t.Error(diff)
	}
}

// TestAppendOrder is the order of RFC 7296, sections 1.2 and 1.3: what must come first does, wherever it stood in the list.
func TestAppendOrder(t *testing.T) {
	c := full()
	slices.Reverse(c.Notifies)
	next, b := c.Append(nil)
	var order []string
	for next != NoNextPayload {
		order = append(order, next.String())
		size := binary.BigEndian.Uint16(b[2:])
		next, b = PayloadType(b[0]), b[size:]
	}
	if got, want := strings.Join(order, " "), "N N IDi CERT CERT CERTREQ IDr AUTH SA KE Nonce TSi TSr N N D D V V"; got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if first, b := new(Contents).Append(nil); first != NoNextPayload || len(b) != 0 {
		t.Errorf("nothing is %v and %x", first, b)
	}
}

// TestParseAliases: what is parsed is the datagram's own memory, and appending to it cannot reach what follows.
func TestParseAliases(t *testing.T) {
	first, b := full().Append(nil)
	c, err := Parse(first, b)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(b, bytes.Repeat([]byte{0xa5}, 32))
	if &b[at] != &c.Nonce[0] {
		t.Error("the nonce was copied")
	}
}

// TestUnderstood: payloads that are known are accepted with and without the critical bit; all reserved bits are ignored
// (RFC 7296, section 2.5).
func TestUnderstood(t *testing.T) {
	first, b := full().Append(nil)
	for at := 0; at < len(b); {
		b[at+1] = 0xff
		at += int(binary.BigEndian.Uint16(b[at+2:]))
	}
	got, err := Parse(first, b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(full(), got, sameContents); diff != "" {
		t.Error(diff)
	}
}

// TestUnknownPayloads: those without the critical bit are skipped, the first one with it is named (RFC 7296, section 2.5).
func TestUnknownPayloads(t *testing.T) {
	for _, unknown := range []PayloadType{1, 32, 49, 52, 54, 127, 128, 255} { // those of IKEv1 have no meaning either (section 3.2)
		b := chain(PayloadNonce, plain(make([]byte, 16)), unknown, plain([]byte("what")), PayloadVendor, plain(nil))
		c, err := Parse(PayloadNonce, b)
		if err != nil || len(c.Nonce) != 16 || len(c.Vendors) != 1 {
			t.Errorf("%v is not skipped: %v", unknown, err)
		}
		b[20+1] = 0x80
		_, err = Parse(PayloadNonce, b)
		if e, ok := err.(*CriticalError); !ok || e.Type != unknown {
			t.Errorf("critical %v: %v", unknown, err)
		}
		b[20+1] = 0x7f // reserved bits
		if _, err := Parse(PayloadNonce, b); err != nil {
			t.Errorf("%v with reserved bits: %v", unknown, err)
		}
	}
}

// TestCPAndEAP are seen, whatever is in them: the exchanges refuse them.
func TestCPAndEAP(t *testing.T) {
	c, err := Parse(PayloadCP, chain(PayloadCP, plain([]byte{1, 0, 0, 0}), PayloadEAP, plain(nil)))
	if err != nil || !c.HasCP || !c.HasEAP {
		t.Errorf("%+v, %v", c, err)
	}
}

// TestNotify returns the first of a type.
func TestNotify(t *testing.T) {
	c := &Contents{Notifies: []Notify{{Type: 1}, {Type: 16390, Data: []byte("a")}, {Type: 16390, Data: []byte("b")}}}
	if n := c.Notify(NotifyCookie); n == nil || string(n.Data) != "a" {
		t.Errorf("%+v", n)
	}
	if n := c.Notify(NotifyRekeySA); n != nil {
		t.Errorf("%+v", n)
	}
}

// TestUnknownAttribute: a transform with an attribute that we do not know is there and unlike any of ours, so that a type
// of which all transforms are such is not taken for one that was left out (RFC 7296, section 3.3.6).
func TestUnknownAttribute(t *testing.T) {
	for name, attributes := range map[string][]byte{
		"fixed":               {0x80, 1, 0, 128},
		"variable":            {0, 14, 0, 2, 1, 0},
		"variable, empty":     {0x7f, 0xff, 0, 0},
		"key length 0":        {0x80, 14, 0, 0},
		"key length twice":    {0x80, 14, 0, 128, 0x80, 14, 1, 0},
		"key length and more": {0x80, 14, 0, 128, 0, 99, 0, 1, 5},
	} {
		good := transform(true, 1, 12, 0x80, 14, 0, 128)
		sa := proposal(0, 1, 3, []byte{1, 2, 3, 4}, 2, slices.Concat(transform(false, 1, 20, attributes...), good))
		c, err := Parse(PayloadSA, chain(PayloadSA, plain(sa)))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want := []Transform{{TransformEncryption, 20, UnknownAttribute}, {TransformEncryption, 12, 128}}
		if got := c.SA[0].Transforms; !slices.Equal(got, want) {
			t.Errorf("%s: %v", name, got)
		}
		first, b := c.Append(nil)
		again, err := Parse(first, b)
		if err != nil || !slices.Equal(again.SA[0].Transforms, want) {
			t.Errorf("%s: appended and parsed again: %+v, %v", name, again, err)
		}
	}
}

// TestUnknownSelectors: selectors of types that we do not know are left out (RFC 7296, section 2.9).
func TestUnknownSelectors(t *testing.T) {
	body := slices.Concat([]byte{3, 0, 0, 0}, []byte{9, 0, 0, 6, 1, 2}, selector4(), []byte{10, 0, 0, 4})
	c, err := Parse(PayloadTSi, chain(PayloadTSi, plain(body)))
	if err != nil || len(c.TSi) != 1 {
		t.Errorf("%+v, %v", c, err)
	}
	c, err = Parse(PayloadTSr, chain(PayloadTSr, plain([]byte{1, 0, 0, 0, 9, 0, 0, 4})))
	if err != nil || c.TSr == nil || len(c.TSr) != 0 {
		t.Errorf("none of ours: %+v, %v", c, err)
	}
}

// TestNames: all types that have a name in RFC or registry have it, and numbers stand for the others.
func TestNames(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{IKESAInit.String(), "IKE_SA_INIT"}, {IKEAuth.String(), "IKE_AUTH"}, {CreateChildSA.String(), "CREATE_CHILD_SA"},
		{Informational.String(), "INFORMATIONAL"}, {IKEIntermediate.String(), "IKE_INTERMEDIATE"}, {IKEFollowupKE.String(), "IKE_FOLLOWUP_KE"},
		{ExchangeType(38).String(), "exchange 38"}, {PayloadSKF.String(), "SKF"}, {PayloadType(99).String(), "type 99"},
		{ProtocolESP.String(), "ESP"}, {Protocol(4).String(), "protocol 4"}, {TransformPRF.String(), "prf"},
		{TransformAdditionalKE1.String(), "additional key exchange 1"}, {TransformAdditionalKE7.String(), "additional key exchange 7"},
		{TransformType(13).String(), "transform type 13"}, {TransformType(0).String(), "transform type 0"},
		{NotifyStateNotFound.String(), "STATE_NOT_FOUND"}, {NotifyType(40000).String(), "notify 40000"},
	} {
		if c.got != c.want {
			t.Errorf("%q, want %q", c.got, c.want)
		}
	}
	if NotifyType(16383).Error() != true || NotifyInitialContact.Error() != false {
		t.Error("errors are below 16384 (RFC 7296, section 3.10.1)")
	}
}

// TestIDText has the forms of strongSwan. Nothing that a peer sends reaches a terminal as it is.
func TestIDText(t *testing.T) {
	dn := unhex("301e310b3009060355040613024445310f300d060355040313066c6564 6765 32")
	for _, c := range []struct {
		id   ID
		want string
	}{
		{ID{IDIPv4, []byte{192, 0, 2, 1}}, "192.0.2.1"},
		{ID{IDIPv4, []byte{192, 0, 2}}, "ID_IPV4_ADDR #c00002"},
		{ID{IDIPv6, netip.MustParseAddr("2001:db8::1").AsSlice()}, "2001:db8::1"},
		{ID{IDFQDN, []byte("edge.example.net")}, "edge.example.net"},
		{ID{IDFQDN, []byte("a\x1b[2Jb\xff\n")}, `a\x1b[2Jb\xff\n`},
		{ID{IDRFC822, []byte("a@b")}, "a@b"},
		{ID{IDKeyID, []byte{0xde, 0xff}}, "@#deff"},
		{ID{IDKeyID, []byte("branch 7")}, "keyid:branch 7"},
		{ID{IDKeyID, []byte("#7")}, "@#2337"},
		{ID{IDKeyID, []byte("a\n")}, "@#610a"},
		{ID{IDKeyID, nil}, "@#"},
		{ID{IDFQDN, []byte("192.0.2.1")}, "fqdn:192.0.2.1"},
		{ID{IDFQDN, []byte("a@b")}, "fqdn:a@b"},
		{ID{IDDN, dn}, "C=DE, CN=ledge2"},
		{ID{IDDN, dn[:10]}, "ID_DER_ASN1_DN #301e310b300906035504"},
		{ID{77, []byte{1}}, "ID type 77 #01"},
	} {
		if got := c.id.String(); got != c.want {
			t.Errorf("%v %x is %q, want %q", c.id.Type, c.id.Data, got, c.want)
		}
	}
}

// TestIDEqual: names are compared without regard to the case of ASCII letters, and nothing else counts as the same.
func TestIDEqual(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"Edge.Example", "eDGE.eXAMPLE", true},
		{"edge", "edges", false},
		{"edge", "edg", false},
		{"\xff.example", "\xfe.example", false}, // not UTF-8, and not the same
		{"\u212aate", "kate", false},            // the Kelvin sign
		{"@", "`", false},
		{"[", "{", false},
	} {
		if a, b := (ID{IDFQDN, []byte(c.a)}), (ID{IDFQDN, []byte(c.b)}); a.Equal(b) != c.same || b.Equal(a) != c.same {
			t.Errorf("%q and %q", c.a, c.b)
		}
		if a, b := (ID{IDKeyID, []byte(c.a)}), (ID{IDKeyID, []byte(c.b)}); a.Equal(b) {
			t.Errorf("key IDs %q and %q", c.a, c.b)
		}
	}
	if (ID{IDFQDN, []byte("a")}).Equal(ID{IDRFC822, []byte("a")}) {
		t.Error("of two types")
	}
}

// TestContentsHaveNoOtherFields keeps full complete.
func TestContentsHaveNoOtherFields(t *testing.T) {
	v := reflect.ValueOf(*full())
	for i := range v.NumField() {
		if name := v.Type().Field(i).Name; v.Field(i).IsZero() && name != "HasCP" && name != "HasEAP" {
			t.Errorf("%s is not in full()", name)
		}
	}
}
