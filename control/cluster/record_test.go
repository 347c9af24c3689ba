package cluster

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hpke"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"causeway/control/cluster/seal"
	"causeway/control/ike/sa"
	"causeway/crypto/esp"
)

// addresses are compared as they are.
var addresses = cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}, netip.Prefix{})

// fullChild is a child of a suite, of which nothing is zero.
func fullChild(s esp.Suite) *sa.Child {
	return &sa.Child{Tunnel: "cust-a", SPIIn: 0x1001, SPIOut: 0xfffffffe, Suite: s, ESN: true,
		KeyIn: bytes.Repeat([]byte{1}, s.KeySize()), KeyOut: bytes.Repeat([]byte{0xff}, s.KeySize()),
		Local:    []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")},
		Remote:   []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("10.1.2.3/8")},
		Endpoint: netip.MustParseAddr("2001:db8::1"), Peer: netip.MustParseAddrPort("[2001:db8::2]:4500"),
		UDP: true, NAT: true, Life: esp.Life{SoftPackets: 1, HardPackets: 1<<64 - 1, SoftBytes: 3, HardBytes: 1 << 63},
		Expires: time.Date(2027, 1, 2, 3, 4, 5, 123456789, time.FixedZone("", 3600))}
}

// asShared is a child as another node reads it.
func asShared(t testing.TB, c *sa.Child) *sa.Child {
	t.Helper()
	r := recordOf(c)
	read, err := parseRecord(r.marshal())
	if err != nil {
		t.Fatal(err)
	}
	got, err := read.child(c.SPIIn)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestRecordIsTheChild(t *testing.T) {
	for _, name := range esp.SuiteNames() {
		s, err := esp.ParseSuite(name)
		if err != nil {
			t.Fatal(err)
		}
		few := &sa.Child{Tunnel: "cust-a", SPIIn: 256, Suite: s, KeyIn: make([]byte, s.KeySize()), KeyOut: make([]byte, s.KeySize())}
		v4 := fullChild(s)
		v4.Endpoint, v4.Peer, v4.UDP = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddrPort("198.51.100.2:0"), false
		for _, c := range []*sa.Child{fullChild(s), few, v4} {
			if diff := cmp.Diff(c, asShared(t, c), addresses); diff != "" {
				t.Errorf("%s: %s", name, diff)
			}
		}
	}
}

// What a child has that fullChild has not, nobody knows to be shared.
func TestFullChildIsFull(t *testing.T) {
	for _, v := range []reflect.Value{reflect.ValueOf(*fullChild(esp.AES128GCM16)), reflect.ValueOf(fullChild(esp.AES128GCM16).Life)} {
		for i := range v.NumField() {
			if v.Field(i).IsZero() && v.Type().Field(i).Name != "Agreed" { // of interest to who installs it first alone
				t.Errorf("%s.%s: give it a value in fullChild, and carry it in record", v.Type(), v.Type().Field(i).Name)
			}
		}
	}
}

// Times keep their nanoseconds, and lose this process's own clock.
func TestRecordTime(t *testing.T) {
	c := fullChild(esp.AES128GCM16)
	c.Expires = time.Now().Add(time.Hour)
	if got := asShared(t, c).Expires; !got.Equal(c.Expires) {
		t.Errorf("it expires %v, not %v", got, c.Expires)
	}
}

func TestRecordOfLaterReleases(t *testing.T) {
	r := recordOf(fullChild(esp.AES256GCM16))
	r.Generation, r.Node, r.Writer, r.Store, r.Used = 1<<64-1, "hub", 0xfffff, 1<<63, 1<<62
	text := r.marshal()
	later := append([]byte(`{"later":{"v":2,"kind":[]},"key":"AAAA","in":1,`), text[1:]...)
	got, err := parseRecord(later)
	if err != nil {
		t.Fatal(err)
	}
	if again := got.marshal(); !bytes.Equal(again, text) {
		t.Errorf("%s, want %s", again, text)
	}
}

func TestParseRecordRefuses(t *testing.T) {
	r := recordOf(fullChild(esp.AES128GCM16))
	with := func(f func(*record)) string {
		r := r
		f(&r)
		return string(r.marshal())
	}
	whole := with(func(*record) {})
	const version = "record of a child SA: version %d, this release reads 1"
	for name, c := range map[string]struct{ text, say string }{
		"version 2":      {with(func(r *record) { r.Version = 2 }), fmt.Sprintf(version, 2)},
		"version 0":      {with(func(r *record) { r.Version = 0 }), fmt.Sprintf(version, 0)},
		"no version":     {"{}", fmt.Sprintf(version, 0)},
		"null":           {"null", fmt.Sprintf(version, 0)},
		"no kind":        {with(func(r *record) { r.Kind = "" }), `record of a child SA: unknown kind ""`},
		"unknown kind":   {with(func(r *record) { r.Kind = "Child" }), `record of a child SA: unknown kind "Child"`},
		"nothing":        {"", "record of a child SA: unexpected end of JSON input"},
		"cut off":        {whole[:len(whole)-1], "record of a child SA: unexpected end of JSON input"},
		"more":           {whole + "{", "record of a child SA: invalid character '{' after top-level value"},
		"spi of 33 bits": {strings.Replace(whole, `"out":4294967294`, `"out":4294967296`, 1), "record of a child SA: json: cannot unmarshal number 4294967296"},
		"key not base64": {strings.Replace(whole, `"key_in":"AQ`, `"key_in":"*Q`, 1), "record of a child SA: illegal base64 data at input byte 0"},
		"no port":        {strings.Replace(whole, `"[2001:db8::2]:4500"`, `"192.0.2.1"`, 1), "record of a child SA: not an ip:port"},
	} {
		if got, err := parseRecord([]byte(c.text)); got != nil || err == nil || !strings.HasPrefix(err.Error(), c.say) {
			t.Errorf("%s: %v, want %s", name, err, c.say)
		}
	}
	for _, k := range []kind{reserved, child, gone} {
		if got, err := parseRecord([]byte(with(func(r *record) { r.Kind = k }))); err != nil || got.Kind != k {
			t.Errorf("%s: %v", k, err)
		}
	}
}

// A record that does not fit its suite makes no child.
func TestRecordKeySizes(t *testing.T) {
	for _, name := range esp.SuiteNames() {
		s, err := esp.ParseSuite(name)
		if err != nil {
			t.Fatal(err)
		}
		size := s.KeySize()
		for _, n := range [][2]int{{0, size}, {size, 0}, {0, 0}, {size - 1, size}, {size + 1, size}, {size, size - 1}, {size, size + 1}, {2 * size, 0}} {
			r := record{Suite: name, KeyIn: make([]byte, n[0]), KeyOut: make([]byte, n[1])}
			want := fmt.Sprintf("keys of %d and %d bytes for %s", n[0], n[1], name)
			if k, err := r.child(256); k != nil || err == nil || err.Error() != want {
				t.Errorf("%v, want %s", err, want)
			}
		}
	}
	for _, name := range []string{"", "AES128GCM16", "aes128gcm16 ", "aes128gcm8"} {
		r := record{Suite: name}
		if k, err := r.child(256); k != nil || err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%q is no encryption", name)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A record has its own keys once it was read: to wipe them wipes no others, and leaves nothing.
func TestRecordWipe(t *testing.T) {
	c := fullChild(esp.AES128GCM16)
	r := recordOf(c)
	text := r.marshal()
	read, err := parseRecord(text)
	if err != nil {
		t.Fatal(err)
	}
	in, out := read.KeyIn, read.KeyOut
	clear(text)
	if !bytes.Equal(in, c.KeyIn) || !bytes.Equal(out, c.KeyOut) {
		t.Error("the keys lie in the text")
	}
	read.wipe()
	if zero := make([]byte, 20); !bytes.Equal(in, zero) || !bytes.Equal(out, zero) {
		t.Errorf("keys %x and %x are left", in, out)
	}
	if diff := cmp.Diff(c, fullChild(esp.AES128GCM16), addresses); diff != "" {
		t.Errorf("the child has changed: %s", diff)
	}
}

func TestSPIKey(t *testing.T) {
	for spi, key := range map[uint32]string{0: "00000000", 1: "00000001", 0x100: "00000100", 0xabcdef01: "abcdef01", 0xffffffff: "ffffffff"} {
		if got := spiKey(spi); got != key {
			t.Errorf("the key of %#x is %s, want %s", spi, got, key)
		}
		if got, err := parseSPIKey(key); err != nil || got != spi {
			t.Errorf("%s: %#x, %v", key, got, err)
		}
	}
	for _, key := range []string{"", "0", "0000001", "000000001", "00000001 ", " 00000001", " 0000001", "0000000g", "g0000000", "+0000001", "-0000001", "0x000001", "0X000001", "ABCDEF01", "abcdeF01",
		"00000001\n", "\n00000001", "0000000\n1", "0000_001", "100000000", "0000000100000001", "00000001.", "00000001\x00", "0000\u00e401", "\uff10\uff10\uff10\uff10\uff10\uff10\uff10\uff11", "current", ">", "*"} {
		if spi, err := parseSPIKey(key); err == nil || spi != 0 || err.Error() != fmt.Sprintf("%q is no SPI", key) {
			t.Errorf("%q: %#x, %v", key, spi, err)
		}
	}
}

// fixed is an identity that is the same each time.
func fixed(t testing.TB, b byte) *seal.Identity {
	t.Helper()
	bytes := bytes.Repeat([]byte{b}, 32)
	opens, err := hpke.MLKEM768X25519().NewPrivateKey(bytes)
	if err != nil {
		t.Fatal(err)
	}
	public := seal.Public{Seals: opens.PublicKey().Bytes(), Verifies: ed25519.NewKeyFromSeed(bytes).Public().(ed25519.PublicKey)}
	secret := base64.StdEncoding.EncodeToString(bytes)
	i, err := seal.ParseIdentity(fmt.Appendf(nil, `{"version":1,"opens":%q,"signs":%q,"fingerprint":%q}`, secret, secret, public.Fingerprint()))
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// memberOf is what a node says of itself, of which nothing is zero.
func memberOf(name string, i *seal.Identity) *Member {
	return &Member{Version: 1, Name: name, Public: i.Public(), Address: netip.MustParseAddr("2001:db8::1"), Datacenter: "fra1", Region: "eu", Release: "v1.2.3", Writer: 0xfffff, Epoch: 7, Oldest: 6,
		NotReady: []string{"draining", "no port has a link"}, SAs: 1000, Digest: "0123456789abcdef", Started: 1<<63 - 1, Beat: 1<<64 - 1, Leaving: true, Keyed: []uint32{1, 0xfffff}, KeyedEpoch: 1<<32 - 1, Messages: true, Beats: true, Hears: true, Misses: []string{"a"}, Yields: Draining,
		Runs: runsRecord{Serial: 1<<64 - 1, Refused: 9, Why: []byte("sealed")}}
}

// said is a text that a node has signed as its record.
func said(by *seal.Identity, text string) []byte {
	return append(by.Sign("member", []byte(text)), text...)
}

// textOf is the text of a record.
func textOf(t testing.TB, m *Member) string {
	t.Helper()
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestParseMember(t *testing.T) {
	hub, a := fixed(t, 1), fixed(t, 2)
	roster := seal.Roster{"hub": hub.Public().Fingerprint(), "a": a.Public().Fingerprint()}
	v := reflect.ValueOf(*memberOf("hub", hub))
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			t.Errorf("%s: give it a value in memberOf", v.Type().Field(i).Name)
		}
	}
	for _, want := range []*Member{memberOf("hub", hub), memberOf("a", a), {Version: 1, Name: "a", Public: a.Public()}} {
		got, err := parseMember(want.Name, want.sign(map[string]*seal.Identity{"hub": hub, "a": a}[want.Name]), roster)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, addresses); diff != "" {
			t.Error(diff)
		}
	}
	// Of a later release: it has signed what this one does not know.
	text := textOf(t, memberOf("hub", hub))
	for _, later := range []string{
		`{"later":{"name":"a","version":[]},"cluster":7,` + text[1:],
		strings.Replace(text, `"version":1`, `"version":2`, 1),
		" " + text + "\n",
	} {
		if m, err := parseMember("hub", said(hub, later), roster); err != nil || m.Name != "hub" || m.Beat != 1<<64-1 {
			t.Errorf("%.60s: %v", later, err)
		}
	}
}

func TestParseMemberRefuses(t *testing.T) {
	hub, a, rogue := fixed(t, 1), fixed(t, 2), fixed(t, 3)
	name := func(i *seal.Identity) string { return i.Public().Fingerprint() }
	roster := seal.Roster{"hub": name(hub), "a": name(a)}
	calls := func(itself string, i *seal.Identity) string {
		return fmt.Sprintf("its identity %s is not that of this name in the roster, or its record is another's", name(i))
	}
	const none, unsigned = "its record is none", "its record is not signed by it"
	m := memberOf("hub", hub)
	text, signed := textOf(t, m), m.sign(hub)
	long := text + strings.Repeat(" ", maxMember-64-len(text))
	mixed := memberOf("hub", hub)
	mixed.Public.Verifies = a.Public().Verifies
	for what, c := range map[string]struct {
		key string
		b   []byte
		say string
	}{
		"nothing":                         {"hub", nil, "its record has 0 bytes"},
		"half a signature":                {"hub", signed[:63], "its record has 63 bytes"},
		"a signature alone":               {"hub", signed[:64], none},
		"too long":                        {"hub", said(hub, long+" "), "its record has 16385 bytes"},
		"a text alone":                    {"hub", []byte(text), none},
		"without a signature":             {"hub", append(make([]byte, 64), text...), unsigned},
		"signed by another":               {"hub", m.sign(a), unsigned},
		"signed by nobody of the cluster": {"hub", m.sign(rogue), unsigned},
		"signed about another thing":      {"hub", append(hub.Sign("wrap", []byte(text)), text...), unsigned},
		"signature of another text":       {"hub", append(bytes.Clone(signed[:64]), textOf(t, &Member{Version: 1, Name: "hub", Public: hub.Public()})...), unsigned},
		"the signature behind":            {"hub", append([]byte(text), signed[:64]...), none},
		"another's place":                 {"a", signed, calls("hub", hub)},
		"another's name":                  {"hub", memberOf("a", a).sign(a), calls("a", a)},
		"another's name, own keys":        {"a", memberOf("a", hub).sign(hub), calls("a", hub)},
		"own place, another's name":       {"hub", memberOf("a", hub).sign(hub), calls("a", hub)},
		"a name in other letters":         {"HUB", memberOf("HUB", hub).sign(hub), calls("HUB", hub)},
		"not in the roster":               {"rogue", memberOf("rogue", rogue).sign(rogue), calls("rogue", rogue)},
		"admitted name, other keys":       {"hub", memberOf("hub", rogue).sign(rogue), calls("hub", rogue)},
		"half of another's keys":          {"hub", mixed.sign(a), fmt.Sprintf("its identity %s is not that", mixed.Public.Fingerprint())},
		"version 0":                       {"hub", said(hub, strings.Replace(text, `"version":1`, `"version":0`, 1)), none},
		"no JSON":                         {"hub", said(hub, text[1:]), none},
		"more JSON":                       {"hub", said(hub, text+text), none},
		"null":                            {"hub", said(hub, "null"), none},
		"no keys":                         {"hub", said(hub, `{"version":1,"name":"hub"}`), fmt.Sprintf("its identity %s is not that", seal.Public{}.Fingerprint())},
	} {
		if got, err := parseMember(c.key, c.b, roster); got != nil || err == nil || !strings.HasPrefix(err.Error(), c.say) {
			t.Errorf("%s: %v, want %s", what, err, c.say)
		}
	}
	if _, err := parseMember("hub", said(hub, long), roster); err != nil {
		t.Errorf("as long as one may be: %v", err)
	}
	if _, err := parseMember("hub", signed, nil); err == nil || err.Error() != calls("hub", hub) {
		t.Errorf("nobody is admitted: %v", err)
	}
}

func TestParseMemberUnchanged(t *testing.T) {
	hub := fixed(t, 1)
	roster := seal.Roster{"hub": hub.Public().Fingerprint()}
	signed := memberOf("hub", hub).sign(hub)
	for at := range signed {
		for _, bits := range []byte{1, 0x20, 0x80} { // 0x20: another case, which JSON does not mind in names
			b := bytes.Clone(signed)
			b[at] ^= bits
			if _, err := parseMember("hub", b, roster); err == nil {
				t.Errorf("byte %d, bits %#x: it is believed", at, bits)
			}
		}
	}
	for n := range signed {
		if _, err := parseMember("hub", signed[:n], roster); err == nil {
			t.Errorf("the first %d bytes are believed", n)
		}
	}
	if _, err := parseMember("hub", append(bytes.Clone(signed), ' '), roster); err == nil {
		t.Error("a byte more is believed")
	}
}

func TestLease(t *testing.T) {
	now := time.Now()
	for ago, want := range map[time.Duration]bool{0: true, leaseTime - 1: true, leaseTime: false, time.Hour: false} {
		if got := newLease(&Member{}, &sign{heard: now.Add(-ago), patience: leaseTime}).live(now); got != want {
			t.Errorf("heard %v ago: alive %v", ago, got)
		}
	}
	fresh := &sign{heard: now, patience: leaseTime}
	gone := newLease(&Member{}, fresh)
	gone.gone.Store(true)
	if newLease(&Member{Leaving: true}, fresh).live(now) || gone.live(now) {
		t.Error("a node that stops, or is gone, is alive")
	}
}
