package xsk

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// frame writes a broadcast frame of size bytes into the frame at addr and
// returns its descriptor. Only counters ever look at it.
func frame(u *UMEM, addr uint64, size uint32) Desc {
	d := Desc{Addr: addr + Headroom, Len: size}
	b := u.Bytes()[d.Addr:][:size]
	clear(b)
	copy(b, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x88, 0xb5}) // local experimental EtherType
	return d
}

// arrived is the number of packets that an interface of the namespace received.
func (ns *namespace) arrived(t *testing.T, ifname string) (packets int) {
	t.Helper()
	ns.do(func() {
		f, err := os.Open("/proc/thread-self/net/dev")
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		for sc := bufio.NewScanner(f); sc.Scan(); {
			if name, rest, ok := strings.Cut(strings.TrimSpace(sc.Text()), ":"); ok && name == ifname {
				var bytes int
				_, _ = fmt.Sscan(rest, &bytes, &packets)
			}
		}
	})
	return packets
}

// sender is one socket on b1 with n packets in hand.
func sender(t *testing.T, n int) (*lab, *UMEM, *Socket, []Desc) {
	t.Helper()
	l := newLab(t, 1, 1)
	u := newTestUMEM(t, UMEMConfig{Parts: 1, FramesPerPart: 1024, Debug: true})
	s := l.open(t, u, "b1", 1, SocketConfig{RingSize: 512})[0]
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	addrs, descs := make([]uint64, n), make([]Desc, n)
	u.Pool(0).Get(addrs)
	for i := range descs {
		descs[i] = frame(u, addrs[i], 60)
	}
	return l, u, s, descs
}

// TestRootKickRepeats sends more than the kernel takes in one call.
func TestRootKickRepeats(t *testing.T) {
	for _, n := range []int{1, 32, 33, 64, 300} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			l, u, s, descs := sender(t, n)
			// The kernel's own limit, which kernels before 6.17 do not let us raise.
			_ = unix.SetsockoptInt(s.FD(), unix.SOL_XDP, unix.XDP_MAX_TX_SKB_BUDGET, kernelBatch)
			before := l.right.arrived(t, "b0")
			if got := s.Transmit(descs); got != n {
				t.Fatalf("the TX ring took %d of %d", got, n)
			}
			s.Kick() // once
			eventually(t, "all arrive", func() bool { return l.right.arrived(t, "b0")-before == n })
			st := s.Stats()
			if want := uint64((n - 1) / kernelBatch); st.Again < want || st.Again > want+1 {
				t.Errorf("%d repeats for %d packets, want %d", st.Again, n, want)
			}
			if st.TxLevel != 0 || st.Stalled != 0 {
				t.Errorf("%+v", st)
			}
			back := make([]uint64, n)
			got := 0
			eventually(t, "all complete", func() bool { got += s.Reap(back[got:]); return got == n })
			u.Pool(0).Put(back)
			kicks := s.Stats().Kicks
			s.Kick()
			if s.Stats().Kicks != kicks {
				t.Error("a system call with nothing to send")
			}
		})
	}
}

// TestRootKickOnFullCompletionRing must come back, and go on after a Reap.
func TestRootKickOnFullCompletionRing(t *testing.T) {
	l, _, s, descs := sender(t, 1024)
	before := l.right.arrived(t, "b0")
	sent := 0
	for range 4 { // 512 fit into the completion ring; nobody reaps
		sent += s.Transmit(descs[sent:])
		s.Kick()
	}
	if st := s.Stats(); sent != 1024 || st.Stalled == 0 || st.TxLevel != 512 {
		t.Fatalf("%d sent, %+v", sent, st)
	}
	back := make([]uint64, 1024)
	got := 0
	eventually(t, "the rest after reaping", func() bool {
		got += s.Reap(back[got:])
		s.Kick()
		return got == 1024 && l.right.arrived(t, "b0")-before == 1024
	})
}

// TestRootLinkDownAndUp cuts each link in turn under traffic.
func TestRootLinkDownAndUp(t *testing.T) {
	r := newRig(t, rigConfig{queuesA: 2, queuesB: 2, workers: 2})
	if got := r.echo(t, 8, 5, 500); got != 40 {
		t.Fatalf("%d of 40 before", got)
	}
	for _, cut := range []struct {
		ns     *namespace
		ifname string
	}{{r.node, "b1"}, {r.node, "a1"}, {r.right, "b0"}} {
		cut.ns.run(t, "ip", "link", "set", cut.ifname, "down")
		r.echo(t, 8, 1, 500)
		if cut.ifname == "b1" {
			down := uint64(0)
			for _, s := range r.b {
				st := s.Stats()
				down += st.LinkDown
				if st.LinkDown > 0 && st.LastErrno != unix.ENETDOWN {
					t.Errorf("last error %v", st.LastErrno)
				}
			}
			if down == 0 {
				t.Error("kicks on a link that is down were not counted")
			}
		}
		cut.ns.run(t, "ip", "link", "set", cut.ifname, "up")
		eventually(t, "traffic after "+cut.ifname+" is up again", func() bool { return r.echo(t, 1, 1, 500) == 1 })
		if got := r.echo(t, 8, 5, 500); got != 40 {
			t.Errorf("%s: %d of 40 after", cut.ifname, got)
		}
	}
}

// TestRootInterfaceRemoved deletes the interface under its socket: the loss is
// counted, and a new socket can do without it.
func TestRootInterfaceRemoved(t *testing.T) {
	l, u, s, descs := sender(t, 64)
	l.node.run(t, "ip", "link", "del", "b1")
	s.Transmit(descs)
	eventually(t, "the loss is counted", func() bool {
		s.Kick()
		s.Receive(make([]Desc, 1))
		st := s.Stats()
		return st.Gone+st.LinkDown > 0
	})
	for _, a := range l.open(t, u, "a1", 1, SocketConfig{RingSize: 64}) {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestRootReopen closes and opens the same queues in one process, which works
// only if no ring stays mapped and binding waits for the queue to drain.
func TestRootReopen(t *testing.T) {
	cfg := rigConfig{queuesA: 2, queuesB: 2, workers: 1, ringSize: 64}
	r := newRig(t, cfg)
	for i := range 4 {
		if got := r.echo(t, 4, 5, 200); got != 20 {
			t.Errorf("round %d: %d of 20", i, got)
		}
		if i < 3 {
			r.stop(t)
			r.umemAgain(t)
			r.start(t, cfg)
		}
	}
}

// umemAgain replaces the UMEM: the frames that the kernel held went with the
// sockets.
func (r *rig) umemAgain(t *testing.T) {
	t.Helper()
	size := UMEMConfig{Parts: r.umem.Parts(), FramesPerPart: r.umem.FramesPerPart(), Debug: true}
	if err := r.umem.Close(); err != nil {
		t.Error(err)
	}
	var err error
	if r.umem, err = NewUMEM(size); err != nil {
		t.Fatal(err)
	}
}

// TestRootQueueTaken gives up after a second, with the reason.
func TestRootQueueTaken(t *testing.T) {
	l, _, _, _ := sender(t, 1)
	other := newTestUMEM(t, UMEMConfig{Parts: 1, FramesPerPart: 1024})
	begin := time.Now()
	var err error
	l.node.do(func() { _, err = OpenSocket(other, SocketConfig{Interface: "b1", RingSize: 64}) })
	if !errors.Is(err, unix.EBUSY) || !strings.Contains(err.Error(), "another AF_XDP socket holds the queue") {
		t.Errorf("got %v", err)
	}
	if took := time.Since(begin); took < busyPatience || took > 3*busyPatience {
		t.Errorf("gave up after %v, want about %v", took, busyPatience)
	}
}

// TestRootKilled kills a process that has the port open: the interface works
// at once as if it had never been there, and the port opens again.
func TestRootKilled(t *testing.T) {
	if os.Getenv("XSK_TEST_CHILD") != "" {
		holdPort(t)
		return
	}
	l := newLab(t, 2, 2)
	var child *exec.Cmd
	l.node.do(func() {
		child = exec.Command(os.Args[0], "-test.run=^TestRootKilled$", "-test.v")
		child.Env = append(os.Environ(), "XSK_TEST_CHILD=1")
		out, err := child.StdoutPipe()
		if err == nil {
			err = child.Start()
		}
		if err != nil {
			t.Error(err)
			return
		}
		for sc := bufio.NewScanner(out); sc.Scan(); {
			if sc.Text() == "open" {
				return
			}
		}
		t.Error("the child never opened the port")
	})
	if t.Failed() {
		t.FailNow()
	}
	l.node.run(t, "ip", "addr", "add", "10.77.0.9/24", "dev", "a1")
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait()
	l.left.run(t, "ping", "-c", "1", "-W", "2", "10.77.0.9")
	u := newTestUMEM(t, UMEMConfig{Parts: 1, FramesPerPart: 1024})
	p := openTestPort(t, l, u, PortConfig{Name: "a1", RingSize: 64})
	if len(p.Sockets()) != 2 {
		t.Errorf("%d sockets", len(p.Sockets()))
	}
}

// TestRootStatistics makes the kernel drop for each of its reasons.
func TestRootStatistics(t *testing.T) {
	l := newLab(t, 1, 1)
	u := newTestUMEM(t, UMEMConfig{Parts: 1, FramesPerPart: 1024})
	sc := SocketConfig{RingSize: 64}
	a, b := l.open(t, u, "a1", 1, sc)[0], l.open(t, u, "b1", 1, sc)[0]
	defer a.Close()
	defer b.Close()
	lnk := l.redirect(t, "b1", false, []*Socket{b})
	defer lnk.Close()
	send := func(n int) {
		l.right.do(func() { sendRaw(t, "b0", n, 60) })
	}
	send(5)
	eventually(t, "an empty fill ring is counted", func() bool { return b.Stats().RxFillEmpty >= 5 })

	addrs := make([]uint64, 64)
	u.Pool(0).Get(addrs)
	b.Refill(addrs)
	send(64)
	eventually(t, "a full RX ring", func() bool { return b.Stats().RxLevel == 64 })
	u.Pool(0).Get(addrs)
	b.Refill(addrs)
	send(10)
	eventually(t, "a full RX ring is counted", func() bool { return b.Stats().RxRingFull >= 10 })

	good := frame(u, 0, 60)
	a.Transmit([]Desc{{Addr: good.Addr, Len: FrameSize}, good, {Addr: uint64(len(u.Bytes())), Len: 60}})
	// The kernel ends a call at a bad descriptor; the next one goes on behind it.
	eventually(t, "descriptors outside a frame are counted", func() bool {
		a.Kick()
		st := a.Stats()
		return st.TxInvalid == 2 && st.TxLevel == 0
	})

	// The final state survives Close.
	last := b.Stats()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if got := b.Stats(); got.RxRingFull < last.RxRingFull || got.RingSize != 64 {
		t.Errorf("after close: %+v, before: %+v", got, last)
	}
	if err := b.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
}

// TestRootTooLong sends packets that do not fit one frame.
func TestRootTooLong(t *testing.T) {
	l := newLab(t, 1, 1)
	l.node.run(t, "ip", "link", "set", "b1", "mtu", "3000")
	l.right.run(t, "ip", "link", "set", "b0", "mtu", "3000")
	u := newTestUMEM(t, UMEMConfig{Parts: 1, FramesPerPart: 1024})
	b := l.open(t, u, "b1", 1, SocketConfig{RingSize: 64})[0]
	defer b.Close()
	lnk := l.redirect(t, "b1", false, []*Socket{b})
	defer lnk.Close()
	addrs := make([]uint64, 64)
	u.Pool(0).Get(addrs)
	b.Refill(addrs)
	l.right.do(func() { sendRaw(t, "b0", 1, MaxPacket); sendRaw(t, "b0", 3, MaxPacket+1) })
	eventually(t, "long packets are counted", func() bool { return b.Stats().RxDropped == 3 })
	descs := make([]Desc, 8)
	if n := b.Receive(descs); n != 1 || descs[0].Len != MaxPacket || descs[0].Addr%FrameSize != Headroom {
		t.Errorf("%d received, first %+v", n, descs[0])
	}
}
