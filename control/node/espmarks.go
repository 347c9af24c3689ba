package node

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"

	"causeway/crypto/esp"
)

// espFile is where the marks stand in node.state_dir.
const espFile = "esp.json"

// espMarks is the content of the file: nothing from here on was used, and of what was received nothing may come again.
type espMarks struct {
	Writer   uint32            `json:"writer"` // of the IVs
	IV       uint64            `json:"iv"`
	Sequence map[string]uint64 `json:"sequence"` // by SPI and key
	Received map[string]uint64 `json:"received"` // likewise
}

// newESPMarks are those of a node that has none, or has lost them. What it used before nobody knows, so its IVs begin at a
// random place under a random writer: with keys that were in use one comes again with odds of less than 2^-35 for each
// 2^26 that are used.
func newESPMarks() espMarks {
	return espMarks{Writer: randomBelow(esp.MaxWriter + 1), IV: uint64(randomBelow(1<<20)) * (esp.MaxIVs >> 21), Sequence: map[string]uint64{}, Received: map[string]uint64{}}
}

// randomBelow returns a random number below n, a power of two of at most 2^32.
func randomBelow(n uint64) uint32 {
	var b [4]byte
	rand.Read(b[:])
	return uint32(uint64(binary.BigEndian.Uint32(b[:])) & (n - 1))
}

func (m espMarks) clone() espMarks {
	return espMarks{m.Writer, m.IV, maps.Clone(m.Sequence), maps.Clone(m.Received)}
}

func (m espMarks) equal(o espMarks) bool {
	return m.Writer == o.Writer && m.IV == o.IV && maps.Equal(m.Sequence, o.Sequence) && maps.Equal(m.Received, o.Received)
}

// receive notes what an association has received.
func (m espMarks) receive(in *inbound) {
	if highest := in.sa.Received(); highest > m.Received[in.mark] {
		m.Received[in.mark] = highest
	}
}

// giveBack lowers the mark of an association that sends no more, unless what is above its numbers belongs to another.
func (m espMarks) giveBack(out *outbound) {
	if m.Sequence[out.mark] == out.end {
		m.Sequence[out.mark] = out.sa.Next()
	}
}

// markOf is what the numbers of an association belong to: the SPI and the key, wherever they go, for the customer's window is that
// of its association. New keys begin anew. Of the key a hash stands there, too short to find a key with it.
func markOf(spi uint32, key []byte) string {
	return fmt.Sprintf("spi %#x key %s", spi, keyID(key))
}

// keyID tells keys apart.
func keyID(key []byte) string {
	h := sha256.Sum256(key)
	return hex.EncodeToString(h[:4])
}

// errNoMarks says that the file is there and has no marks.
var errNoMarks = errors.New("not what this daemon writes")

// espMarksFile is how the marks stand in the file: all of them, with a hash, because one that is wrong by chance or by hand is
// not noticed before IVs come again.
type espMarksFile struct {
	espMarks
	Check string `json:"check"`
}

// check is a hash of the marks.
func (m espMarks) check() string {
	b, err := json.Marshal(m) // maps in the order of their keys
	if err != nil {
		panic(err) // numbers and strings
	}
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:8])
}

func readESPMarks(dir *stateDir) (espMarks, error) {
	b, err := dir.read(espFile)
	if err != nil {
		return espMarks{}, err
	}
	var f espMarksFile
	if err = json.Unmarshal(b, &f); err == nil {
		err = f.valid()
	}
	if err != nil {
		return espMarks{}, fmt.Errorf("%s: %w: %w; give all IPsec tunnels new keys and remove the file: an older one from a backup would "+
			"make IVs and sequence numbers come again", dir.file(espFile), errNoMarks, err)
	}
	return f.espMarks, nil
}

// valid says what of a file cannot be.
func (f *espMarksFile) valid() error {
	switch {
	case f.Sequence == nil || f.Received == nil:
		return errors.New("something is missing")
	case f.Check != f.check():
		return fmt.Errorf("check is %q, that of the rest is %q", f.Check, f.check())
	case f.Writer > esp.MaxWriter || f.IV > esp.MaxIVs:
		return errors.New("writer or iv is too large")
	case f.IV == esp.MaxIVs:
		return fmt.Errorf("all of %d IVs are used", uint64(esp.MaxIVs))
	}
	for what, n := range f.Sequence {
		if n > math.MaxUint64-sequenceReserve {
			return fmt.Errorf("the sequence number of %s is too large", what)
		}
	}
	return nil
}
