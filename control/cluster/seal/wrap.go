package seal

import (
	"crypto/hpke"
	"encoding/json"
	"errors"
	"fmt"
)

// A Wrap is an epoch key on its way to one node, signed by the one that gives it.
type Wrap struct {
	Version   int    `json:"version"`
	Epoch     uint32 `json:"epoch"`
	From      string `json:"from"` // fingerprints
	To        string `json:"to"`
	Key       []byte `json:"key"`       // HPKE
	Signature []byte `json:"signature"` // over all that stands before
}

var (
	kdf  = hpke.HKDFSHA256()
	aead = hpke.AES256GCM()
)

// info binds what HPKE seals to what it is.
func (w *Wrap) info() []byte { return fmt.Appendf(nil, "causeway epoch %d to %s", w.Epoch, w.To) }

func (w Wrap) signed() []byte {
	w.Signature = nil
	b, err := json.Marshal(w)
	if err != nil {
		panic(err) // numbers, strings and bytes
	}
	return b
}

// wrap seals a key for a node.
func (i *Identity) wrap(epoch uint32, k *Key, to Public) (*Wrap, error) {
	p, err := kem.NewPublicKey(to.Seals)
	if err != nil {
		return nil, fmt.Errorf("public key of %s: %w", to.Fingerprint(), err)
	}
	w := &Wrap{Version: 1, Epoch: epoch, From: i.Public().Fingerprint(), To: to.Fingerprint()}
	if w.Key, err = hpke.Seal(p, kdf, aead, w.info(), k[:]); err != nil {
		return nil, err
	}
	w.Signature = i.Sign("wrap", w.signed())
	return w, nil
}

// Unwrap returns the key of a wrap that the node from gave to this one.
func (i *Identity) Unwrap(w *Wrap, from Public) (*Key, error) {
	switch {
	case w.Version != 1:
		return nil, fmt.Errorf("epoch key of version %d, this release reads 1", w.Version)
	case w.To != i.Public().Fingerprint():
		return nil, errors.New("the epoch key is for another node")
	case w.From != from.Fingerprint() || !from.Verify("wrap", w.signed(), w.Signature):
		return nil, fmt.Errorf("the epoch key is not signed by %s", w.From)
	}
	b, err := hpke.Open(i.opens, kdf, aead, w.info(), w.Key)
	if err != nil || len(b) != len(Key{}) {
		return nil, errors.New("the epoch key does not open")
	}
	defer clear(b)
	k := new(Key)
	copy(k[:], b)
	return k, nil
}
