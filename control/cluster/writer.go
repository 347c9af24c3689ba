package cluster

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"causeway/crypto/esp"
)

// A Writer is the number in front of all IVs of this process, its own for ever (DESIGN section 4.1). Keys of another generation of the
// store it must not use: there the number may have been another's.
type Writer struct {
	ID         uint32
	Generation uint64
}

// writerRecord says whose a number is, for whoever looks. It is never deleted.
type writerRecord struct {
	Version int       `json:"version"`
	Node    string    `json:"node"`
	Since   time.Time `json:"since"`
}

// writerTries is enough while less than nine of ten numbers are taken.
const writerTries = 200

// takeWriter takes a number that nobody has had.
func (c *Cluster) takeWriter(ctx context.Context, b *buckets) (Writer, error) {
	for range writerTries {
		var random [4]byte
		rand.Read(random[:])
		id := binary.BigEndian.Uint32(random[:]) & esp.MaxWriter
		switch free, err := c.claimWriter(ctx, b, id); {
		case err != nil:
			return Writer{}, fmt.Errorf("number for IVs: %w", err)
		case free:
			return Writer{id, b.generation}, nil
		}
	}
	return Writer{}, fmt.Errorf("number for IVs: %d that were tried are taken: of 2^20 there are hardly any left", writerTries)
}

// claimWriter takes a number, if nobody has ever had it.
func (c *Cluster) claimWriter(ctx context.Context, b *buckets, id uint32) (free bool, err error) {
	text, err := json.Marshal(writerRecord{1, c.opts.Member.Name, time.Now().UTC()})
	if err != nil {
		return false, err
	}
	_, err = b.writers.Create(ctx, fmt.Sprintf("%05x", id), text)
	if errors.Is(err, jetstream.ErrKeyExists) {
		return false, nil
	}
	return err == nil, err
}
