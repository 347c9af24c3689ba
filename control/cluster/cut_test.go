package cluster

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// A proxy stands before the hub, and may cut connections, or hold what they carry.
type proxy struct {
	mu    sync.Mutex
	hold  sync.RWMutex // locked: nothing passes
	cut   bool
	conns []net.Conn
	addr  netip.AddrPort
}

func newProxy(t *testing.T, to netip.AddrPort) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{addr: l.Addr().(*net.TCPAddr).AddrPort()}
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
			relay := func(to, from net.Conn) {
				defer to.Close()
				buf := make([]byte, 65536)
				for {
					n, err := from.Read(buf)
					if err != nil {
						return
					}
					p.hold.RLock() // what comes while it is held waits
					_, err = to.Write(buf[:n])
					p.hold.RUnlock()
					if err != nil {
						return
					}
				}
			}
			go relay(c, o)
			go relay(o, c)
		}
	}()
	return p
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
