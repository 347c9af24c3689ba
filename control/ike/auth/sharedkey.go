package auth

import (
	"crypto/hmac"
	"errors"
	"fmt"

	"causeway/control/ike/message"
	"causeway/control/ike/suite"
)

// keyPad is 17 octets of ASCII, without an end mark (RFC 7296, section 2.15).
const keyPad = "Key Pad for IKEv2"

// SharedKey is the data of an AUTH payload that proves knowledge of psk (RFC 7296, section 2.15). It keeps nothing.
func SharedKey(prf suite.PRF, psk, octets []byte) []byte {
	key := prf.Sum(psk, []byte(keyPad))
	defer clear(key)
	return prf.Sum(key, octets)
}

// CheckSharedKey checks the peer's proof that it knows psk, in a time that does not depend on how wrong the proof is.
func CheckSharedKey(prf suite.PRF, psk, octets []byte, a message.Auth) error {
	right := hmac.Equal(SharedKey(prf, psk, octets), a.Data)
	switch {
	case len(psk) == 0:
		return errors.New("there is no shared key")
	case a.Method != message.AuthSharedKey:
		return fmt.Errorf("the peer authenticates with %s, a shared key is expected", methodName(a.Method))
	case !right:
		return errors.New("the peer has another shared key, or another identity stands in its proof")
	}
	return nil
}

// methodName is what people call an authentication method.
func methodName(m message.AuthMethod) string {
	switch m {
	case message.AuthRSA:
		return "an RSA signature with SHA-1 (method 1)"
	case message.AuthSharedKey:
		return "a shared key (method 2)"
	case message.AuthECDSA256, message.AuthECDSA384, message.AuthECDSA521:
		return fmt.Sprintf("an ECDSA signature (method %d)", m)
	case message.AuthSignature:
		return "a digital signature (method 14)"
	}
	return fmt.Sprintf("method %d", m)
}
