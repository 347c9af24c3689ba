package auth

import (
	"encoding/hex"
	"strings"
	"testing"

	"causeway/control/ike/message"
)

func TestParseID(t *testing.T) {
	for text, want := range map[string]message.ID{
		"192.0.2.1":              {Type: message.IDIPv4, Data: []byte{192, 0, 2, 1}},
		"2001:db8::1":            {Type: message.IDIPv6, Data: []byte{0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}},
		"edge.example.net":       {Type: message.IDFQDN, Data: []byte("edge.example.net")},
		"edge":                   {Type: message.IDFQDN, Data: []byte("edge")},
		"@edge.example.net":      {Type: message.IDFQDN, Data: []byte("edge.example.net")},
		"fqdn:edge.example.net":  {Type: message.IDFQDN, Data: []byte("edge.example.net")},
		"fqdn:192.0.2.1":         {Type: message.IDFQDN, Data: []byte("192.0.2.1")},
		"noc@example.net":        {Type: message.IDRFC822, Data: []byte("noc@example.net")},
		"@#00ff":                 {Type: message.IDKeyID, Data: []byte{0, 0xff}},
		"keyid:customer 17":      {Type: message.IDKeyID, Data: []byte("customer 17")},
		"keyid:#00FF":            {Type: message.IDKeyID, Data: []byte{0, 0xff}},
		"keyid:CN=edge":          {Type: message.IDKeyID, Data: []byte("CN=edge")},
		"CN=noc@example.net":     {Type: message.IDDN, Data: unhex("301a311830160603550403" + "0c0f6e6f63406578616d706c652e6e6574")},
		"C=DE, O=Example, CN=ed": {Type: message.IDDN, Data: unhex("302c310b30090603550406130244453110300e060355040a13074578616d706c65310b3009060355040313026564")},
	} {
		got, err := ParseID(text)
		if err != nil || got.Type != want.Type || string(got.Data) != string(want.Data) {
			t.Errorf("ParseID(%q) = %d %x, %v; want %d %x", text, got.Type, got.Data, err, want.Type, want.Data)
		}
	}
}

func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

func TestParseIDRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"":                        "empty",
		strings.Repeat("a", 513):  "512 at most",
		"%any":                    "anybody",
		"*.example.net":           "letters, digits",
		"edge example":            "letters, digits",
		"fe80::1%eth0":            "zone",
		"::ffff:192.0.2.1":        "IPv4 in IPv6 form",
		"2001:db8::1::":           "letters, digits",
		"@#":                      "hexadecimal",
		"@#0":                     "hexadecimal",
		"@#xy":                    "hexadecimal",
		"keyid:":                  "has nothing behind it",
		"keyid:#0":                "hexadecimal",
		"fqdn:":                   "letters, digits",
		"@":                       "letters, digits",
		"a@b@c":                   "user@host",
		"*@example.net":           "user@host",
		"asn1dn:#3000":            "not known here",
		"ipv4:192.0.2.1":          "not known here",
		"CN=":                     "CN=edge",
		"CN=a,":                   "CN=edge",
		"CN=a, b":                 "CN=edge",
		"CN=*":                    "anybody",
		"XY=a":                    "no attribute",
		"CN=a\x00b":               "printed",
		"CN=\xff":                 "printed",
		"E=n\u00f6c@example.net":  "ASCII",
		"/O=a, b/CN":              "CN=edge",
		"edge.ex\u00e4mple.net":   "letters, digits",
		"\u212aing.example.net":   "letters, digits",
		"noc@ex\u00e4mple.net":    "user@host",
		"n\u00f6c@example.net":    "user@host",
		"http://edge.example.net": "letters, digits",
	} {
		if id, err := ParseID(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseID(%q) = %d %x, %v; want an error that says %q", text, id.Type, id.Data, err, want)
		}
	}
}

// TestSameID has pairs that RFC 5280, section 7, calls the same, and pairs that it does not.
func TestSameID(t *testing.T) {
	utf8DN := message.ID{Type: message.IDDN, Data: unhex("302c310b30090603550406130244453110300e060355040a0c074578616d706c65310b300906035504030c026564")}
	bmpDN := message.ID{Type: message.IDDN, Data: unhex("300f310d300b06035504031e0400650064")}
	for _, c := range []struct {
		a, b message.ID
		same bool
	}{
		{mustID(t, "Edge.example.NET"), mustID(t, "edge.Example.net"), true},
		{mustID(t, "edge.example.net"), mustID(t, "edge.example.org"), false},
		{mustID(t, "NOC@example.net"), mustID(t, "noc@example.net"), true},
		{mustID(t, "fqdn:192.0.2.1"), mustID(t, "192.0.2.1"), false},
		{mustID(t, "keyid:Edge"), mustID(t, "keyid:edge"), false},
		{mustID(t, "keyid:edge"), mustID(t, "@#65646765"), true},
		{mustID(t, "keyid:edge"), mustID(t, "edge"), false},
		{mustID(t, "C=DE, O=Example, CN=ed"), utf8DN, true},
		{mustID(t, "c=de,o=EXAMPLE,cn=ED"), utf8DN, true},
		{mustID(t, "/C=DE/O=Example/CN=ed"), utf8DN, true},
		{mustID(t, "O=Example, C=DE, CN=ed"), utf8DN, false},
		{mustID(t, "C=DE, O=Example"), utf8DN, false},
		{mustID(t, "C=DE, OU=Example, CN=ed"), utf8DN, false},
		{mustID(t, "CN=ed"), bmpDN, true},
		{mustID(t, "CN=a  b"), mustID(t, "CN=A b"), true},
		{mustID(t, "CN=ab"), mustID(t, "CN=a b"), false},
		{mustID(t, "CN=Stra\u00dfe \u00c4"), mustID(t, "CN=stra\u00dfe \u00e4"), true},
		{message.ID{Type: message.IDDN, Data: []byte{0x30, 1}}, message.ID{Type: message.IDDN, Data: []byte{0x30, 1}}, true},
		{message.ID{Type: message.IDDN, Data: []byte{0x30, 1}}, utf8DN, false},
		{message.ID{Type: message.IDFQDN, Data: []byte("\u212aing")}, message.ID{Type: message.IDFQDN, Data: []byte("king")}, false},
	} {
		if SameID(c.a, c.b) != c.same || SameID(c.b, c.a) != c.same {
			t.Errorf("SameID(%s, %s) is not %v", idText(c.a), idText(c.b), c.same)
		}
	}
}

// TestDNFolding asks about values that could be taken for the names' own punctuation.
func TestDNFolding(t *testing.T) {
	one := mustID(t, "/CN=a, O=b")
	two := mustID(t, "CN=a, O=b")
	quoted := mustID(t, `/CN=a",2.5.4.10="b`)
	for _, other := range []message.ID{two, quoted} {
		if SameID(one, other) {
			t.Errorf("%s and %s are taken for the same", idText(one), idText(other))
		}
	}
	if SameID(two, quoted) {
		t.Errorf("%s and %s are taken for the same", idText(two), idText(quoted))
	}
}

// TestDNOrderInSet has an RDN with two attributes, which are a set.
func TestDNOrderInSet(t *testing.T) {
	a := message.ID{Type: message.IDDN, Data: unhex("3016" + "3114" + "3008" + "0603550403" + "130161" + "3008" + "060355040b" + "130162")}
	b := message.ID{Type: message.IDDN, Data: unhex("3016" + "3114" + "3008" + "060355040b" + "130162" + "3008" + "0603550403" + "130161")}
	c := mustID(t, "CN=a, OU=b")
	if !SameID(a, b) || SameID(a, c) {
		t.Errorf("the two orders: %v, two RDNs: %v", SameID(a, b), SameID(a, c))
	}
}

func TestMalformedDN(t *testing.T) {
	many := strings.Repeat("310a3008060355040313016"+"1", maxRDNs+1)
	for name, der := range map[string]string{
		"nothing":           "",
		"empty":             "3000",
		"bytes behind":      "300c310a300806035504031301610000",
		"empty RDN":         "30023100",
		"no value":          "300931073005" + "0603550403",
		"two values":        "300f310d300b" + "0603550403" + "130161" + "130161",
		"a set outside":     "310a3008060355040313" + "0161",
		"indefinite length": "3080310a3008060355040313016" + "10000",
		"too many RDNs":     "308203" + hex.EncodeToString([]byte{byte((maxRDNs + 1) * 12 & 0xff)}) + many,
		"too long":          strings.Repeat("00", maxDN+1),
	} {
		if text, err := foldDN(unhex(der)); err == nil {
			t.Errorf("%s: is %q", name, text)
		}
		dnText(unhex(der)) // must not panic
	}
}

// TestDNText prints what a peer may have put there without harm to a terminal.
func TestDNText(t *testing.T) {
	for der, want := range map[string]string{
		"302c310b30090603550406130244453110300e060355040a0c074578616d706c65310b300906035504030c026564": "C=DE, O=Example, CN=ed",
		"300e310c300a06035504030c031b5b6d":      `CN=\x1b[m`,
		"300e310c300a06035504630c03616263":      "2.5.4.99=abc",
		"300e310c300a060355040304036162" + "63": "CN=#616263",
	} {
		if got := dnText(unhex(der)); got != want {
			t.Errorf("%s: %s, want %s", der, got, want)
		}
	}
}

// TestDNOfStrongSwan compares our DER with that of strongSwan's pki.
func TestDNOfStrongSwan(t *testing.T) {
	w := newWorkshop(t)
	w.write("k.pem", w.run(nil, "pki", "--gen", "--type", "ed25519", "--outform", "pem"))
	for _, text := range []string{
		"C=DE, O=Example, CN=edge", "C=DE,O=Ex\u00e4mple,CN=ed_ge", "DC=example, E=a@b.c, UID=u1", "SN=x, serialNumber=7, G=g",
		"STREET=t 1, postalCode=1, T=t, D=d, N=n, I=i", "/O=A, B/CN=x", "CN=a+b,O=\"x\"", "ST=Bavaria,L=M", "emailAddress=a@b,dnQualifier=1",
		"cn=x,o=Y Z  Q", "CN=a@b", "CN=a'(b)+-./:?", "CN=a/O=b", "email=x@y", "OU=one, OU=two, CN=192.0.2.1", "O=" + strings.Repeat("long ", 60) + "x",
	} {
		w.write("c.der", w.run(nil, "pki", "--self", "--in", "k.pem", "--type", "ed25519", "--dn", text, "--outform", "der"))
		want := strings.TrimSpace(string(w.run(nil, "pki", "--dn", "--in", "c.der", "--format", "hex")))
		if got := hex.EncodeToString(mustID(t, text).Data); got != want {
			t.Errorf("%s:\n got %s\nwant %s", text, got, want)
		}
	}
}
