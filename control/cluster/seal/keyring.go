package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"
)

// A Key is the secret of an epoch.
type Key [32]byte

// NewKey makes a random one.
func NewKey() *Key {
	k := new(Key)
	rand.Read(k[:])
	return k
}

// Format hides it.
func (Key) Format(f fmt.State, _ rune) { fmt.Fprint(f, "epoch key") }

// MarshalText hides it.
func (Key) MarshalText() ([]byte, error) { return []byte("epoch key"), nil }

// ID tells keys apart, and says nothing of them.
func (k *Key) ID() string {
	h := sha256.New()
	h.Write([]byte("causeway epoch key\x00"))
	h.Write(k[:])
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// A sealed value: version, epoch, salt, and what AES-256-GCM makes of the text under a key that only this value has:
//
//	 0   1 byte    1
//	 1   4 bytes   epoch, big endian
//	 5   16 bytes  salt, random
//	21             text, and 16 bytes of tag
const (
	version  = 1
	epochAt  = 1
	saltAt   = epochAt + 4
	textAt   = saltAt + 16
	tagBytes = 16
)

// Overhead is how much longer a sealed value is than its text.
const Overhead = textAt + tagBytes

// ErrNotAuthentic says that a value was not sealed by an admitted node, or not for the place where it stands.
var ErrNotAuthentic = errors.New("value is not authentic: it was damaged, or stands where it was not put")

// An EpochError says that there is no key for a value's epoch: it is older than what is kept, or newer than what this node has got.
type EpochError struct{ Epoch uint32 }

func (e EpochError) Error() string {
	return fmt.Sprintf("value is sealed under epoch %d, of which this node has no key", e.Epoch)
}

// A Keyring is the keys that a node has. Its methods may be called by any goroutine.
type Keyring struct {
	mu      sync.RWMutex
	keys    map[uint32]*Key
	current uint32 // 0: none
}

// Format hides the keys.
func (r *Keyring) Format(f fmt.State, _ rune) { fmt.Fprint(f, "keyring") }

// NewKeyring makes one without keys.
func NewKeyring() *Keyring { return &Keyring{keys: map[uint32]*Key{}} }

// Add takes over a key, which is the keyring's from then on.
func (r *Keyring) Add(epoch uint32, k *Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if old := r.keys[epoch]; old != nil && old != k {
		clear(old[:])
	}
	r.keys[epoch] = k
}

// Use seals under an epoch from now on, of which there is a key, unless a newer one is used already.
func (r *Keyring) Use(epoch uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.keys[epoch] != nil {
		r.current = max(r.current, epoch)
	}
}

// Drop wipes the key of one epoch.
func (r *Keyring) Drop(epoch uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if k := r.keys[epoch]; k != nil {
		clear(k[:])
		delete(r.keys, epoch)
	}
	r.settle()
}

// settle is called with the lock held when keys have gone.
func (r *Keyring) settle() {
	if r.keys[r.current] == nil {
		r.current = 0
	}
}

// Wrap gives the key of an epoch to a node.
func (r *Keyring) Wrap(epoch uint32, from *Identity, to Public) (*Wrap, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	k := r.keys[epoch]
	if k == nil {
		return nil, EpochError{epoch}
	}
	return from.wrap(epoch, k, to)
}

// Destroy wipes the keys of all epochs before one, which must be none that is used.
func (r *Keyring) Destroy(before uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for epoch, k := range r.keys {
		if epoch < before {
			clear(k[:])
			delete(r.keys, epoch)
		}
	}
	r.settle()
}

// Oldest is the lowest epoch of which there is a key, or 0.
func (r *Keyring) Oldest() (oldest uint32) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for epoch := range r.keys {
		if oldest == 0 || epoch < oldest {
			oldest = epoch
		}
	}
	return oldest
}

// Newest is the highest epoch of which there is a key, or 0.
func (r *Keyring) Newest() (newest uint32) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for epoch := range r.keys {
		newest = max(newest, epoch)
	}
	return newest
}

// Current is the epoch under which is sealed, or 0 if there is no key.
func (r *Keyring) Current() uint32 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.current
}

// Has reports whether there is a key for an epoch.
func (r *Keyring) Has(epoch uint32) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.keys[epoch] != nil
}

// Seal seals a text for the place where it will stand. It is not to be had elsewhere.
func (r *Keyring) Seal(place string, text []byte) ([]byte, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.seal(r.current, place, text)
}

// SealUnder is Seal under an epoch, for who has no key of a later one yet.
func (r *Keyring) SealUnder(epoch uint32, place string, text []byte) ([]byte, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.seal(epoch, place, text)
}

func (r *Keyring) seal(epoch uint32, place string, text []byte) ([]byte, error) {
	k := r.keys[epoch]
	if k == nil {
		return nil, errors.New("no epoch key: this node was not given one")
	}
	out := make([]byte, textAt, textAt+len(text)+tagBytes)
	out[0] = version
	binary.BigEndian.PutUint32(out[epochAt:], epoch)
	rand.Read(out[saltAt:textAt])
	a, err := k.cipher(out[saltAt:textAt])
	if err != nil {
		return nil, err
	}
	return a.Seal(out, make([]byte, a.NonceSize()), text, additional(place, out[:saltAt])), nil
}

// Open returns the text of a value that stands at a place. The error is ErrNotAuthentic or an EpochError.
func (r *Keyring) Open(place string, sealed []byte) ([]byte, error) {
	if len(sealed) < Overhead || sealed[0] != version {
		return nil, ErrNotAuthentic
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	epoch := binary.BigEndian.Uint32(sealed[epochAt:])
	k := r.keys[epoch]
	if k == nil {
		return nil, EpochError{epoch}
	}
	a, err := k.cipher(sealed[saltAt:textAt])
	if err != nil {
		return nil, err
	}
	text, err := a.Open(nil, make([]byte, a.NonceSize()), sealed[textAt:], additional(place, sealed[:saltAt]))
	if err != nil {
		return nil, ErrNotAuthentic
	}
	return text, nil
}

// cipher is that of one value: its key is used once, so its nonce is zero.
func (k *Key) cipher(salt []byte) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, k[:], salt, "causeway value", 32)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// Derive makes a secret for a purpose of each key, which all nodes with the key have: of the current epoch first.
func (r *Keyring) Derive(purpose string) (list [][32]byte) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for epoch, k := range r.keys {
		out, err := hkdf.Key(sha256.New, k[:], nil, purpose, 32)
		switch {
		case err != nil: // an argument that is too long
		case epoch == r.current:
			list = slices.Insert(list, 0, [32]byte(out))
		default:
			list = append(list, [32]byte(out))
		}
	}
	return list
}

// DeriveAt makes a secret of n bytes for a purpose of the key of one epoch; nil if there is none.
func (r *Keyring) DeriveAt(epoch uint32, purpose string, n int) []byte {
	r.mu.RLock()
	defer r.mu.RUnlock()
	k := r.keys[epoch]
	if k == nil {
		return nil
	}
	out, err := hkdf.Key(sha256.New, k[:], nil, purpose, n)
	if err != nil {
		return nil
	}
	return out
}

// additional is what is authenticated with a text: version, epoch and place.
func additional(place string, head []byte) []byte {
	return append(append(make([]byte, 0, len(head)+len(place)), head...), place...)
}

// EpochOf is the epoch that a value says it was sealed under; 0 if it is none.
func EpochOf(sealed []byte) uint32 {
	if len(sealed) < Overhead || sealed[0] != version {
		return 0
	}
	return binary.BigEndian.Uint32(sealed[epochAt:])
}
