package seal

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/hpke"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// fixed is an identity that is the same each time: both of its secrets are a byte, again and again.
func fixed(t testing.TB, b byte) *Identity {
	t.Helper()
	secret := bytes.Repeat([]byte{b}, 32)
	i, err := ParseIdentity(identityText(1, secret, secret))
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// identityText is an identity's file, as one writes it by hand.
func identityText(version int, opens, signs []byte) []byte {
	name := ""
	if k, err := kem.NewPrivateKey(opens); err == nil && len(signs) == ed25519.SeedSize {
		name = Public{k.PublicKey().Bytes(), ed25519.NewKeyFromSeed(signs).Public().(ed25519.PublicKey)}.Fingerprint()
	}
	return fmt.Appendf(nil, `{"version":%d,"opens":%q,"signs":%q,"fingerprint":%q}`, version, base64.StdEncoding.EncodeToString(opens), base64.StdEncoding.EncodeToString(signs), name)
}

// keyOf is a key that is the same each time.
func keyOf(b byte) *Key { return (*Key)(bytes.Repeat([]byte{b}, 32)) }

// ringOf has keys of epochs, and uses the highest.
func ringOf(epochs ...uint32) *Keyring {
	r := NewKeyring()
	for _, e := range epochs {
		r.Add(e, keyOf(byte(e)))
	}
	r.Use(slices.Max(epochs))
	return r
}

// sealed is what a ring makes of a text.
func sealed(t testing.TB, r *Keyring, place string, text []byte) []byte {
	t.Helper()
	b, err := r.Seal(place, text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// byHand seals a text as the layout in keyring.go says, with nothing of this package.
func byHand(t testing.TB, key []byte, epoch uint32, salt []byte, place string, text []byte) []byte {
	t.Helper()
	own, err := hkdf.Key(sha256.New, key, salt, "causeway value", 32)
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(own)
	if err != nil {
		t.Fatal(err)
	}
	a, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	head := binary.BigEndian.AppendUint32([]byte{1}, epoch)
	return a.Seal(slices.Concat(head, salt), make([]byte, 12), text, slices.Concat(head, []byte(place)))
}

// changed is b with some bits of one byte flipped.
func changed(b []byte, at int, bits byte) []byte {
	b = bytes.Clone(b)
	b[at] ^= bits
	return b
}

// What Seal makes is what the layout says, and what the layout says Open reads.
func TestEnvelope(t *testing.T) {
	r := ringOf(0x01020304)
	for _, n := range []int{0, 1, 15, 16, 17, 100_000} {
		text := bytes.Repeat([]byte("text"), n/4+1)[:n]
		got := sealed(t, r, "bucket|key", text)
		if want := byHand(t, keyOf(4)[:], 0x01020304, got[5:21], "bucket|key", text); !bytes.Equal(got, want) {
			t.Errorf("%d bytes: %.80x, want %.80x", n, got, want)
		}
		if len(got) != n+Overhead || Overhead != 37 || EpochOf(got) != 0x01020304 {
			t.Errorf("%d bytes: %d bytes of epoch %#x", n, len(got), EpochOf(got))
		}
		hand := byHand(t, keyOf(4)[:], 0x01020304, bytes.Repeat([]byte{9}, 16), "bucket|key", text)
		for _, b := range [][]byte{got, hand} {
			if back, err := r.Open("bucket|key", b); err != nil || !bytes.Equal(back, text) {
				t.Errorf("%d bytes: opened %d bytes, %v", n, len(back), err)
			}
		}
	}
}

// The key of a value is used once, because its salt is: no two values are the same.
func TestSealedTwice(t *testing.T) {
	r, text := ringOf(1), []byte("the same text")
	salts := map[string]bool{}
	for range 100 {
		b := sealed(t, r, "place", text)
		salts[string(b[5:21])] = true
	}
	if len(salts) != 100 {
		t.Errorf("%d salts for 100 values", len(salts))
	}
	a, b := sealed(t, r, "place", text), sealed(t, r, "place", text)
	if bytes.Equal(a[21:], b[21:]) {
		t.Errorf("two values are %x", a)
	}
}

func TestOpensOnlyUnchanged(t *testing.T) {
	r := ringOf(2, 3) // so that one changed bit makes another epoch of which there is a key
	b := sealed(t, r, "place", []byte("text"))
	for at := range b {
		for bit := range 8 {
			text, err := r.Open("place", changed(b, at, 1<<bit))
			want := ErrNotAuthentic
			if at >= 1 && at < 5 && (at != 4 || bit != 0) {
				want = EpochError{3 ^ 1<<(bit+8*(4-at))}
			}
			if err != want || text != nil {
				t.Errorf("byte %d, bit %d: %q, %v, want %v", at, bit, text, err, want)
			}
		}
	}
	for n := range b {
		if _, err := r.Open("place", b[:n]); err != ErrNotAuthentic {
			t.Errorf("the first %d bytes: %v", n, err)
		}
	}
	if _, err := r.Open("place", append(b[:len(b):len(b)], 0)); err != ErrNotAuthentic {
		t.Errorf("a byte more: %v", err)
	}
	for _, place := range []string{"", "plac", "place ", "placE", "\x00place", "places"} {
		if _, err := r.Open(place, b); err != ErrNotAuthentic {
			t.Errorf("at %q: %v", place, err)
		}
	}
	other := NewKeyring()
	if _, err := other.Open("place", b); err != (EpochError{3}) {
		t.Errorf("without keys: %v", err)
	}
	other.Add(3, keyOf(4))
	if _, err := other.Open("place", b); err != ErrNotAuthentic {
		t.Errorf("with another key of this epoch: %v", err)
	}
	if text, err := r.Open("place", b); err != nil || string(text) != "text" {
		t.Errorf("unchanged: %q, %v", text, err)
	}
}

func TestEpochOf(t *testing.T) {
	b := sealed(t, ringOf(7), "place", nil)
	for _, c := range []struct {
		b    []byte
		want uint32
	}{{b, 7}, {append(b[:len(b):len(b)], 1), 7}, {b[:len(b)-1], 0}, {changed(b, 0, 3), 0}, {nil, 0}} {
		if got := EpochOf(c.b); got != c.want {
			t.Errorf("%x is of epoch %d, want %d", c.b, got, c.want)
		}
	}
}

func TestKeyring(t *testing.T) {
	r := NewKeyring()
	if _, err := r.Seal("place", nil); err == nil || err.Error() != "no epoch key: this node was not given one" {
		t.Errorf("without a key: %v", err)
	}
	r.Use(5)
	if r.Current() != 0 || r.Newest() != 0 || r.Oldest() != 0 {
		t.Errorf("an epoch without a key is used: %d, %d to %d", r.Current(), r.Oldest(), r.Newest())
	}
	keys := map[uint32]*Key{}
	for e := uint32(3); e <= 6; e++ {
		keys[e] = NewKey()
		r.Add(e, keys[e])
	}
	if r.Current() != 0 || r.Oldest() != 3 || r.Newest() != 6 || r.Has(2) || !r.Has(3) {
		t.Errorf("keys that were added: %d is used, there are %d to %d", r.Current(), r.Oldest(), r.Newest())
	}
	for _, c := range []struct{ use, want uint32 }{{4, 4}, {3, 4}, {5, 5}, {9, 5}, {4, 5}, {0, 5}} {
		if r.Use(c.use); r.Current() != c.want {
			t.Errorf("%d is used after Use(%d), want %d", r.Current(), c.use, c.want)
		}
	}
	old := sealed(t, ringWith(3, keys[3]), "place", []byte("old"))
	if b := sealed(t, r, "place", nil); EpochOf(b) != 5 {
		t.Errorf("sealed under epoch %d", EpochOf(b))
	}
	if text, err := r.Open("place", old); err != nil || string(text) != "old" {
		t.Errorf("of a former epoch: %q, %v", text, err)
	}
	r.Destroy(5)
	if _, err := r.Open("place", old); err != (EpochError{3}) || err.Error() != "value is sealed under epoch 3, of which this node has no key" {
		t.Errorf("of a destroyed epoch: %v", err)
	}
	r.Drop(6)
	r.Drop(6) // there is none any more
	for e, k := range keys {
		if left := e == 5; r.Has(e) != left || (*k != Key{}) != left {
			t.Errorf("epoch %d: there is a key: %v; its bytes are zero: %v", e, r.Has(e), *k == Key{})
		}
	}
	if r.Oldest() != 5 || r.Newest() != 5 || r.Current() != 5 {
		t.Errorf("%d is used, there are %d to %d", r.Current(), r.Oldest(), r.Newest())
	}
}

// ringWith has one key and uses it.
func ringWith(epoch uint32, k *Key) *Keyring {
	r := NewKeyring()
	r.Add(epoch, k)
	r.Use(epoch)
	return r
}

// A key in place of another wipes that; the same again does not wipe itself.
func TestKeyReplaced(t *testing.T) {
	first, second := NewKey(), NewKey()
	r := ringWith(1, first)
	b := sealed(t, r, "place", nil)
	r.Add(1, first)
	if _, err := r.Open("place", b); err != nil {
		t.Errorf("added again: %v", err)
	}
	r.Add(1, second)
	if _, err := r.Open("place", b); err != ErrNotAuthentic || *first != (Key{}) || *second == (Key{}) {
		t.Errorf("replaced: %v; wiped: %v and %v", err, *first == Key{}, *second == Key{})
	}
}

func TestNewKey(t *testing.T) {
	if a, b := NewKey(), NewKey(); *a == *b || *a == (Key{}) {
		t.Error("keys are not random")
	}
}

// forms are what bytes 0xa7 look like wherever they are printed.
var forms = []string{"\xa7\xa7", `\xa7`, "a7a7", "A7A7", "a7 a7", "0xa7, 0xa7", "167 167", "167,167", "p6en"}

// shows reports whether a text has some of a secret that is 0xa7 again and again.
func shows(text string) bool {
	return slices.ContainsFunc(forms, func(s string) bool { return strings.Contains(text, s) })
}

func TestKeyIsNotPrinted(t *testing.T) {
	k := keyOf(0xa7)
	if !shows(fmt.Sprint(k[:])) || !shows(fmt.Sprintf("%x", k[:])) || !shows(fmt.Sprintf("%#v", k[:])) || !shows(base64.StdEncoding.EncodeToString(k[1:])) {
		t.Fatal("the test sees nothing")
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%x", "%X", "% x", "%s", "%q", "%d", "%o", "%08b"} {
		if got := fmt.Sprintf(verb, k); got != "epoch key" {
			t.Errorf("%s prints %s", verb, got)
		}
		for _, in := range []any{*k, struct{ K Key }{*k}, ringWith(1, k), fixed(t, 0xa7), struct{ K *Key }{k}, []*Key{k}, map[int]*Key{1: k}} {
			if got := fmt.Sprintf(verb, in); shows(got) {
				t.Errorf("%s of %T prints %s", verb, in, got)
			}
		}
	}
}

func TestWrap(t *testing.T) {
	hub, a := fixed(t, 1), fixed(t, 2)
	k := NewKey()
	r := ringWith(7, k)
	w, err := r.Wrap(7, hub, a.Public())
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(w)
	if err != nil {
		t.Fatal(err)
	}
	read := new(Wrap)
	if err := json.Unmarshal(b, read); err != nil {
		t.Fatal(err)
	}
	got, err := a.Unwrap(read, hub.Public())
	if err != nil || *got != *k {
		t.Fatalf("it is the key: %v; %v", err == nil && *got == *k, err)
	}
	if bytes.Contains(b, k[:]) || strings.Contains(string(b), base64.StdEncoding.EncodeToString(k[:])[:42]) {
		t.Error("the key is to be read in the wrap")
	}
	if _, err := r.Wrap(8, hub, a.Public()); err != (EpochError{8}) {
		t.Errorf("of an epoch without a key: %v", err)
	}
	broken := Public{Seals: a.Public().Seals[1:], Verifies: a.Public().Verifies}
	if _, err := r.Wrap(7, hub, broken); err == nil || !strings.HasPrefix(err.Error(), "public key of "+broken.Fingerprint()+": ") {
		t.Errorf("for a broken key: %v", err)
	}
}

// signedAgain is what a node can do that has an identity: it signs a wrap that it has changed.
func signedAgain(by *Identity, w *Wrap) { w.Signature = by.Sign("wrap", w.signed()) }

func TestUnwrapRefuses(t *testing.T) {
	hub, a, b := fixed(t, 1), fixed(t, 2), fixed(t, 3)
	name := func(i *Identity) string { return i.Public().Fingerprint() }
	ring := ringOf(7)
	given, err := ring.Wrap(7, hub, a.Public())
	if err != nil {
		t.Fatal(err)
	}
	notSigned := func(i *Identity) string { return "the epoch key is not signed by " + name(i) }
	const another, closed = "the epoch key is for another node", "the epoch key does not open"
	for what, c := range map[string]struct {
		by, from *Identity
		change   func(*Wrap)
		say      string
	}{
		"by another node":               {b, hub, func(*Wrap) {}, another},
		"from another node":             {a, b, func(*Wrap) {}, notSigned(hub)},
		"version":                       {a, hub, func(w *Wrap) { w.Version = 2 }, "epoch key of version 2, this release reads 1"},
		"no version":                    {a, hub, func(w *Wrap) { w.Version = 0 }, "epoch key of version 0, this release reads 1"},
		"epoch":                         {a, hub, func(w *Wrap) { w.Epoch = 8 }, notSigned(hub)},
		"epoch, signed again":           {a, hub, func(w *Wrap) { w.Epoch = 8; signedAgain(hub, w) }, closed},
		"from":                          {a, b, func(w *Wrap) { w.From = name(b) }, notSigned(b)},
		"from, and still the same keys": {a, hub, func(w *Wrap) { w.From = name(b) }, notSigned(b)},
		"from another, signed again":    {a, hub, func(w *Wrap) { w.From = name(b); signedAgain(hub, w) }, notSigned(b)},
		"to":                            {b, hub, func(w *Wrap) { w.To = name(b) }, notSigned(hub)},
		"to, signed again":              {b, hub, func(w *Wrap) { w.To = name(b); signedAgain(hub, w) }, closed},
		"to nobody":                     {a, hub, func(w *Wrap) { w.To = "" }, another},
		"signed by another":             {a, hub, func(w *Wrap) { signedAgain(b, w) }, notSigned(hub)},
		"signed by the receiver":        {a, hub, func(w *Wrap) { signedAgain(a, w) }, notSigned(hub)},
		"signed about another thing":    {a, hub, func(w *Wrap) { w.Signature = hub.Sign("member", w.signed()) }, notSigned(hub)},
		"not signed":                    {a, hub, func(w *Wrap) { w.Signature = nil }, notSigned(hub)},
		"half a signature":              {a, hub, func(w *Wrap) { w.Signature = w.Signature[:32] }, notSigned(hub)},
		"no key, signed again":          {a, hub, func(w *Wrap) { w.Key = nil; signedAgain(hub, w) }, closed},
		"half a key, signed again":      {a, hub, func(w *Wrap) { w.Key = w.Key[:1130]; signedAgain(hub, w) }, closed},
		"more key, signed again":        {a, hub, func(w *Wrap) { w.Key = append(w.Key, 0); signedAgain(hub, w) }, closed},
	} {
		w := *given
		w.Key, w.Signature = bytes.Clone(w.Key), bytes.Clone(w.Signature)
		c.change(&w)
		if k, err := c.by.Unwrap(&w, c.from.Public()); k != nil || err == nil || err.Error() != c.say {
			t.Errorf("%s: %v, want %s", what, err, c.say)
		}
	}
	for at := range given.Signature {
		w := *given
		w.Signature = changed(w.Signature, at, 0x80)
		if _, err := a.Unwrap(&w, hub.Public()); err == nil {
			t.Errorf("byte %d of the signature: it is taken", at)
		}
	}
	for at := range given.Key {
		w := *given
		w.Key = changed(w.Key, at, 0x80)
		if _, err := a.Unwrap(&w, hub.Public()); err == nil || err.Error() != notSigned(hub) {
			t.Errorf("byte %d of the key: %v", at, err)
		}
		signedAgain(hub, &w) // who has signed it may have got it damaged
		if _, err := a.Unwrap(&w, hub.Public()); err == nil || err.Error() != closed {
			t.Errorf("byte %d of the key, signed again: %v", at, err)
		}
	}
}

// A key of another length is none, whoever has sealed it.
func TestUnwrapOddKey(t *testing.T) {
	hub, a := fixed(t, 1), fixed(t, 2)
	for _, n := range []int{0, 31, 33} {
		w := wrapByHand(t, bytes.Repeat([]byte{1}, 32), a.Public(), hub.Public().Fingerprint(), make([]byte, n))
		if _, err := a.Unwrap(w, hub.Public()); err == nil || err.Error() != "the epoch key does not open" {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

// byNumber are the algorithms of HPKE, by their numbers at IANA: MLKEM768-X25519, HKDF-SHA256, AES-256-GCM.
func byNumber(t testing.TB) (hpke.KEM, hpke.KDF, hpke.AEAD) {
	t.Helper()
	kem, err := hpke.NewKEM(0x647a)
	if err != nil {
		t.Fatal(err)
	}
	kdf, err := hpke.NewKDF(1)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := hpke.NewAEAD(2)
	if err != nil {
		t.Fatal(err)
	}
	return kem, kdf, aead
}

// wrapByHand wraps the key of epoch 7 with nothing of this package but the type.
func wrapByHand(t testing.TB, signs []byte, to Public, from string, key []byte) *Wrap {
	t.Helper()
	kem, kdf, aead := byNumber(t)
	public, err := kem.NewPublicKey(to.Seals)
	if err != nil {
		t.Fatal(err)
	}
	enc, s, err := hpke.NewSender(public, kdf, aead, []byte("causeway epoch 7 to "+to.Fingerprint()))
	if err != nil {
		t.Fatal(err)
	}
	text, err := s.Seal(nil, key)
	if err != nil {
		t.Fatal(err)
	}
	w := &Wrap{Version: 1, Epoch: 7, From: from, To: to.Fingerprint(), Key: append(enc, text...)}
	h := sha256.Sum256(fmt.Appendf(nil, `{"version":1,"epoch":7,"from":%q,"to":%q,"key":%q,"signature":null}`, w.From, w.To, base64.StdEncoding.EncodeToString(w.Key)))
	w.Signature = ed25519.Sign(ed25519.NewKeyFromSeed(signs), append([]byte("causeway wrap\x00"), h[:]...))
	return w
}

// What wrap seals HPKE opens as RFC 9180 has it, and what it seals Unwrap opens.
func TestWrapByHand(t *testing.T) {
	hub, a, k := fixed(t, 1), fixed(t, 2), NewKey()
	w, err := ringWith(7, k).Wrap(7, hub, a.Public())
	if err != nil {
		t.Fatal(err)
	}
	kem, kdf, aead := byNumber(t)
	private, err := kem.NewPrivateKey(bytes.Repeat([]byte{2}, 32))
	if err != nil {
		t.Fatal(err)
	}
	const enc = 1088 + 32 // of ML-KEM-768 and X25519
	r, err := hpke.NewRecipient(w.Key[:enc], private, kdf, aead, []byte("causeway epoch 7 to "+a.Public().Fingerprint()))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := r.Open(nil, w.Key[enc:]); err != nil || !bytes.Equal(got, k[:]) {
		t.Errorf("HPKE opens %d bytes, %v", len(got), err)
	}
	hand := wrapByHand(t, bytes.Repeat([]byte{1}, 32), a.Public(), hub.Public().Fingerprint(), k[:])
	if got, err := a.Unwrap(hand, hub.Public()); err != nil || *got != *k {
		t.Errorf("made by hand: %v", err)
	}
}
