package cluster

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"causeway/control/ike/sa"
)

// A proxy stands before the hub, and may cut connections, hold what they carry, or have it come later.
type proxy struct {
	delay time.Duration // each way
	mu    sync.Mutex
	hold  sync.RWMutex // locked: nothing passes
	cut   bool
	conns []net.Conn
	addr  netip.AddrPort
}

func newProxy(t *testing.T, to netip.AddrPort) *proxy {
	t.Helper()
	return newFarProxy(t, to, 0)
}

// newFarProxy has all take that long each way. Its address may have been another's before, who is called as soon as there is a listener.
func newFarProxy(t *testing.T, to netip.AddrPort, delay time.Duration) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{addr: l.Addr().(*net.TCPAddr).AddrPort(), delay: delay}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.mu.Lock()
			if p.cut {
				c.Close()
				p.mu.Unlock()
				continue
			}
			o, err := net.Dial("tcp", to.String())
			if err != nil {
				c.Close()
				p.mu.Unlock()
				continue
			}
			p.conns = append(p.conns, c, o)
			p.mu.Unlock()
			go p.relay(c, o)
			go p.relay(o, c)
		}
	}()
	return p
}

// relay carries what comes from one connection to another.
func (p *proxy) relay(to, from net.Conn) {
	type part struct {
		due  time.Time
		data []byte
	}
	room := 0 // what is held is then the sender's
	if p.delay > 0 {
		room = 10000
	}
	parts := make(chan part, room)
	go func() {
		defer to.Close()
		for x := range parts {
			time.Sleep(time.Until(x.due))
			p.hold.RLock() // what comes while it is held waits
			_, err := to.Write(x.data)
			p.hold.RUnlock()
			if err != nil {
				from.Close()
				break
			}
		}
	}()
	defer close(parts)
	for {
		buf := make([]byte, 65536)
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		parts <- part{time.Now().Add(p.delay), buf[:n]}
	}
}

// set cuts all connections and refuses others, or lets them be made again.
func (p *proxy) set(cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = cut
	if cut {
		for _, c := range p.conns {
			c.Close()
		}
		p.conns = nil
	}
}

// A node that does not take what is said to it is cut off by the hub when that has too much for it, and not waited for. It joins again, and
// has what was made meanwhile.
func TestSlowConsumer(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "z")
	hub := b.start("hub").joined()
	p := newProxy(t, b.hub)
	b.hub = p.addr
	z := b.start("z").joined()
	hub.sees(1)
	p.hold.Lock()
	for range 1000 { // 250 MB, of which 64 may wait
		if err := hub.engine.Conn.Publish(subjectIKE+"z", make([]byte, 250<<10)); err != nil {
			t.Fatal(err)
		}
	}
	hub.eventually("cutting off who does not take it", func() bool { return strings.Contains(b.log.text(), "Slow Consumer") })
	began := time.Now()
	k := hub.install()
	if took := time.Since(began); took > storeLimit {
		t.Errorf("a pair waits %v for a node that takes nothing", took)
	}
	p.hold.Unlock()
	z.joined().eventually("with what was made meanwhile", func() bool { return z.plane.child(k.SPIIn) != nil })
}

// A node at the other side of the world joins: no question takes more time than it may, and all together may take more.
func TestFarAway(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "z")
	hub := b.start("hub").joined()
	p := newFarProxy(t, b.hub, 180*time.Millisecond)
	b.hub = p.addr
	began := time.Now()
	z := b.start("z").joined()
	t.Logf("joined after %v, %v away", time.Since(began).Round(10*time.Millisecond), 2*p.delay)
	if s := z.establish("cust-a", `"far"`); hub.state(s.SPI) != `"far"` {
		hub.eventually("of an IKE SA that is far away", func() bool { return hub.state(s.SPI) == `"far"` })
	}
}

// A node that was cut off for longer than what it had reserved is kept joins again; also when it was cut off in silence, which it notices
// within some seconds.
func TestCutOff(t *testing.T) {
	t.Parallel() // it waits more than it works
	for _, silent := range []bool{false, true} {
		b := newBed(t, "hub", "z")
		hub := b.start("hub").joined()
		p := newProxy(t, b.hub)
		b.hub = p.addr
		z := b.start("z").joined()
		hub.sees(1)
		begin := time.Now()
		if silent {
			p.hold.Lock()
		} else {
			p.set(true)
		}
		z.eventually("away", func() bool { return z.Status().Trouble != "" })
		if took := time.Since(begin); took > 3*storeLimit {
			t.Errorf("silent %v: noticed after %v", silent, took)
		}
		time.Sleep(leaseTime + sweepTime + 2*time.Second)
		if z.Status().Trouble == "" {
			t.Error("joined by a way that is not in its configuration: the hub tells its own address")
		}
		if silent {
			p.hold.Unlock()
		} else {
			p.set(false)
		}
		z.joined()
		z.stop()
		hub.stop()
	}
}

// The hub starts again: an IKE SA of a node that lived on outlives the next epoch, and the hub has what it could not open at first.
func TestHubAgain(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "z")
	hub := b.start("hub").joined()
	z := b.start("z").joined()
	s := z.establish("cust-a", `"first"`)
	hub.eventually("of it", func() bool { return hub.state(s.SPI) == `"first"` })
	hub.stop()
	z.eventually("away", func() bool { return z.Status().Trouble != "" })
	b.quick = true
	again := b.start("hub").joined()
	z.joined()
	again.eventually("of it again", func() bool { return again.state(s.SPI) == `"first"` })
	first := again.keys.Current()
	again.eventually("in another epoch", func() bool { return again.keys.Current() > first && again.keys.Oldest() > first })
	time.Sleep(time.Second)
	// A slow machine may have z taken for gone.
	again.eventually("having it, or z", func() bool { return len(again.ike.here())+len(z.ike.here()) == 1 })
	if z.state(s.SPI) != `"first"` {
		t.Errorf("z: state %q", z.state(s.SPI))
	}
}

// What a peer has agreed to is not given up because the store is away. It is stored later. What was not agreed to is not made.
func TestAgreedPairIsKept(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "a", "b")
	hub := b.start("hub").joined()
	a, second := b.start("a").joined(), b.start("b").joined()
	for _, n := range []*node{a, second} {
		n.sees(2)
	}
	var children []*sa.Child
	for range 2 {
		spi, err := a.Shared().ReserveSPI()
		if err != nil {
			t.Fatal(err)
		}
		children = append(children, a.child(spi))
	}
	agreed, asked := children[0], children[1]
	agreed.Agreed = true
	hub.stop()
	if err := a.Shared().Install(agreed); err != nil {
		t.Errorf("a pair that the peer has is given up: %v", err)
	}
	if err := a.Shared().Install(asked); err == nil || a.plane.child(asked.SPIIn) != nil {
		t.Errorf("a pair that the peer does not have is made: %v", err)
	}
	if a.plane.child(agreed.SPIIn) == nil || a.Status().NotStored == 0 {
		t.Errorf("the pair is not here, or counted as stored: %+v", a.Status())
	}
	hub = b.start("hub").joined()
	for _, n := range []*node{hub, second} {
		n.eventually("with the pair", func() bool { return n.plane.child(agreed.SPIIn) != nil })
		if n.plane.child(asked.SPIIn) != nil {
			t.Errorf("%s has what was not made", n.name)
		}
	}
	a.eventually("without anything that is not stored", func() bool { return a.Status().NotStored == 0 })
}

// A node dies when all nodes have a pair, and before it has noted that in the IKE SA's state. Who goes on with the exchange makes the same
// pair, which is there, and is the one whose it is from then on.
func TestPairOfADeadNegotiator(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "a", "b")
	hub := b.start("hub").joined()
	a, second := b.start("a").joined(), b.start("b").joined()
	for _, n := range []*node{hub, a, second} {
		n.sees(2)
	}
	spi, err := a.Shared().ReserveSPI()
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Shared().Install(a.child(spi)); err != nil {
		t.Fatal(err)
	}
	second.eventually("with the pair", func() bool { return second.plane.child(spi) != nil })
	a.stop()
	other := second.child(spi)
	other.KeyOut = bytes.Repeat([]byte{99}, len(other.KeyOut))
	if err := second.Shared().Install(other); err == nil {
		t.Error("another pair takes its place")
	}
	if err := second.Shared().Install(second.child(spi)); err != nil {
		t.Errorf("the same pair is not made: %v", err)
	}
	hub.eventually("of who has it", func() bool {
		hub.mu.Lock()
		defer hub.mu.Unlock()
		return hub.held[spi] != nil && hub.held[spi].node == "b"
	})
	if n := second.plane.child(spi); n == nil || len(n.KeyOut) == 0 || n.KeyOut[0] == 99 {
		t.Errorf("it has %v", n)
	}
	second.Shared().Remove("cust-a", spi)
	hub.eventually("without the pair", func() bool { return hub.plane.child(spi) == nil })
}

// What no node can open is removed from the store, and not before those that may have its key have had the time to seal it anew.
func TestUnreadableIsRemoved(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "z")
	hub := b.start("hub").joined()
	z := b.start("z").joined()
	c, s := z.install(), z.establish("cust-a", `"lost"`)
	hub.eventually("of both", func() bool { return hub.state(s.SPI) == `"lost"` && hub.plane.child(c.SPIIn) != nil })
	hub.stop()
	z.stop()
	time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second))) // the epochs of a hub that starts again are numbered by seconds
	b.unreadable = sweepTime - 2*time.Second
	again := b.start("hub").joined()
	time.Sleep(leaseTime)
	if n := again.Status().NotOpened; n < 2 {
		t.Fatalf("%d values not opened before their time", n)
	}
	again.eventually("with nothing that it cannot open", func() bool { return again.Status().NotOpened == 0 })
	b.start("z").joined().eventually("with nothing from before", func() bool {
		_, child := again.bucket().sas.Get(t.Context(), spiKey(c.SPIIn))
		_, ike := again.bucket().ikes.Get(t.Context(), ikeKey(s.SPI))
		return errors.Is(child, jetstream.ErrKeyNotFound) && errors.Is(ike, jetstream.ErrKeyNotFound)
	})
}

// The hub starts again, and has made an epoch before the others reach it: it is the first by name, and has no key of before. It gets what
// they have all the same, and what its own process before had written.
func TestHubAgainBeforeOthers(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "z")
	hub := b.start("hub").joined()
	own := b.hub
	p := newProxy(t, b.hub)
	b.hub = p.addr
	z := b.start("z").joined()
	hub.sees(1)
	s := hub.establish("cust-a", `"of the hub"`)
	c := hub.install()
	z.eventually("of both", func() bool { return z.state(s.SPI) == `"of the hub"` && z.plane.child(c.SPIIn) != nil })
	hub.stop()
	p.set(true)
	z.eventually("away", func() bool { return z.Status().Trouble != "" })
	b.hub = own
	again := b.start("hub")
	again.eventually("in its own epoch", func() bool { return again.keys.Current() != 0 })
	time.Sleep(4 * time.Second)
	if why := again.NotReady(); len(why) == 0 {
		t.Error("the hub is ready without what the others have")
	}
	p.set(false)
	z.joined()
	again.eventually("with the pair", func() bool { return again.plane.child(c.SPIIn) != nil })
	again.eventually("with the IKE SA, or z has it", func() bool { return len(again.ike.here())+len(z.ike.here()) == 1 })
	again.eventually("ready", func() bool { return len(again.NotReady()) == 0 })
}

// A hub that is started again so soon that nobody sees it gone, with an older copy of its store, is refused all the same.
func TestOldStoreWhileJoined(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "z")
	hub := b.start("hub").joined()
	z := b.start("z").joined()
	meta := z.bucket().meta
	z.eventually("heard of often", func() bool { v, err := meta.Get(t.Context(), aliveKey("z")); return err == nil && v.Revision() > 8 })
	generation, err := meta.Get(t.Context(), keyGeneration)
	if err != nil {
		t.Fatal(err)
	}
	// As an older copy would have it: the next change has a lower number than this node's last one.
	stream, err := hub.engine.Store.Stream(t.Context(), "KV_"+bucketMeta)
	if err != nil {
		t.Fatal(err)
	}
	cfg := stream.CachedInfo().Config
	if err := hub.engine.Store.DeleteStream(t.Context(), "KV_"+bucketMeta); err != nil {
		t.Fatal(err)
	}
	if _, err := hub.engine.Store.CreateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if _, err := meta.Put(t.Context(), keyGeneration, generation.Value()); err != nil {
		t.Fatal(err)
	}
	z.eventually("refusing it", func() bool { return strings.Contains(z.Status().Trouble, "the store is older than it was") })
	if took := time.Since(began); took > 3*beatTime {
		t.Errorf("after %v", took)
	}
	time.Sleep(2 * time.Second)
	if !strings.Contains(z.Status().Trouble, "the store is older than it was") {
		t.Errorf("joined again: %q", z.Status().Trouble)
	}
}

// When the hub dies its nodes do not take each other for gone: packets for tunnels with an owner go on to it.
func TestPeersWhileAway(t *testing.T) {
	t.Parallel() // it waits more than it works
	for _, silent := range []bool{false, true} {
		b := newBed(t, "hub", "y", "z")
		hub := b.start("hub").joined()
		p := newProxy(t, b.hub)
		b.hub = p.addr
		var nodes []*node
		for _, name := range []string{"y", "z"} {
			n := b.prepare(name)
			n.opts.Member.Address = netip.MustParseAddr("192.0.2.1")
			nodes = append(nodes, n.run())
		}
		for _, n := range nodes {
			n.joined().sees(2)
			n.eventually("having a peer", func() bool { return len(n.Peers()) == 1 }) // the hub has no address
		}
		hub.sees(2)
		if silent {
			p.hold.Lock()
		} else {
			p.set(true)
		}
		hours := false
		for end := time.Now().Add(leaseTime + 4*time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			if away := nodes[0].Status().Trouble != "" && nodes[1].Status().Trouble != ""; away && !hours {
				hours = true
				for _, n := range nodes {
					n.mu.Lock()
					for _, l := range n.members { // as after a long time
						old := *l.sign.Load()
						old.heard = old.heard.Add(-3 * peerKept)
						l.sign.Store(&old)
					}
					n.mu.Unlock()
				}
			}
			for _, n := range nodes {
				n.mu.Lock()
				for name, l := range n.members {
					if l.gone.Load() {
						t.Errorf("silent %v: %s takes %s for gone", silent, n.name, name)
						end = time.Now()
					}
				}
				n.mu.Unlock()
				if len(n.Peers()) != 1 {
					t.Fatalf("silent %v: %s has no peer any more", silent, n.name)
				}
			}
		}
		if silent {
			p.hold.Unlock()
		} else {
			p.set(false)
		}
		if !hours && !silent {
			t.Error("the nodes have not noticed that the store is away")
		}
		for _, n := range nodes {
			n.joined().sees(2)
			n.stop()
		}
		hub.stop()
	}
}

// A node that crashes as soon as it is started again, for five minutes with CAUSEWAY_FULL: each start has a number that none had, what it
// negotiates works elsewhere, and nothing that it had reserved is left.
func TestCrashLoop(t *testing.T) {
	t.Parallel() // it waits more than it works
	starts := 8
	if os.Getenv("CAUSEWAY_FULL") != "" {
		starts = 300
	}
	b := newBed(t, "hub", "y", "z")
	hub, y := b.start("hub").joined(), b.start("y").joined()
	numbers := map[uint32]bool{}
	for range starts {
		begin := time.Now()
		z := b.start("z").joined()
		z.mu.Lock()
		number := z.writer.ID
		z.mu.Unlock()
		if numbers[number] {
			t.Fatalf("number %d is given twice", number)
		}
		numbers[number] = true
		c := z.install()
		y.eventually("having its pair", func() bool { return y.plane.child(c.SPIIn) != nil })
		z.stop() // without a word
		time.Sleep(time.Until(begin.Add(time.Second)))
	}
	y.eventually("having no SPI that it had reserved", func() bool {
		y.mu.Lock()
		defer y.mu.Unlock()
		for _, h := range y.held {
			if h.kind == reserved && h.node == "z" {
				return false
			}
		}
		return y.children == starts
	})
	hub.eventually("agreeing", func() bool { return digest(hub) == digest(y) })
}

// A node that was away for longer than any key of an epoch lives has what the others have when it comes back, and brings back nothing
// that they have removed.
func TestLongAway(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "y", "z")
	b.quick = true
	hub, y := b.start("hub").joined(), b.start("y").joined()
	p := newProxy(t, b.hub)
	b.hub = p.addr
	z := b.start("z").joined()
	hub.sees(2)
	own, removed := z.install(), y.install()
	z.eventually("having both", func() bool { return z.plane.child(removed.SPIIn) != nil })
	y.eventually("having both", func() bool { return y.plane.child(own.SPIIn) != nil })
	p.set(true)
	z.eventually("away", func() bool { return z.Status().Trouble != "" })
	before := z.keys.Newest()
	y.Shared().Remove("cust-a", removed.SPIIn)
	y.eventually("without the keys that z has", func() bool { return y.keys.Oldest() > before })
	time.Sleep(5 * time.Second) // some more epochs
	added := y.install()
	p.set(false)
	z.joined()
	for _, n := range []*node{hub, y, z} {
		n.eventually("having what there is, and no more", func() bool {
			return n.plane.child(own.SPIIn) != nil && n.plane.child(added.SPIIn) != nil && n.plane.child(removed.SPIIn) == nil && digest(n) == digest(hub)
		})
	}
}

// A hub that starts again reads of nodes that are not connected to it yet: it does not take them for gone, but waits for their leases.
func TestHubStartsBeforeOthers(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "a")
	hub, a := b.start("hub").joined(), b.start("a").joined()
	hub.sees(1)
	if _, _, ok := hub.next(); !ok {
		t.Error("it asks nobody whether it is there")
	}
	hub.stop()
	a.eventually("away", func() bool { return a.Status().Trouble != "" })
	a.stop()
	hub = b.start("hub").joined()
	if p, _, ok := hub.next(); ok || !hub.others()["a"] {
		t.Errorf("it asks %q, of which it has only read, or takes it for gone", p.node)
	}
	hub.eventually("taking it for gone", func() bool { return !hub.others()["a"] })
}

// A hub that starts again is ready when the others have given it what there is: what it had reserved itself it does not wait for.
func TestHubIsCompleteSoon(t *testing.T) {
	t.Parallel() // it waits more than it works
	b := newBed(t, "hub", "a")
	hub, a := b.start("hub").joined(), b.start("a").joined()
	c := a.install()
	hub.eventually("of what was installed", func() bool { return hub.plane.child(c.SPIIn) != nil })
	hub.stop()
	hub = b.start("hub").joined()
	hub.eventually("complete", func() bool { hub.mu.Lock(); defer hub.mu.Unlock(); return hub.complete })
	hub.mu.Lock()
	took := time.Since(hub.Cluster.joined)
	hub.mu.Unlock()
	if took > completeTime {
		t.Errorf("it was so when the time was over, after %v", took)
	}
	if hub.plane.child(c.SPIIn) == nil {
		t.Error("and does not have what there is")
	}
}
