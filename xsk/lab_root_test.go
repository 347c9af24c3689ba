package xsk

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// The lab: three network namespaces in a row.
//
//	left            node              right
//	10.77.0.1 a0 == a1  [sockets]  b1 == b0 10.77.0.2
//
// left and right are plain kernel stacks. The test's sockets sit on a1 and b1
// and forward frames unchanged, so that for left and right they are a cable.

const (
	leftAddr  = "10.77.0.1"
	rightAddr = "10.77.0.2"
)

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("needs root: makes network namespaces and AF_XDP sockets")
	}
}

// namespace is a thread in a network namespace of its own. Both vanish when the
// test ends.
type namespace struct {
	work chan func()
	path string
}

func newNamespace(t testing.TB) *namespace {
	t.Helper()
	ns := &namespace{work: make(chan func())}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread dies with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		ns.path = fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())
		ready <- err
		for f := range ns.work {
			f()
		}
	}()
	if err := <-ready; err != nil {
		t.Fatalf("network namespace: %v", err)
	}
	t.Cleanup(func() { close(ns.work) })
	return ns
}

// do runs f in the namespace.
func (ns *namespace) do(f func()) {
	done := make(chan struct{})
	ns.work <- func() { defer close(done); f() }
	<-done
}

// run executes a command in the namespace.
func (ns *namespace) run(t testing.TB, args ...string) {
	t.Helper()
	var out []byte
	var err error
	ns.do(func() { out, err = exec.Command(args[0], args[1:]...).CombinedOutput() })
	if err != nil {
		t.Fatalf("%v: %v: %s", args, err, out)
	}
}

type lab struct {
	left, node, right *namespace
}

// newLab makes a1 with queuesA queues and b1 with queuesB.
func newLab(t testing.TB, queuesA, queuesB int) *lab {
	t.Helper()
	needRoot(t)
	l := &lab{left: newNamespace(t), node: newNamespace(t), right: newNamespace(t)}
	for _, ns := range []*namespace{l.left, l.node, l.right} {
		ns.do(func() {
			_ = os.WriteFile("/proc/sys/net/ipv6/conf/all/disable_ipv6", []byte("1"), 0)
			_ = os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0)
		})
		ns.run(t, "ip", "link", "set", "lo", "up")
	}
	l.cable(t, l.left, "a0", leftAddr, "a1", queuesA)
	l.cable(t, l.right, "b0", rightAddr, "b1", queuesB)
	return l
}

func (l *lab) cable(t testing.TB, far *namespace, peer, addr, port string, queues int) {
	t.Helper()
	n := fmt.Sprint(queues)
	l.node.run(t, "ip", "link", "add", port, "numrxqueues", n, "numtxqueues", n, "type", "veth",
		"peer", "name", peer, "numrxqueues", n, "numtxqueues", n)
	l.node.run(t, "ip", "link", "set", peer, "netns", far.path)
	// A stack's partial checksums and large segments do not survive AF_XDP.
	far.run(t, "ethtool", "-K", peer, "tx", "off", "tso", "off", "gso", "off", "txvlan", "off")
	far.run(t, "ip", "addr", "add", addr+"/24", "dev", peer)
	far.run(t, "ip", "link", "set", peer, "up")
	l.node.run(t, "ip", "link", "set", port, "up")
	// The kernel throws away what a stack sends before it has noticed the link.
	far.running(t, peer)
	l.node.running(t, port)
}

// running waits until the kernel calls an interface operational.
func (ns *namespace) running(t testing.TB, ifname string) {
	t.Helper()
	eventually(t, ifname+" is running", func() (up bool) {
		ns.do(func() {
			ifi, err := net.InterfaceByName(ifname)
			up = err == nil && ifi.Flags&net.FlagRunning != 0
		})
		return up
	})
}

// redirect attaches a program that sends everything to the sockets, each to its
// own queue. It is independent of the steering program.
func (l *lab) redirect(t testing.TB, ifname string, generic bool, sockets []*Socket) link.Link {
	t.Helper()
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.XSKMap, KeySize: 4, ValueSize: 4, MaxEntries: 64})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for _, s := range sockets {
		if err := m.Put(uint32(s.Queue()), uint32(s.FD())); err != nil {
			t.Fatal(err)
		}
	}
	const xdpPass, rxQueueIndex = 2, 16
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "GPL", Instructions: asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, rxQueueIndex, asm.Word),
		asm.LoadMapPtr(asm.R1, m.FD()),
		asm.Mov.Imm(asm.R3, xdpPass),
		asm.FnRedirectMap.Call(),
		asm.Return(),
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer prog.Close()
	flags := link.XDPDriverMode
	if generic {
		flags = link.XDPGenericMode
	}
	var lnk link.Link
	l.node.do(func() {
		var ifi *net.Interface
		if ifi, err = net.InterfaceByName(ifname); err == nil {
			lnk, err = link.AttachXDP(link.XDPOptions{Program: prog, Interface: ifi.Index, Flags: flags})
		}
	})
	if err != nil {
		t.Fatalf("redirecting %s: %v", ifname, err)
	}
	return lnk
}

// open opens sockets on queues 0 to n-1 of an interface of the node.
func (l *lab) open(t testing.TB, u *UMEM, ifname string, n int, cfg SocketConfig) []*Socket {
	t.Helper()
	var sockets []*Socket
	var err error
	cfg.Interface = ifname
	l.node.do(func() {
		for cfg.Queue = range n {
			var s *Socket
			if s, err = OpenSocket(u, cfg); err != nil {
				return
			}
			sockets = append(sockets, s)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return sockets
}

// forwarder is a test's worker: what arrives on from leaves on to.
type forwarder struct {
	pool  *Pool
	pairs []pair
	batch int
	stop  atomic.Bool
	done  chan struct{}
	moved atomic.Uint64 // packets put on a TX ring
	lost  atomic.Uint64 // packets that a TX ring had no room for
	sleep bool
}

type pair struct{ from, to *Socket }

// workers joins the queues of a and b and deals them to n forwarders, of which
// forwarder i owns every queue that is i modulo n.
func workers(u *UMEM, n int, a, b []*Socket) []*forwarder {
	var ws []*forwarder
	for i := range n {
		ws = append(ws, &forwarder{pool: u.Pool(i), batch: 64, done: make(chan struct{}), sleep: true})
	}
	join := func(from, to []*Socket) {
		for q, s := range from {
			w := q % n
			// Of the other side's queues, one of the same worker's.
			mine := make([]*Socket, 0, len(to))
			for r := range to {
				if r%n == w {
					mine = append(mine, to[r])
				}
			}
			ws[w].pairs = append(ws[w].pairs, pair{s, mine[q/n%len(mine)]})
		}
	}
	join(a, b)
	join(b, a)
	return ws
}

func (w *forwarder) run() {
	defer close(w.done)
	addrs := make([]uint64, w.batch)
	descs := make([]Desc, w.batch)
	var sockets []*Socket
	for _, p := range w.pairs {
		sockets = append(sockets, p.from)
	}
	set := PollSet(sockets)
	for !w.stop.Load() {
		got := 0
		for _, p := range w.pairs {
			got += w.round(p, addrs, descs)
		}
		if got == 0 && w.sleep {
			_, _ = Poll(set, time.Millisecond)
		}
	}
}

// round is the one in the package documentation. Both sockets of a pair are
// reaped, because a pair may be the only one that sends on to.
func (w *forwarder) round(p pair, addrs []uint64, descs []Desc) int {
	n := p.to.Reap(addrs)
	w.pool.Put(addrs[:n])
	n = w.pool.Get(addrs)
	k := p.from.Refill(addrs[:n])
	w.pool.Put(addrs[k:n])
	n = p.from.Receive(descs)
	k = p.to.Transmit(descs[:n])
	for _, d := range descs[k:n] {
		w.pool.Put([]uint64{d.Addr})
	}
	p.to.Kick()
	w.moved.Add(uint64(k))
	w.lost.Add(uint64(n - k))
	return n
}

// rig is a lab with a UMEM, sockets on both ports, and running forwarders.
type rig struct {
	*lab
	umem    *UMEM
	a, b    []*Socket
	links   []link.Link
	workers []*forwarder
}

type rigConfig struct {
	queuesA, queuesB, workers int
	generic                   bool
	busyPoll                  bool
	ringSize                  uint32
}

func newRig(t testing.TB, cfg rigConfig) *rig {
	t.Helper()
	if cfg.ringSize == 0 {
		cfg.ringSize = 1024
	}
	r := &rig{lab: newLab(t, cfg.queuesA, cfg.queuesB)}
	queuesEach := (max(cfg.queuesA, cfg.queuesB) + cfg.workers - 1) / cfg.workers
	u, err := NewUMEM(UMEMConfig{Parts: cfg.workers, FramesPerPart: 4 * queuesEach * int(cfg.ringSize), Debug: true})
	if err != nil {
		t.Fatal(err)
	}
	r.umem = u
	r.start(t, cfg)
	t.Cleanup(func() { r.close(t) })
	return r
}

func (r *rig) start(t testing.TB, cfg rigConfig) {
	t.Helper()
	sc := SocketConfig{RingSize: cfg.ringSize, BusyPoll: cfg.busyPoll}
	r.a = r.open(t, r.umem, "a1", cfg.queuesA, sc)
	r.b = r.open(t, r.umem, "b1", cfg.queuesB, sc)
	r.workers = workers(r.umem, cfg.workers, r.a, r.b)
	for _, w := range r.workers {
		go w.run()
	}
	for _, s := range slices.Concat(r.a, r.b) {
		eventually(t, "a full fill ring", func() bool { return s.Stats().FillLevel == cfg.ringSize })
	}
	r.links = []link.Link{r.redirect(t, "a1", cfg.generic, r.a), r.redirect(t, "b1", cfg.generic, r.b)}
}

// stop ends the forwarders and closes the sockets, but keeps the UMEM.
func (r *rig) stop(t testing.TB) {
	t.Helper()
	for _, w := range r.workers {
		w.stop.Store(true)
		<-w.done
	}
	for _, l := range r.links {
		if err := l.Close(); err != nil {
			t.Errorf("detach: %v", err)
		}
	}
	for _, s := range slices.Concat(r.a, r.b) {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	r.workers, r.links, r.a, r.b = nil, nil, nil, nil
}

// close also checks that no frame was lost.
func (r *rig) close(t testing.TB) {
	t.Helper()
	r.stop(t)
	if err := r.umem.Close(); err != nil {
		t.Error(err)
	}
}

// echo sends count datagrams on each of flows flows from left to right and back
// and returns how many came back whole. A flow waits for each answer.
func (l *lab) echo(t testing.TB, flows, count, size int) int {
	t.Helper()
	var server *net.UDPConn
	var clients []*net.UDPConn
	var err error
	l.right.do(func() { server, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(rightAddr), Port: 7}) })
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		b := make([]byte, 2048)
		for {
			n, from, err := server.ReadFromUDP(b)
			if err != nil {
				return
			}
			_, _ = server.WriteToUDP(b[:n], from)
		}
	}()
	l.left.do(func() {
		for range flows {
			var c *net.UDPConn
			if c, err = net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.ParseIP(rightAddr), Port: 7}); err != nil {
				return
			}
			clients = append(clients, c)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	answers := make(chan int)
	for i, c := range clients {
		go func() { answers <- ping(c, uint32(i), count, size) }()
	}
	total := 0
	for range clients {
		total += <-answers
	}
	return total
}

// ping returns how many of count datagrams were answered by themselves.
func ping(c *net.UDPConn, flow uint32, count, size int) int {
	defer c.Close()
	out, in := make([]byte, size), make([]byte, 2048)
	good := 0
	for i := range count {
		for j := range out {
			out[j] = byte(i + j)
		}
		binary.BigEndian.PutUint32(out, flow)
		binary.BigEndian.PutUint32(out[4:], uint32(i))
		if _, err := c.Write(out); err != nil {
			continue
		}
		// An answer that missed its deadline may come before this one's.
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		for {
			n, err := c.Read(in)
			if err != nil {
				break
			}
			if string(in[:n]) == string(out) {
				good++
				break
			}
		}
	}
	return good
}

// transfer sends size bytes over TCP from left to right and the digest back.
func (l *lab) transfer(t testing.TB, size int) {
	t.Helper()
	var listener net.Listener
	var conn net.Conn
	var err error
	l.right.do(func() { listener, err = net.Listen("tcp4", rightAddr+":9") })
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		c, err := listener.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		h := sha256.New()
		_, _ = io.CopyN(h, c, int64(size))
		_, _ = c.Write(h.Sum(nil))
	}()
	l.left.do(func() { conn, err = net.DialTimeout("tcp4", rightAddr+":9", 5*time.Second) })
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	block := make([]byte, 64<<10)
	h := sha256.New()
	for sent := 0; sent < size; sent += len(block) {
		for i := range block {
			block[i] = byte(i*7 + sent>>12)
		}
		block = block[:min(len(block), size-sent)]
		h.Write(block)
		if _, err := conn.Write(block); err != nil {
			t.Fatalf("after %d bytes: %v", sent, err)
		}
	}
	digest := make([]byte, sha256.Size)
	if _, err := io.ReadFull(conn, digest); err != nil {
		t.Fatalf("digest: %v", err)
	}
	if string(digest) != string(h.Sum(nil)) {
		t.Fatal("the bytes that arrived are not those that were sent")
	}
}

// eventually waits up to two seconds for a condition.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for range 200 {
		if cond() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("never happened: " + what)
}
