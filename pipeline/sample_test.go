package pipeline

import (
	"bytes"
	"cmp"
	"maps"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// everythingSampled makes each bed sample all that it gets, and hold the samples against the counters.
var everythingSampled bool

// sampleCount is what samples say.
type sampleCount struct {
	verdicts [Dropped + 1]uint64
	reasons  [Reasons]uint64
}

// withoutPacket are reasons for which frames are dropped where nothing is known of their packets any more.
var withoutPacket = map[Reason]bool{TXRingFull: true, HandOverFull: true, FragmentTimeout: true, FragmentTableFull: true,
	FragmentDuplicate: true, FragmentOverlap: true, FragmentEnd: true, FragmentTooMany: true, FragmentTooBig: true}

// sampled demands that each packet has one sample, which says what the counters do.
func (b *bed) sampled(c *Counters) {
	b.t.Helper()
	b.engine.Samples(func(_ time.Time, s *Sample) {
		b.samples.verdicts[s.Verdict]++
		b.samples.reasons[s.Reason]++
		if s.Every != 1 || int(s.Size) != min(int(s.Length), SampleHeader) || (s.Verdict == Dropped) != (s.Reason != ReasonNone) {
			b.t.Errorf("a sample that can not be: %+v", s)
		}
	})
	fragments := c.Joined > 0 || c.Held > 0
	for r, n := range c.Dropped {
		if fragments = fragments || n > 0 && withoutPacket[Reason(r)]; n != b.samples.reasons[r] && !withoutPacket[Reason(r)] && r > 0 {
			b.t.Errorf("%d packets were dropped for %v, %d of the samples", n, Reason(r), b.samples.reasons[r])
		}
	}
	if fragments || c.Fragments > 0 || c.ToOwner+c.FromNodes > 0 {
		return // fragments are sampled when they come; who encrypts for another node samples
	}
	v := &b.samples.verdicts
	if v[Forwarded] != c.Forwarded || v[Delivered] != c.Delivered || v[Punted] != c.Punted {
		b.t.Errorf("samples: %d forwarded, %d delivered, %d punted; counted: %d, %d, %d", v[Forwarded], v[Delivered], v[Punted],
			c.Forwarded, c.Delivered, c.Punted)
	}
}

// slowPathTests are those of pathTests that take more than a second.
var slowPathTests = map[string]bool{"ecn": true, "esp": true, "clamp": true, "owner": true, "malformed": true}

// pathTests are tests of the packet path, for others that want all of what it does.
var pathTests = map[string]func(*testing.T){
	"decap": TestDecap, "encap": TestEncap, "options": TestDecapOptionalFields, "key": TestKeyMismatch, "lateral": TestLateral,
	"accounts": TestAccountsApart, "ttl": TestTTLExceeded, "sources": TestSourceNotInPrefixes, "echo": TestEchoOfInterfaceAddress,
	"keepalive": TestKeepalive, "ecn": TestECN, "malformed": TestMalformed, "damage": TestRandomDamage, "too big": TestTooBig,
	"fragments before": TestFragmentBeforeEncapsulation, "fragments behind": TestOuterFragments, "clamp": TestMSSClamp,
	"hand over": TestHandOverToPort, "sequence": TestSequenceOwner, "full": TestTXRingFull, "punt": TestPuntAndInject,
	"another host": TestForAnotherHost, "host": TestHostThroughTunnels, "unresolved": TestUnresolvedNeighbour, "reasons": TestRouteReasons,
	"esp handed over": TestESPHandedOver, "esp": TestESP, "esp fragments": TestESPFragments, "esp reasons": TestESPReasons,
	"esp sending": TestESPSendingReasons, "esp owner": TestESPOwner, "esp lateral": TestESPLateral, "esp in clear": TestESPAnswersAreNotInClear,
	"device": TestDevice, "not for device": TestNotForDevice, "probes": TestProbes, "one way": TestProbesOneWay, "sealed": TestProbesSealed,
	"bfd": TestBFD, "owner": TestForwardedToOwner, "forwarded": TestForwardedMalformed, "children": TestChildren,
}

// The tests of the packet path once more, with everything sampled.
func TestEverythingSampled(t *testing.T) {
	everythingSampled = true
	defer func() { everythingSampled = false }()
	for name, f := range pathTests {
		t.Run(name, f)
	}
}

// take returns the samples that wait.
func (b *bed) take() (out []Sample) {
	b.engine.Samples(func(at time.Time, s *Sample) {
		if d := time.Since(at); d < 0 || d > time.Minute {
			b.t.Errorf("a sample of %v", at)
		}
		out = append(out, *s)
	})
	return out
}

// sampling sets the rates of the node and of its tunnels.
func (b *bed) sampling(every uint32, tunnels ...uint32) {
	b.spec.Sampling = every
	for i, n := range tunnels {
		b.spec.Tunnels[i].Sampling = n
	}
	b.apply()
}

// A sample is the packet as it leaves, with its tunnels.
func TestSample(t *testing.T) {
	b := newBed(t, 1, tunnelSpec("cust-a"), tunnelSpec("cust-b", func(s *TunnelSpec) {
		s.HasKey, s.Key, s.Prefixes, s.Interface4, s.Interface6 = true, 7, []netip.Prefix{netip.MustParsePrefix("198.18.6.0/24")}, netip.Prefix{}, netip.Prefix{}
	}))
	b.sampling(1)
	a, _ := b.engine.TunnelID("cust-a")
	other, _ := b.engine.TunnelID("cust-b")
	there, long := netip.MustParseAddr("198.18.6.1"), 1200
	for _, x := range []struct {
		what    string
		frame   []byte
		in, out int
		verdict Verdict
		reason  Reason
		packet  []byte
	}{
		{"ingress", framed(udp(t, inetHost4, behind4, long)), noTunnel, a, Forwarded, ReasonNone, hop(t, udp(t, inetHost4, behind4, long))},
		{"egress", gre(t, udp(t, behind4, inetHost4, 10), greHeader{}), a, noTunnel, Forwarded, ReasonNone, hop(t, udp(t, behind4, inetHost4, 10))},
		{"lateral", gre(t, udp(t, behind4, there, 10), greHeader{}), a, other, Forwarded, ReasonNone, hop(t, udp(t, behind4, there, 10))},
		{"through", framed(udp(t, inetHost4, netip.MustParseAddr("192.0.2.99"), 1)), noTunnel, noTunnel, Forwarded, ReasonNone, hop(t, udp(t, inetHost4, netip.MustParseAddr("192.0.2.99"), 1))},
		{"foreign", gre(t, udp(t, there, inetHost4, 10), greHeader{}), a, noTunnel, Dropped, InnerSource, udp(t, there, inetHost4, 10)},
		{"too big", framed(udp(t, inetHost4, behind4, 1500, dontFragment)), noTunnel, a, Dropped, TooBig, udp(t, inetHost4, behind4, 1500, dontFragment)},
		{"unknown", gre(t, udp(t, behind4, inetHost4, 10), greHeader{src: inetHost4, dst: endpoint4}), noTunnel, noTunnel, Dropped, TunnelUnknown, nil},
	} {
		b.send(x.frame)
		s := b.take()
		if x.what == "too big" { // and the ICMP error
			if len(s) != 2 || s[1].Verdict != Forwarded {
				t.Fatalf("%s: %+v", x.what, s)
			}
			s = s[:1]
		}
		if len(s) != 1 {
			t.Fatalf("%s: %d samples", x.what, len(s))
		}
		got := s[0]
		if x.packet == nil {
			x.packet = x.frame[14:]
		}
		if int(got.In) != x.in || int(got.Out) != x.out || got.Verdict != x.verdict || got.Reason != x.reason || got.Every != 1 || got.Probe {
			t.Errorf("%s: %+v", x.what, got)
		}
		if int(got.Length) != len(x.packet) || !bytes.Equal(got.Header[:got.Size], x.packet[:min(len(x.packet), SampleHeader)]) {
			t.Errorf("%s: %d bytes, %x; want %d, %x", x.what, got.Length, got.Header[:got.Size], len(x.packet), x.packet)
		}
	}
	c := b.engine.TunnelCounters(a)
	if o := b.engine.TunnelCounters(other); c.LateralRXPackets != 1 || o.LateralTXPackets != 1 || o.LateralTXBytes != 38 || c.LateralRXBytes != 38 ||
		c.LateralTXPackets+o.LateralRXPackets != 0 {
		t.Errorf("lateral traffic: %+v, %+v", c, o)
	}
}

// What is sampled stands for all of it, within four standard deviations, at each place of a batch, and no packet that is not
// sampled leaves the fast way.
func TestSamplingRates(t *testing.T) {
	b := newBed(t, 1, tunnelSpec("cust-a"), tunnelSpec("cust-b", func(s *TunnelSpec) {
		s.HasKey, s.Key, s.Prefixes, s.Interface4, s.Interface6 = true, 7, []netip.Prefix{netip.MustParsePrefix("198.18.6.0/24")}, netip.Prefix{}, netip.Prefix{}
	}))
	to := []netip.Addr{behind4, netip.MustParseAddr("198.18.6.1"), netip.MustParseAddr("192.0.2.99")}
	batch := make([][]byte, BatchSize)
	for i := range batch {
		batch[i] = framed(udp(t, inetHost4, to[i%3], 10))
	}
	b.engine.workers[0].sampler.state = 42 // what is drawn is the same each time
	const rounds = 1000
	for _, x := range []struct{ node, a, b uint32 }{{1, 0, 0}, {10, 0, 0}, {100, 10, 1}, {0, 7, 0}, {0, 0, 0}, {5, NeverSampled, 0}, {100, 1000, 50}, {3, 4, 5}} {
		b.sampling(x.node, x.a, x.b)
		general := b.engine.Total().General
		sent, got, squares, places := [3]float64{}, [3]float64{}, [3]float64{}, [BatchSize]int{}
		for range rounds {
			b.send(batch...)
			for i := range batch {
				sent[i%3]++
			}
			for _, s := range b.take() {
				k := slices.IndexFunc(to, func(a netip.Addr) bool { return bytes.Equal(s.Header[16:20], a.AsSlice()) })
				got[k] += float64(s.Every)
				squares[k] += float64(s.Every) * float64(s.Every-1)
			}
			for i := range batch {
				if b.engine.workers[0].sampler.marked>>i&1 != 0 {
					places[i]++
				}
			}
		}
		for k, every := range []uint32{cmp.Or(x.a, x.node), cmp.Or(x.b, x.node), x.node} {
			if every == NeverSampled {
				every = 0
			}
			if every == 0 && got[k] > 0 || every > 0 && math.Abs(got[k]-sent[k]) > 4*math.Sqrt(sent[k]*float64(every-1)) {
				t.Errorf("%+v: %v packets of kind %d are sampled as %v, one of %d", x, sent[k], k, got[k], every)
			}
		}
		finest := b.engine.tables.Load().sampling.every
		for i, n := range places {
			if want := rounds / float64(max(finest, 1)); finest == 0 && n > 0 || finest > 0 && math.Abs(float64(n)-want) > 5*math.Sqrt(want) {
				t.Errorf("%+v: place %d of the batch was picked %d times, want %.0f", x, i, n, want)
			}
		}
		if off := b.engine.Total().General - general; finest == 0 && off > 0 || finest > 9 && off > 3*rounds*BatchSize/uint64(finest) {
			t.Errorf("%+v: %d packets left the fast way", x, off)
		}
	}
}

// A ring that nobody empties loses samples, counted, and no packets; made rarer they stand for more.
func TestSamplesLost(t *testing.T) {
	b := newBed(t, 1, tunnelSpec("cust-a"))
	b.sampling(1)
	frame := framed(udp(t, inetHost4, behind4, 10))
	for range sampleRing + 100 {
		if out := b.send(frame); len(out) != 1 {
			t.Fatal("a packet was lost")
		}
	}
	if c := b.engine.Total(); c.Samples != sampleRing || c.SamplesLost != 100 || len(b.take()) != sampleRing {
		t.Errorf("%d samples, %d lost", c.Samples, c.SamplesLost)
	}
	b.engine.workers[0].sampler.state = 42
	b.engine.SetSamplingShift(4)
	for range 1600 {
		b.send(frame)
	}
	s := b.take()
	if len(s) < 50 || len(s) > 150 || s[0].Every != 16 {
		t.Errorf("%d samples of 1600 packets, one stands for %d", len(s), s[0].Every)
	}
}

func TestSamplingDoesNotAllocate(t *testing.T) {
	b := newBed(t, 1, tunnelSpec("cust-a"))
	b.sampling(2)
	w := b.engine.workers[0]
	frames := [][]byte{framed(udp(t, inetHost4, behind4, 10)), gre(t, udp(t, inetHost4, behind4, 10), greHeader{})}
	if n := testing.AllocsPerRun(100, func() {
		for _, f := range frames {
			copy(w.frame(0)[:], f)
		}
		var p packet
		for range 10 {
			p = packet{l3: 14, end: 100, tunnel: noTunnel, flags: pktSampled}
			w.sampled(&p, 0, Forwarded)
			w.choose(b.engine.tables.Load(), &w.batch, BatchSize)
			w.countDropInto(&p, 0, TooBig)
		}
		w.sampler.ring.show()
		b.engine.Samples(func(time.Time, *Sample) {})
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Drops are counted by tunnel, way and reason; what finds no place is counted together.
func TestTunnelDrops(t *testing.T) {
	b := newBed(t, 1, tunnelSpec("cust-a"))
	id, _ := b.engine.TunnelID("cust-a")
	b.wantDrop(gre(t, udp(t, inetHost4, inetHost4, 10), greHeader{}), InnerSource)
	b.wantDrop(gre(t, udp(t, inetHost4, inetHost4, 10), greHeader{}), InnerSource)
	b.wantDrop(gre(t, udp(t, behind4, inetHost4, 10), greHeader{src: inetHost4, dst: endpoint4}), TunnelUnknown)
	b.send(framed(udp(t, inetHost4, behind4, 1500, dontFragment)))
	b.send(framed(udp(t, inetHost4, behind4, 10, func(l gopacket.SerializableLayer) { l.(*layers.IPv4).TTL = 1 })))
	got := map[Drop]bool{}
	rest := b.engine.TunnelDrops(func(d Drop) { got[d] = true })
	want := map[Drop]bool{{id, false, InnerSource, 2}: true, {-1, false, TunnelUnknown, 1}: true, {id, true, TooBig, 1}: true, {-1, false, TooBig, 1}: true,
		{id, true, TTLExceeded, 1}: true, {-1, false, TTLExceeded, 1}: true}
	if !maps.Equal(got, want) || rest != 0 {
		t.Errorf("%v and %d, want %v", got, rest, want)
	}
	d, exact := newDropTable(), map[uint64]uint64{}
	rng := rand.New(rand.NewPCG(3, 4))
	for range 200_000 {
		key := dropKey(int32(rng.IntN(40))-1, rng.IntN(2) == 0, Reason(1+rng.IntN(100)))
		d.add(key)
		exact[key]++
	}
	for k := range d.places {
		if s := &d.places[k]; s.key.Load() != 0 && s.n.get() != exact[s.key.Load()] {
			t.Fatalf("key %x has %d, want %d", s.key.Load(), s.n.get(), exact[s.key.Load()])
		}
	}
	if d.used != len(exact) {
		t.Errorf("%d places for %d keys", d.used, len(exact))
	}
	for k := range int32(dropPlaces) {
		d.add(dropKey(1000+k, false, TooBig))
	}
	if n := d.rest.get(); n != uint64(dropPlaces-dropPlaces/4*3+len(exact)) {
		t.Errorf("%d without a place", n)
	}
}
