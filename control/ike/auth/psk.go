package auth

import (
	"crypto/hmac"
	"errors"
	"fmt"

	"causeway/control/ike/message"
	"causeway/control/ike/suite"
)

// SharedKey is the proof of one who has a shared key: prf(prf(key, "Key Pad for IKEv2"), octets) (RFC 7296, section 2.15).
func SharedKey(prf suite.PRF, psk, octets []byte) []byte {
	key := prf.Sum(psk, []byte("Key Pad for IKEv2"))
	defer clear(key)
	return prf.Sum(key, octets)
}

// CheckSharedKey checks the other's proof, in constant time.
func CheckSharedKey(prf suite.PRF, psk, octets []byte, a message.Auth) error {
	if a.Method != message.AuthSharedKey {
		return fmt.Errorf("authentication method %d, where a shared key (%d) is configured", a.Method, message.AuthSharedKey)
	}
	if !hmac.Equal(a.Data, SharedKey(prf, psk, octets)) {
		return errors.New("the two ends have different keys")
	}
	return nil
}
