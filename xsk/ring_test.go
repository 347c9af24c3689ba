package xsk

import (
	"slices"
	"sync/atomic"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// testOffsets lays a ring out as the kernel does: indices on lines of their own.
var testOffsets = unix.XDPRingOffset{Producer: 0, Consumer: 64, Flags: 128, Desc: 192}

// fakeRing is the kernel's end of a ring, over the same memory as ours.
type fakeRing[T slot] struct {
	mem                []byte
	producer, consumer *uint32
	flags              *uint32
	slots              []T
}

func newFakeRing[T slot](size, start uint32) *fakeRing[T] {
	// uint64s, for alignment.
	words := make([]uint64, ringBytes[T](testOffsets, size)/8)
	mem := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), len(words)*8)
	k := &fakeRing[T]{
		mem:      mem,
		producer: wordAt(mem, testOffsets.Producer),
		consumer: wordAt(mem, testOffsets.Consumer),
		flags:    wordAt(mem, testOffsets.Flags),
		slots:    slotsAt[T](mem, testOffsets.Desc, size),
	}
	*k.producer, *k.consumer = start, start
	return k
}

func (k *fakeRing[T]) ourProducer() producer[T] {
	return newProducer[T](k.mem, testOffsets, uint32(len(k.slots)), &neverWake)
}

func (k *fakeRing[T]) ourConsumer() consumer[T] {
	return newConsumer[T](k.mem, testOffsets, uint32(len(k.slots)))
}

// produce is the kernel's side of RX and completion, one slot at a time.
func (k *fakeRing[T]) produce(v T) bool {
	p := atomic.LoadUint32(k.producer)
	if p-atomic.LoadUint32(k.consumer) == uint32(len(k.slots)) {
		return false
	}
	k.slots[p%uint32(len(k.slots))] = v
	atomic.StoreUint32(k.producer, p+1)
	return true
}

// consume is the kernel's side of fill and TX, one slot at a time.
func (k *fakeRing[T]) consume() (v T, ok bool) {
	c := atomic.LoadUint32(k.consumer)
	if c == atomic.LoadUint32(k.producer) {
		return v, false
	}
	v = k.slots[c%uint32(len(k.slots))]
	atomic.StoreUint32(k.consumer, c+1)
	return v, true
}

// ringStart draws a first index, with the 32-bit wrap likely to be crossed.
func ringStart(rt *rapid.T) uint32 {
	return rapid.OneOf(rapid.Just(uint32(0)), rapid.Uint32Range(0xffffff80, 0xffffffff), rapid.Uint32()).Draw(rt, "start")
}

// TestProducerAgainstQueue compares our end of the TX ring with a slice.
func TestProducerAgainstQueue(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		size := uint32(1) << rapid.IntRange(3, 6).Draw(rt, "log2 size")
		k := newFakeRing[Desc](size, ringStart(rt))
		r := k.ourProducer()
		var queue []Desc
		next := uint64(0)
		rt.Repeat(map[string]func(*rapid.T){
			"put": func(rt *rapid.T) {
				src := make([]Desc, rapid.IntRange(0, 80).Draw(rt, "n"))
				for i := range src {
					next++
					src[i] = Desc{Addr: next, Len: uint32(next * 3), Options: uint32(next * 5)}
				}
				n := r.put(src)
				if want := min(len(src), int(size)-len(queue)); n != want {
					rt.Fatalf("put took %d, want %d", n, want)
				}
				queue = append(queue, src[:n]...)
			},
			"kernel": func(rt *rapid.T) {
				for range rapid.IntRange(0, 80).Draw(rt, "n") {
					v, ok := k.consume()
					if ok != (len(queue) > 0) {
						rt.Fatalf("the kernel sees something: %v; %d are queued", ok, len(queue))
					}
					if !ok {
						break
					}
					if v != queue[0] {
						rt.Fatalf("the kernel got %v, want %v", v, queue[0])
					}
					queue = queue[1:]
				}
			},
			"": func(rt *rapid.T) {
				if r.level() != uint32(len(queue)) || r.pending() != uint32(len(queue)) {
					rt.Fatalf("level %d, pending %d, want %d", r.level(), r.pending(), len(queue))
				}
			},
		})
	})
}

// TestConsumerAgainstQueue compares our end of the completion ring with a slice.
func TestConsumerAgainstQueue(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		size := uint32(1) << rapid.IntRange(3, 6).Draw(rt, "log2 size")
		k := newFakeRing[uint64](size, ringStart(rt))
		r := k.ourConsumer()
		var queue []uint64
		next := uint64(0)
		rt.Repeat(map[string]func(*rapid.T){
			"kernel": func(rt *rapid.T) {
				for range rapid.IntRange(0, 80).Draw(rt, "n") {
					next++
					if ok := k.produce(next); ok != (len(queue) < int(size)) {
						rt.Fatalf("the kernel found room: %v; %d of %d are taken", ok, len(queue), size)
					} else if ok {
						queue = append(queue, next)
					}
				}
			},
			"take": func(rt *rapid.T) {
				dst := make([]uint64, rapid.IntRange(0, 80).Draw(rt, "n"))
				n := r.take(dst)
				if want := min(len(dst), len(queue)); n != want {
					rt.Fatalf("took %d, want %d", n, want)
				}
				if !slices.Equal(dst[:n], queue[:n]) {
					rt.Fatalf("took %v, want %v", dst[:n], queue[:n])
				}
				queue = queue[n:]
			},
			"": func(rt *rapid.T) {
				if r.level() != uint32(len(queue)) {
					rt.Fatalf("level %d, want %d", r.level(), len(queue))
				}
			},
		})
	})
}

// TestRingOrder runs both ends at once: every slot must arrive, in order, whole.
func TestRingOrder(t *testing.T) {
	const total = 200_000
	tx, rx := newFakeRing[Desc](64, 0xfffff000), newFakeRing[Desc](64, 0xfffff000)
	go func() { // the kernel: a loop from TX to RX
		for n := 0; n < total; {
			if d, ok := tx.consume(); ok {
				for !rx.produce(d) {
				}
				n++
			}
		}
	}()
	out, in := tx.ourProducer(), rx.ourConsumer()
	src, dst := make([]Desc, 48), make([]Desc, 48)
	for sent, got := 0, 0; got < total; {
		n := min(len(src), total-sent)
		for i := range src[:n] {
			v := uint64(sent + i)
			src[i] = Desc{Addr: v, Len: uint32(v), Options: ^uint32(v)}
		}
		sent += out.put(src[:n])
		for _, d := range dst[:in.take(dst)] {
			if v := uint64(got); d != (Desc{Addr: v, Len: uint32(v), Options: ^uint32(v)}) {
				t.Fatalf("slot %d arrived as %+v", got, d)
			}
			got++
		}
	}
}

func TestNeedWakeup(t *testing.T) {
	k := newFakeRing[Desc](64, 0)
	r := k.ourProducer()
	if r.needWakeup() {
		t.Error("the flag is not set")
	}
	*k.flags = unix.XDP_RING_NEED_WAKEUP
	if !r.needWakeup() {
		t.Error("the flag is set")
	}
	// A kernel without flags.
	off := testOffsets
	off.Flags = 0
	if old := newProducer[Desc](k.mem, off, 64, &alwaysWake); !old.needWakeup() {
		t.Error("without flags TX must always be woken")
	}
}

func TestWidenOffsets(t *testing.T) {
	var narrow unix.XDPMmapOffsets
	words := (*[12]uint64)(unsafe.Pointer(&narrow))
	for i := range words {
		words[i] = uint64(100 + i)
	}
	want := unix.XDPMmapOffsets{
		Rx: unix.XDPRingOffset{Producer: 100, Consumer: 101, Desc: 102},
		Tx: unix.XDPRingOffset{Producer: 103, Consumer: 104, Desc: 105},
		Fr: unix.XDPRingOffset{Producer: 106, Consumer: 107, Desc: 108},
		Cr: unix.XDPRingOffset{Producer: 109, Consumer: 110, Desc: 111},
	}
	if got := widenOffsets(narrow); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// memorySocket is a socket whose kernel is a function in the test: it has no
// file descriptor, so it must not need to be woken.
type memorySocket struct {
	*Socket
	rx, tx     *fakeRing[Desc]
	fill, done *fakeRing[uint64]
}

func newMemorySocket(u *UMEM, size uint32) *memorySocket {
	m := &memorySocket{
		rx: newFakeRing[Desc](size, 0), tx: newFakeRing[Desc](size, 0),
		fill: newFakeRing[uint64](size, 0), done: newFakeRing[uint64](size, 0),
	}
	m.Socket = &Socket{
		umem: u, ledger: u.ledger, fd: -1,
		rx: m.rx.ourConsumer(), tx: m.tx.ourProducer(), fill: m.fill.ourProducer(), done: m.done.ourConsumer(),
	}
	return m
}

// kernel receives n packets of 60 bytes and completes all that was sent.
func (m *memorySocket) kernel(n int) {
	for range n {
		addr, ok := m.fill.consume()
		if !ok || !m.rx.produce(Desc{Addr: addr&^frameMask + Headroom, Len: 60}) {
			return
		}
	}
}

func (m *memorySocket) complete() {
	for {
		d, ok := m.tx.consume()
		if !ok {
			return
		}
		m.done.produce(d.Addr)
	}
}

// memoryRound forwards up to a batch and returns how many.
func memoryRound(m *memorySocket, p *Pool, addrs []uint64, descs []Desc) int {
	n := m.Reap(addrs)
	p.Put(addrs[:n])
	n = p.Get(addrs)
	k := m.Refill(addrs[:n])
	p.Put(addrs[k:n])
	n = m.Receive(descs)
	m.Transmit(descs[:n])
	m.Kick()
	return n
}

// TestSocketKeepsTheLedger runs many rounds under the ledger's eyes.
func TestSocketKeepsTheLedger(t *testing.T) {
	u, err := NewUMEM(UMEMConfig{Parts: 1, FramesPerPart: 300, Debug: true})
	if err != nil {
		t.Fatal(err)
	}
	m := newMemorySocket(u, 128)
	addrs, descs := make([]uint64, 64), make([]Desc, 64)
	moved := 0
	for i := range 200 {
		moved += memoryRound(m, u.Pool(0), addrs, descs)
		m.kernel(i % 70)
		if i%3 != 0 {
			m.complete()
		}
	}
	if moved < 1000 {
		t.Errorf("only %d packets moved", moved)
	}
	if err := u.Close(); err != nil {
		t.Error(err)
	}
}

// TestSocketCatchesDoubleSend sends a packet whose frame is already on the ring.
func TestSocketCatchesDoubleSend(t *testing.T) {
	u := newTestUMEM(t, UMEMConfig{Parts: 1, FramesPerPart: 64, Debug: true})
	m := newMemorySocket(u, 64)
	addrs := make([]uint64, 1)
	u.Pool(0).Get(addrs)
	d := []Desc{{Addr: addrs[0] + Headroom, Len: 60}}
	m.Transmit(d)
	wantPanic(t, "sent twice", func() { m.Transmit(d) })
	wantPanic(t, "used while the kernel had it", func() { m.Refill(addrs) })
}

// TestReapReturnsChunks: the kernel completes a packet under its own address.
func TestReapReturnsChunks(t *testing.T) {
	u := newTestUMEM(t, UMEMConfig{Parts: 1, FramesPerPart: 64})
	m := newMemorySocket(u, 64)
	m.Transmit([]Desc{{Addr: 5*FrameSize + 300, Len: 60}, {Addr: 7*FrameSize + FrameSize - 60, Len: 60}})
	m.complete()
	addrs := make([]uint64, 4)
	if n := m.Reap(addrs); n != 2 || addrs[0] != 5*FrameSize || addrs[1] != 7*FrameSize {
		t.Errorf("reaped %d: %#x", n, addrs[:n])
	}
}

func TestPacketPathDoesNotAllocate(t *testing.T) {
	u := newTestUMEM(t, UMEMConfig{Parts: 1, FramesPerPart: 1024})
	m := newMemorySocket(u, 256)
	addrs, descs := make([]uint64, 64), make([]Desc, 64)
	if n := testing.AllocsPerRun(100, func() {
		memoryRound(m, u.Pool(0), addrs, descs)
		m.kernel(64)
		m.complete()
	}); n != 0 {
		t.Errorf("%v allocations per round", n)
	}
}

// BenchmarkRound is what a batch costs on our side of the rings. The kernel only
// moves indices: its slots are filled once.
func BenchmarkRound(b *testing.B) {
	u := newTestUMEM(b, UMEMConfig{Parts: 1, FramesPerPart: 4096})
	m := newMemorySocket(u, 2048)
	for i := range m.rx.slots {
		m.rx.slots[i] = Desc{Addr: uint64(i)<<frameShift + Headroom, Len: 60}
		m.done.slots[i] = uint64(i)<<frameShift + Headroom
	}
	addrs, descs := make([]uint64, 64), make([]Desc, 64)
	u.Pool(0).Get(make([]uint64, 64)) // those that the first round reaps
	for b.Loop() {
		*m.rx.producer += 64
		*m.done.producer += 64
		if n := memoryRound(m, u.Pool(0), addrs, descs); n != 64 {
			b.Fatalf("%d packets", n)
		}
		*m.tx.consumer = *m.tx.producer
		*m.fill.consumer = *m.fill.producer
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/64, "ns/packet")
}
