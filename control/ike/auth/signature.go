package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"causeway/control/ike/message"
)

// Hash algorithms (RFC 7427, section 7; RFC 8420). SHA-1 (1) is not among ours.
const (
	hashSHA256   = 2
	hashSHA384   = 3
	hashSHA512   = 4
	hashIdentity = 5
)

var ourHashes = []uint16{hashSHA256, hashSHA384, hashSHA512, hashIdentity}

// HashAlgorithms is the data of SIGNATURE_HASH_ALGORITHMS: what we can verify.
func HashAlgorithms() (b []byte) {
	for _, h := range ourHashes {
		b = binary.BigEndian.AppendUint16(b, h)
	}
	return b
}

// ParseHashAlgorithms reads a peer's.
func ParseHashAlgorithms(b []byte) (list []uint16, err error) {
	if len(b)%2 != 0 {
		return nil, fmt.Errorf("SIGNATURE_HASH_ALGORITHMS has %d bytes: two for each are needed", len(b))
	}
	for ; len(b) > 0; b = b[2:] {
		list = append(list, binary.BigEndian.Uint16(b))
	}
	return list, nil
}

var hashes = map[uint16]crypto.Hash{hashSHA256: crypto.SHA256, hashSHA384: crypto.SHA384, hashSHA512: crypto.SHA512}

// hashOf is the hash for signatures of a key: the one that is as strong as it, if the peer knows it.
func hashOf(public crypto.PublicKey, peer []uint16) (uint16, error) {
	want := []uint16{hashSHA256, hashSHA384, hashSHA512}
	switch k := public.(type) {
	case ed25519.PublicKey:
		want = []uint16{hashIdentity}
	case *rsa.PublicKey:
		if k.N.BitLen() < 2048 {
			return 0, fmt.Errorf("an RSA key of %d bits: 2048 are needed", k.N.BitLen())
		}
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
		case elliptic.P384():
			want = []uint16{hashSHA384, hashSHA512}
		case elliptic.P521():
			want = []uint16{hashSHA512}
		default:
			return 0, fmt.Errorf("the curve %s: P-256, P-384 and P-521 are possible", k.Params().Name)
		}
	default:
		return 0, fmt.Errorf("a key of type %T: RSA, ECDSA and Ed25519 are possible", public)
	}
	for _, h := range want {
		if slices.Contains(peer, h) {
			return h, nil
		}
	}
	return 0, fmt.Errorf("the peer verifies signatures with the hashes %v alone (RFC 7427, section 7), and our key needs one of %v", peer, want)
}

// AlgorithmIdentifiers, in DER: what stands before a signature (RFC 7427, appendix A; RFC 8420, appendix A).
var (
	oidRSAPSS  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}
	oidMGF1    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 8}
	oidEd25519 = asn1.ObjectIdentifier{1, 3, 101, 112}

	oidPKCS1 = map[uint16]asn1.ObjectIdentifier{hashSHA256: {1, 2, 840, 113549, 1, 1, 11}, hashSHA384: {1, 2, 840, 113549, 1, 1, 12}, hashSHA512: {1, 2, 840, 113549, 1, 1, 13}}
	oidECDSA = map[uint16]asn1.ObjectIdentifier{hashSHA256: {1, 2, 840, 10045, 4, 3, 2}, hashSHA384: {1, 2, 840, 10045, 4, 3, 3}, hashSHA512: {1, 2, 840, 10045, 4, 3, 4}}
	oidHash  = map[uint16]asn1.ObjectIdentifier{hashSHA256: {2, 16, 840, 1, 101, 3, 4, 2, 1}, hashSHA384: {2, 16, 840, 1, 101, 3, 4, 2, 2}, hashSHA512: {2, 16, 840, 1, 101, 3, 4, 2, 3}}
)

// algorithm is an AlgorithmIdentifier.
type algorithm struct {
	OID        asn1.ObjectIdentifier
	Parameters asn1.RawValue `asn1:"optional"`
}

// pssParameters are those of RSASSA-PSS (RFC 8017, appendix A.2.3).
type pssParameters struct {
	Hash    algorithm `asn1:"explicit,tag:0"`
	MGF     algorithm `asn1:"explicit,tag:1"`
	Salt    int       `asn1:"explicit,tag:2,default:20"`
	Trailer int       `asn1:"optional,explicit,tag:3,default:1"`
}

func marshal(v any) []byte {
	b, err := asn1.Marshal(v)
	if err != nil {
		panic(err) // of what we have made
	}
	return b
}

func pssIdentifier(hash uint16) []byte {
	h := algorithm{OID: oidHash[hash], Parameters: asn1.NullRawValue}
	p := pssParameters{Hash: h, MGF: algorithm{OID: oidMGF1, Parameters: asn1.RawValue{FullBytes: marshal(h)}}, Salt: hashes[hash].Size(), Trailer: 1}
	return marshal(algorithm{OID: oidRSAPSS, Parameters: asn1.RawValue{FullBytes: marshal(p)}})
}

// sign makes an AUTH payload of RFC 7427: length and DER of the algorithm, and the signature.
func (c *Certificate) sign(octets []byte, hash uint16) (message.Auth, error) {
	var id []byte
	opts := crypto.SignerOpts(hashes[hash])
	switch c.key.(type) {
	case *rsa.PrivateKey:
		id = pssIdentifier(hash)
		opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: hashes[hash]}
	case *ecdsa.PrivateKey:
		id = marshal(algorithm{OID: oidECDSA[hash]})
	default:
		id = marshal(algorithm{OID: oidEd25519})
	}
	digest := octets
	if h := hashes[hash]; h != 0 {
		digest = sum(h, octets)
	}
	signature, err := c.key.Sign(rand.Reader, digest, opts)
	if err != nil {
		return message.Auth{}, err
	}
	data := append([]byte{byte(len(id))}, id...)
	return message.Auth{Method: message.AuthSignature, Data: append(data, signature...)}, nil
}

func sum(h crypto.Hash, b []byte) []byte {
	d := h.New()
	d.Write(b)
	return d.Sum(nil)
}

// old are the methods of RFC 4754: a curve with its hash, and the signature as two numbers of fixed length.
var old = map[message.AuthMethod]struct {
	curve elliptic.Curve
	hash  crypto.Hash
}{
	message.AuthECDSA256: {elliptic.P256(), crypto.SHA256},
	message.AuthECDSA384: {elliptic.P384(), crypto.SHA384},
	message.AuthECDSA521: {elliptic.P521(), crypto.SHA512},
}

func (c *Certificate) signOld(octets []byte) (message.Auth, error) {
	key, ok := c.key.(*ecdsa.PrivateKey)
	if !ok {
		return message.Auth{}, errors.New("the peer has no digital signatures (RFC 7427), and without them RSA would need SHA-1: use an ECDSA certificate, or a shared key")
	}
	for method, o := range old {
		if o.curve != key.Curve {
			continue
		}
		r, s, err := ecdsa.Sign(rand.Reader, key, sum(o.hash, octets))
		if err != nil {
			return message.Auth{}, err
		}
		n := (key.Params().BitSize + 7) / 8
		data := make([]byte, 2*n)
		r.FillBytes(data[:n])
		s.FillBytes(data[n:])
		return message.Auth{Method: method, Data: data}, nil
	}
	return message.Auth{}, fmt.Errorf("no method for the curve %s", key.Params().Name)
}

var errSignature = errors.New("the peer's signature is wrong")

// verify checks a signature.
func verify(public crypto.PublicKey, a message.Auth, octets []byte) error {
	if _, err := hashOf(public, ourHashes); err != nil {
		return err // a key that is too short
	}
	if o, ok := old[a.Method]; ok {
		key, ok := public.(*ecdsa.PublicKey)
		n := (o.curve.Params().BitSize + 7) / 8
		if !ok || key.Curve != o.curve || len(a.Data) != 2*n {
			return fmt.Errorf("the peer's method %d is for another key", a.Method)
		}
		r, s := new(big.Int).SetBytes(a.Data[:n]), new(big.Int).SetBytes(a.Data[n:])
		if !ecdsa.Verify(key, sum(o.hash, octets), r, s) {
			return errSignature
		}
		return nil
	}
	if a.Method != message.AuthSignature {
		return fmt.Errorf("authentication method %d, where certificates with digital signatures (%d) are configured", a.Method, message.AuthSignature)
	}
	if len(a.Data) < 1 || len(a.Data) < 1+int(a.Data[0]) {
		return errors.New("the peer's AUTH is cut off")
	}
	id, signature := a.Data[1:1+int(a.Data[0])], a.Data[1+int(a.Data[0]):]
	return verifySignature(public, id, signature, octets)
}

// verifySignature checks a signature of RFC 7427 whose algorithm has the DER id.
func verifySignature(public crypto.PublicKey, id, signature, octets []byte) error {
	var alg algorithm
	if rest, err := asn1.Unmarshal(id, &alg); err != nil || len(rest) > 0 {
		return errors.New("the peer's AUTH has no algorithm")
	}
	ok := false
	switch key := public.(type) {
	case *rsa.PublicKey:
		if alg.OID.Equal(oidRSAPSS) {
			hash, salt, err := parsePSS(alg.Parameters.FullBytes)
			if err != nil {
				return err
			}
			ok = rsa.VerifyPSS(key, hashes[hash], sum(hashes[hash], octets), signature, &rsa.PSSOptions{SaltLength: salt}) == nil
			break
		}
		h, known := find(oidPKCS1, alg.OID)
		if !known {
			return unknownSignature(alg)
		}
		ok = rsa.VerifyPKCS1v15(key, hashes[h], sum(hashes[h], octets), signature) == nil
	case *ecdsa.PublicKey:
		h, known := find(oidECDSA, alg.OID)
		if !known {
			return unknownSignature(alg)
		}
		ok = ecdsa.VerifyASN1(key, sum(hashes[h], octets), signature)
	case ed25519.PublicKey:
		if !alg.OID.Equal(oidEd25519) || len(alg.Parameters.FullBytes) > 0 {
			return unknownSignature(alg)
		}
		ok = ed25519.Verify(key, octets, signature)
	}
	if !ok {
		return errSignature
	}
	return nil
}

func unknownSignature(a algorithm) error {
	return fmt.Errorf("the peer signs with %v, which is not for its key, or is one with SHA-1", a.OID)
}

func find(list map[uint16]asn1.ObjectIdentifier, oid asn1.ObjectIdentifier) (uint16, bool) {
	for h, o := range list {
		if o.Equal(oid) {
			return h, true
		}
	}
	return 0, false
}

// parsePSS reads parameters in which both hashes are the same, one of ours.
func parsePSS(der []byte) (hash uint16, salt int, err error) {
	bad := errors.New("the peer signs with RSA-PSS of other parameters than MGF1 with one hash of SHA-2")
	var p pssParameters
	if rest, err := asn1.Unmarshal(der, &p); err != nil || len(rest) > 0 {
		return 0, 0, bad
	}
	var inner algorithm
	if rest, err := asn1.Unmarshal(p.MGF.Parameters.FullBytes, &inner); err != nil || len(rest) > 0 {
		return 0, 0, bad
	}
	hash, ok := find(oidHash, p.Hash.OID)
	if !ok || !p.MGF.OID.Equal(oidMGF1) || !inner.OID.Equal(p.Hash.OID) || p.Trailer != 1 || p.Salt < hashes[hash].Size() || p.Salt > 512 {
		return 0, 0, bad
	}
	return hash, p.Salt, nil
}
