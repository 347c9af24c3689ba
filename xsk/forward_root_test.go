package xsk

import (
	"fmt"
	"sync/atomic"
	"testing"
)

// TestRootForward carries real traffic of two kernel stacks through two ports
// that share one UMEM, with the ledger watching every frame.
func TestRootForward(t *testing.T) {
	for _, c := range []rigConfig{
		{queuesA: 1, queuesB: 1, workers: 1},
		{queuesA: 2, queuesB: 2, workers: 1},
		{queuesA: 2, queuesB: 2, workers: 2},
		{queuesA: 4, queuesB: 4, workers: 2},
		{queuesA: 4, queuesB: 2, workers: 2},
		{queuesA: 1, queuesB: 4, workers: 1},
		{queuesA: 2, queuesB: 2, workers: 1, generic: true},
		{queuesA: 2, queuesB: 1, workers: 1, busyPoll: true},
	} {
		name := fmt.Sprintf("%d-%d queues, %d workers", c.queuesA, c.queuesB, c.workers)
		if c.generic {
			name += ", generic"
		}
		if c.busyPoll {
			name += ", busy poll"
		}
		t.Run(name, func(t *testing.T) { testForward(t, c) })
	}
}

func testForward(t *testing.T, c rigConfig) {
	r := newRig(t, c)
	const flows, count = 64, 20
	if got := r.echo(t, flows, count, 1000); got != flows*count {
		t.Errorf("%d of %d datagrams came back", got, flows*count)
	}
	for _, side := range [][]*Socket{r.a, r.b} {
		for _, s := range side {
			st := s.Stats()
			if st.KernelUnknown || st.RxDropped+st.RxInvalid+st.TxInvalid+st.OtherErrors+st.Gone+st.LinkDown != 0 {
				t.Errorf("%s queue %d: %+v", s.Interface(), s.Queue(), st)
			}
			// Behind the driver, veth puts every packet on queue 0.
			if received(s) == 0 && (!c.generic || s.Queue() == 0) {
				t.Errorf("%s queue %d received nothing: 64 flows must reach every queue", s.Interface(), s.Queue())
			}
		}
	}
	r.transfer(t, 4<<20)
	for _, w := range r.workers {
		if w.moved.Load() == 0 {
			t.Error("a worker moved nothing")
		}
	}
}

// received is how many packets the socket's worker took, from the ring's own index.
func received(s *Socket) uint32 { return atomic.LoadUint32(s.rx.ours) }
