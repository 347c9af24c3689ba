package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestIKE: what ike becomes, with everything in it and with the least.
func TestIKE(t *testing.T) {
	c := mustParse(t, ike("allow_null_cipher: true", `{psk: "correct horse battery staple", allow_weak: true, local_id: edge.example.net, remote_id: "CN=cust, O=Acme", `+
		`proposals: [aes256gcm16-prfsha384-ecp384-ke1_mlkem768, aes128-sha1-modp1536], child_proposals: [aes256gcm16-ecp384-noesn, null-sha256-esn], `+
		`lifetime: {ike: 1d, child: 1h30m, packets: 1_000_000, bytes: 0x10000000}, dpd: 5s, initiate: true}`))
	want := &IKE{
		PSK: Secret("correct horse battery staple"), AllowWeak: true, LocalID: "edge.example.net", RemoteID: "CN=cust, O=Acme",
		Proposals:      []string{"aes256gcm16-prfsha384-ecp384-ke1_mlkem768", "aes128-sha1-modp1536"},
		ChildProposals: []string{"aes256gcm16-ecp384-noesn", "null-sha256-esn"},
		Lifetime:       Lifetime{IKE: 24 * time.Hour, Child: 90 * time.Minute, Packets: 1e6, Bytes: 1 << 28},
		DPD:            5 * time.Second, Initiate: true,
	}
	if i := c.Tunnels[0].IPsec; !reflect.DeepEqual(i.IKE, want) || !reflect.DeepEqual(i.SA, ManualSA{}) || i.ReplayWindow != 1024 {
		t.Errorf("got %+v", i.IKE)
	}
	want = &IKE{
		PSK: Secret("x"), LocalID: "192.0.2.1", RemoteID: "198.51.100.2",
		Lifetime: Lifetime{IKE: 8 * time.Hour, Child: time.Hour}, DPD: 30 * time.Second,
	}
	if got := mustParse(t, ike("", "{psk: x}")).Tunnels[0].IPsec.IKE; !reflect.DeepEqual(got, want) {
		t.Errorf("the least: %+v", got)
	}
	got := mustParse(t, without(ike("", "{psk: x, remote_id: c.example, dpd: off}"))).Tunnels[0]
	if got.CustomerEndpoint.IsValid() || got.IPsec.IKE.RemoteID != "c.example" || got.IPsec.IKE.DPD != 0 {
		t.Errorf("from anywhere: %+v", got.IPsec.IKE)
	}
}

// TestRoutersApart: what is not the same router, and so no mistake.
func TestRoutersApart(t *testing.T) {
	const here, there = "customer_endpoint: 198.51.100.2", "customer_endpoint: 198.51.100.3"
	for name, text := range map[string]string{
		"two identities anywhere":       twoIKE("ttl: 9", "remote_id: a", "ttl: 9", "remote_id: b"),
		"two identities at one address": twoIKE(here, "remote_id: a", here, "remote_id: b"),
		"one identity at two addresses": twoIKE(here, "remote_id: a", there, "remote_id: a"),
		"by their addresses":            twoIKE(here, "dpd: off", there, "dpd: off"),
		"a name and a key ID":           twoIKE("ttl: 9", "remote_id: a", "ttl: 9", "remote_id: \"keyid:a\""),
		"two endpoints": swapIn(swapIn(twoIKE("ttl: 8", "remote_id: a", "ttl: 9", "remote_id: a"), "endpoints: [192.0.2.1]", "endpoints: [192.0.2.1, 192.0.2.2]"),
			"t3, type: ipsec, endpoint: 192.0.2.1", "t3, type: ipsec, endpoint: 192.0.2.2"),
	} {
		if _, err := Parse("c.yaml", []byte(text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// an address with a mistake may be another one: nothing is said of it beside the mistake
	_, err := Parse("c.yaml", []byte(twoIKE("customer_endpoint: 198.51.100.999", "remote_id: a", "customer_endpoint: x", "remote_id: a")))
	if err == nil || strings.Count(err.Error(), "\n") != 1 || strings.Contains(err.Error(), "remote_id") {
		t.Errorf("beside mistakes: %v", err)
	}
}

// TestIKESizes: MTU and MSS that a path of 1500 bytes leaves, by hand: the worst of what may be negotiated, in UDP.
func TestIKESizes(t *testing.T) {
	for _, c := range []struct {
		proposals string
		v6        bool
		mtu, more int
	}{
		{"", false, 1422, 85},                           // 1500 - 20 - 8 - 8 - 16 - 16 = 1432 = 16 * 89.5: 1424, - 2; and 20 + 8 + 8 + 16 + 15 + 2 + 16
		{"", true, 1406, 105},                           // 1412 = 16 * 88.25: 1408, - 2
		{"[aes256gcm16-ecp384-noesn]", false, 1438, 65}, // 1500 - 20 - 8 - 8 - 8 - 16 = 1440, - 2
		{"[aes128gcm16-chacha20poly1305, aes256gcm16]", true, 1418, 85},
		{"[aes256gcm16, aes128-aes256-sha256]", false, 1422, 85},
		{"[aes256-sha1]", false, 1422, 81}, // 1436 = 16 * 89.75: 1424, - 2
		{"[null-sha256, null-sha1]", false, 1446, 57},
		{"[null-aes256-sha256]", false, 1422, 85},
	} {
		section := "{psk: x, allow_weak: true}"
		if c.proposals != "" {
			section = "{psk: x, allow_weak: true, child_proposals: " + c.proposals + "}"
		}
		text := ike("allow_null_cipher: true", section)
		if c.v6 {
			text = swapIn(swapIn(text, "endpoint: 192.0.2.1", "endpoint: 2001:db8::1"), "198.51.100.2", "2001:db8:ffff::2")
		}
		tn := mustParse(t, text).Tunnels[0]
		if tn.MTU != c.mtu || tn.Overhead() != c.more || tn.Fits(1500) != c.mtu || int(tn.MSS4()) != c.mtu-40 || int(tn.MSS6()) != c.mtu-60 {
			t.Errorf("%+v: mtu %d, %d bytes more, mss %d and %d", c, tn.MTU, tn.Overhead(), tn.MSS4(), tn.MSS6())
		}
	}
	// an mtu of one's own is taken up to the limit of the frame, as without ike
	if tn := mustParse(t, ike("mtu: 1621", "{psk: x}")).Tunnels[0]; tn.MTU != 1621 {
		t.Errorf("mtu %d", tn.MTU)
	}
}

// TestProposals compares the check of proposals of one word of each kind with what must be there, written the slow way.
func TestProposals(t *testing.T) {
	ciphers := []string{"", "aes256gcm16", "chacha20poly1305", "aes128", "null"}
	integrities := []string{"", "sha256", "sha384", "sha1"}
	prfs := []string{"", "prfsha512", "prfsha1"}
	groups := []string{"", "modp2048", "modp1536", "ecp384", "x25519", "ecp521"}
	more := []string{"", "ke1_mlkem768", "ke7_mlkem1024"}
	numbers := []string{"", "esn", "noesn"}
	good := func(child, weak, null bool, c []string) bool {
		cipher, integrity, prf, group, ke, number := c[0], c[1], c[2], c[3], c[4], c[5]
		combined := cipher == "aes256gcm16" || cipher == "chacha20poly1305"
		switch {
		case cipher == "" || combined == (integrity != ""):
			return false
		case !weak && (integrity == "sha1" || prf == "prfsha1" || group == "modp1536"):
			return false
		case ke != "" && group != "ecp384" && group != "x25519":
			return false
		case child:
			return prf == "" && integrity != "sha384" && (cipher != "null" || null)
		}
		return group != "" && cipher != "null" && number == "" && (prf != "" || integrity != "")
	}
	accepted := 0
	for bits := range 8 {
		child, weak, null := bits&1 != 0, bits&2 != 0, bits&4 != 0
		for _, c := range combinations(ciphers, integrities, prfs, groups, more, numbers) {
			words := slices.DeleteFunc(slices.Clone(c), func(w string) bool { return w == "" })
			d := &decoder{where: map[string]position{}}
			i := &IPsec{ReplayWindow: 1, AllowNull: null, IKE: &IKE{AllowWeak: weak}}
			p := proposal{value: value{d: d}, child: child, text: strings.Join(words, "-")}
			if p.read() {
				p.check()
				p.permitted(i)
			}
			want := good(child, weak, null, c)
			if got := len(d.errs) == 0; got != want {
				t.Fatalf("%q, child %v, weak %v, null %v: accepted is %v, mistakes %v", p.text, child, weak, null, got, d.errs)
			}
			if want {
				accepted++
			}
		}
	}
	if accepted < 500 {
		t.Errorf("only %d proposals were good", accepted)
	}
}

// combinations are all choices of a word of each list.
func combinations(lists ...[]string) [][]string {
	all := [][]string{nil}
	for _, list := range lists {
		var longer [][]string
		for _, begun := range all {
			for _, word := range list {
				longer = append(longer, append(slices.Clone(begun), word))
			}
		}
		all = longer
	}
	return all
}

// TestIdentities: the ways to write an identity, and which are the same one.
func TestIdentities(t *testing.T) {
	for _, same := range [][]string{
		{"192.0.2.7"},
		{"2001:db8::7", "2001:DB8:0::7"},
		{"edge.example.net", "EDGE.Example.net", "fqdn:edge.example.net", "@edge.example.net"},
		{"fqdn:192.0.2.7", "@192.0.2.7"},
		{"edge_1"},
		{"user@example.net", "User@Example.Net"},
		{"keyid:user@example.net", "@#75736572406578616d706c652e6e6574"},
		{"CN=edge, O=Acme", "cn=edge,o=Acme", "CN = edge , O = Acme"},
		{"O=Acme, CN=edge"},
		{"CN=Edge, O=Acme"},
	} {
		first, err := comparableIdentity(same[0])
		if err != nil {
			t.Errorf("%s: %v", same[0], err)
		}
		for _, other := range same[1:] {
			if got, err := comparableIdentity(other); err != nil || got != first {
				t.Errorf("%s is %q, %s is %q, %v", same[0], first, other, got, err)
			}
		}
	}
}

// TestPSK: a key is a text or octets, and may stand elsewhere.
func TestPSK(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, []byte(content), 0o600), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
		return "{file: " + path + "}"
	}
	t.Setenv("CAUSEWAY_TEST_PSK", "0x00ff")
	t.Setenv("CAUSEWAY_TEST_EMPTY", "")
	for _, c := range []struct{ psk, want, mistake string }{
		{`correct horse`, "correct horse", ""},
		{`'0123456789'`, "0123456789", ""},
		{`0123456789`, "0123456789", ""},
		{`"123_456"`, "123_456", ""},
		{`'1e5'`, "1e5", ""},
		{`1e5x`, "1e5x", ""},
		{`-correct`, "-correct", ""},
		{`123_456`, "", oddNumberMistake}, // others read 123456, which some would write back so
		{`1e5`, "", oddNumberMistake},
		{`1e+5`, "", oddNumberMistake},
		{`1.5e5`, "", oddNumberMistake},
		{`12.5`, "", oddNumberMistake},
		{`.5`, "", oddNumberMistake},
		{`-12`, "", oddNumberMistake},
		{`+12`, "", oddNumberMistake},
		{`0o17`, "", oddNumberMistake},
		{`0b11`, "", oddNumberMistake},
		{`0x00112233445566778899aabbccddeeff`, "\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff", ""},
		{`"0xFF"`, "\xff", ""},
		{`Schlüssel`, "Schlüssel", ""},
		{`{env: CAUSEWAY_TEST_PSK}`, "\x00\xff", ""},
		{`{env: CAUSEWAY_TEST_EMPTY}`, "", "env: is empty"},
		{file("line", "correct horse\n", 0o600), "correct horse", ""},
		{file("crlf", "correct horse\r\n", 0o400), "correct horse", ""},
		{file("spaces", " correct horse ", 0o600), " correct horse ", ""},
		{file("octets", "0x00ff\n", 0o600), "\x00\xff", ""},
		{file("lines", "correct\nhorse\n", 0o600), "", "file: has a new line"},
		{file("nothing", "\n", 0o600), "", "file: is empty"},
		{file("open", "correct horse\n", 0o640), "", "others may read it (0640): chmod 600"},
		{file("large", strings.Repeat("x", 4097), 0o600), "", "not a file with a key"},
	} {
		got, err := Parse("c.yaml", []byte(ike("", "{psk: "+c.psk+"}")))
		switch {
		case c.mistake == "" && (err != nil || string(got.Tunnels[0].IPsec.IKE.PSK) != c.want):
			t.Errorf("%s: %v", c.psk, err)
		case c.mistake != "" && (err == nil || !strings.Contains(err.Error(), c.mistake)):
			t.Errorf("%s: %v, want %s", c.psk, err, c.mistake)
		}
		if err != nil && strings.Contains(err.Error(), "horse") {
			t.Errorf("the key is in %v", err)
		}
	}
}

const oddNumberMistake = "psk: must be {file: PATH}, {env: NAME} or a text in quotes"

// TestCertificateFiles: they must be there, and the key is its owner's alone. What is in them is found out at run.
func TestCertificateFiles(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		key  os.FileMode
		cert os.FileMode
		want string
	}{
		{0o600, 0o644, ""},
		{0o400, 0o600, ""},
		{0o644, 0o644, `c.yaml:9:` + fmt.Sprint(10+len("{certificate: ")+len(dir)+len("/cert.pem, key: ")) + `: tunnels[0].ike.key: "` + dir + `/key.pem": others may read it (0644): chmod 600`},
	} {
		for name, mode := range map[string]os.FileMode{"cert.pem": c.cert, "key.pem": c.key, "ca.pem": c.cert} {
			path := filepath.Join(dir, name)
			if err := errors.Join(os.WriteFile(path, []byte("not PEM"), 0o600), os.Chmod(path, mode)); err != nil {
				t.Fatal(err)
			}
		}
		got, err := Parse("c.yaml", []byte(ike("", fmt.Sprintf("{certificate: %s/cert.pem, key: %[1]s/key.pem, ca: %[1]s/ca.pem}", dir))))
		if c.want != "" {
			if err == nil || err.Error() != c.want {
				t.Errorf("got %v, want %s", err, c.want)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if k := got.Tunnels[0].IPsec.IKE; k.Certificate != dir+"/cert.pem" || k.Key != dir+"/key.pem" || k.CA != dir+"/ca.pem" || k.PSK != nil {
			t.Errorf("%+v", k)
		}
		if w := fmt.Sprint(got.Warnings()); strings.Contains(w, "ike") {
			t.Errorf("warnings %s", w)
		}
	}
}

func TestDurations(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"30s": 30 * time.Second, "1h30m": 90 * time.Minute, "1.5h": 90 * time.Minute, "7d": 7 * 24 * time.Hour, "1d12h": 36 * time.Hour, "250ms": 250 * time.Millisecond,
		"": -1, "d": -1, "1": -1, "1 h": -1, "h1": -1, "1d ": -1, "1.5d": -1, "-1d": -1, "+1d": -1, "1h1d": -1, "1d1d": -1, "1d-1h": -1, "1d24h": -1, "65536d": -1, "9223372036854775808ns": -1,
	} {
		got, err := parseDuration(text)
		if (err != nil) != (want < 0) || err == nil && got != want {
			t.Errorf("%q: got %v, %v", text, got, err)
		}
	}
	for d, want := range map[time.Duration]string{time.Second: "1s", time.Hour: "1h", 30 * 24 * time.Hour: "30d"} {
		if back, err := parseDuration(spell(d)); spell(d) != want || err != nil || back != d {
			t.Errorf("%v is spelled %s", d, spell(d))
		}
	}
}

// TestIKEWarnings has all of them, to the letter.
func TestIKEWarnings(t *testing.T) {
	t.Setenv("CAUSEWAY_TEST_PSK", "0123456789abcdef")
	quiet := "prefixes: [203.0.113.0/24]"
	const inline = "c.yaml:9:16: tunnels[0].ike.psk: the key stands here, and goes wherever this file goes: write {file: PATH}, which only its owner may read, or {env: NAME}"
	for _, w := range []struct{ section, want string }{
		{"{psk: {env: CAUSEWAY_TEST_PSK}}", ""},
		{"{psk: 0123456789abcdef}", inline},
		{"{psk: 0sMTIzNDU2Nzg5MDEyMzQ1Ng==}", "c.yaml:9:16: tunnels[0].ike.psk: begins with 0s, which is part of the key here, and in strongSwan the mark of base64: write 0x and hexadecimal digits\n" + inline},
		{"{psk: 'short '}", "c.yaml:9:16: tunnels[0].ike.psk: begins or ends with a space, which is part of the key\n" +
			"c.yaml:9:16: tunnels[0].ike.psk: has 6 bytes: who poses as the router for one handshake can find out a short key by trying (RFC 7296 2.15); write 16 random ones at least\n" + inline},
		{"{psk: {env: CAUSEWAY_TEST_PSK}, lifetime: {ike: 25h, child: 59s}}",
			"c.yaml:9:58: tunnels[0].ike.lifetime.ike: 25h0m0s is longer than a day: who finds out a key can read that much; 8h and 1h are usual\n" +
				"c.yaml:9:70: tunnels[0].ike.lifetime.child: 59s is shorter than a minute, as for a test: both ends are always renewing"},
		{"{psk: {env: CAUSEWAY_TEST_PSK}, dpd: off}",
			"c.yaml:9:47: tunnels[0].ike.dpd: is off: a router that began anew or is gone is noticed by the next renewal only, and until then its packets are lost"},
		{"{psk: {env: CAUSEWAY_TEST_PSK}, local_id: cn, remote_id: CN, dpd: 10s}",
			"c.yaml:9:67: tunnels[0].ike.remote_id: \"CN\" is a name of one word; the subject of a certificate is written with a text, as in CN=edge\n" +
				"c.yaml:9:67: tunnels[0].ike.remote_id: \"CN\" is the identity of this end too: most routers take no peer that has their own name"},
		{"{psk: {env: CAUSEWAY_TEST_PSK}, local_id: Same.example, remote_id: same.example}",
			"c.yaml:9:77: tunnels[0].ike.remote_id: \"same.example\" is the identity of this end too: most routers take no peer that has their own name"},
	} {
		var lines []string
		for _, warning := range mustParse(t, ike(quiet, w.section)).Warnings() {
			lines = append(lines, warning.String())
		}
		if got := strings.Join(lines, "\n"); got != w.want {
			t.Errorf("%s: got\n%s\nwant\n%s", w.section, got, w.want)
		}
	}
	two := twoIKE("customer_endpoint: 198.51.100.2", "dpd: 1m", "customer_endpoint: 198.51.100.3", "dpd: 1m")
	shared := "tunnels[1].ike.psk: is the key of tunnel \"t1\" of account \"acme\" too: each of the two customers can pass for the other; make a key for each tunnel"
	if w := fmt.Sprint(mustParse(t, swapIn(two, "name: t1", "name: t1, account: acme")).Warnings()); !strings.Contains(w, shared) {
		t.Errorf("one key for two accounts: %s", w)
	}
	if w := fmt.Sprint(mustParse(t, two).Warnings()); strings.Contains(w, "is the key of tunnel") {
		t.Errorf("one key within an account: %s", w)
	}
}

// TestPSKIsNotPrinted by anything that prints a configuration.
func TestPSKIsNotPrinted(t *testing.T) {
	c := mustParse(t, ike("", "{psk: correct horse battery staple}"))
	j, err := json.Marshal(c.Tunnels)
	if err != nil {
		t.Fatal(err)
	}
	k := c.Tunnels[0].IPsec.IKE
	out := fmt.Sprintf("%v %+v %#v %v %s", k, k, k, c.Warnings(), j)
	if strings.Contains(out, "horse") || strings.Contains(out, fmt.Sprint([]byte("horse"))) || strings.Count(out, "secret of 28 bytes") < 4 {
		t.Error(out)
	}
}

// TestIKEChangesAreSeen: a field that is forgotten would keep an old key, or an old rule, after a reload.
func TestIKEChangesAreSeen(t *testing.T) {
	with := func(k IKE) Tunnel { return Tunnel{IPsec: &IPsec{IKE: &k}} }
	base := with(IKE{})
	for _, f := range reflect.VisibleFields(reflect.TypeFor[IKE]()) {
		var k IKE
		v := reflect.ValueOf(&k).Elem().FieldByIndex(f.Index)
		switch p := v.Addr().Interface().(type) {
		case *Secret:
			*p = Secret("x")
		case *string:
			*p = "x"
		case *bool:
			*p = true
		case *[]string:
			*p = []string{"x"}
		case *Lifetime:
			p.Packets = 1
		case *time.Duration:
			*p = 1
		default:
			t.Fatalf("no change for %T", p)
		}
		got := base.differences(with(k))
		if len(got) != 1 || strings.ReplaceAll(strings.TrimPrefix(got[0], "ike."), "_", "") != strings.ToLower(f.Name) {
			t.Errorf("a change of %s is seen as %q", f.Name, got)
		}
	}
	for _, c := range []struct {
		old, new Tunnel
		want     string
	}{
		{base, base, ""},
		{base, Tunnel{}, "ike"},
		{Tunnel{}, base, "ike"},
		{base, Tunnel{IPsec: &IPsec{SA: ManualSA{SPIIn: 1}}}, "manual_sas ike"},
		{with(IKE{PSK: Secret("a")}), with(IKE{PSK: Secret("b")}), "ike.psk"},
		{base, Tunnel{IPsec: &IPsec{AllowNull: true, IKE: &IKE{}}}, "allow_null_cipher"},
		{base, Tunnel{IPsec: &IPsec{IKE: &IKE{Proposals: []string{"a", "b"}, DPD: 1}}}, "ike.proposals ike.dpd"},
		{with(IKE{Proposals: []string{"b", "a"}}), with(IKE{Proposals: []string{"a", "b"}}), "ike.proposals"},
		{base, Tunnel{CustomerEndpoint: netip.MustParseAddr("192.0.2.9"), IPsec: &IPsec{IKE: &IKE{}}}, "customer_endpoint"},
	} {
		if got := strings.Join(c.old.differences(c.new), " "); got != c.want {
			t.Errorf("%+v to %+v: %q, want %q", c.old.IPsec, c.new.IPsec, got, c.want)
		}
	}
}
