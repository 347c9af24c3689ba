package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"causeway/control/ike/message"
)

// Sizes of RSA keys, in bits: a shorter one is weak, a longer one is work that a stranger makes us do.
const minRSA, maxRSA = 2048, 8192

// checkKey refuses public keys that nothing here is done with.
func checkKey(key crypto.PublicKey) error {
	switch k := key.(type) {
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n < minRSA || n > maxRSA {
			return fmt.Errorf("has an RSA key of %d bits, %d to %d are allowed", n, minRSA, maxRSA)
		}
		return nil
	case *ecdsa.PublicKey:
		if _, ok := curveOf(k); !ok {
			return fmt.Errorf("has a key on curve %s, P-256, P-384 and P-521 are allowed", k.Curve.Params().Name)
		}
		return nil
	case ed25519.PublicKey:
		return nil
	}
	return errors.New("has a key of an unknown kind, RSA, ECDSA and Ed25519 are allowed")
}

// A curve is an elliptic curve with the hash and the authentication method that RFC 4754 gives it.
type curve struct {
	curve  elliptic.Curve
	hash   crypto.Hash
	method message.AuthMethod
}

var curves = []curve{
	{elliptic.P256(), crypto.SHA256, message.AuthECDSA256},
	{elliptic.P384(), crypto.SHA384, message.AuthECDSA384},
	{elliptic.P521(), crypto.SHA512, message.AuthECDSA521},
}

// size is the length of r and of s in a signature, in bytes (RFC 4754, section 7).
func (c curve) size() int { return (c.curve.Params().BitSize + 7) / 8 }

func curveOf(k *ecdsa.PublicKey) (curve, bool) {
	for _, c := range curves {
		if c.curve == k.Curve {
			return c, true
		}
	}
	return curve{}, false
}

// choose is the signature algorithm for a key that was checked: the strongest fit among the hashes that the peer announced
// (RFC 7427, section 4).
func choose(key crypto.PublicKey, peerHashes []uint16) (algorithm, error) {
	a := algorithm{scheme: schemePSS, hash: crypto.SHA256}
	switch k := key.(type) {
	case ed25519.PublicKey:
		if !slices.Contains(peerHashes, hashIdentity) {
			return a, errors.New("the peer does not announce hash algorithm 5 (identity), without which there is no Ed25519 (RFC 8420): it needs a certificate of ours with an ECDSA or RSA key")
		}
		return algorithm{scheme: schemeEd25519}, nil
	case *ecdsa.PublicKey:
		c, _ := curveOf(k)
		a = algorithm{scheme: schemeECDSA, hash: c.hash}
	}
	for _, h := range preference(a.hash) {
		if slices.Contains(peerHashes, h.number) {
			a.hash = h.hash
			if a.scheme == schemePSS {
				a.salt = h.hash.Size()
			}
			return a, nil
		}
	}
	return a, fmt.Errorf("the peer announces hash algorithms %v, none of which is SHA-256 (2), SHA-384 (3) or SHA-512 (4)", peerHashes)
}

// preference is all hashes: the wanted one, longer ones, shorter ones.
func preference(wanted crypto.Hash) []hashID {
	i := slices.IndexFunc(hashIDs, func(h hashID) bool { return h.hash == wanted })
	shorter := slices.Clone(hashIDs[:i])
	slices.Reverse(shorter)
	return append(slices.Clone(hashIDs[i:]), shorter...)
}

// sign makes the signature of a. Those of ECDSA are in DER.
func (a algorithm) sign(key crypto.Signer, octets []byte) ([]byte, error) {
	switch a.scheme {
	case schemeEd25519:
		return key.Sign(rand.Reader, octets, crypto.Hash(0))
	case schemePSS:
		return key.Sign(rand.Reader, digest(a.hash, octets), &rsa.PSSOptions{SaltLength: a.salt, Hash: a.hash})
	}
	return key.Sign(rand.Reader, digest(a.hash, octets), a.hash)
}

// signRFC7427 makes an AUTH payload of method 14: the length of the AlgorithmIdentifier in one byte, it, and the signature
// (RFC 7427, section 3).
func signRFC7427(key crypto.Signer, octets []byte, peerHashes []uint16) (message.Auth, error) {
	a, err := choose(key.Public(), peerHashes)
	if err != nil {
		return message.Auth{}, err
	}
	signature, err := a.sign(key, octets)
	if err != nil {
		return message.Auth{}, err
	}
	name := a.identifier()
	return message.Auth{Method: message.AuthSignature, Data: slices.Concat([]byte{byte(len(name))}, name, signature)}, nil
}

// signRFC4754 makes an AUTH payload for a peer that does not know RFC 7427.
func signRFC4754(key crypto.Signer, octets []byte) (message.Auth, error) {
	k, ok := key.Public().(*ecdsa.PublicKey)
	if !ok {
		return message.Auth{}, errors.New("the peer does not announce digital signatures (RFC 7427): there is only RSA with SHA-1, which is refused, or ECDSA, for which our key is of the wrong kind")
	}
	c, _ := curveOf(k)
	der, err := algorithm{scheme: schemeECDSA, hash: c.hash}.sign(key, octets)
	if err != nil {
		return message.Auth{}, err
	}
	raw, err := rawECDSA(der, c.size())
	return message.Auth{Method: c.method, Data: raw}, err
}

// rawECDSA turns a signature in DER into r and s of size bytes each.
func rawECDSA(der []byte, size int) ([]byte, error) {
	in := cryptobyte.String(der)
	var seq cryptobyte.String
	var r, s big.Int
	if !in.ReadASN1(&seq, asn1.SEQUENCE) || !in.Empty() || !seq.ReadASN1Integer(&r) || !seq.ReadASN1Integer(&s) || !seq.Empty() ||
		r.Sign() <= 0 || s.Sign() <= 0 || r.BitLen() > 8*size || s.BitLen() > 8*size {
		return nil, errors.New("an ECDSA signature that is malformed")
	}
	raw := make([]byte, 2*size)
	r.FillBytes(raw[:size])
	s.FillBytes(raw[size:])
	return raw, nil
}

// derECDSA is the reverse of rawECDSA.
func derECDSA(raw []byte) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1BigInt(new(big.Int).SetBytes(raw[:len(raw)/2]))
		b.AddASN1BigInt(new(big.Int).SetBytes(raw[len(raw)/2:]))
	})
	return b.Bytes()
}

// verifyAuth checks an AUTH payload against a public key that was checked.
func verifyAuth(key crypto.PublicKey, a message.Auth, octets []byte) error {
	switch a.Method {
	case message.AuthSignature:
		if len(a.Data) == 0 || len(a.Data) < 1+int(a.Data[0]) {
			return errors.New("the AUTH payload is too short for its AlgorithmIdentifier")
		}
		name, signature := a.Data[1:1+int(a.Data[0])], a.Data[1+int(a.Data[0]):]
		alg, err := parseAlgorithm(name)
		if err != nil {
			return err
		}
		return alg.verify(key, octets, signature)
	case message.AuthECDSA256, message.AuthECDSA384, message.AuthECDSA521:
		return verifyRFC4754(key, a, octets)
	case message.AuthRSA:
		return fmt.Errorf("the peer authenticates with %s, which is refused: it must do digital signatures (RFC 7427)", methodName(a.Method))
	}
	return fmt.Errorf("the peer authenticates with %s, a digital signature is expected", methodName(a.Method))
}

func verifyRFC4754(key crypto.PublicKey, a message.Auth, octets []byte) error {
	k, ok := key.(*ecdsa.PublicKey)
	if !ok {
		return errors.New("the AUTH payload has an ECDSA signature, the certificate's key is another kind")
	}
	c, _ := curveOf(k)
	switch {
	case a.Method != c.method:
		return fmt.Errorf("the AUTH payload has method %d, a key on %s has method %d", a.Method, c.curve.Params().Name, c.method)
	case len(a.Data) != 2*c.size():
		return fmt.Errorf("the ECDSA signature has %d bytes, one on %s has %d", len(a.Data), c.curve.Params().Name, 2*c.size())
	}
	der, err := derECDSA(a.Data)
	if err != nil {
		return err
	}
	return algorithm{scheme: schemeECDSA, hash: c.hash}.verify(key, octets, der)
}

// verify checks a signature that a made with the private half of key.
func (a algorithm) verify(key crypto.PublicKey, octets, signature []byte) error {
	right := false
	switch k := key.(type) {
	case *rsa.PublicKey:
		switch a.scheme {
		case schemePSS:
			right = rsa.VerifyPSS(k, a.hash, digest(a.hash, octets), signature, &rsa.PSSOptions{SaltLength: a.salt}) == nil
		case schemePKCS1:
			right = rsa.VerifyPKCS1v15(k, a.hash, digest(a.hash, octets), signature) == nil
		default:
			return fmt.Errorf("the signature is %v, the certificate's key is RSA", a)
		}
	case *ecdsa.PublicKey:
		if a.scheme != schemeECDSA {
			return fmt.Errorf("the signature is %v, the certificate's key is ECDSA", a)
		}
		right = ecdsa.VerifyASN1(k, digest(a.hash, octets), signature)
	case ed25519.PublicKey:
		if a.scheme != schemeEd25519 {
			return fmt.Errorf("the signature is %v, the certificate's key is Ed25519", a)
		}
		right = ed25519.Verify(k, octets, signature)
	}
	if !right {
		return fmt.Errorf("the signature (%v) is wrong: it was made with another key, or of another exchange", a)
	}
	return nil
}

func digest(h crypto.Hash, octets []byte) []byte {
	d := h.New()
	d.Write(octets)
	return d.Sum(nil)
}
