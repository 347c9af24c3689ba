package ike

import (
	"bytes"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"causeway/control/ike/message"
	"causeway/control/ike/sa"
)

// Both ends rekey everything every few seconds; nothing is left over and there is a pair in use at all times.
func TestShortLives(t *testing.T) {
	onBed(t, Options{}, func(b *bed) {
		l, r := tunnelOf(b.t, true, usualIKE, usualESP), tunnelOf(b.t, false, usualIKE, usualESP)
		for _, x := range []*Tunnel{l, r} {
			x.ChildLife, x.IKELife = 6*time.Second, 17*time.Second
		}
		b.left.SetTunnels([]*Tunnel{l})
		b.right.SetTunnels([]*Tunnel{r})
		b.up()
		most := 0
		for range 600 {
			time.Sleep(500 * time.Millisecond)
			synctest.Wait()
			for i, p := range b.planes {
				used := p.used("cust-a")
				if used == nil {
					b.t.Fatalf("end %d has no pair in use\n%s", i, b.log)
				}
				other := b.planes[1-i]
				other.mu.Lock()
				_, receives := other.children[used.SPIOut]
				other.mu.Unlock()
				if !receives {
					b.t.Fatalf("end %d sends where nobody receives\n%s", i, b.log)
				}
				most = max(most, len(p.pairs()))
			}
		}
		if most > 6 {
			b.t.Errorf("%d pairs at once", most)
		}
	})
}

func TestLifetimeInPackets(t *testing.T) {
	onBed(t, Options{}, func(b *bed) {
		b.usual()
		b.up()
		first := b.planes[0].used("cust-a").SPIIn
		b.planes[0].mu.Lock()
		b.planes[0].usage[first] = sa.Usage{SoftExpired: true}
		b.planes[0].mu.Unlock()
		time.Sleep(10 * time.Second)
		b.agree()
		b.counts(1, 1)
		if b.planes[0].used("cust-a").SPIIn == first {
			b.t.Fatal("a pair whose soft lifetime is over was not replaced")
		}
	})
}

// A responder goes on with the old pair until the new one is used, and not longer than a second.
func TestSwitch(t *testing.T) {
	for _, used := range []bool{true, false} {
		onBed(t, Options{}, func(b *bed) {
			b.usual()
			b.up()
			b.wire.set(func(w *wire) {
				w.tap = func(_, _ netip.AddrPort, d []byte) []byte { // the deletion does not arrive
					if h, err := message.ParseHeader(d); err == nil && h.Exchange == message.Informational {
						return nil
					}
					return d
				}
			})
			old := b.planes[1].used("cust-a").SPIIn
			if err := b.left.Rekey(b.t.Context(), "cust-a", false); err != nil {
				b.t.Fatal(err)
			}
			if b.planes[1].used("cust-a").SPIIn != old {
				b.t.Fatal("the responder has switched before the initiator was seen")
			}
			if used {
				fresh := b.planes[1].pairs()[1].SPIIn
				b.planes[1].mu.Lock()
				b.planes[1].usage[fresh] = sa.Usage{PacketsIn: 1}
				b.planes[1].mu.Unlock()
				time.Sleep(3 * quickTime)
			} else {
				time.Sleep(switchTime + 3*quickTime)
			}
			if b.planes[1].used("cust-a").SPIIn == old {
				b.t.Fatalf("the responder has not switched (used %v)", used)
			}
		})
	}
}

func TestInitialContact(t *testing.T) {
	onBed(t, Options{}, func(b *bed) {
		b.usual()
		b.up()
		b.wire.set(func(w *wire) { w.closed = true })
		for _, s := range b.left.of("cust-a") { // left forgets all
			s.do(func() { s.end("crash") })
		}
		b.wire.set(func(w *wire) { w.closed = false })
		b.up()
		b.counts(1, 1)
	})
}

func TestInitiateUntilUp(t *testing.T) {
	onBed(t, Options{}, func(b *bed) {
		l := tunnelOf(b.t, true, usualIKE, usualESP)
		l.Initiate = true
		b.left.SetTunnels([]*Tunnel{l})
		time.Sleep(5 * time.Minute) // right knows no such tunnel
		b.right.SetTunnels([]*Tunnel{tunnelOf(b.t, false, usualIKE, usualESP)})
		time.Sleep(3 * time.Minute)
		b.agree()
		if err := b.right.Terminate(b.t.Context(), "cust-a"); err != nil {
			b.t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		b.agree()
		b.counts(1, 1)
		if err := b.left.Terminate(b.t.Context(), "cust-a"); err != nil {
			b.t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		b.agree()
	})
}

func TestReload(t *testing.T) {
	onBed(t, Options{}, func(b *bed) {
		b.usual()
		b.up()
		same := b.planes[1].used("cust-a").SPIIn
		b.right.SetTunnels([]*Tunnel{tunnelOf(b.t, false, usualIKE, usualESP)})
		time.Sleep(5 * time.Second)
		if b.planes[1].used("cust-a").SPIIn != same {
			b.t.Fatal("a reload without changes took the tunnel down")
		}
		timing := tunnelOf(b.t, false, usualIKE, usualESP)
		timing.DPD, timing.ChildLife = time.Minute, 2*time.Minute
		b.right.SetTunnels([]*Tunnel{timing})
		time.Sleep(5 * time.Second)
		if b.planes[1].used("cust-a").SPIIn != same {
			b.t.Fatal("a reload that changes times took the tunnel down")
		}
		if err := b.right.Rekey(b.t.Context(), "cust-a", false); err != nil {
			b.t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		if n := b.right.Stats().RekeyedChildren; n != 2 {
			b.t.Fatalf("%d pairs were replaced within two lifetimes that the reload set, want 2", n)
		}
		changed := tunnelOf(b.t, false, usualIKE, usualESP)
		changed.PSK = []byte("another key since the reload")
		b.right.SetTunnels([]*Tunnel{changed})
		time.Sleep(10 * time.Second)
		b.counts(0, 0)
	})
}

// Whoever begins asks again for a pair that it did not get.
// Where the peer has deleted the only pair, packets leave through the next one at once.
func TestPairAfterDeletion(t *testing.T) {
	onBed(t, Options{}, func(b *bed) {
		b.usual()
		b.up()
		old := b.planes[1].used("cust-a").SPIIn
		s := b.left.of("cust-a")[0]
		s.do(func() {
			s.deleteChild(s.Children[0])
			s.createChild(nil, nil)
		})
		time.Sleep(quickTime)
		if got := b.planes[1].used("cust-a"); got == nil || got.SPIIn == old {
			b.t.Fatalf("packets leave through %+v, which the peer has deleted", got)
		}
	})
}

func TestMissingChild(t *testing.T) {
	onBed(t, Options{}, func(b *bed) {
		l := tunnelOf(b.t, true, usualIKE, usualESP)
		r := tunnelOf(b.t, false, usualIKE, "aes128-sha256")
		b.left.SetTunnels([]*Tunnel{l})
		b.right.SetTunnels([]*Tunnel{r})
		if err := b.left.Initiate(b.t.Context(), "cust-a"); err == nil || !strings.Contains(err.Error(), "NO_PROPOSAL_CHOSEN") {
			b.t.Fatalf("initiate says %v", err)
		}
		keep := *l
		keep.Initiate = true
		b.left.SetTunnels([]*Tunnel{&keep})
		s := b.right.of("cust-a")[0]
		s.do(func() { s.tunnel = tunnelOf(b.t, false, usualIKE, usualESP) }) // the router's operator mends it
		time.Sleep(30 * time.Second)
		b.agree()
		b.counts(1, 1)
	})
}

// What is under way must not be due all the time: a dead peer would cost a core.
func TestNothingIsDueAllTheTime(t *testing.T) {
	onBed(t, Options{}, func(b *bed) {
		l, r := tunnelOf(b.t, true, usualIKE, usualESP), tunnelOf(b.t, false, usualIKE, usualESP)
		l.ChildLife, l.IKELife, l.Initiate, l.DPD = 20*time.Second, 40*time.Second, true, 0
		b.left.SetTunnels([]*Tunnel{l})
		b.right.SetTunnels([]*Tunnel{r})
		time.Sleep(10 * time.Second)
		b.agree()
		var rings atomic.Int64
		ring := b.left.clock.ring
		b.left.clock.mu.Lock()
		b.left.clock.ring = func(s *ikeSA) bool { rings.Add(1); return ring(s) }
		b.left.clock.mu.Unlock()
		b.wire.set(func(w *wire) { w.closed = true })
		time.Sleep(60 * time.Second) // rekeying of pair and IKE SA begins, and nobody answers
		if n := rings.Load(); n > 200 {
			b.t.Fatalf("%d times in a minute", n)
		}
	})
}

// What is rekeyed keeps its algorithms, whichever of our list the peer would rather have.
func TestRekeyingDoesNotWeaken(t *testing.T) {
	onBed(t, Options{}, func(b *bed) {
		l, r := tunnelOf(b.t, true, usualIKE, usualESP), tunnelOf(b.t, false, usualIKE, usualESP)
		b.left.SetTunnels([]*Tunnel{l})
		b.right.SetTunnels([]*Tunnel{r})
		b.up()
		lax := func(x *Tunnel, first bool) *Tunnel {
			weak := tunnelOf(b.t, true, "aes128-sha256-x25519", "aes128gcm16-x25519")
			out := *x
			out.Proposals, out.ChildProposals = append(slices.Clone(x.Proposals), weak.Proposals...), append(slices.Clone(x.ChildProposals), weak.ChildProposals...)
			if first {
				slices.Reverse(out.Proposals)
				slices.Reverse(out.ChildProposals)
			}
			return &out
		}
		for d, x := range map[*Daemon]*Tunnel{b.left: lax(l, false), b.right: lax(r, true)} {
			s := d.of("cust-a")[0]
			s.do(func() { s.tunnel = x })
			d.index.Store(newIndex([]*Tunnel{x}))
		}
		for _, ike := range []bool{false, true} {
			if err := b.left.Rekey(b.t.Context(), "cust-a", ike); err != nil {
				b.t.Fatal(err)
			}
		}
		time.Sleep(5 * time.Second)
		views, _, _ := b.left.Show("cust-a")
		if v := views[0]; !strings.HasPrefix(v.Suite, "aes256gcm16") || !strings.HasPrefix(v.Children[0].Suite, "aes256gcm16") {
			b.t.Fatalf("rekeyed to %s and %s", v.Suite, v.Children[0].Suite)
		}
	})
}

func TestKeyLog(t *testing.T) {
	onBed(t, Options{}, func(b *bed) {
		b.usual()
		b.up()
		f := new(file)
		if err := b.right.LogKeys("cust-a", f, 2*MaxKeyLog); err == nil {
			b.t.Fatal("two hours of keys are promised")
		}
		f = new(file)
		if err := b.right.LogKeys("cust-a", f, time.Minute); err != nil {
			b.t.Fatal(err)
		}
		if err := b.left.Rekey(b.t.Context(), "cust-a", false); err != nil {
			b.t.Fatal(err)
		}
		key := b.planes[1].pairs()[1].KeyIn
		if text := f.String(); strings.Count(text, "ikev2_decryption_table") != 1 || strings.Count(text, "esp_sa") != 2 || !strings.Contains(text, fmt.Sprintf("0x%x", key)) {
			b.t.Fatalf("the file has\n%s", text)
		}
		time.Sleep(time.Minute)
		if err := b.left.Rekey(b.t.Context(), "cust-a", true); err != nil {
			b.t.Fatal(err)
		}
		if strings.Count(f.String(), "\n") != 3 || !f.closed {
			b.t.Fatalf("after its time the file has\n%s, closed %v", f, f.closed)
		}
		if text := b.log.String(); strings.Contains(text, fmt.Sprintf("%x", key)) || !strings.Contains(text, "KEYS OF A TUNNEL") {
			b.t.Fatal("the log has a key, or does not warn")
		}
	})
}

type file struct {
	mu sync.Mutex
	bytes.Buffer
	closed bool
}

func (f *file) Write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.Buffer.Write(b)
}

func (f *file) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.Buffer.String()
}

func (f *file) Close() error { f.closed = true; return nil }

// A peer behind a NAT: UDP, port 4500, and it may move.
func TestNAT(t *testing.T) {
	public := netip.MustParseAddr("203.0.113.200")
	onBed(t, Options{}, func(b *bed) {
		l, r := tunnelOf(b.t, true, usualIKE, usualESP), tunnelOf(b.t, false, usualIKE, usualESP)
		r.Customer = netip.Addr{}
		b.left.SetTunnels([]*Tunnel{l})
		b.right.SetTunnels([]*Tunnel{r})
		shift := uint16(40000)
		nat := &natted{b.wire, public, &shift}
		b.left.opts.Transport = nat
		b.wire.back = func(a netip.AddrPort) netip.AddrPort {
			if a.Addr() == public {
				return netip.AddrPortFrom(leftAddr, a.Port()-shift)
			}
			return a
		}
		b.up()
		for i, want := range []netip.AddrPort{netip.AddrPortFrom(rightAddr, NATPort), netip.AddrPortFrom(public, NATPort+shift)} {
			if c := b.planes[i].used("cust-a"); !c.UDP || c.Peer != want {
				b.t.Fatalf("end %d sends to %v, UDP %v, want %v", i, c.Peer, c.UDP, want)
			}
		}
		if c := b.planes[1].used("cust-a"); !c.NAT {
			b.t.Fatal("right does not know of the NAT")
		}
		b.wire.set(func(*wire) { shift = 50000 }) // the mapping changes
		if err := b.left.Rekey(b.t.Context(), "cust-a", false); err != nil {
			b.t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if c := b.planes[1].used("cust-a"); c.Peer.Port() != NATPort+shift {
			b.t.Fatalf("right sends to %v", c.Peer)
		}
		moved := netip.AddrPortFrom(public, 1234) // as the dataplane sees it
		spi := b.planes[1].used("cust-a").SPIIn
		b.planes[1].mu.Lock()
		b.planes[1].usage[spi] = sa.Usage{PacketsIn: 9, Source: moved}
		b.planes[1].mu.Unlock()
		time.Sleep(5 * time.Second)
		if c := b.planes[1].used("cust-a"); c.Peer != moved {
			b.t.Fatalf("right sends to %v, want %v", c.Peer, moved)
		}
	})
}

// natted is what left sends through a NAT, and what comes back.
type natted struct {
	w      *wire
	public netip.Addr
	shift  *uint16
}

func (n *natted) Send(local, remote netip.AddrPort, d []byte) error {
	n.w.mu.Lock()
	from := netip.AddrPortFrom(n.public, local.Port()+*n.shift)
	n.w.mu.Unlock()
	return n.w.Send(from, remote, d)
}

// Every time of a state is changed, and no time stays none.
func TestStateAtTimes(t *testing.T) {
	moment := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	s := &State{Children: []*ChildState{{}}, Graves: []Grave{{}}}
	var fill func(v reflect.Value)
	fill = func(v reflect.Value) {
		switch {
		case v.Type() == reflect.TypeFor[time.Time]():
			v.Set(reflect.ValueOf(moment))
		case v.Kind() == reflect.Struct && v.CanSet():
			for i := range v.NumField() {
				if v.Type().Field(i).IsExported() {
					fill(v.Field(i))
				}
			}
		case v.Kind() == reflect.Slice || v.Kind() == reflect.Array:
			for i := range v.Len() {
				fill(v.Index(i))
			}
		case v.Kind() == reflect.Pointer && !v.IsNil():
			fill(v.Elem())
		}
	}
	fill(reflect.ValueOf(s).Elem())
	before, err := s.marshal()
	if err != nil {
		t.Fatal(err)
	}
	s.atTimes(func(t time.Time) time.Time { return moved(t, time.Hour) })
	after, err := s.marshal()
	text := moment.Format(time.RFC3339)
	if n := bytes.Count(before, []byte(text)); err != nil || n < 9 || bytes.Contains(after, []byte(text)) {
		t.Errorf("of %d times some are as before: %s (%v)", n, after, err)
	}
}

// An established SA that was taken over from its state goes on: with requests of both, and with the children.
func TestStateIsTakenOver(t *testing.T) {
	onBed(t, Options{}, func(b *bed) {
		b.usual()
		b.up()
		old := b.right.of("cust-a")[0]
		text, err := func() ([]byte, error) {
			old.mu.Lock()
			defer old.mu.Unlock()
			return old.snapshot()
		}()
		if err != nil {
			b.t.Fatal(err)
		}
		st, err := parseState(text)
		if err != nil {
			b.t.Fatal(err)
		}
		old.mu.Lock() // this node is gone, without a word
		old.phase = dead
		old.d.clock.drop(old)
		b.right.forget(old)
		old.mu.Unlock()
		if _, err := b.right.resume(st, "another node", 0); err != nil {
			b.t.Fatal(err)
		}
		for _, d := range []*Daemon{b.left, b.right} {
			if err := d.Rekey(b.t.Context(), "cust-a", false); err != nil {
				b.t.Fatal(err)
			}
			if err := d.Rekey(b.t.Context(), "cust-a", true); err != nil {
				b.t.Fatal(err)
			}
		}
		time.Sleep(10 * time.Second)
		b.agree()
		b.counts(1, 1)
		if again, err := b.right.of("cust-a")[0].snapshot(); err != nil || bytes.Equal(again, text) {
			b.t.Fatal("the state did not change", err)
		}
		for _, bad := range []string{"", "{}", `{"Version":2,"Keys":{}}`, `{"Version":1}`, `{"Version":1,"Keys":{}}`} {
			if _, err := parseState([]byte(bad)); err == nil {
				b.t.Errorf("state %q is taken", bad)
			}
		}
	})
}

// TestDefect has the dataplane panic: the SA ends, the daemon does not, and the tunnel comes up again.
func TestDefect(t *testing.T) {
	onBed(t, Options{}, func(b *bed) {
		b.usual()
		b.up()
		s := b.left.of("cust-a")[0]
		breaks := func(v bool) {
			b.planes[0].mu.Lock()
			defer b.planes[0].mu.Unlock()
			b.planes[0].breaks = v
		}
		breaks(true)
		time.Sleep(lookTime + time.Second)
		breaks(false)
		b.defects[0] = 1
		if s.phase != dead || len(s.Keys.D) > 0 && !bytes.Equal(s.Keys.D, make([]byte, len(s.Keys.D))) {
			b.t.Errorf("the SA is in phase %d", s.phase)
		}
		if log := b.log.String(); !strings.Contains(log, "a defect of causeway; please report") || !strings.Contains(log, "TestDefect") && !strings.Contains(log, "Usage") {
			b.t.Error("the log does not tell where")
		}
		time.Sleep(3 * time.Minute) // until the peer has noticed
		b.up()
		b.counts(1, 1)
	})
}

// An SA that takes another's place does so all at once: the clock, if it looked in between, would take it for one whose lifetime is
// over. A mutex that was waited for is given on in the order of the waiters: a look that came after the first step comes before the second.
func TestGiveWayIsOneStep(t *testing.T) {
	b := newBed(t, Options{})
	defer b.stop()
	b.usual()
	b.up()
	s, err := b.left.newest("cust-a")
	if err != nil {
		t.Fatal(err)
	}
	n := b.left.newSA(true)
	n.phase, n.Suite, n.SPIi = proving, s.Suite, b.left.enter(n)
	n.mu.Lock()
	var waiters sync.WaitGroup
	for _, f := range []func(){
		func() { n.do(func() {}) },
		func() { s.do(func() { s.giveWayTo(n) }) },
		func() { n.do(n.tick) },
	} {
		waiters.Go(f)
		time.Sleep(20 * time.Millisecond)
	}
	n.mu.Unlock()
	n.mu.Lock() // the first waiter finds it taken again: from now on each gets it from the one before
	time.Sleep(20 * time.Millisecond)
	n.mu.Unlock()
	waiters.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.phase != established || len(n.Children) != 1 {
		t.Errorf("the new IKE SA is in phase %d with %d pairs", n.phase, len(n.Children))
	}
}

// A pair that the peer does not have any more is not made again where there is another one for what it carried: when responses are
// lost there may be two, and there would be two for ever.
func TestPeerLostOneOfTwo(t *testing.T) {
	onBed(t, Options{}, func(b *bed) {
		b.usual()
		b.up()
		sas := map[*Daemon]*ikeSA{}
		for _, d := range []*Daemon{b.left, b.right} {
			s, err := d.newest("cust-a")
			if err != nil {
				b.t.Fatal(err)
			}
			sas[d] = s
		}
		sas[b.left].do(func() { sas[b.left].createChild(nil, nil) })
		time.Sleep(10 * time.Second)
		b.counts(1, 2)
		sas[b.right].do(func() { sas[b.right].bury(sas[b.right].Children[0]) })
		time.Sleep(10 * time.Second)
		if err := b.left.Rekey(b.t.Context(), "cust-a", false); err != nil {
			b.t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		b.counts(1, 1)
		b.agree()
	})
}
