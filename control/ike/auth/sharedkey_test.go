package auth

import (
	"encoding/hex"
	"strings"
	"testing"

	"causeway/control/ike/message"
	"causeway/control/ike/suite"
)

// hmacOfOpenSSL is prf(key, data) by a judge.
func hmacOfOpenSSL(w *workshop, hash string, key, data []byte) []byte {
	w.t.Helper()
	return w.run(data, "openssl", "dgst", "-"+hash, "-mac", "HMAC", "-macopt", "hexkey:"+hex.EncodeToString(key), "-binary")
}

func TestSharedKey(t *testing.T) {
	w := newWorkshop(t)
	psk, octets := []byte("a key of some length, longer than one block of SHA-256 is, so that it is hashed first"), []byte("octets that are signed")
	for prf, hash := range map[suite.PRF]string{suite.PRFHMACSHA256: "sha256", suite.PRFHMACSHA384: "sha384", suite.PRFHMACSHA512: "sha512"} {
		inner := hmacOfOpenSSL(w, hash, psk, []byte("Key Pad for IKEv2"))
		want := hmacOfOpenSSL(w, hash, inner, octets)
		got := SharedKey(prf, psk, octets)
		if string(got) != string(want) {
			t.Errorf("%s: %x, want %x", hash, got, want)
		}
		if err := CheckSharedKey(prf, psk, octets, message.Auth{Method: message.AuthSharedKey, Data: want}); err != nil {
			t.Errorf("%s: %v", hash, err)
		}
	}
}

func TestCheckSharedKeyRefuses(t *testing.T) {
	prf, psk, octets := suite.PRF(suite.PRFHMACSHA256), []byte("psk"), []byte("octets")
	right := SharedKey(prf, psk, octets)
	changed := append([]byte{right[0] ^ 1}, right[1:]...)
	last := append(append([]byte{}, right[:31]...), right[31]^0x80)
	for name, c := range map[string]struct {
		psk, octets []byte
		a           message.Auth
		say         string
	}{
		"first bit":     {psk, octets, message.Auth{Method: message.AuthSharedKey, Data: changed}, "another shared key"},
		"last bit":      {psk, octets, message.Auth{Method: message.AuthSharedKey, Data: last}, "another shared key"},
		"cut off":       {psk, octets, message.Auth{Method: message.AuthSharedKey, Data: right[:31]}, "another shared key"},
		"longer":        {psk, octets, message.Auth{Method: message.AuthSharedKey, Data: append(right[:32:32], 0)}, "another shared key"},
		"nothing":       {psk, octets, message.Auth{Method: message.AuthSharedKey}, "another shared key"},
		"other octets":  {psk, []byte("octetS"), message.Auth{Method: message.AuthSharedKey, Data: right}, "another shared key"},
		"other key":     {[]byte("psk2"), octets, message.Auth{Method: message.AuthSharedKey, Data: right}, "another shared key"},
		"other method":  {psk, octets, message.Auth{Method: message.AuthSignature, Data: right}, "method 14"},
		"null method":   {psk, octets, message.Auth{Method: 13, Data: right}, "method 13"},
		"no key at all": {nil, octets, message.Auth{Method: message.AuthSharedKey, Data: SharedKey(prf, nil, octets)}, "no shared key"},
	} {
		err := CheckSharedKey(prf, c.psk, c.octets, c.a)
		if err == nil || !strings.Contains(err.Error(), c.say) {
			t.Errorf("%s: %v, want %q", name, err, c.say)
		}
	}
}
