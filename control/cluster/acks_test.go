package cluster

import (
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"causeway/control/cluster/seal"
)

// speaker is a node of which only the name and the key matter.
func speaker(name string, keys *seal.Keyring) *Cluster {
	return &Cluster{clock: clock{now: time.Now}, opts: Options{Member: Member{Name: name}}, keys: keys, acks: newAcks(), held: map[uint32]*held{}, index: newIndex(), unopened: map[string][]byte{}, work: make(chan struct{}, 1)}
}

func oneKey() *seal.Keyring {
	keys := seal.NewKeyring()
	keys.Add(1, seal.NewKey())
	keys.Use(1)
	return keys
}

// A wait ends when all that are waited for have acknowledged this child, in this generation, and not before.
func TestAcknowledgements(t *testing.T) {
	keys := oneKey()
	c, a, b, other := speaker("hub", keys), speaker("a", keys), speaker("b", keys), speaker("c", keys)
	w := c.acks.expect(256, 3, map[string]bool{"a": true, "b": true})
	second := c.acks.expect(257, 1, map[string]bool{"a": true})
	say := func(from *Cluster, reply string, spi uint32, generation uint64) {
		text, err := from.ack(spi, generation)
		if err != nil {
			t.Fatal(err)
		}
		c.acknowledged(&nats.Msg{Subject: reply, Data: text})
	}
	waits := func(w *ackWait) bool {
		select {
		case <-w.all:
			return false
		default:
			return true
		}
	}
	for range 2 {
		say(a, w.reply, 256, 3)
	}
	say(b, w.reply, 257, 3)
	say(b, w.reply, 256, 2)
	say(b, c.acks.inbox+"none", 256, 3)
	say(other, w.reply, 256, 3)
	say(speaker("b", oneKey()), w.reply, 256, 3) // under another key
	c.acknowledged(&nats.Msg{Subject: w.reply})  // the engine says that nobody listens
	if !waits(w) || !waits(second) {
		t.Fatal("the wait has ended without b's acknowledgement")
	}
	for range 2 {
		say(b, w.reply, 256, 3)
	}
	if waits(w) || len(c.acks.end(w)) > 0 {
		t.Error("it waits although both have acknowledged")
	}
	say(b, w.reply, 256, 3)
	if missing := c.acks.end(second); !slices.Equal(missing, []string{"a"}) || len(c.acks.waiting) > 0 {
		t.Errorf("missing are %v, and %d wait, want a and none", missing, len(c.acks.waiting))
	}
	if waits(c.acks.expect(258, 1, nil)) {
		t.Error("nobody is waited for")
	}
}

// What the store has is ours only if it is so byte for byte.
func TestStoreHasIt(t *testing.T) {
	c := speaker("hub", oneKey())
	c.set(256, &held{own: true, generation: 2, kind: child, sealed: []byte("sealed")})
	for _, x := range []struct {
		key, sealed string
		want        bool
	}{{"00000100", "SEALED", false}, {"00000100", "seale", false}, {"00000101", "sealed", false}, {"100", "sealed", false}, {"00000100", "sealed", true}} {
		if got := c.hasAlready(x.key, []byte(x.sealed)); got != x.want || len(c.unstored()) > 0 == x.want {
			t.Errorf("%s: the store has %q: %v, want %v; not stored %v", x.key, x.sealed, got, x.want, c.unstored())
		}
	}
}
