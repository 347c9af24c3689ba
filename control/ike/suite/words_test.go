package suite

import (
	"slices"
	"strings"
	"testing"

	"causeway/control/ike/message"
)

// TestWords: each proposal is written with the words that it was read from.
func TestWords(t *testing.T) {
	for _, w := range []string{
		"aes256gcm16-prfsha384-ecp384", "aes128gcm16-chacha20poly1305-prfsha256-prfsha512-x25519-ecp256",
		"aes256-aes128-sha512-sha384-sha256-prfsha512-modp2048-modp3072-modp4096", "aes128-sha1-prfsha1-modp1536",
		"aes256gcm16-prfsha384-ecp384-x25519-ke1_mlkem768-ke2_mlkem1024", "aes256gcm16-prfsha384-x25519-ke7_mlkem1024",
	} {
		p, err := ParseIKE(w, true)
		if err != nil || Words(p) != w || p.Protocol != message.ProtocolIKE {
			t.Errorf("%s: %s, %v", w, Words(p), err)
		}
	}
	for _, w := range []string{"aes256gcm16-noesn", "aes256gcm16-ecp384-esn-noesn", "aes128-aes256-sha256-modp2048-noesn", "null-sha256-noesn",
		"aes128-sha1-modp1536-esn", "chacha20poly1305-ecp384-ke1_mlkem768-noesn"} {
		p, err := ParseESP(w, true, true)
		if err != nil || Words(p) != w || p.Protocol != message.ProtocolESP {
			t.Errorf("%s: %s, %v", w, Words(p), err)
		}
	}
	// What is left out, and what may stand in any order.
	for in, want := range map[string]string{"x25519-aes128-sha256": "aes128-sha256-prfsha256-x25519", "aes128-sha512-sha1-modp2048": "aes128-sha512-sha1-prfsha512-prfsha1-modp2048",
		"ke1_mlkem768-prfsha384-aes256gcm16-ecp384": "aes256gcm16-prfsha384-ecp384-ke1_mlkem768"} {
		if p, err := ParseIKE(in, true); err != nil || Words(p) != want {
			t.Errorf("%s: %s, want %s: %v", in, Words(p), want, err)
		}
	}
	if p, err := ParseESP("ecp384-aes256gcm16", false, false); err != nil || Words(p) != "aes256gcm16-ecp384-noesn" {
		t.Errorf("%s, %v", Words(p), err)
	}
}

// TestUnknownWords: what we do not know is named by its numbers.
func TestUnknownWords(t *testing.T) {
	p := message.Proposal{Transforms: []message.Transform{{Type: 1, ID: 99}, {Type: 1, ID: 12, KeyBits: 192}, {Type: 1, ID: 20, KeyBits: message.UnknownAttribute},
		{Type: 2, ID: 8}, {Type: 3, ID: 0}, {Type: 3, ID: 5}, {Type: 4, ID: 0}, {Type: 4, ID: 22}, {Type: 5, ID: 7}, {Type: 6, ID: 0}, {Type: 7, ID: 35}, {Type: 13, ID: 4}, {Type: 0, ID: 4}}}
	want := "encr_99-encr_12_192-encr_20_unknown_attribute-prf_8-integ_5-none-ke_22-esn_7-ke1_none-ke2_ke_35-type13_4-type0_4"
	if got := Words(p); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

// TestRefusedWords has what does not make a proposal.
func TestRefusedWords(t *testing.T) {
	for words, says := range map[string]string{
		"": "no algorithm", "-": "no algorithm", "aes256gcm16-": "no algorithm", "AES256gcm16-prfsha384-ecp384": "no algorithm",
		"3des-sha256-modp2048": "no algorithm", "aes192-sha256-modp2048": "no algorithm", "aes256gcm16-prfsha384-curve25519": "no algorithm",
		"aes256gcm16-prfsha384-ecp384-ke0_mlkem768": "no algorithm", "aes256gcm16-prfsha384-ecp384-ke8_mlkem768": "no algorithm", "aes256gcm16-prfsha384-ecp384-ke1_sha256": "no algorithm",
		"aes256gcm16-ecp384": "needs a prf", "aes256gcm16-prfsha384": "an encryption and a key exchange", "prfsha384-ecp384": "an encryption and a key exchange",
		"aes256-ecp384": "needs an integrity", "aes256gcm16-aes256-sha256-ecp384": "proposals of their own", "aes256gcm16-sha384-ecp384": "one algorithm too many",
		"aes256gcm16-prfsha384-ecp384-esn": "an encryption and a key exchange", "null-sha256-ecp384": "an encryption and a key exchange",
		"aes256gcm16-prfsha384-ecp384-ecp384": "twice", "aes256gcm16-prfsha384-mlkem768": "in addition to a curve", "aes256gcm16-prfsha384-ecp256-ke1_mlkem768": "goes with",
		"aes256gcm16-prfsha384-ecp384-ecp256-ke1_mlkem768": "goes with", "aes256gcm16-prfsha384-ecp384-ke1_x25519": "are mlkem768 and",
		"aes256gcm16-prfsha384-ecp384-ke1_mlkem768-ke2_mlkem768": "two additional key exchanges",
		"aes128-sha1-prfsha256-modp2048":                         "allow_weak", "aes128-sha256-prfsha1-modp2048": "allow_weak", "aes128-sha256-modp1536": "allow_weak",
	} {
		if p, err := ParseIKE(words, false); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("IKE %q: %s, %v, want ...%s...", words, Words(p), err, says)
		}
	}
	for words, says := range map[string]string{
		"ecp384": "an encryption", "aes256gcm16-prfsha384": "no prf", "aes256gcm16-sha256": "one algorithm too many", "aes256": "needs an integrity",
		"aes256-sha384": "ESP has sha256", "aes256-sha512": "ESP has sha256", "null-sha256": "allow_null_cipher", "aes128-sha1": "allow_weak",
		"aes256gcm16-ke1_mlkem768": "needs a first one", "aes256gcm16-mlkem768": "in addition", "aes256gcm16-esn-esn": "twice",
	} {
		if p, err := ParseESP(words, false, false); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("ESP %q: %s, %v, want ...%s...", words, Words(p), err, says)
		}
	}
}

// TestDefaults: the defaults have nothing weak and no null unless they are permitted, all else, and a usable choice each.
func TestDefaults(t *testing.T) {
	for _, weak := range []bool{false, true} {
		var seen []string
		for _, p := range DefaultIKE(weak) {
			seen = append(seen, strings.Split(Words(p), "-")...)
		}
		for _, p := range DefaultESP(weak, weak) {
			seen = append(seen, strings.Split(Words(p), "-")...)
		}
		for _, w := range words {
			if w.text == "esn" || w.t.ID == MLKEM768 || w.t.ID == MLKEM1024 {
				continue
			}
			if got, want := slices.Contains(seen, w.text), weak || !w.weak && w.text != "null"; got != want {
				t.Errorf("weak %v: %s is in it: %v", weak, w.text, got)
			}
		}
		own := DefaultIKE(weak)
		if p, err := Choose(own, own); err != nil || Words(p) != "aes256gcm16-prfsha384-ecp384-ke1_mlkem768" {
			t.Errorf("%s, %v", Words(p), err)
		}
		own = DefaultESP(weak, weak)
		for i := range own {
			if p, err := Choose(own[i:], own[i:]); err != nil {
				t.Error(err)
			} else if _, err := ESPOf(p); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestIKEOf and ESPOf refuse what no cipher can be made of.
func TestIKEOf(t *testing.T) {
	good := []message.Transform{{Type: 1, ID: AESGCM16, KeyBits: 256}, {Type: 2, ID: uint16(PRFHMACSHA384)}, {Type: 4, ID: ECP384}}
	if s, err := IKEOf(message.Proposal{Transforms: good}); err != nil || s.String() != "aes256gcm16-prfsha384-ecp384" {
		t.Errorf("%s, %v", s, err)
	}
	for i, bad := range []message.Transform{{Type: 1, ID: AESGCM16}, {Type: 1, ID: AESGCM16, KeyBits: 192}, {Type: 1, ID: Null}, {Type: 1, ID: AESCBC, KeyBits: 128}, {Type: 1, ID: 99},
		{Type: 2, ID: 4}, {Type: 2}, {Type: 3, ID: HMACSHA256}, {Type: 4, ID: 2}, {Type: 4}, {Type: 6, ID: 99}} {
		list := slices.DeleteFunc(slices.Clone(good), func(t message.Transform) bool { return t.Type == bad.Type })
		if s, err := IKEOf(message.Proposal{Transforms: append(list, bad)}); err == nil {
			t.Errorf("%d: %s", i, s)
		}
	}
	for _, list := range [][]message.Transform{nil, {{Type: 1, ID: AESCBC, KeyBits: 128}}, {{Type: 1, ID: AESGCM16, KeyBits: 256}, {Type: 3, ID: HMACSHA256}},
		{{Type: 1, ID: AESCBC, KeyBits: 128}, {Type: 3, ID: HMACSHA512}}, {{Type: 1, ID: 99}}} {
		if s, err := ESPOf(message.Proposal{Transforms: list}); err == nil {
			t.Errorf("%s", s)
		}
	}
}
