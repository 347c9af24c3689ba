package seal

import (
	"crypto/ed25519"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// kem encapsulates keys to a node: X-Wing, X25519 and ML-KEM-768 together (draft-ietf-hpke-pq).
var kem = hpke.MLKEM768X25519()

// An Identity is a node's own pair of key pairs: others seal keys for it with one, and it signs with the other. It does not leave the
// node.
type Identity struct {
	opens hpke.PrivateKey
	signs ed25519.PrivateKey
}

// NewIdentity makes a random one.
func NewIdentity() (*Identity, error) {
	opens, err := kem.GenerateKey()
	if err != nil {
		return nil, err
	}
	_, signs, err := ed25519.GenerateKey(rand.Reader)
	return &Identity{opens, signs}, err
}

// Format hides it.
func (i *Identity) Format(f fmt.State, _ rune) { fmt.Fprint(f, "identity of a node") }

// identityFile is how an identity is kept.
type identityFile struct {
	Version     int    `json:"version"`
	Opens       []byte `json:"opens"`
	Signs       []byte `json:"signs"` // the seed
	Fingerprint string `json:"fingerprint"`
}

// Marshal is what ParseIdentity reads. It is secret.
func (i *Identity) Marshal() ([]byte, error) {
	opens, err := i.opens.Bytes()
	if err != nil {
		return nil, err
	}
	return json.Marshal(identityFile{1, opens, i.signs.Seed(), i.Public().Fingerprint()})
}

// ParseIdentity reads what Marshal wrote. Its errors show nothing of it.
func ParseIdentity(b []byte) (*Identity, error) {
	var f identityFile
	if err := json.Unmarshal(b, &f); err != nil || f.Version != 1 || len(f.Signs) != ed25519.SeedSize {
		return nil, errors.New("not the identity of a node")
	}
	opens, err := kem.NewPrivateKey(f.Opens)
	if err != nil {
		return nil, errors.New("not the identity of a node: its key is damaged")
	}
	i := &Identity{opens, ed25519.NewKeyFromSeed(f.Signs)}
	if i.Public().Fingerprint() != f.Fingerprint { // any bytes are somebody's keys
		return nil, errors.New("not the identity of a node: its keys are not those of its fingerprint")
	}
	return i, nil
}

// Public is what others need of it.
func (i *Identity) Public() Public {
	return Public{Seals: i.opens.PublicKey().Bytes(), Verifies: i.signs.Public().(ed25519.PublicKey)}
}

// Sign signs a message about something. What is signed about one thing is not valid about another.
func (i *Identity) Sign(about string, message []byte) []byte {
	return ed25519.Sign(i.signs, statement(about, message))
}

// statement is what is signed.
func statement(about string, message []byte) []byte {
	h := sha256.Sum256(message)
	return append([]byte("causeway "+about+"\x00"), h[:]...)
}

// Public is the public half of an Identity.
type Public struct {
	Seals    []byte `json:"seals"`    // key of the KEM, 1216 bytes
	Verifies []byte `json:"verifies"` // of Ed25519
}

// Verify checks a signature of Sign's.
func (p Public) Verify(about string, message, signature []byte) bool {
	return len(p.Verifies) == ed25519.PublicKeySize && ed25519.Verify(p.Verifies, statement(about, message), signature)
}

// fingerprintMark begins a fingerprint, so that nobody takes something else for one.
const (
	fingerprintMark = "cw1:"
	fingerprintLen  = 43 // without the mark
)

// Fingerprint names the keys, in 47 characters.
func (p Public) Fingerprint() string {
	h := sha256.New()
	fmt.Fprintf(h, "causeway identity\x00%d %d\x00", len(p.Seals), len(p.Verifies))
	h.Write(p.Seals)
	h.Write(p.Verifies)
	return fingerprintMark + base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

// CheckFingerprint says what is wrong with a text that should be a fingerprint.
func CheckFingerprint(s string) error {
	rest, ok := strings.CutPrefix(s, fingerprintMark)
	if b, err := base64.RawURLEncoding.Strict().DecodeString(rest); !ok || err != nil || len(b) != sha256.Size || len(rest) != fingerprintLen {
		return fmt.Errorf("%q is no fingerprint of a node: it is %s and 43 characters, as `causeway cluster identity` prints it", s, fingerprintMark)
	}
	return nil
}
