package pipeline

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"causeway/crypto/esp"
	"causeway/xsk"
)

// cutFrame cuts a frame's IP packet into fragments with n bytes of data each, by gopacket's serializer.
func cutFrame(t *testing.T, frame []byte, n int, id uint32) [][]byte {
	t.Helper()
	packet := frame[14:]
	var out [][]byte
	if packet[0]>>4 == 4 {
		for off := 0; off < len(packet)-20; off += n {
			data := packet[20+off : min(20+off+n, len(packet))]
			l3 := ip(addr(packet[12:16]), addr(packet[16:20]), layers.IPProtocol(packet[9])).(*layers.IPv4)
			l3.Id, l3.FragOffset, l3.TOS = uint16(id), uint16(off/8), packet[1]
			if 20+off+n < len(packet) {
				l3.Flags = layers.IPv4MoreFragments
			}
			out = append(out, framed(serialize(t, l3, gopacket.Payload(data))))
		}
		return out
	}
	for off := 0; off < len(packet)-40; off += n {
		l3 := ip(addr(packet[8:24]), addr(packet[24:40]), layers.IPProtocolIPv6Fragment)
		h := []byte{packet[6], 0, byte(off >> 8), byte(off), 0, 0, 0, 0}
		if 40+off+n < len(packet) {
			h[3] |= 1
		}
		binary.BigEndian.PutUint32(h[4:], id)
		out = append(out, framed(serialize(t, l3, gopacket.Payload(append(h, packet[40+off:min(40+off+n, len(packet))]...)))))
	}
	return out
}

func addr(b []byte) netip.Addr { a, _ := netip.AddrFromSlice(b); return a }

// TestOuterReassembly sends GRE packets in fragments, in order and shuffled, duplicated, and mixed with others.
func TestOuterReassembly(t *testing.T) {
	families(t, func(t *testing.T, outer6, inner6 bool) {
		for _, workers := range []int{1, 2} {
			b := newBed(t, workers, tunnelOver(outer6))
			rng := rand.New(rand.NewPCG(1, uint64(workers)))
			var frames [][]byte
			want := map[string]bool{}
			for i := range 40 {
				inner := udp(t, behind(inner6), inetHost(inner6), 1300+i)
				whole := gre(t, inner, greHeader{src: customerOf(outer6), dst: endpointOf(outer6)})
				pieces := cutFrame(t, whole, 8*(20+rng.IntN(100)), uint32(i))
				frames = append(frames, pieces...)
				frames = append(frames, pieces[0])
				want[string(hop(t, inner))] = true
			}
			rng.Shuffle(len(frames), func(i, j int) { frames[i], frames[j] = frames[j], frames[i] })
			out := b.send(frames...)
			for _, f := range out {
				if !want[string(f[14:])] {
					t.Errorf("workers %d: a packet left that was not sent: %x", workers, f[14:80])
				}
				delete(want, string(f[14:]))
			}
			if len(want) != 0 {
				t.Errorf("workers %d: %d packets did not arrive; dropped %v", workers, len(want), b.dropped())
			}
			b.engine.settle() // the fragments that came twice wait for datagrams that are complete
			if c := b.engine.Total(); c.Held != 0 || c.Joined == 0 {
				t.Errorf("workers %d: counters %+v", workers, c)
			}
		}
	})
}

func TestFragmentReasons(t *testing.T) {
	families(t, func(t *testing.T, outer6, inner6 bool) {
		whole := gre(t, udp(t, behind(inner6), inetHost(inner6), 600), greHeader{src: customerOf(outer6), dst: endpointOf(outer6)})
		pieces := cutFrame(t, whole, 200, 9)
		overlapping := cutFrame(t, whole, 208, 9)
		b := newBed(t, 1, tunnelOver(outer6))
		if out := b.send(pieces[0], pieces[2]); len(out) != 0 || b.engine.Total().Held != 2 {
			t.Fatalf("%d frames left, held %d", len(out), b.engine.Total().Held)
		}
		b.wantDrop(pieces[0], FragmentDuplicate)
		if b.send(overlapping[1]); b.engine.Total().Dropped[FragmentOverlap] != 3 {
			t.Errorf("overlap must drop all three (RFC 5722): %v", b.dropped())
		}
		b.wantDrop(pieces[1], FragmentOverlap)

		b = newBed(t, 1, tunnelOver(outer6))
		b.send(pieces[:2]...)
		w := b.engine.workers[0]
		w.now += int64(fragmentTimeout)
		w.expire()
		w.putFreed()
		if b.engine.Total().Dropped[FragmentTimeout] != 2 || b.engine.Total().Held != 0 {
			t.Errorf("after the timeout: %v, held %d", b.dropped(), b.engine.Total().Held)
		}

		b = newBed(t, 1, tunnelOver(outer6))
		long := append(slices.Clone(whole), bytes.Repeat([]byte{1}, 3000)...)
		for i, f := range cutFrame(t, long, 1400, 10) {
			if i == 2 {
				b.wantDropAll(f, FragmentTooBig, 3)
				break
			}
			b.send(f)
		}
	})
}

// wantDropAll sends a frame that drops n at once.
func (b *bed) wantDropAll(frame []byte, r Reason, n uint64) {
	b.t.Helper()
	b.send(frame)
	if got := b.engine.Total().Dropped[r]; got != n {
		b.t.Errorf("want %v to count %d, got %d: %v", r, n, got, b.dropped())
	}
}

// TestAtomicFragment: an IPv6 fragment that is the whole datagram has nothing to do with others of its identification
// (RFC 6946 4).
func TestAtomicFragment(t *testing.T) {
	b := newBed(t, 1, tunnelOver(true))
	inner := udp(t, behind6, inetHost6, 600)
	whole := gre(t, inner, greHeader{src: customer6, dst: endpoint6})
	pieces := cutFrame(t, whole, 200, 9)
	b.send(pieces[:2]...)
	p := b.wantOne(cutFrame(t, whole, 2000, 9)[0])
	if got := p.LinkLayer().LayerPayload(); !bytes.Equal(got, hop(t, inner)) {
		t.Errorf("got  %x\nwant %x", got, hop(t, inner))
	}
	if out := b.send(pieces[2:]...); len(out) != 1 {
		t.Errorf("the others of its identification do not make their datagram any more: %v", b.dropped())
	}
}

// TestReassembledECN: congestion that one fragment met is not forgotten (RFC 3168 5.3).
func TestReassembledECN(t *testing.T) {
	for _, outer6 := range []bool{false, true} {
		b := newBed(t, 1, tunnelOver(outer6))
		inner := udp(t, behind4, inetHost4, 600, func(l gopacket.SerializableLayer) { l.(*layers.IPv4).TOS = ect0 })
		pieces := cutFrame(t, gre(t, inner, greHeader{src: customerOf(outer6), dst: endpointOf(outer6)}), 200, 9)
		mark := decodeRemark(t, pieces[1], outer6)
		out := b.send(pieces[0], mark, pieces[2], pieces[3])
		if len(out) != 1 || out[0][15]&3 != ecnCE {
			t.Errorf("outer6=%v: %d frames, dropped %v", outer6, len(out), b.dropped())
		}
	}
}

func decodeRemark(t *testing.T, frame []byte, v6 bool) []byte {
	t.Helper()
	f := slices.Clone(frame)
	if v6 {
		f[15] |= 0x30
		return f
	}
	f[15] |= 3
	f[24], f[25] = 0, 0
	binary.BigEndian.PutUint16(f[24:], naiveChecksum(f[14:34]))
	return f
}

// TestFastEqualsGeneral sends the same packets by the fast way and by the general one.
func TestFastEqualsGeneral(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	specs := []TunnelSpec{tunnelSpec("cust-a", func(s *TunnelSpec) { s.HasKey, s.Key = true, 77 })}
	fast, general := newBed(t, 1, specs...), newBed(t, 1, specs...)
	id, _ := fast.engine.TunnelID("cust-a")
	key := uint32(77)
	const synFlag, ack = 2, 16
	syns := uint64(0)
	for n := range 3000 {
		tos, ttl := uint8(rng.IntN(256)), uint8(2+rng.IntN(254))
		change := func(l gopacket.SerializableLayer) {
			l.(*layers.IPv4).TOS, l.(*layers.IPv4).TTL, l.(*layers.IPv4).Id = tos, ttl, uint16(rng.IntN(1<<16))
		}
		leaf := MakeLeaf(KindNeighbour, routerSlot)
		frame := framed(udp(t, inetHost4, behind4, rng.IntN(1400), change))
		inner := udp(t, behind4, inetHost4, rng.IntN(1400), change)
		switch n % 5 {
		case 0:
			inner = syn(t, behind4, inetHost4, uint16(rng.IntN(2000)), ack)
		case 1:
			inner = syn(t, behind4, inetHost4, uint16(rng.IntN(2000)), synFlag) // has to be clamped by forward.go
			syns++
		}
		egress := gre(t, inner, greHeader{key: &key})
		if n%2 == 0 {
			leaf = MakeLeaf(KindTunnel, id)
		}
		var out [2][][]byte
		for k, b := range []*bed{fast, general} {
			w := b.engine.workers[0]
			tables := b.engine.tables.Load()
			b.queues[0][0].Put(frame, egress)
			got := b.queues[0][0].Receive(w.descs[:])
			w.queues[0].debt += got
			w.count.received.add(uint64(got))
			w.parse(tables, &w.batch, w.descs[:got], 0)
			p, q := &w.batch.packets[0], &w.batch.packets[1]
			if k == 0 {
				w.batch.net4.leaf[0] = leaf
				w.inside.n = 0
				w.decap(tables, &w.batch)
				w.forward4(tables, &w.batch, &w.batch.net4)
				w.batch.own4.leaf[0] = MakeLeaf(KindNeighbour, otherSlot)
				w.forward4(tables, &w.batch, &w.batch.own4)
				w.enterTunnels(tables, &w.batch)
			} else {
				w.leaveTunnel(tables, &w.batch, 1, false)
				if w.batch.own4.n != 1 {
					t.Fatalf("not admitted: %v", b.dropped())
				}
				p.leaf, q.leaf = leaf, MakeLeaf(KindNeighbour, otherSlot)
				if LeafKind(leaf) == KindTunnel {
					w.toTunnel(tables, p, id)
				} else {
					w.toNeighbour(tables, p)
				}
				w.toNeighbour(tables, q)
			}
			out[k] = b.run()
		}
		if len(out[0]) != 2 || fmt.Sprint(out[0]) != fmt.Sprint(out[1]) {
			t.Fatalf("packet %d\nfast    %x\ngeneral %x", n, out[0], out[1])
		}
	}
	if f, g := fast.engine.TunnelCounters(id), general.engine.TunnelCounters(id); f != g {
		t.Errorf("tunnel counters: fast %+v, general %+v", f, g)
	}
	f, g := fast.engine.Total(), general.engine.Total()
	if f.General != syns {
		t.Errorf("the fast way declined %d packets, of which %d were SYNs", f.General, syns)
	}
	f.General, g.General = 0, 0
	f.PollGap, g.PollGap, f.MaxPollGapNS, g.MaxPollGapNS = [PollGapBuckets]uint64{}, [PollGapBuckets]uint64{}, 0, 0
	if f != g {
		t.Errorf("counters\nfast    %+v\ngeneral %+v", f, g)
	}
}

// TestESPFastEqualsGeneral: enterTunnels makes the frames that toTunnel does, byte by byte, with the same numbers and IVs.
func TestESPFastEqualsGeneral(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	for _, o := range []espOptions{{suite: esp.AES128GCM16}, {suite: esp.AES256GCM16, udp: true, esn: true}, {suite: esp.NullSHA256}} {
		var beds [2]*bed
		for k := range beds {
			beds[k] = newESPBed(t, 1, newESPPeer(t, o).tunnel("cust-a"))
		}
		id, _ := beds[0].engine.TunnelID("cust-a")
		tables := beds[1].engine.tables.Load()
		if tables.tx[id].way == wayGeneral {
			t.Fatal("no fast way")
		}
		tables.tx[id].way = wayGeneral
		for n := range 500 {
			frame := framed(udp(t, inetHost4, behind4, rng.IntN(1380), func(l gopacket.SerializableLayer) {
				l.(*layers.IPv4).TOS, l.(*layers.IPv4).TTL, l.(*layers.IPv4).Id = uint8(rng.IntN(256)), uint8(2+rng.IntN(254)), uint16(rng.IntN(1<<16))
			}))
			fast, general := beds[0].send(frame), beds[1].send(frame)
			if len(fast) != 1 || fmt.Sprint(fast) != fmt.Sprint(general) {
				t.Fatalf("%s, packet %d\nfast    %x\ngeneral %x", o.suite, n, fast, general)
			}
		}
		if f, g := beds[0].engine.TunnelCounters(id), beds[1].engine.TunnelCounters(id); f != g {
			t.Errorf("%s: tunnel counters: fast %+v, general %+v", o.suite, f, g)
		}
		if f, g := beds[0].engine.Total().General, beds[1].engine.Total().General; f != 0 || g != 500 {
			t.Errorf("%s: %d packets went the general way, and %d", o.suite, f, g)
		}
	}
}

// TestNoAllocation runs batches of every ordinary kind.
func TestNoAllocation(t *testing.T) {
	b := newBed(t, 1, tunnelSpec("cust-a"))
	frames := [][]byte{
		framed(udp(t, inetHost4, behind4, 100)), framed(udp(t, inetHost6, behind6, 100)),
		gre(t, udp(t, behind4, inetHost4, 100), greHeader{}), gre(t, udp(t, behind6, inetHost6, 100), greHeader{}),
		gre(t, syn(t, behind4, inetHost4, 1460, 2), greHeader{}), framed(udp(t, inetHost4, behind4, 1472)),
		framed(udp(t, inetHost4, behind4, 1472, dontFragment)),
	}
	frames = append(frames, cutFrame(t, frames[2], 40, 5)...)
	q := &loopQueue{umem: b.umem, frames: frames}
	w := b.engine.workers[0]
	w.queues[0].queue, w.ports[0].queue, w.queues[0].debt = q, q, 256
	for range 20 {
		w.poll()
	}
	if n := testing.AllocsPerRun(200, func() { w.poll() }); n != 0 {
		t.Errorf("%v allocations per batch", n)
	}
}

// loopQueue receives the same frames for ever and allocates nothing.
type loopQueue struct {
	umem         *xsk.UMEM
	frames       [][]byte
	fill, done   [1024]uint64
	nfill, ndone int
}

func (q *loopQueue) Receive(d []xsk.Desc) int {
	n := min(len(d), q.nfill)
	for i := range n {
		q.nfill--
		c := q.fill[q.nfill]
		q.umem.Track(c, xsk.Fill, xsk.Worker)
		d[i] = xsk.Desc{Addr: c + xsk.Headroom, Len: uint32(copy(q.umem.Bytes()[c+xsk.Headroom:c+xsk.FrameSize], q.frames[i%len(q.frames)]))}
	}
	return n
}

func (q *loopQueue) Transmit(d []xsk.Desc) int {
	for _, x := range d {
		q.umem.Track(x.Addr, xsk.Worker, xsk.TX)
		q.done[q.ndone] = x.Addr &^ (xsk.FrameSize - 1)
		q.ndone++
	}
	return len(d)
}

func (q *loopQueue) Kick() {}

func (q *loopQueue) Reap(a []uint64) int {
	n := min(len(a), q.ndone)
	copy(a, q.done[q.ndone-n:q.ndone])
	q.ndone -= n
	for _, c := range a[:n] {
		q.umem.Track(c, xsk.TX, xsk.Worker)
	}
	return n
}

func (q *loopQueue) Refill(a []uint64) int {
	for _, c := range a {
		q.umem.Track(c, xsk.Worker, xsk.Fill)
	}
	q.nfill += copy(q.fill[q.nfill:], a)
	return len(a)
}
