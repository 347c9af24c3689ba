package xsk

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"causeway/xsk/bpf"
)

// testFilter takes everything for right's network.
func testFilter(t testing.TB) *bpf.Filter {
	t.Helper()
	f, err := bpf.NewFilter()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if err := f.SetPrefixes([]netip.Prefix{netip.MustParsePrefix("10.77.1.0/24")}); err != nil {
		t.Fatal(err)
	}
	return f
}

func openTestPort(t testing.TB, l *lab, u *UMEM, cfg PortConfig) *Port {
	t.Helper()
	f := testFilter(t)
	var p *Port
	var err error
	l.node.do(func() { p, err = OpenPort(u, f, cfg) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// holdPort is the child of TestRootKilled.
func holdPort(t *testing.T) {
	u, err := NewUMEM(UMEMConfig{Parts: 1, FramesPerPart: 1024})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenPort(u, testFilter(t), PortConfig{Name: "a1", RingSize: 64}); err != nil {
		t.Fatal(err)
	}
	fmt.Println("open")
	time.Sleep(time.Minute)
}

// sendRaw puts n frames of size bytes on an interface of the calling thread's
// namespace, past its IP stack.
func sendRaw(t testing.TB, ifname string, n, size int) {
	t.Helper()
	ifi, err := net.InterfaceByName(ifname)
	if err != nil {
		t.Error(err)
		return
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Error(err)
		return
	}
	defer unix.Close(fd)
	b := make([]byte, size)
	copy(b, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 2, 0x88, 0xb5})
	for range n {
		if err := unix.Sendto(fd, b, 0, &unix.SockaddrLinklayer{Ifindex: ifi.Index}); err != nil {
			t.Error(err)
			return
		}
	}
}

// TestRootPort opens a port with the steering program on it and looks at what
// reaches the sockets and what the kernel keeps.
func TestRootPort(t *testing.T) {
	for _, mode := range []Mode{ModeAuto, ModeCopy, ModeGeneric} {
		t.Run(mode.String(), func(t *testing.T) {
			l := newLab(t, 2, 1)
			u := newTestUMEM(t, UMEMConfig{Parts: 1, FramesPerPart: 1024})
			p := openTestPort(t, l, u, PortConfig{Name: "a1", Mode: mode, RingSize: 128})
			want := ModeCopy // veth has no zero-copy
			if mode == ModeGeneric {
				want = ModeGeneric
			}
			got, why := p.Mode()
			if got != want || (mode == ModeAuto) != errors.Is(why, ErrNotSupported) {
				t.Errorf("mode %v because of %v, want %v", got, why, want)
			}
			if p.Name() != "a1" || p.Ifindex() == 0 || len(p.Sockets()) != 2 || p.Sockets()[1].Queue() != 1 {
				t.Errorf("port %+v", p)
			}
			addrs := make([]uint64, 128)
			for _, s := range p.Sockets() {
				s.Refill(addrs[:u.Pool(0).Get(addrs)])
			}
			l.node.run(t, "ip", "addr", "add", "10.77.0.9/24", "dev", "a1")
			l.left.run(t, "ping", "-c", "1", "-W", "2", "10.77.0.9") // the kernel's
			l.left.run(t, "ip", "route", "add", "10.77.1.0/24", "via", "10.77.0.9")
			l.left.do(func() {
				for port := range 20 {
					c, err := net.Dial("udp4", fmt.Sprintf("10.77.1.5:%d", 1000+port))
					if err != nil {
						t.Error(err)
						return
					}
					_, _ = c.Write([]byte("to the worker"))
					c.Close()
				}
			})
			received := 0
			eventually(t, "20 packets", func() bool {
				descs := make([]Desc, 64)
				for _, s := range p.Sockets() {
					received += s.Receive(descs)
				}
				return received == 20
			})
			counts, err := p.Steered()
			if err != nil || counts[bpf.Prefix] != 20 || counts[bpf.Other] == 0 || counts[bpf.NoSocket] != 0 {
				t.Errorf("steered %v, %v", counts, err)
			}
			// Closed, it leaves nothing behind: the next one opens.
			if err := p.Close(); err != nil {
				t.Error(err)
			}
			openTestPort(t, l, u, PortConfig{Name: "a1", Mode: mode, RingSize: 128})
		})
	}
}

// TestRootPortRefuses checks that what cannot work is said, with a way out, and
// that nothing stays behind.
func TestRootPortRefuses(t *testing.T) {
	l := newLab(t, 4, 1)
	l.node.run(t, "ip", "link", "add", "big", "mtu", "9000", "type", "veth", "peer", "name", "big0")
	l.node.run(t, "ip", "link", "add", "deaf", "numrxqueues", "4", "numtxqueues", "2", "type", "veth",
		"peer", "name", "deaf0", "numrxqueues", "2", "numtxqueues", "2")
	u := newTestUMEM(t, UMEMConfig{Parts: 1, FramesPerPart: 1024})
	f := testFilter(t)
	for _, c := range []struct {
		cfg  PortConfig
		want []string
	}{
		{PortConfig{Name: "nope"}, []string{"port nope", "ip link"}},
		{PortConfig{Name: "a1"}, []string{"ring size 2048", "only 1024 frames"}},
		{PortConfig{Name: "a1", RingSize: 100}, []string{"take 64 or 128"}},
		{PortConfig{Name: "a1", RingSize: 64, Queues: []int{0, 1}}, []string{"queue 2, 3 would be without a worker", "ethtool -L a1 combined 2"}},
		{PortConfig{Name: "a1", RingSize: 64, Queues: []int{0, 1, 2, 3, 4}}, []string{"queue 4", "queues 0 to 3", "ethtool -L a1 combined 5"}},
		{PortConfig{Name: "a1", RingSize: 64, Queues: []int{-1}}, []string{"queue -1"}},
		{PortConfig{Name: "a1", RingSize: 64, Queues: []int{0, 1, 1, 2, 3}}, []string{"queue 1 is listed twice"}},
		{PortConfig{Name: "a1", RingSize: 64, Mode: ModeZeroCopy}, []string{"zero-copy", "not supported by the driver of a1", "veth"}},
		{PortConfig{Name: "big", RingSize: 64}, []string{"mtu 9000", "up to 1726", "ip link set big mtu 1500"}},
		{PortConfig{Name: "deaf", RingSize: 64}, []string{"queue 3 receives but cannot send", "ethtool -L deaf rx 2 tx 2"}},
	} {
		var p *Port
		var err error
		l.node.do(func() { p, err = OpenPort(u, f, c.cfg) })
		if err == nil {
			t.Errorf("%+v: accepted", c.cfg)
			_ = p.Close()
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%+v: %q does not say %q", c.cfg, err, want)
			}
		}
	}
	if len(u.sockets) != 0 {
		t.Errorf("%d sockets stayed open", len(u.sockets))
	}
	p := openTestPort(t, l, u, PortConfig{Name: "a1", RingSize: 64, Queues: []int{3, 1, 0, 2}})
	for q, s := range p.Sockets() {
		if s.Queue() != q {
			t.Errorf("socket %d is of queue %d", q, s.Queue())
		}
	}
	var err error
	l.node.do(func() { _, err = OpenPort(u, f, PortConfig{Name: "a1", RingSize: 64}) })
	if !errors.Is(err, bpf.ErrOccupied) {
		t.Errorf("a second port on the interface: %v", err)
	}
}

// TestRootPoll sleeps, wakes on a packet, and does not allocate.
func TestRootPoll(t *testing.T) {
	r := newLab(t, 1, 1)
	u := newTestUMEM(t, UMEMConfig{Parts: 1, FramesPerPart: 1024})
	b := r.open(t, u, "b1", 1, SocketConfig{RingSize: 64})
	defer b[0].Close()
	lnk := r.redirect(t, "b1", false, b)
	defer lnk.Close()
	addrs := make([]uint64, 64)
	u.Pool(0).Get(addrs)
	b[0].Refill(addrs)
	set := PollSet(b)
	begin := time.Now()
	if n, err := Poll(set, 30*time.Millisecond); n != 0 || err != nil || time.Since(begin) < 30*time.Millisecond {
		t.Errorf("%d, %v after %v", n, err, time.Since(begin))
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		time.Sleep(50 * time.Millisecond)
		r.right.do(func() { sendRaw(t, "b0", 1, 60) })
	}()
	eventually(t, "the packet ends the sleep", func() bool { // which a signal may end as well
		begin = time.Now()
		n, err := Poll(set, 5*time.Second)
		return n == 1 && err == nil
	})
	if slept := time.Since(begin); slept > 4*time.Second {
		t.Errorf("slept %v over a packet", slept)
	}
	<-sent
	descs := make([]Desc, 64)
	if n := testing.AllocsPerRun(20, func() {
		_, _ = Poll(set, 0)
		k := b[0].Receive(descs)
		b[0].Transmit(descs[:k])
		b[0].Kick()
		b[0].Refill(addrs[:b[0].Reap(addrs)])
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestRootProbe reads the table for an interface whose driver is known.
func TestRootProbe(t *testing.T) {
	l := newLab(t, 1, 1)
	var table []Capability
	var err error
	l.node.do(func() { table, err = Probe("a1") })
	if err != nil {
		t.Fatal(err)
	}
	// Running this test at all takes the first three.
	want := map[string]bool{"af-xdp": true, "need-wakeup": true, "shared-umem": true, "native-xdp": true, "zero-copy": false}
	for _, c := range table {
		t.Logf("%-12s %-7s %-5v %v", c.Name, c.Since, c.Supported, c.Err)
		if w, known := want[c.Name]; known && w != c.Supported {
			t.Errorf("%s: supported %v: %v", c.Name, c.Supported, c.Err)
		}
		delete(want, c.Name)
		var typed *NotSupportedError
		if c.Supported != (c.Err == nil) || errors.Is(c.Err, ErrNotSupported) != errors.As(c.Err, &typed) {
			t.Errorf("%s: %v, %v", c.Name, c.Supported, c.Err)
		}
	}
	if len(want) != 0 {
		t.Errorf("missing rows: %v", want)
	}
	l.node.do(func() { _, err = Probe("nope") })
	if err == nil {
		t.Error("an interface that does not exist was probed")
	}
}

func TestRootInterface(t *testing.T) {
	l := newLab(t, 3, 1)
	var ifi *Interface
	var err error
	l.node.do(func() { ifi, err = LookupInterface("a1") })
	if err != nil || ifi.RxQueues != 3 || ifi.TxQueues != 3 || ifi.Driver != "veth" || ifi.MTU != 1500 {
		t.Errorf("%+v, %v", ifi, err)
	}
	l.node.do(func() { ifi, err = LookupInterface("lo") }) // answers no ethtool question
	if err != nil || ifi.RxQueues != 1 || ifi.TxQueues != 1 {
		t.Errorf("%+v, %v", ifi, err)
	}
}
