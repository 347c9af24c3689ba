package seal

import (
	"bytes"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"testing"
)

// FuzzOpen offers values that nobody has sealed. The seeds are made by hand, with a salt that is no secret, so that all processes of
// the fuzzer know them.
func FuzzOpen(f *testing.F) {
	const place = "bucket|key"
	r, known := ringOf(1, 2, 0xffffffff), map[string]string{}
	salt := bytes.Repeat([]byte{5}, 16)
	for _, epoch := range []uint32{1, 2, 0xffffffff} {
		for _, text := range []string{"", "text", strings.Repeat("long", 50)} {
			b := byHand(f, keyOf(byte(epoch))[:], epoch, salt, place, []byte(text))
			known[string(b)] = text
			f.Add(b)
			f.Add(changed(b, len(b)-1, 1))
			f.Add(b[:len(b)-1])
		}
	}
	f.Add(byHand(f, keyOf(1)[:], 1, salt, "another place", nil))
	f.Add(byHand(f, keyOf(1)[:], 2, salt, place, nil))
	f.Add(byHand(f, keyOf(3)[:], 3, salt, place, nil))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		text, err := r.Open(place, b)
		want, sealed := known[string(b)]
		switch e, odd := err.(EpochError); {
		case sealed && (err != nil || string(text) != want):
			t.Fatalf("%x: %q, %v, want %q", b, text, err, want)
		case !sealed && err == nil:
			t.Fatalf("%x opens: %q", b, text)
		case err == nil || err == ErrNotAuthentic:
		case !odd || r.Has(e.Epoch) || e.Epoch != EpochOf(b):
			t.Fatalf("%x: %v", b, err)
		}
		if _, err := r.Open("elsewhere", b); err == nil {
			t.Fatalf("%x opens where it was not put", b)
		}
	})
}

// FuzzRoster: a roster that is written line by line reads as the same again. Errors begin with a line that there is.
func FuzzRoster(f *testing.F) {
	a, b := fixed(f, 1).Public().Fingerprint(), fixed(f, 2).Public().Fingerprint()
	for _, text := range []string{"", "#", "a " + a, "\ta\t" + a + " # x\r\n\nb " + b + "\n", "a " + a + "\na " + b, "a " + a + "\nb " + a, "a", "a b c", "a cw1:", a + " " + b,
		"\u00e4\u00a0" + a, "\ufeffa " + a, "\xff " + a, "a\x00 " + a} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := ParseRoster(text)
		if err != nil {
			number, _, _ := strings.Cut(err.Error(), ": ")
			if n, bad := strconv.Atoi(number); bad != nil || n < 1 || n > 1+strings.Count(text, "\n") || r != nil {
				t.Fatalf("%q: %v, %v", text, r, err)
			}
			return
		}
		var again strings.Builder
		for name, print := range r {
			if err := CheckFingerprint(print); err != nil {
				t.Fatalf("%q: %v", text, err)
			}
			fmt.Fprintln(&again, name, print)
		}
		if o, err := ParseRoster(again.String()); err != nil || !maps.Equal(r, o) {
			t.Fatalf("%q: %v, then %v, %v", text, r, o, err)
		}
	})
}

// FuzzIdentity: what is read is written and read as the same again, and what is not read is not shown.
func FuzzIdentity(f *testing.F) {
	s := bytes.Repeat([]byte{7}, 33)
	f.Add(identityText(1, s[:32], s[:32]))
	f.Add(identityText(2, s[:32], s[:32]))
	f.Add(identityText(1, s[:33], s[:32]))
	f.Add(identityText(1, s[:32], s[:31]))
	f.Add([]byte(`{"version":1}`))
	f.Add([]byte(`{"VERSION":1,"opens":null,"signs":[1,2]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		i, err := ParseIdentity(b)
		if err != nil {
			if s := err.Error(); s != "not the identity of a node" && s != "not the identity of a node: its key is damaged" && s != "not the identity of a node: its keys are not those of its fingerprint" {
				t.Fatalf("%q: %v", b, err)
			}
			return
		}
		text, err := i.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseIdentity(text)
		if err != nil || again.Public().Fingerprint() != i.Public().Fingerprint() {
			t.Fatalf("%q is written as %q: %v", b, text, err)
		}
		if !again.Public().Verify("fuzz", b, i.Sign("fuzz", b)) {
			t.Fatalf("%q signs with another key", b)
		}
	})
}
