package auth

import (
	"crypto"
	_ "crypto/sha256" // the hashes that hashIDs names
	_ "crypto/sha512"
	encodingasn1 "encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// Hash algorithms of IKEv2 (RFC 7427, section 7; RFC 8420, section 2). SHA-1, number 1, is neither announced nor accepted.
const (
	hashSHA256   uint16 = 2
	hashSHA384   uint16 = 3
	hashSHA512   uint16 = 4
	hashIdentity uint16 = 5 // the signature algorithm hashes for itself: Ed25519
)

// maxHashes bounds what a peer may announce.
const maxHashes = 64

// HashAlgorithms is the data of our SIGNATURE_HASH_ALGORITHMS notification (RFC 7427, section 4): what we verify.
func HashAlgorithms() []byte {
	var b []byte
	for _, h := range []uint16{hashSHA256, hashSHA384, hashSHA512, hashIdentity} {
		b = binary.BigEndian.AppendUint16(b, h)
	}
	return b
}

// ParseHashAlgorithms reads the peer's SIGNATURE_HASH_ALGORITHMS: two bytes each, in network byte order. Unknown ones are kept.
func ParseHashAlgorithms(b []byte) ([]uint16, error) {
	if len(b)%2 != 0 || len(b) > 2*maxHashes {
		return nil, fmt.Errorf("SIGNATURE_HASH_ALGORITHMS has %d bytes: two for each of at most %d are allowed", len(b), maxHashes)
	}
	hashes := make([]uint16, 0, len(b)/2)
	for ; len(b) > 0; b = b[2:] {
		hashes = append(hashes, binary.BigEndian.Uint16(b))
	}
	return hashes, nil
}

// A scheme is a family of signature algorithms.
type scheme uint8

const (
	schemePKCS1 scheme = iota + 1 // RSASSA-PKCS1-v1_5
	schemePSS                     // RSASSA-PSS, MGF1 with the same hash
	schemeECDSA
	schemeEd25519
)

// An algorithm is how a signature is made.
type algorithm struct {
	scheme scheme
	hash   crypto.Hash // not with Ed25519
	salt   int         // of RSASSA-PSS, in bytes
}

// String is what people call it.
func (a algorithm) String() string {
	switch a.scheme {
	case schemePKCS1:
		return fmt.Sprintf("RSA PKCS#1 v1.5 with %v", a.hash)
	case schemePSS:
		return fmt.Sprintf("RSA-PSS with %v", a.hash)
	case schemeECDSA:
		return fmt.Sprintf("ECDSA with %v", a.hash)
	}
	return "Ed25519"
}

type oid = encodingasn1.ObjectIdentifier

var (
	oidPSS     = oid{1, 2, 840, 113549, 1, 1, 10}
	oidMGF1    = oid{1, 2, 840, 113549, 1, 1, 8}
	oidEd25519 = oid{1, 3, 101, 112}
)

type hashID struct {
	hash              crypto.Hash
	number            uint16
	own, pkcs1, ecdsa oid
}

// hashIDs are the hashes with all the numbers by which they are called.
var hashIDs = []hashID{
	{crypto.SHA256, hashSHA256, oid{2, 16, 840, 1, 101, 3, 4, 2, 1}, oid{1, 2, 840, 113549, 1, 1, 11}, oid{1, 2, 840, 10045, 4, 3, 2}},
	{crypto.SHA384, hashSHA384, oid{2, 16, 840, 1, 101, 3, 4, 2, 2}, oid{1, 2, 840, 113549, 1, 1, 12}, oid{1, 2, 840, 10045, 4, 3, 3}},
	{crypto.SHA512, hashSHA512, oid{2, 16, 840, 1, 101, 3, 4, 2, 3}, oid{1, 2, 840, 113549, 1, 1, 13}, oid{1, 2, 840, 10045, 4, 3, 4}},
}

// refusedAlgorithms are worth a name in an error.
var refusedAlgorithms = map[string]string{
	"1.2.840.113549.1.1.4":  "RSA with MD5",
	"1.2.840.113549.1.1.5":  "RSA with SHA-1",
	"1.2.840.113549.1.1.14": "RSA with SHA-224",
	"1.2.840.10040.4.3":     "DSA with SHA-1",
	"1.2.840.10045.4.1":     "ECDSA with SHA-1",
	"1.3.101.113":           "Ed448",
	"1.3.14.3.2.26":         "SHA-1",
}

const permittedAlgorithms = "RSA-PSS, RSA PKCS#1 v1.5 and ECDSA with SHA-256, SHA-384 or SHA-512, and Ed25519 are allowed"

// parseAlgorithm reads the AlgorithmIdentifier in front of a signature (RFC 7427, section 3): DER without anything behind.
func parseAlgorithm(der []byte) (algorithm, error) {
	in := cryptobyte.String(der)
	name, parameters, ok := readAlgorithm(&in)
	if !ok || !in.Empty() {
		return algorithm{}, errors.New("the signature's AlgorithmIdentifier is malformed")
	}
	for _, h := range hashIDs {
		switch {
		case name.Equal(h.pkcs1) && absentOrNull(parameters): // RFC 4055, section 5: either is accepted
			return algorithm{scheme: schemePKCS1, hash: h.hash}, nil
		case name.Equal(h.ecdsa) && len(parameters) == 0: // RFC 5758, section 3.2
			return algorithm{scheme: schemeECDSA, hash: h.hash}, nil
		case name.Equal(h.pkcs1), name.Equal(h.ecdsa):
			return algorithm{}, fmt.Errorf("signature algorithm %v has parameters that it must not have", name)
		}
	}
	switch {
	case name.Equal(oidPSS):
		return parsePSS(parameters)
	case name.Equal(oidEd25519) && len(parameters) == 0: // RFC 8410, section 3
		return algorithm{scheme: schemeEd25519}, nil
	}
	return algorithm{}, fmt.Errorf("signature algorithm %s is refused: %s", algorithmName(name), permittedAlgorithms)
}

// readAlgorithm takes an AlgorithmIdentifier apart. parameters is the whole element, or empty.
func readAlgorithm(in *cryptobyte.String) (name oid, parameters cryptobyte.String, ok bool) {
	var seq cryptobyte.String
	if !in.ReadASN1(&seq, asn1.SEQUENCE) || !seq.ReadASN1ObjectIdentifier(&name) {
		return nil, nil, false
	}
	if seq.Empty() {
		return name, nil, true
	}
	var tag asn1.Tag
	ok = seq.ReadAnyASN1Element(&parameters, &tag) && seq.Empty()
	return name, parameters, ok
}

func absentOrNull(parameters cryptobyte.String) bool {
	return len(parameters) == 0 || slices.Equal(parameters, []byte{byte(asn1.NULL), 0})
}

func algorithmName(name oid) string {
	if known, ok := refusedAlgorithms[name.String()]; ok {
		return known
	}
	return name.String()
}

// parsePSS reads RSASSA-PSS-params (RFC 4055, section 3.1). What is left out there means SHA-1, which is refused. The salt is
// at least as long as the hash, and MGF1 has the same hash: nobody has a use for anything else.
func parsePSS(parameters cryptobyte.String) (algorithm, error) {
	malformed := errors.New("the parameters of RSA-PSS are malformed")
	var seq, hash, mask, saltField, trailerField cryptobyte.String
	var hasHash, hasMask, hasSalt, hasTrailer bool
	if len(parameters) == 0 {
		return algorithm{}, errors.New("RSA-PSS without parameters is with SHA-1, and is refused: " + permittedAlgorithms)
	}
	if !parameters.ReadASN1(&seq, asn1.SEQUENCE) ||
		!seq.ReadOptionalASN1(&hash, &hasHash, field(0)) || !seq.ReadOptionalASN1(&mask, &hasMask, field(1)) ||
		!seq.ReadOptionalASN1(&saltField, &hasSalt, field(2)) || !seq.ReadOptionalASN1(&trailerField, &hasTrailer, field(3)) || !seq.Empty() {
		return algorithm{}, malformed
	}
	if !hasHash || !hasMask || !hasSalt {
		return algorithm{}, errors.New("RSA-PSS with parameters left out is with SHA-1 or a salt of 20 bytes, and is refused: " + permittedAlgorithms)
	}
	h, err := parseHash(&hash)
	if err != nil || !hash.Empty() {
		return algorithm{}, errors.Join(malformed, err)
	}
	maskName, maskHash, ok := readAlgorithm(&mask)
	if !ok || !mask.Empty() || !maskName.Equal(oidMGF1) {
		return algorithm{}, malformed
	}
	if m, err := parseHash(&maskHash); err != nil || !maskHash.Empty() || m != h {
		return algorithm{}, fmt.Errorf("RSA-PSS with %v must have the same hash in its mask", h)
	}
	var salt, trailer int
	if !saltField.ReadASN1Integer(&salt) || !saltField.Empty() || salt < h.Size() || salt > maxRSA/8 {
		return algorithm{}, fmt.Errorf("RSA-PSS with %v must have a salt of at least %d bytes", h, h.Size())
	}
	if hasTrailer && (!trailerField.ReadASN1Integer(&trailer) || !trailerField.Empty() || trailer != 1) {
		return algorithm{}, malformed
	}
	return algorithm{schemePSS, h, salt}, nil
}

// field is the tag of an explicitly tagged field.
func field(n uint8) asn1.Tag { return asn1.Tag(n).Constructed().ContextSpecific() }

// parseHash reads the AlgorithmIdentifier of a hash.
func parseHash(in *cryptobyte.String) (crypto.Hash, error) {
	name, parameters, ok := readAlgorithm(in)
	if !ok || !absentOrNull(parameters) {
		return 0, errors.New("a hash's AlgorithmIdentifier is malformed")
	}
	for _, h := range hashIDs {
		if name.Equal(h.own) {
			return h.hash, nil
		}
	}
	return 0, fmt.Errorf("hash %s is refused: %s", algorithmName(name), permittedAlgorithms)
}

// identifier is the algorithm's AlgorithmIdentifier in DER, as RFC 7427, appendix A, and RFC 8420 write it.
func (a algorithm) identifier() []byte {
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		if a.scheme == schemeEd25519 {
			b.AddASN1ObjectIdentifier(oidEd25519)
			return
		}
		ids := hashIDs[slices.IndexFunc(hashIDs, func(h hashID) bool { return h.hash == a.hash })]
		switch a.scheme {
		case schemePKCS1:
			b.AddASN1ObjectIdentifier(ids.pkcs1)
			b.AddASN1NULL()
		case schemeECDSA:
			b.AddASN1ObjectIdentifier(ids.ecdsa)
		case schemePSS:
			b.AddASN1ObjectIdentifier(oidPSS)
			addPSS(b, ids, a.salt)
		}
	})
	return b.BytesOrPanic()
}

func addPSS(b *cryptobyte.Builder, h hashID, salt int) {
	addHash := func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(h.own)
			b.AddASN1NULL()
		})
	}
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(field(0), addHash)
		b.AddASN1(field(1), func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(oidMGF1)
				addHash(b)
			})
		})
		b.AddASN1(field(2), func(b *cryptobyte.Builder) { b.AddASN1Int64(int64(salt)) })
	})
}
