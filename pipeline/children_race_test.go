package pipeline

import (
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"causeway/crypto/esp"
)

// rekeyed is a tunnel that gets new children again and again while packets flow.
type rekeyed struct {
	name   string
	inside netip.Addr

	mu      sync.Mutex
	sends   *espPeer            // what the customer sends by
	peers   map[uint32]*espPeer // all that there ever were, by the SPI of what the node sends
	packets int                 // both ways
}

// frames are a packet each way.
func (r *rekeyed) frames(t *testing.T) [][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.packets++
	return [][]byte{r.sends.seal(udp(t, r.inside, inetHost4, 60)), framed(udp(t, inetHost4, r.inside, 60))}
}

// TestRekeyWhileTrafficFlows: children are replaced as IKE does it, tunnels beside each other, and removed ones wiped, while both
// workers have packets of all tunnels by all queues. Not one is lost, comes twice or late.
func TestRekeyWhileTrafficFlows(t *testing.T) {
	const tunnels, rekeys = 3, 12
	var specs []TunnelSpec
	var list []*rekeyed
	for i := range tunnels {
		r := &rekeyed{name: fmt.Sprintf("cust-%d", i), inside: netip.AddrFrom4([4]byte{198, 18, byte(i), 9}), peers: map[uint32]*espPeer{}}
		list = append(list, r)
		specs = append(specs, negotiated(false, func(s *TunnelSpec) {
			s.Name, s.Prefixes = r.name, []netip.Prefix{netip.PrefixFrom(r.inside, 32)}
			s.Interface4, s.Interface6 = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 213, 0, byte(2 * i)}), 31), netip.Prefix{}
		}))
	}
	b := newESPBed(t, 2, specs...)
	set := func(r *rekeyed, peers ...*espPeer) {
		var children []SASpec
		for _, p := range peers {
			children = append(children, p.child())
		}
		if err := b.engine.SetChildren(r.name, children)(); err != nil {
			t.Error(err)
		}
	}
	fresh := func(r *rekeyed, i, n int) *espPeer {
		p := newESPPeer(t, espOptions{suite: allSuites[n%2*2], spi: uint32(0x1000 + i<<16 + n*0x11), window: 1024}) // GCM and ChaCha20
		r.mu.Lock()
		defer r.mu.Unlock()
		r.peers[p.in.SPI()] = p
		return p
	}
	first := make([]*espPeer, tunnels)
	for i, r := range list {
		first[i] = fresh(r, i, 0)
		r.sends = first[i]
		set(r, first[i])
	}
	stop := make(chan struct{})
	var turns [2]atomic.Int64
	var left [2][][]byte
	var workers, control sync.WaitGroup
	for w := range 2 {
		workers.Go(func() {
			q := b.queues[w][0]
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				if q.Waiting() == 0 {
					q.Put(list[(n+w)%tunnels].frames(t)...)
				}
				b.engine.Poll(w)
				left[w] = append(left[w], q.Take()...)
				turns[w].Add(1)
				runtime.Gosched()
			}
		})
	}
	const most = 2 * handoverRing / BatchSize // as many as it takes to empty a full ring
	await := func(n int64) {                  // until both workers have turned so often from now on
		before := [2]int64{turns[0].Load(), turns[1].Load()}
		for end := time.Now().Add(20 * time.Second); turns[0].Load() < before[0]+n || turns[1].Load() < before[1]+n; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Error("the workers stand still")
				return
			}
		}
	}
	round := func() { // what is under way has arrived: first at the ring, and only then from the ring, for one of the two may have stood still
		await(2)
		await(most)
	}
	for i, r := range list {
		control.Go(func() {
			old := first[i]
			round()
			for n := range rekeys {
				next := fresh(r, i, n+1)
				set(r, old, next) // inbound first
				r.mu.Lock()
				r.sends = next
				r.mu.Unlock()
				set(r, next, old)
				round()
				set(r, next)
				old.node.Inbound[0].Wipe()
				old.node.Outbound.Wipe()
				old = next
			}
		})
	}
	control.Wait()
	close(stop)
	workers.Wait()
	for w := range left {
		left[w] = append(left[w], b.queues[w][0].Take()...)
	}
	sent, opened, bare := 0, 0, 0
	for _, r := range list {
		sent += r.packets
	}
	for _, frames := range append(left[:], b.run()) {
		for _, f := range frames {
			if f[14+9] != 50 {
				bare++
				continue
			}
			for _, r := range list {
				if p := r.peers[spiOf(f, false, false)]; p != nil {
					p.open(f) // within a window of 64
					opened++
				}
			}
		}
	}
	if opened != sent || bare != sent {
		t.Errorf("%d packets each way: %d came to the customers, %d to the Internet", sent, opened, bare)
	}
	if d := b.dropped(); len(d) > 0 {
		t.Errorf("dropped: %v", d)
	}
	if c := b.engine.Total(); c.HandedOver == 0 {
		t.Error("nothing was handed over")
	}
	for i, r := range list {
		for _, p := range r.peers {
			if p != r.sends && p.node.Outbound.Packets() == 0 && p.node.Inbound[0].Packets() == 0 {
				t.Errorf("tunnel %d: child %#x was never used", i, p.out.SPI())
			}
		}
	}
}

// TestChangesAtOnce: many goroutines change tunnels at once, and each finds its own in use when it goes on.
func TestChangesAtOnce(t *testing.T) {
	const tunnels = 50
	var specs []TunnelSpec
	for i := range tunnels {
		specs = append(specs, negotiated(false, func(s *TunnelSpec) {
			s.Name, s.Prefixes = fmt.Sprintf("cust-%d", i), nil
			s.Interface4, s.Interface6 = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 213, 0, byte(2 * i)}), 31), netip.Prefix{}
		}))
	}
	b := newESPBed(t, 2, specs...)
	var all sync.WaitGroup
	for i := range tunnels {
		all.Go(func() {
			var now []SASpec
			for n := range 10 {
				p := newESPPeer(t, espOptions{suite: esp.NullSHA1, spi: uint32(0x1000 + i<<16 + 2*n)})
				if now = append(now, p.child()); len(now) > 2 {
					now = now[1:]
				}
				if err := b.engine.SetChildren(fmt.Sprintf("cust-%d", i), now)(); err != nil {
					t.Error(err)
				}
				b.engine.mu.Lock()
				tables := b.engine.tables.Load()
				id := b.engine.names.tunnels[fmt.Sprintf("cust-%d", i)]
				for _, c := range now {
					if at := tables.spis.find(c.Inbound[0].SPI()); at == noSA || tables.spis.in[at] != c.Inbound[0] || tables.spis.list[at].tunnel != int32(id) {
						t.Errorf("tunnel %d: %#x is not there", i, c.Inbound[0].SPI())
					}
				}
				if tables.out[id] != now[0].Outbound || len(tables.esp[id].senders) != len(now) {
					t.Errorf("tunnel %d sends by another", i)
				}
				b.engine.mu.Unlock()
			}
		})
	}
	all.Wait()
	tables := b.engine.tables.Load()
	if n := len(tables.spis.list) - len(tables.spis.free); n != 2*tunnels {
		t.Errorf("%d associations, want %d", n, 2*tunnels)
	}
}
