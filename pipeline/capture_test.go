package pipeline

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"
	"time"
	"unsafe"

	"causeway/pipeline/match"
)

// everythingCaptured makes each bed capture all that it gets, and hold what the capture says against the counters.
var everythingCaptured bool

// verdictNamed is the verdict that a filter means by a word.
func verdictNamed(word string) (uint8, bool) {
	i := slices.Index(Verdicts[:], word)
	return uint8(i), i >= 0
}

// shown is a packet that a capture has shown, which the test may keep.
type shown struct {
	Captured
	at time.Time
}

// capture starts a capture of what matches a filter.
func (b *bed) startCapture(filter string) *Capture {
	b.t.Helper()
	p, err := match.Parse(filter, match.Names{Tunnel: b.engine.TunnelID, Verdict: verdictNamed,
		Account: func(name string) (int, bool) {
			v, ok := b.engine.VRF(name)
			if !ok {
				return 0, false
			}
			return v.ID(), true
		},
		Reason: func(label string) (uint8, bool) {
			i := slices.IndexFunc(AllReasons(), func(r Reason) bool { return r.String() == label })
			if i < 0 {
				return 0, false
			}
			return uint8(AllReasons()[i]), true
		}})
	if err != nil {
		b.t.Fatal(err)
	}
	c, err := b.engine.StartCapture(p)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(c.Stop)
	return c
}

// shown returns what has matched, and makes the capture as one that has waited for a second.
func (b *bed) shown(c *Capture) (out []shown) {
	c.filled = c.filled.Add(-time.Second)
	c.Drain(func(at time.Time, s *Captured) bool {
		if d := time.Since(at); !everythingCaptured && (d < 0 || d > time.Minute) { // some tests have clocks of their own
			b.t.Errorf("a packet of %v", at)
		}
		out = append(out, shown{*s, at})
		return true
	})
	return out
}

// captureCount is what captures say.
type captureCount struct {
	verdicts [Dropped + 1]uint64
	reasons  [Reasons]uint64
	held     uint64
}

// captured demands that each packet that came was shown once, with what the counters say became of it.
func (b *bed) captured(c *Counters) {
	b.t.Helper()
	for _, s := range b.shown(b.capture) {
		if s.Held && s.Verdict == Delivered {
			b.shownCount.held++
			continue
		}
		b.shownCount.verdicts[s.Verdict]++
		b.shownCount.reasons[s.Reason]++
		if (s.Verdict == Dropped) != (s.Reason != ReasonNone) || s.inner > 0 && !s.Decapsulated && !s.FromNode {
			b.t.Errorf("a packet that can not be: verdict %d, reason %v, %d and %d bytes", s.Verdict, s.Reason, s.size, s.inner)
		}
	}
	if n := b.capture.Counts(); n.Looked < n.Matched {
		b.t.Errorf("%+v", n)
	} else if n.Looked < n.Seen {
		return // the test sends more at once than a capture takes
	}
	made := c.ICMPErrors + c.Delivered // what the node made itself is not shown: an answer may be dropped, for one
	v := &b.shownCount.verdicts
	if v[Forwarded] > c.Forwarded+c.Dropped[TXRingFull] || c.Fragments == 0 && v[Forwarded]+made < c.Forwarded || v[Delivered] != c.Delivered || v[Punted] > c.Punted {
		b.t.Errorf("shown: %d forwarded, %d delivered, %d punted; counted: %d, %d, %d", v[Forwarded], v[Delivered], v[Punted], c.Forwarded, c.Delivered, c.Punted)
	}
	for r, n := range c.Dropped {
		if got := b.shownCount.reasons[r]; !withoutPacket[Reason(r)] && r > 0 && (got > n || got+made < n) {
			b.t.Errorf("%d packets were dropped for %v, %d were shown", n, Reason(r), got)
		}
	}
}

// The tests of the packet path once more, with everything captured: they find that nothing else changed.
func TestEverythingCaptured(t *testing.T) {
	everythingCaptured = true
	defer func() { everythingCaptured = false }()
	for name, f := range pathTests {
		if testing.Short() && slowPathTests[name] {
			continue // everything sampled goes the same ways
		}
		t.Run(name, f)
	}
}

// custB is a second tunnel beside tunnelSpec's.
func custB(s *TunnelSpec) {
	s.HasKey, s.Key, s.Prefixes, s.Interface4, s.Interface6 = true, 7, []netip.Prefix{netip.MustParsePrefix("198.18.6.0/24")}, netip.Prefix{}, netip.Prefix{}
}

// A packet is shown as it came, outside and inside, with what was decided.
func TestCapture(t *testing.T) {
	b := newBed(t, 1, tunnelSpec("cust-a"), tunnelSpec("cust-b", custB))
	a, _ := b.engine.TunnelID("cust-a")
	other, _ := b.engine.TunnelID("cust-b")
	c := b.startCapture("")
	there, away := netip.MustParseAddr("198.18.6.1"), netip.MustParseAddr("192.0.2.99")
	inner, ping := udp(t, behind4, inetHost4, 10), echo(t, false, behind4, netip.MustParseAddr("10.213.0.10"), []byte("hello"))
	for _, x := range []struct {
		what    string
		frame   []byte
		in, out int
		verdict Verdict
		reason  Reason
		inner   []byte
		check   func(s *shown) bool
	}{
		{"ingress", framed(udp(t, inetHost4, behind4, 1200)), noTunnel, a, Forwarded, ReasonNone, nil, func(s *shown) bool {
			return s.Routed && s.Table == 0 && s.Leaf == MakeLeaf(KindTunnel, a) && s.Sized && s.Size == 1228 && s.Limit == 1476 && s.Encapsulated &&
				s.SPI == 0 && s.OuterSize == 1252 && s.Sent && s.OutPort == 0 && s.FrameSize == 1266 && s.NextHop == routerMAC && !s.Decapsulated && !s.ClampSeen
		}},
		{"egress", gre(t, inner, greHeader{}), a, noTunnel, Forwarded, ReasonNone, inner, func(s *shown) bool {
			return s.Decapsulated && s.Via == 47 && !s.Keyed && s.Admitted && s.Routed && s.Table == 0 && s.Leaf == MakeLeaf(KindNeighbour, routerSlot) &&
				s.Limit == 1600 && !s.Encapsulated && s.FrameSize == 52
		}},
		{"lateral", gre(t, udp(t, behind4, there, 10), greHeader{}), a, other, Forwarded, ReasonNone, udp(t, behind4, there, 10), func(s *shown) bool {
			return s.Table > 0 && s.Member == MakeLeaf(KindTunnel, other) && s.OuterSize == 38+28
		}},
		{"through", framed(udp(t, inetHost4, away, 1)), noTunnel, noTunnel, Forwarded, ReasonNone, nil, func(s *shown) bool { return s.Sent }},
		{"foreign", gre(t, udp(t, there, inetHost4, 10), greHeader{}), a, noTunnel, Dropped, InnerSource, udp(t, there, inetHost4, 10), func(s *shown) bool {
			return s.Decapsulated && !s.Admitted && !s.Routed && !s.Sent
		}},
		{"too big", framed(udp(t, inetHost4, behind4, 1500, dontFragment)), noTunnel, a, Dropped, TooBig, nil, func(s *shown) bool {
			return s.Answered && s.Size == 1528 && s.Limit == 1476 && !s.Encapsulated && !s.Sent
		}},
		{"cut", framed(udp(t, inetHost4, behind4, 1480)), noTunnel, a, Forwarded, ReasonNone, nil, func(s *shown) bool { return s.Pieces == 2 && s.OuterSize == 1500 && s.FrameSize == 1514 }},
		{"unknown", gre(t, inner, greHeader{src: inetHost4, dst: endpoint4}), noTunnel, noTunnel, Dropped, TunnelUnknown, nil, func(s *shown) bool { return !s.Decapsulated }},
		{"for another", append([]byte{2, 9, 9, 9, 9, 9}, framed(inner)[6:]...), noTunnel, noTunnel, Dropped, LinkAddress, nil, func(s *shown) bool { return !s.Routed }},
		{"short", framed(inner)[:20], noTunnel, noTunnel, Dropped, outerFault(1), nil, func(s *shown) bool { return true }},
		{"syn", framed(syn(t, inetHost4, behind4, 1460, 2)), noTunnel, a, Forwarded, ReasonNone, nil, func(s *shown) bool { return s.ClampSeen && s.Clamped && s.ClampTo == 1436 }},
		{"echo", gre(t, ping, greHeader{}), a, noTunnel, Delivered, ReasonNone, ping, func(s *shown) bool {
			return s.Answered && s.Leaf == MakeLeaf(KindTunnelAddress, a) && s.Table > 0
		}},
		{"host", framed(udp(t, inetHost4, endpoint4, 3)), noTunnel, noTunnel, Punted, ReasonNone, nil, func(s *shown) bool { return !s.Sent }},
	} {
		if x.what == "host" {
			b.route("", netip.PrefixFrom(endpoint4, 32), MakeLeaf(KindKernel, 0))
		}
		b.send(x.frame)
		got := b.shown(c)
		if len(got) != 1 {
			t.Fatalf("%s: %d packets are shown", x.what, len(got))
		}
		s := &got[0]
		if int(s.In) != x.in || int(s.Out) != x.out || s.Verdict != x.verdict || x.what != "short" && s.Reason != x.reason || s.Origin != FromPort || s.Port != 0 || !x.check(s) {
			s.data = [len(s.data)]byte{}
			t.Errorf("%s: %+v", x.what, s)
			continue
		}
		if !bytes.Equal(s.Frame(), x.frame) || !bytes.Equal(s.Inner(), x.inner) {
			t.Errorf("%s: it is shown as %x, inside %x; want %x, %x", x.what, s.Frame(), s.Inner(), x.frame, x.inner)
		}
	}
	b.engine.workers[0].turn()
	if w := b.engine.workers[0]; w.capturing == nil || w.capturing.marked == 0 {
		t.Fatal("the last batch is not marked")
	}
	c.Stop()
	general := b.engine.Total().General
	b.send(framed(udp(t, inetHost4, behind4, 10)))
	if n := b.engine.Total().General - general; n != 0 || b.engine.workers[0].capturing != nil {
		t.Errorf("%d steps beside the fast way when no capture runs", n)
	}
}

// Filters are held against the packets by the workers.
func TestCaptureFilter(t *testing.T) {
	b := newBed(t, 2, tunnelSpec("cust-a"), tunnelSpec("cust-b", custB))
	key := uint32(7)
	frames := [][]byte{
		gre(t, udp(t, behind4, inetHost4, 10), greHeader{}),
		gre(t, udp(t, netip.MustParseAddr("198.18.6.1"), behind4, 20), greHeader{key: &key}),
		gre(t, udp(t, inetHost4, inetHost4, 30), greHeader{}), // dropped
		framed(udp(t, inetHost4, netip.MustParseAddr("198.18.6.1"), 40)),
		framed(udp(t, inetHost4, netip.MustParseAddr("192.0.2.99"), 50)),
	}
	for filter, want := range map[string][]int{
		"":                                  {0, 1, 2, 3, 4},
		"tunnel cust-a":                     {0, 1, 2},
		"src tunnel cust-a":                 {0, 2},
		"dst tunnel cust-a":                 {1},
		"tunnel cust-b and not dropped":     {1, 3},
		"account default":                   {0, 1, 2, 3},
		"dropped":                           {2},
		"reason inner_source or less 100":   {0, 1, 2, 3, 4},
		"reason tunnel_unknown":             {},
		"net 198.18.6.0/24":                 {1, 3},
		"gre and host 198.18.5.10":          {0, 1},
		"not gre":                           {3, 4},
		"forwarded and dst host 192.0.2.99": {4},
	} {
		c := b.startCapture(filter)
		got := []int{}
		for i, f := range frames {
			b.send(f)
			if n := len(b.shown(c)); n > 0 {
				got = append(got, i)
			}
		}
		if n := c.Counts(); !slices.Equal(got, want) || n.Seen != 5 || n.Looked != 5 || int(n.Matched) != len(want) {
			t.Errorf("%q shows %v, want %v; %+v", filter, got, want, n)
		}
		c.Stop()
	}
}

// A capture takes what places there are, counts the others, and disturbs none.
func TestCaptureLimits(t *testing.T) {
	b := newBed(t, 2, tunnelSpec("cust-a"))
	c := b.startCapture("")
	if _, err := b.engine.StartCapture(new(match.Program)); err != ErrCapturing {
		t.Errorf("a second capture: %v", err)
	}
	frame := framed(udp(t, inetHost4, behind4, 10))
	const sent = 2000
	for range sent {
		if len(b.send(frame)) != 1 {
			t.Fatal("a packet was lost")
		}
	}
	if n := c.Counts(); n.Seen != sent || n.Looked != capturePlaces || n.Matched != capturePlaces {
		t.Errorf("%+v", n)
	}
	shown := 0
	c.Drain(func(time.Time, *Captured) bool { shown++; return shown < 10 })
	if shown != 10 {
		t.Errorf("%d packets shown to who wanted 10", shown)
	}
	again := func() uint64 {
		before := c.Counts().Looked
		for range 300 {
			b.send(frame)
		}
		c.tokens, c.filled = 0, time.Now().Add(time.Hour) // the rate is used up
		c.Drain(func(time.Time, *Captured) bool { return true })
		return c.Counts().Looked - before
	}
	again() // what the workers had been given
	if n := again(); n != 0 {
		t.Errorf("%d packets looked at beyond the rate", n)
	}
	c.tokens, c.filled = 0, time.Now().Add(-time.Second/100)
	c.Drain(func(time.Time, *Captured) bool { return true })
	if n := again(); n < CapturePacketsPerSecond/100/2 || n > capturePlaces {
		t.Errorf("%d packets looked at that came in a hundredth of a second", n)
	}
	c.Stop()
	// What does not match uses up no places, wherever it ends: looks alone are limited.
	c = b.startCapture("dropped")
	for range 5000 {
		b.send(frame)
		c.Drain(func(time.Time, *Captured) bool { t.Error("shown"); return true })
	}
	if n := c.Counts(); n.Looked != 5000 && n.Looked < looksBurst || n.Matched != 0 {
		t.Errorf("%+v", n)
	}
	places := len(c.free)
	for _, x := range c.workers {
		places += x.given.len() + x.done.len() + len(x.kept)
	}
	if places != len(c.slots) {
		t.Errorf("%d places of %d are left", places, len(c.slots))
	}
}

// Looks are limited by time.
func TestCaptureLooks(t *testing.T) {
	b := newBed(t, 1, tunnelSpec("cust-a"))
	c := b.startCapture("dropped")
	w := b.engine.workers[0]
	w.followCapture(c)
	for range 1000 {
		if at, ok := w.capturing.claim(w); ok {
			w.capturing.mine[at] = false
			w.capturing.endTurn()
			w.capturing.kept = append(w.capturing.kept, at)
		}
	}
	if n := c.Counts(); n.Seen != 1000 || n.Looked != looksBurst {
		t.Errorf("%+v at one time", n)
	}
	w.now += int64(time.Second) / 1000
	for range 1000 {
		if at, ok := w.capturing.claim(w); ok {
			w.capturing.mine[at] = false
			w.capturing.endTurn()
			w.capturing.kept = append(w.capturing.kept, at)
		}
	}
	if n := c.Counts(); n.Looked != looksBurst+CaptureLooksPerSecond/1000 {
		t.Errorf("%+v a millisecond later", n)
	}
}

// The place of a packet goes with it from worker to worker, and flags of a capture that is over mean nothing.
func TestCaptureHandedOver(t *testing.T) {
	b := newBed(t, 2, tunnelSpec("cust-a", func(s *TunnelSpec) { s.Sequence = true }), tunnelSpec("cust-b", func(s *TunnelSpec) {
		custB(s)
		s.Sequence = true
	}))
	c := b.startCapture("")
	over := 0
	for _, to := range []netip.Addr{behind4, netip.MustParseAddr("198.18.6.1")} {
		frame := framed(udp(t, inetHost4, to, 10))
		b.send(frame)
		s := b.shown(c)
		if len(s) != 1 || s[0].Verdict != Forwarded || !s[0].Encapsulated || !bytes.Equal(s[0].Frame(), frame) {
			t.Fatalf("%d packets, verdict %d", len(s), s[0].Verdict)
		}
		over += s[0].HandedOver
	}
	if over != 1 {
		t.Errorf("%d hand-overs of two packets, whose tunnels belong to a worker each", over)
	}
	// In the ring when the capture ends and the next begins.
	frames := [][]byte{framed(udp(t, inetHost4, behind4, 10)), framed(udp(t, inetHost4, netip.MustParseAddr("198.18.6.1"), 10))}
	b.queues[0][0].Put(frames...)
	b.engine.workers[0].poll()
	c.Stop()
	next := b.startCapture("")
	if out := b.run(); len(out) != 2 {
		t.Errorf("%d frames left", len(out))
	}
	if s := b.shown(next); len(s) != 0 {
		t.Errorf("%d packets of the capture before are shown", len(s))
	}
}

// Fragments are shown one by one, the last one with the datagram that it completed.
func TestCaptureFragments(t *testing.T) {
	b := newBed(t, 1, tunnelSpec("cust-a"))
	c := b.startCapture("")
	inner := udp(t, behind4, inetHost4, 1000)
	whole := gre(t, inner, greHeader{})
	parts := cutFrame(t, whole, 400, 9)
	for i, f := range parts {
		b.send(f)
		s := b.shown(c)
		if len(s) != 1 || !bytes.Equal(s[0].Frame(), f) {
			t.Fatalf("fragment %d: %d packets", i, len(s))
		}
		if last := i == len(parts)-1; !last && (s[0].Verdict != Delivered || !s[0].Held) ||
			last && (s[0].Verdict != Forwarded || s[0].Held || s[0].Joined != len(parts) || !bytes.Equal(s[0].Inner(), inner)) {
			t.Errorf("fragment %d: verdict %d, held %v, joined %d, inside %x", i, s[0].Verdict, s[0].Held, s[0].Joined, s[0].Inner())
		}
	}
	b.send(parts[0])
	b.shown(c)
	b.send(parts[0])
	if s := b.shown(c); len(s) != 1 || s[0].Reason != FragmentDuplicate {
		t.Errorf("a fragment that came twice: %d packets, %v", len(s), s[0].Reason)
	}
}

func TestCaptureDoesNotAllocate(t *testing.T) {
	b := newBed(t, 1, tunnelSpec("cust-a"))
	c := b.startCapture("tunnel cust-a and not host 1.2.3.4")
	w := b.engine.workers[0]
	w.followCapture(c)
	frame := gre(t, udp(t, behind4, inetHost4, 10), greHeader{})
	tables := b.engine.tables.Load()
	if n := testing.AllocsPerRun(200, func() {
		copy(w.frame(0)[256:], frame)
		p := packet{l3: 270, end: 270 + uint16(len(frame)) - 14, tunnel: noTunnel}
		w.capturing.lookAt(w, &p, FromPort, 0, w.frame(0)[256:256+len(frame)])
		p.l3 = p.l3 + 24
		p.tunnel = 0
		w.noteInner(tables, &p, 47)
		w.sampled(&p, 0, Forwarded)
		w.sampleDropped(&p, InnerSource)
		w.capturing.endTurn()
		c.Drain(func(time.Time, *Captured) bool { return true })
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
	if n := c.Counts(); n.Matched < 100 {
		t.Errorf("%+v", n)
	}
}

// The places of all workers have numbers, and what travels between workers has not grown.
func TestCaptureSizes(t *testing.T) {
	if n := unsafe.Sizeof(handover{}); n != 32 {
		t.Errorf("a handover has %d bytes", n)
	}
	if n := unsafe.Sizeof(packet{}); n != 64 {
		t.Errorf("a packet has %d bytes", n)
	}
	if maxWorkers*(min(capturePlaces, (captureSlotMask+1)/maxWorkers)) > captureSlotMask+1 {
		t.Error("too many places")
	}
}

// Of ESP the packet is shown encrypted, as it came, and what was inside in clear; what is not authentic has no inside.
func TestCaptureESP(t *testing.T) {
	for _, mode := range []string{"plain", "udp"} {
		families(t, func(t *testing.T, outer6, inner6 bool) {
			for workers := 1; workers <= 2; workers++ { // of two the other one may be the association's owner
				p := newESPPeer(t, espOptions{suite: allSuites[0], outer6: outer6, udp: mode == "udp", window: 64})
				b := newESPBed(t, workers, p.tunnel("cust-a"))
				id, _ := b.engine.TunnelID("cust-a")
				c := b.startCapture("tunnel cust-a")
				inner := udp(t, behind(inner6), inetHost(inner6), 30)
				frame := p.seal(inner)
				b.send(bytes.Clone(frame))
				s := b.shown(c)
				if len(s) != 1 || !bytes.Equal(s[0].Frame(), frame) || !bytes.Equal(s[0].Inner(), inner) || s[0].Key != 0x1000 || int(s[0].In) != id ||
					s[0].Via != map[string]uint8{"plain": 50, "udp": 17}[mode] || s[0].Verdict != Forwarded || bytes.Contains(s[0].Frame(), inner[len(inner)-20:]) {
					t.Fatalf("out of the tunnel: %d packets", len(s))
				}
				b.send(bytes.Clone(frame))
				frame = p.seal(inner)
				frame[len(frame)-1] ^= 1
				b.send(frame)
				s = b.shown(c)
				if len(s) != 2 || s[0].Reason != ESPReplayed || s[1].Reason != ESPForged || s[0].Inner() != nil || s[1].Inner() != nil || int(s[1].In) != id {
					t.Errorf("what is not authentic: %d packets", len(s))
				}
				down := framed(udp(t, inetHost(inner6), behind(inner6), 30))
				out := b.send(bytes.Clone(down))
				s = b.shown(c)
				if len(s) != 1 || len(out) != 1 || !bytes.Equal(s[0].Frame(), down) || int(s[0].Out) != id || s[0].SPI != 0x1001 || s[0].OuterSize != len(out[0])-14 ||
					s[0].FrameSize != len(out[0]) || s[0].Size != len(down)-14 {
					t.Errorf("into the tunnel: %d packets", len(s))
				}
			}
		})
	}
}
