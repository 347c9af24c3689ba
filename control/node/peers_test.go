package node

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"causeway/config"
	"causeway/control/cluster"
)

// A peerEnd is a node as another one sees it, which may be late.
type peerEnd struct {
	self     cluster.Peer
	children *children
	keys     peerKeys
	told     uint32 // the epoch in which it has said that it can open what comes
}

func (e *peerEnd) keyOf(epoch, from, to uint32, size int) []byte {
	return bytes.Repeat([]byte(fmt.Sprint(epoch, from, to, " ")), size)[:size]
}

// follow is one look at the other node, as it was when it said something the last time.
func (e *peerEnd) follow(t *testing.T, o *peerEnd) {
	t.Helper()
	seen := o.self
	seen.Takes = o.told
	if _, err := e.keys.follow(e.children, e.self, seen, e.keyOf); err != nil {
		t.Fatal(err)
	}
}

// lost reports whether what e sends could not be opened.
func (e *peerEnd) lost(o *peerEnd) bool {
	if e.keys.used == 0 || o.told == 0 {
		return false // nothing is sent
	}
	e.children.mu.Lock()
	spi := e.children.tunnels[peerTunnel(o.self.Name)].list[0].SPIOut
	e.children.mu.Unlock()
	for _, has := range o.children.spisOf(peerTunnel(e.self.Name)) {
		if has == spi {
			return false
		}
	}
	return true
}

// Two nodes get epochs, look at each other and say what they have in any order: none sends what the other could not open, both come to
// send in the newest epoch, and no more associations are kept than of three epochs.
func TestPeersTurnEpochs(t *testing.T) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		var ends [2]*peerEnd
		for i := range ends {
			ends[i] = &peerEnd{self: cluster.Peer{Name: fmt.Sprint("n", i), Address: netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + i)}), Writer: uint32(i + 1)}}
		}
		for i, e := range ends {
			o := ends[1-i]
			c := &config.Config{Node: config.Node{Name: e.self.Name, Address: e.self.Address}, Endpoints: []netip.Addr{e.self.Address}}
			e.children, _ = newTestChildren(t, withPeers(c, map[string]cluster.Peer{o.self.Name: o.self}))
		}
		epoch := uint32(1000)
		for e := range ends {
			ends[e].self.Epoch = epoch
		}
		for step := range 600 {
			e := ends[rnd.IntN(2)]
			o := ends[0]
			if e == o {
				o = ends[1]
			}
			switch rnd.IntN(6) {
			case 0: // it gets the newest key
				e.self.Epoch = epoch
			case 1: // it says what it has
				e.told = e.keys.installed
			case 2: // an epoch begins, when all have settled in the one before
				if ends[0].keys.used == epoch && ends[1].keys.used == epoch {
					epoch++
				}
			default:
				e.follow(t, o)
			}
			if e.lost(o) || o.lost(e) {
				t.Fatalf("seed %d, step %d: what is sent cannot be opened: %+v and %+v", seed, step, e.keys, o.keys)
			}
			if n := len(e.children.spisOf(peerTunnel(o.self.Name))); n > 3 {
				t.Fatalf("seed %d, step %d: %d associations", seed, step, n)
			}
		}
		if epoch < 1005 {
			t.Errorf("seed %d: %d epochs", seed, epoch-1000)
		}
	}
}
