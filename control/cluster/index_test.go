package cluster

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"causeway/control/ike"
	"causeway/control/ike/sa"
)

// slowIndex answers by a pass over all records, as it was done before there was an index.
type slowIndex struct{ *Cluster }

func (c slowIndex) unstored() (spis []uint32) {
	for spi, h := range c.held {
		if h.own && h.stored < h.generation {
			spis = append(spis, spi)
		}
	}
	return spis
}

func (c slowIndex) usedLater(spi uint32) bool {
	h := c.held[spi]
	for other, o := range c.held {
		if other != spi && o.kind == child && o.tunnel == h.tunnel && o.selectors == h.selectors && o.used > h.used && o.failed == nil {
			return true
		}
	}
	return false
}

// expire returns what kinds are left, and what is removed.
func (c slowIndex) expire(now time.Time, keeper bool) (left map[uint32]kind, over []uint32) {
	left = map[uint32]kind{}
	for spi, h := range c.held {
		left[spi] = h.kind
		if h.own && h.kind == child || h.expires.IsZero() || now.Before(h.expires.Add(expireGrace)) {
			continue
		}
		left[spi] = gone
		if h.kind == reserved {
			left[spi] = reserved
		}
		if keeper || now.After(h.expires.Add(expireGrace+keeperTime)) {
			delete(left, spi)
			over = append(over, spi)
		}
	}
	return left, over
}

// The index says what a pass over all records says, whatever was done with them.
func TestIndex(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	c := &Cluster{clock: clock{now: time.Now}, held: map[uint32]*held{}, index: newIndex(), work: make(chan struct{}, 1), plane: &plane{children: map[uint32]*sa.Child{}, taken: map[uint32]bool{}}}
	slow := slowIndex{c}
	now := time.Now()
	for step := range 20_000 {
		spi := uint32(r.IntN(60))
		switch r.IntN(12) {
		case 0:
			c.set(spi, nil)
		case 1:
			c.storeAgain(spi)
		case 2:
			c.purged(spi)
		case 3:
			c.learn(spi, &record{Kind: child, Tunnel: "t0", Generation: uint64(r.IntN(9)), Used: r.Int64N(9), ExpiresAt: now}, nil, r.IntN(2) == 0)
		case 4:
			if step%50 == 0 {
				c.storeUnseen()
			}
		case 5:
			now = now.Add(time.Duration(r.IntN(60)) * time.Second)
			checkExpire(t, c, now, r.IntN(4) == 0)
		default:
			c.set(spi, randomHeld(r, now))
		}
		if got, want := slices.Sorted(slices.Values(c.unstored())), slices.Sorted(slices.Values(slow.unstored())); !slices.Equal(got, want) {
			t.Fatalf("step %d: not stored are %v, want %v", step, got, want)
		}
		for spi, h := range c.held {
			if got, want := c.usedLater(h), slow.usedLater(spi); got != want {
				t.Fatalf("step %d: another child of %s than %d is in use: %v, want %v", step, h.tunnel, spi, got, want)
			}
		}
	}
	for spi := range uint32(60) {
		c.set(spi, nil)
	}
	if x := c.index; len(x.children)+len(x.unstored)+len(x.ends)+len(x.over) != 0 {
		t.Errorf("without records it has %d tunnels, %d not stored, %d that end, %d that are over", len(x.children), len(x.unstored), len(x.ends), len(x.over))
	}
}

func randomHeld(r *rand.Rand, now time.Time) *held {
	h := &held{generation: 1 + r.Uint64N(3), kind: []kind{reserved, child, gone}[r.IntN(3)], own: r.IntN(2) == 0, tunnel: fmt.Sprint("t", r.IntN(4)), selectors: fmt.Sprint(r.IntN(2)), used: r.Int64N(9)}
	if r.IntN(5) > 0 {
		h.expires = now.Add(time.Duration(r.IntN(600)-300) * time.Second)
	}
	if r.IntN(5) == 0 {
		h.failed = ike.ErrStoreAway
	}
	if r.IntN(2) == 0 {
		h.stored = h.generation
	}
	return h
}

func checkExpire(t *testing.T, c *Cluster, now time.Time, keeper bool) {
	t.Helper()
	left, want := slowIndex{c}.expire(now, keeper)
	got := c.expire(now, keeper)
	slices.Sort(got)
	slices.Sort(want)
	kinds := map[uint32]kind{}
	for spi, h := range c.held {
		kinds[spi] = h.kind
	}
	if !slices.Equal(got, want) || !maps.Equal(kinds, left) {
		t.Fatalf("keeper %v: it removes %v and leaves %v, want %v and %v", keeper, got, kinds, want, left)
	}
}
