package seal

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestIdentityRoundTrip(t *testing.T) {
	fresh, err := NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, i := range []*Identity{fresh, fixed(t, 1), fixed(t, 2)} {
		b, err := i.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseIdentity(b)
		if err != nil {
			t.Fatal(err)
		}
		names[i.Public().Fingerprint()] = true
		if !reflect.DeepEqual(again.Public(), i.Public()) {
			t.Errorf("%s is %s after it was read", i.Public().Fingerprint(), again.Public().Fingerprint())
		}
		w, err := ringOf(7).Wrap(7, again, i.Public())
		if err != nil {
			t.Fatal(err)
		}
		if k, err := again.Unwrap(w, i.Public()); err != nil || *k != *keyOf(7) {
			t.Errorf("its private keys are others: %v", err)
		}
	}
	if len(names) != 3 {
		t.Errorf("fingerprints %v", slices.Collect(maps.Keys(names)))
	}
	b, err := fixed(t, 0xa7).Marshal()
	secret := bytes.Repeat([]byte{0xa7}, 32)
	if want := identityText(1, secret, secret); err != nil || !bytes.Equal(b, want) {
		t.Errorf("the file is %s, %v, want %s", b, err, want)
	}
}

// A damaged file says that it is one, and nothing of what is in it.
func TestDamagedIdentity(t *testing.T) {
	const none, damaged = "not the identity of a node", "not the identity of a node: its key is damaged"
	s := bytes.Repeat([]byte{0xa7}, 33)
	whole := string(identityText(1, s[:32], s[:32]))
	for _, c := range []struct{ text, say string }{
		{"", none},
		{"null", none},
		{"{}", none},
		{"[]", none},
		{string(s), none},
		{whole + "}", none},
		{whole + whole, none},
		{string(identityText(0, s[:32], s[:32])), none},
		{string(identityText(2, s[:32], s[:32])), none},
		{string(identityText(1, s[:32], s[:31])), none},
		{string(identityText(1, s[:32], s[:33])), none},
		{string(identityText(1, s[:32], nil)), none},
		{string(identityText(1, s[:31], s[:32])), damaged},
		{string(identityText(1, s[:33], s[:32])), damaged},
		{string(identityText(1, nil, s[:32])), damaged},
		{strings.Replace(whole, "p6en", "p6e*", 1), none},
		{strings.Replace(whole, "p6en", "p6eo", 1), none + ": its keys are not those of its fingerprint"},
		{strings.Replace(whole, `:"p6en`, `:"p6en":"`, 1), none},
		{strings.Replace(whole, `"opens":"`, `"opens":"\p6en`, 1), none},
		{strings.Replace(whole, `"version":1`, `"version":"1"`, 1), none},
		{strings.Replace(whole, `"version":1`, `"version":167167167167167167167167167167`, 1), none},
	} {
		if _, err := ParseIdentity([]byte(c.text)); err == nil || err.Error() != c.say || shows(err.Error()) {
			t.Errorf("%s: %v, want %s", c.text, err, c.say)
		}
	}
	for n := range whole {
		if _, err := ParseIdentity([]byte(whole[:n])); err == nil || err.Error() != none {
			t.Errorf("%s: %v", whole[:n], err)
		}
	}
}

// What is signed about one thing is not valid about another, nor by another, nor for another message.
func TestSign(t *testing.T) {
	a, b := fixed(t, 1), fixed(t, 2)
	message := []byte("message")
	signature := a.Sign("member", message)
	h := sha256.Sum256(message)
	if want := ed25519.Sign(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32)), append([]byte("causeway member\x00"), h[:]...)); !bytes.Equal(signature, want) {
		t.Errorf("%x, want %x", signature, want)
	}
	for _, c := range []struct {
		what      string
		by        Public
		about     string
		message   string
		signature []byte
		want      bool
	}{
		{"itself", a.Public(), "member", "message", signature, true},
		{"about another thing", a.Public(), "wrap", "message", signature, false},
		{"about less", a.Public(), "membe", "message", signature, false},
		{"about nothing", a.Public(), "", "message", signature, false},
		{"another message", a.Public(), "member", "messagE", signature, false},
		{"no message", a.Public(), "member", "", signature, false},
		{"what is hashed as the message", a.Public(), "member", string(h[:]), signature, false},
		{"by another", b.Public(), "member", "message", signature, false},
		{"no signature", a.Public(), "member", "message", nil, false},
		{"half a signature", a.Public(), "member", "message", signature[:32], false},
		{"more signature", a.Public(), "member", "message", append(signature[:64:64], 0), false},
		{"without a key", Public{}, "member", "message", signature, false},
		{"with half a key", Public{Verifies: a.Public().Verifies[:16]}, "member", "message", signature, false},
		{"with a longer key", Public{Verifies: append(a.Public().Verifies[:32:32], 0)}, "member", "message", signature, false},
	} {
		if got := c.by.Verify(c.about, []byte(c.message), c.signature); got != c.want {
			t.Errorf("%s: %v", c.what, got)
		}
	}
}

// Fingerprints are of both keys, and of where one ends.
func TestFingerprint(t *testing.T) {
	p := fixed(t, 1).Public()
	h := sha256.Sum256(slices.Concat([]byte("causeway identity\x001216 32\x00"), p.Seals, p.Verifies))
	if got, want := p.Fingerprint(), "cw1:"+base64.RawURLEncoding.EncodeToString(h[:]); got != want || len(got) != 47 {
		t.Errorf("%s, want %s", got, want)
	}
	whole := slices.Concat(p.Seals, p.Verifies)
	seen := map[string]bool{}
	for _, o := range []Public{p, {whole, nil}, {nil, whole}, {whole[:1215], whole[1215:]}, {changed(p.Seals, 1215, 1), p.Verifies}, {p.Seals, changed(p.Verifies, 0, 1)}, {}} {
		f := o.Fingerprint()
		if err := CheckFingerprint(f); err != nil || seen[f] {
			t.Errorf("%s: %v", f, err)
		}
		seen[f] = true
	}
}

func TestCheckFingerprint(t *testing.T) {
	f := fixed(t, 1).Public().Fingerprint()
	for _, s := range []string{"", "cw1:", f[4:], "cw2:" + f[4:], "CW1:" + f[4:], f[:46], f + "A", f + "=", " " + f, f + " ", "cw1:" + strings.Repeat("+", 43), "cw1:" + strings.Repeat("/", 43),
		"cw1:" + strings.Repeat("A", 42) + "B", // bits behind the last byte
		"cw1:" + strings.Repeat("\u00e4", 21) + "A", f[:20] + "\n" + f[20:]} {
		want := fmt.Sprintf("%q is no fingerprint of a node: it is cw1: and 43 characters, as `causeway cluster identity` prints it", s)
		if err := CheckFingerprint(s); err == nil || err.Error() != want {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func noName(s string) string {
	return fmt.Sprintf("%q is no name of a node: letters, digits, '.', '_' and '-' are allowed", s)
}

func TestParseRoster(t *testing.T) {
	a, b := fixed(t, 1).Public().Fingerprint(), fixed(t, 2).Public().Fingerprint()
	const words = " words: a line has a node's name and its fingerprint, as `causeway cluster identity` prints it"
	const twice = " already: each node has one name and one identity"
	for _, c := range []struct {
		name, text string
		want       Roster
		say        string
	}{
		{"nothing", "", Roster{}, ""},
		{"comments alone", "# nobody\n\n   \t\n#", Roster{}, ""},
		{"one", "a " + a, Roster{"a": a}, ""},
		{"two", "a " + a + "\nb " + b + "\n", Roster{"a": a, "b": b}, ""},
		{"comments and blank lines", "\n# the first\na " + a + " # of Frankfurt\n\n#b " + b + "\n", Roster{"a": a}, ""},
		{"tabs, and lines as Windows ends them", "\ta\t \t" + a + "\t\r\nb " + b + "\r\n", Roster{"a": a, "b": b}, ""},
		{"a comment without a space before it", "a " + a + "#comment", Roster{"a": a}, ""},
		{"a name twice", "a " + a + "\n\na " + b, nil, "3: a stands on line 1" + twice},
		{"an identity twice", "a " + a + "\nb " + a, nil, "2: " + a + " stands on line 1" + twice},
		{"a line twice", "# x\na " + a + "\na " + a, nil, "3: a stands on line 2" + twice},
		{"named like itself", a + " " + a, nil, "1: " + noName(a)},
		{"named like another", "a " + a + "\n" + a + " " + b, nil, "2: " + noName(a)},
		{"a path", "a/b " + a, nil, "1: " + noName("a/b")},
		{"a byte order mark", "\ufeffa " + a, nil, "1: " + noName("\ufeffa")},
		{"one word", "a " + a + "\nb\n", nil, "2: 1" + words},
		{"an identity alone", "a " + a + "\n" + b, nil, "2: 1" + words},
		{"three words", "a " + a + " Frankfurt", nil, "1: 3" + words},
		{"no fingerprint", "a b", nil, "1: " + CheckFingerprint("b").Error()},
		{"half a fingerprint", "\na " + a[:30], nil, "2: " + CheckFingerprint(a[:30]).Error()},
		{"the wrong way round", a + " a", nil, "1: " + noName(a)},
		{"the fingerprint cut by a comment", "a " + a[:20] + "#" + a[20:], nil, "1: " + CheckFingerprint(a[:20]).Error()},
	} {
		r, err := ParseRoster(c.text)
		if say := fmt.Sprint(err); !reflect.DeepEqual(r, c.want) || c.say == "" && err != nil || c.say != "" && say != c.say {
			t.Errorf("%s: %v, %v, want %v, %s", c.name, r, err, c.want, c.say)
		}
	}
	if _, err := ParseRoster("a b"); errors.Unwrap(err) == nil {
		t.Error("the fingerprint's error is not to be had")
	}
}

func TestAdmits(t *testing.T) {
	a, b := fixed(t, 1).Public(), fixed(t, 2).Public()
	r := Roster{"a": a.Fingerprint(), "b": b.Fingerprint()}
	for _, c := range []struct {
		r    Roster
		name string
		keys Public
		want bool
	}{
		{r, "a", a, true},
		{r, "b", b, true},
		{r, "a", b, false},
		{r, "A", a, false},
		{r, "", a, false},
		{r, "c", a, false},
		{r, "a", Public{}, false},
		{r, "a", Public{Seals: a.Seals}, false},
		{r, "a", Public{Seals: b.Seals, Verifies: a.Verifies}, false},
		{r, "a", Public{Seals: a.Seals, Verifies: b.Verifies}, false},
		{nil, "a", a, false},
		{Roster{"a": ""}, "a", Public{}, false},
	} {
		if got := c.r.Admits(c.name, c.keys); got != c.want {
			t.Errorf("%s with %s: %v", c.name, c.keys.Fingerprint(), got)
		}
	}
}
