package cluster

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// SPIs are reserved by being the first to store something under them, ahead, so that no negotiation waits for the store.
const (
	stockSize = 64             // that are reserved ahead
	stockIdle = 16             // the same as long as few are used: in a large cluster most nodes negotiate little, and all hear of each
	localSize = 256            // by a node that has to do without the store while that is away
	stockTime = 12 * time.Hour // how old a reserved one may become
	leastSPI  = 256            // RFC 4303, section 2.1

	// MaxSPI is the highest SPI that is negotiated: those behind it are of associations between nodes.
	MaxSPI = 0xefffffff
)

// stockAtOnce is how many are reserved at one time: the store may be far, and the node says nothing of itself meanwhile.
const stockAtOnce = 16

// stocked is how many SPIs this node reserves ahead now. It is called with the lock held.
func (c *Cluster) stocked() int {
	if c.opts.Local {
		return localSize
	}
	return max(c.stockWanted, stockIdle)
}

// fillStock reserves SPIs ahead: each by being the first to store something under it. What is more than stockSize does not hurry.
func (c *Cluster) fillStock(ctx context.Context, s *session) error {
	for round := 0; ; round++ {
		c.mu.Lock()
		have, missing := len(c.stock), c.stocked()-len(c.stock)
		numbered := c.numbered
		c.mu.Unlock()
		if missing <= 0 || !numbered || have >= stockSize && round > 0 {
			return nil
		}
		err := atOnce(min(missing, stockAtOnce), func(int) error { return c.reserve(ctx, s.buckets, randomSPI()) })
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil { // it is slow, and to read all again would make it slower; or it is away
			return c.stillHere(ctx, s)
		}
		if err != nil {
			return err
		}
	}
}

// randomSPI is one that may be negotiated.
func randomSPI() uint32 {
	for {
		var random [4]byte
		rand.Read(random[:])
		if spi := binary.BigEndian.Uint32(random[:]); spi >= leastSPI && spi <= MaxSPI {
			return spi
		}
	}
}

// reserve is the first to store something under an SPI, if nobody has.
func (c *Cluster) reserve(ctx context.Context, b *buckets, spi uint32) error {
	r := &record{Version: recordVersion, Kind: reserved, Generation: 1, Node: c.opts.Member.Name, Writer: c.writer.ID, Store: b.generation,
		ExpiresAt: c.clock.common().Add(2 * stockTime)}
	sealed, err := c.keys.Seal(place(bucketSAs, spiKey(spi)), r.marshal())
	if err != nil {
		return err
	}
	ctx, cancel := within(ctx)
	defer cancel()
	if _, err := b.sas.Create(ctx, spiKey(spi), sealed); err != nil {
		if errors.Is(err, jetstream.ErrKeyExists) {
			return nil
		}
		return fmt.Errorf("reserving an spi: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.set(spi, &held{generation: 1, kind: reserved, own: true, node: r.Node, writer: r.Writer, expires: r.ExpiresAt, sealed: sealed, stored: 1})
	c.stock = append(c.stock, spi)
	return nil
}

// fromStock takes an SPI that was reserved ahead.
func (c *Cluster) fromStock() (spi uint32, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for (c.trouble == "" || c.local()) && len(c.stock) > 0 {
		spi, c.stock = c.stock[0], c.stock[1:]
		if h := c.held[spi]; h != nil && h.kind == reserved && h.expires.Sub(c.clock.common()) > stockTime {
			c.wantStock()
			return spi, true
		}
	}
	c.wantStock()
	return 0, false
}

// wantStock has the stock filled up, to twice as many if they go faster than that. It is called with the lock held.
func (c *Cluster) wantStock() {
	if len(c.stock) < max(c.stockWanted, stockIdle)/2 {
		c.stockWanted = min(2*max(c.stockWanted, stockIdle), stockSize)
	}
	c.wake()
}

// sweepTime is how often is looked for SPIs that dead processes had reserved.
const sweepTime = 10 * time.Second

// sweep gives free what dead processes had reserved, and removes what nobody can open. The keeper does.
func (c *Cluster) sweep(ctx context.Context, s *session, now time.Time) error {
	if now.Sub(s.swept) < sweepTime || c.keeper(s) != c.opts.Member.Name {
		return nil
	}
	s.swept = now
	var free []uint32
	c.mu.Lock()
	for spi, h := range c.held {
		if h.kind == reserved && !h.own && !c.writes(s, h) {
			free = append(free, spi)
			c.set(spi, nil)
		}
	}
	c.mu.Unlock()
	for _, spi := range free {
		if err := c.purge(ctx, s.buckets.sas, spiKey(spi)); err != nil {
			return err
		}
	}
	return c.purgeUnreadable(ctx, s)
}
