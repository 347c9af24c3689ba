package suite

import (
	"crypto/ecdh"
	"crypto/mlkem"
	"crypto/rand"
	"fmt"
	"slices"
)

// An Offer is the initiator's side of a key exchange, of which it has sent the public half. ML-KEM and Diffie-Hellman look alike:
// what the responder sends is a ciphertext, or its public value.
type Offer struct {
	method uint16
	public []byte

	modp   *modp
	secret []byte // private exponent
	ecdh   *ecdh.PrivateKey
	kem768 *mlkem.DecapsulationKey768
	kem1k  *mlkem.DecapsulationKey1024
}

// curveOf is the curve of an elliptic-curve method. RFC 5903 leaves out the first byte of a point, which says that it is not
// compressed; RFC 8031 has none.
func curveOf(method uint16) (curve ecdh.Curve, prefix []byte) {
	switch method {
	case ECP256:
		return ecdh.P256(), []byte{4}
	case ECP384:
		return ecdh.P384(), []byte{4}
	case ECP521:
		return ecdh.P521(), []byte{4}
	case X25519:
		return ecdh.X25519(), nil
	}
	return nil, nil
}

// NewOffer makes a key for one exchange.
func NewOffer(method uint16) (*Offer, error) {
	o := &Offer{method: method}
	var err error
	if curve, prefix := curveOf(method); curve != nil {
		if o.ecdh, err = curve.GenerateKey(rand.Reader); err == nil {
			o.public = o.ecdh.PublicKey().Bytes()[len(prefix):]
		}
		return o, err
	}
	switch method {
	case MODP1536, MODP2048, MODP3072, MODP4096:
		o.modp = modps[method]()
		o.secret, o.public, err = o.modp.generate()
	case MLKEM768:
		if o.kem768, err = mlkem.GenerateKey768(); err == nil {
			o.public = o.kem768.EncapsulationKey().Bytes()
		}
	case MLKEM1024:
		if o.kem1k, err = mlkem.GenerateKey1024(); err == nil {
			o.public = o.kem1k.EncapsulationKey().Bytes()
		}
	default:
		return nil, unknownMethod(method)
	}
	return o, err
}

func unknownMethod(method uint16) error {
	return fmt.Errorf("key exchange %s is not one of ours", MethodName(method))
}

// Public is what the peer gets.
func (o *Offer) Public() []byte { return o.public }

// Finish returns the shared secret, which the caller should wipe.
func (o *Offer) Finish(peer []byte) ([]byte, error) {
	switch {
	case o.ecdh != nil:
		return agree(o.method, o.ecdh, peer)
	case o.modp != nil:
		return o.modp.shared(o.secret, peer)
	case o.kem768 != nil:
		return o.kem768.Decapsulate(peer)
	case o.kem1k != nil:
		return o.kem1k.Decapsulate(peer)
	}
	return nil, unknownMethod(o.method)
}

// Private is what RestoreOffer makes the offer of again. The caller should wipe it.
func (o *Offer) Private() []byte {
	switch {
	case o.ecdh != nil:
		return o.ecdh.Bytes()
	case o.modp != nil:
		return slices.Clone(o.secret)
	case o.kem768 != nil:
		return o.kem768.Bytes()
	case o.kem1k != nil:
		return o.kem1k.Bytes()
	}
	return nil
}

// RestoreOffer makes an offer of what Private has returned, to finish it. Its public half is not there: it was sent.
func RestoreOffer(method uint16, private []byte) (*Offer, error) {
	o := &Offer{method: method}
	var err error
	if curve, _ := curveOf(method); curve != nil {
		o.ecdh, err = curve.NewPrivateKey(private)
		return o, err
	}
	switch method {
	case MODP1536, MODP2048, MODP3072, MODP4096:
		o.modp, o.secret = modps[method](), slices.Clone(private)
	case MLKEM768:
		o.kem768, err = mlkem.NewDecapsulationKey768(private)
	case MLKEM1024:
		o.kem1k, err = mlkem.NewDecapsulationKey1024(private)
	default:
		return nil, unknownMethod(method)
	}
	return o, err
}

// Format hides the private key.
func (o *Offer) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "offer of %s", MethodName(o.method)) }

// Wipe ends the offer.
func (o *Offer) Wipe() {
	clear(o.secret)
	o.ecdh, o.kem768, o.kem1k, o.modp = nil, nil, nil, nil // the standard library's keys cannot be wiped
}

// agree is the x coordinate of the shared point (RFC 5903, section 7), or X25519. A point that is not on the curve and an
// all-zero result are refused by crypto/ecdh.
func agree(method uint16, key *ecdh.PrivateKey, peer []byte) ([]byte, error) {
	curve, prefix := curveOf(method)
	y, err := curve.NewPublicKey(append(prefix, peer...))
	if err != nil {
		return nil, errPublic
	}
	secret, err := key.ECDH(y)
	if err != nil {
		return nil, errPublic
	}
	return secret, nil
}

// Respond answers an offer: what the initiator gets, and the shared secret, which the caller should wipe.
func Respond(method uint16, peer []byte) (public, secret []byte, err error) {
	switch method {
	case MLKEM768:
		k, err := mlkem.NewEncapsulationKey768(peer) // checks that it is one (FIPS 203, section 7.2)
		if err != nil {
			return nil, nil, errPublic
		}
		secret, public = k.Encapsulate()
		return public, secret, nil
	case MLKEM1024:
		k, err := mlkem.NewEncapsulationKey1024(peer)
		if err != nil {
			return nil, nil, errPublic
		}
		secret, public = k.Encapsulate()
		return public, secret, nil
	}
	o, err := NewOffer(method)
	if err != nil {
		return nil, nil, err
	}
	defer o.Wipe()
	if secret, err = o.Finish(peer); err != nil {
		return nil, nil, err
	}
	return o.public, secret, nil
}
