package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"time"

	"causeway/crypto/aesgcm"
	"causeway/crypto/esp"
	"causeway/pipeline"
	"causeway/xsk"
)

// The esp scenario drives the daemon's own worker over memory through IPsec tunnels with AES-128-GCM, every check on, the
// replay window of 1,024 packets too. A packet can be opened only once, so before each pass all frames are filled anew by
// customers at random, who have associations of their own; only the pass is timed. What the port itself costs is measured as in the
// pipeline scenario, and taken off. The cases with one association stand beside DPDK's ipsec-secgw (secgw.go).

// espFrames is how many frames a pass takes: with 1400 bytes inside they fit an L2 cache of 1 MiB.
const espFrames = 512

type espCase struct {
	kind string // encap, decap
	size int    // inner IP packet
	sas  int
	goal float64
}

func (c espCase) name() string {
	return fmt.Sprintf("esp/%s/aes128gcm16/%dB/sas=%d", c.kind, c.size, c.sas)
}

// espCases have the goals for a machine like that of baselines.md, an AMD Zen 5.
func espCases() []espCase {
	return []espCase{
		{"encap", 64, 1, 50}, {"encap", 1400, 1, 105}, {"encap", 64, 1000, 70}, {"encap", 1400, 1000, 140}, {"encap", 64, 10000, 0}, {"encap", 1400, 10000, 0},
		{"decap", 64, 1, 60}, {"decap", 1400, 1, 115}, {"decap", 64, 1000, 0}, {"decap", 1400, 1000, 0}, {"decap", 64, 10000, 0}, {"decap", 1400, 10000, 0},
	}
}

func espScenario(o options, report func(Result)) error {
	rival := newSecgw(o.quick)
	err := measureEach(espCases(), o, report, func(c espCase, quick bool) (Result, error) {
		r, err := measureESP(c, quick)
		if err == nil {
			err = rival.compare(c, &r)
		}
		return r, err
	})
	if errors.Is(err, errInterrupted) {
		return err
	}
	return errors.Join(
		err,
		measureEach(espAttacks(), o, report, measureAttack),
		espCoresScenario(o, report))
}

// An espCustomer is the other end of a tunnel.
type espCustomer struct {
	in  *esp.Inbound
	out *esp.Outbound
}

// espWorld is the node that is measured, with its customers.
type espWorld struct {
	*world
	vault     *aesgcm.Vault
	customers []espCustomer
	sealer    *esp.Sealer // of all customers
	kinds     []espPacket // packets to draw from
	payload   []byte      // of all of them
	chosen    []int       // instead of drawing: these in turn
	drawn     [espFrames]uint16
	port      *stage
}

// An espPacket is an inner packet without its payload.
type espPacket struct {
	tunnel int
	outer  []byte // link and outer header, where it comes in ESP
	inner  [20]byte
}

func newESPWorld(c espCase, u *xsk.UMEM, stages ...*stage) (*espWorld, error) {
	w := &espWorld{vault: aesgcm.NewVault(aesgcm.Options{Unlocked: true}), port: stages[0]}
	ivs := func(writer uint32) (*esp.IVSource, error) {
		s, err := esp.NewIVSource(writer, 0)
		if err == nil {
			s.Reserve(1 << 44)
		}
		return s, err
	}
	theirs, err := ivs(1)
	if err != nil {
		return nil, err
	}
	ours, err := ivs(2)
	if err != nil {
		return nil, err
	}
	w.sealer = esp.NewSealer(theirs)
	p := pipelineCase{kind: c.kind, size: c.size, tunnels: c.sas, routes: 10}
	var queues []pipeline.Queue
	for _, q := range stages {
		queues = append(queues, q)
	}
	w.world, err = newWorldWith(p, queues, u, ours, w.associate)
	return w, err
}

// associate makes the tunnels of a specification IPsec ones, and their customers.
func (w *espWorld) associate(s *pipeline.Spec) error {
	rng := rand.New(rand.NewPCG(3, 3))
	for i := range s.Tunnels {
		t := &s.Tunnels[i]
		params := func(spi int) esp.Params {
			return esp.Params{SPI: uint32(spi), Suite: esp.AES128GCM16, Key: random(rng, esp.AES128GCM16.KeySize())}
		}
		up, down := params(0x10000+i), params(0x20000+i)
		ourIn, err := esp.NewInbound(w.vault, up, 1024)
		if err != nil {
			return err
		}
		ourOut, err := esp.NewOutbound(w.vault, down, 1)
		if err != nil {
			return err
		}
		var c espCustomer
		if c.in, err = esp.NewInbound(w.vault, down, 0); err != nil {
			return err
		}
		if c.out, err = esp.NewOutbound(w.vault, up, 1); err != nil {
			return err
		}
		ourOut.Mark(1 << 32)
		c.out.Mark(1 << 32)
		w.customers = append(w.customers, c)
		t.SA = &pipeline.SASpec{Inbound: []*esp.Inbound{ourIn}, Outbound: ourOut}
		t.MTU = esp.AES128GCM16.MaxText(1500 - t.Overhead())
	}
	return nil
}

// packets makes the packets to draw from: of one customer, or several of each.
func (w *espWorld) packets(c espCase) {
	for k := range max(espFrames, 2*c.sas) {
		i := k % c.sas
		src, dst := w.covered(), hostIn(inside(i), w.rng)
		if c.kind == "decap" {
			src, dst = dst, src
		}
		inner := udpPacket(src, dst, c.size)
		w.payload = inner[20:]
		outer := []byte(nil)
		if c.kind == "decap" {
			length := esp.AES128GCM16.PacketLen(c.size)
			outer = ipv4(customer(i), endpoint, 50, 64, true, 0, make([]byte, length))[:20]
		}
		w.kinds = append(w.kinds, espPacket{tunnel: i, outer: ethernet(hopMAC, ownMAC, outer), inner: [20]byte(inner)})
	}
}

// fill puts a packet that nobody has seen, of a customer at random, into each frame. It allocates nothing, so that no garbage
// is collected meanwhile.
func (w *espWorld) fill(c espCase) error {
	for i := range w.drawn {
		n := w.rng.IntN(len(w.kinds))
		if w.chosen != nil {
			n = w.chosen[i%len(w.chosen)]
		}
		w.drawn[i] = uint16(n)
		p := &w.kinds[n]
		f := w.port.frame(i)
		start := xsk.Headroom + copy(f[xsk.Headroom:], p.outer)
		if c.kind == "decap" {
			start += esp.AES128GCM16.Before()
		}
		end := start + copy(f[start:], p.inner[:])
		end += copy(f[end:], w.payload)
		if c.kind == "encap" {
			w.port.descs[i].Len = uint32(end - xsk.Headroom)
			continue
		}
		_, to, v := w.sealer.Add(w.customers[p.tunnel].out, f, start, end, esp.NextIPv4)
		if v != esp.OK {
			return fmt.Errorf("a customer cannot seal: %v", v)
		}
		if w.sealer.Full() {
			w.sealer.Seal()
		}
		w.port.descs[i].Len = uint32(to - xsk.Headroom)
	}
	w.sealer.Seal()
	w.port.rewind()
	return nil
}

// pass sends all frames through the worker once, and returns ns per packet.
func (w *espWorld) pass(c espCase) (float64, error) {
	if err := w.fill(c); err != nil {
		return 0, err
	}
	ns := w.time()
	if got := len(w.port.sent); got != espFrames {
		return 0, fmt.Errorf("%d of %d frames came out: %+v", got, espFrames, dropped(w.engine))
	}
	return ns, nil
}

// time lets the worker take all frames, and returns ns per packet.
func (w *espWorld) time() float64 {
	start := time.Now()
	w.drive()
	return float64(time.Since(start).Nanoseconds()) / espFrames
}

// drive lets the worker take all frames.
func (w *espWorld) drive() {
	for n := 0; n < espFrames; {
		n += w.engine.Poll(0)
	}
}

// verify compares every frame of the last pass with what must have become of it.
func (w *espWorld) verify(c espCase, u *xsk.UMEM) error {
	want := map[string]int{}
	for _, n := range w.drawn {
		p := &w.kinds[n]
		want[fmt.Sprint(p.tunnel, string(hopped(append(p.inner[:], w.payload...))))]++
	}
	tunnels := map[netip.Addr]int{}
	for i := range w.customers {
		tunnels[customer(i)] = i
	}
	for _, d := range w.port.sent {
		frame := u.Bytes()[d.Addr : d.Addr+uint64(d.Len)]
		var key string
		if c.kind == "decap" {
			src, _ := netip.AddrFromSlice(frame[26:30])
			b := src.As4()
			key = fmt.Sprint(int(b[1])<<8|int(b[2]), string(frame[14:])) // inside
			if !bytes.Equal(frame[:14], ethernet(ownMAC, hopMAC, nil)) {
				return fmt.Errorf("a frame with a wrong link header: %x", frame[:14])
			}
		} else {
			i := tunnels[netip.AddrFrom4([4]byte(frame[30:34]))]
			outer := ipv4(endpoint, customer(i), 50, 64, true, 0, make([]byte, len(frame)-34))[:20]
			if !bytes.Equal(frame[:34], ethernet(ownMAC, hopMAC, outer)) {
				return fmt.Errorf("a frame with wrong outer headers: %x", frame[:34])
			}
			inner, err := opened(w.customers[i].in, frame[34:])
			if err != nil {
				return err
			}
			key = fmt.Sprint(i, string(inner))
		}
		if want[key] == 0 {
			return fmt.Errorf("a frame left that was not expected: %x", frame)
		}
		want[key]--
	}
	return nil
}

// opened returns what is inside of an ESP packet, which stays as it is, as the customer sees it.
func opened(in *esp.Inbound, packet []byte) ([]byte, error) {
	var o esp.Opener
	o.Reset()
	packet = bytes.Clone(packet)
	if v := o.Add(in, packet); v != esp.OK {
		return nil, fmt.Errorf("the customer finds a packet %v", v)
	}
	o.Open()
	from, to, _, v := o.Result(0)
	if v != esp.OK {
		return nil, fmt.Errorf("the customer finds a packet %v", v)
	}
	return packet[from:to], nil
}

// hopped is an IPv4 packet one hop later.
func hopped(ip []byte) []byte {
	next := bytes.Clone(ip)
	next[8]--
	next[10], next[11] = 0, 0
	binary.BigEndian.PutUint16(next[10:], checksum(next[:20]))
	return next
}

func measureESP(c espCase, quick bool) (Result, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	u, err := xsk.NewUMEM(xsk.UMEMConfig{Parts: 1, FramesPerPart: espFrames, HugePages: true})
	if err != nil {
		return Result{}, err
	}
	defer u.Close()
	q := newStage(u, 0, espFrames)
	w, err := newESPWorld(c, u, q)
	if err != nil {
		return Result{}, err
	}
	w.packets(c)
	n, passes := 15, 200
	if quick {
		n, passes = 1, 2
	}
	var failed error
	m := rounds(n,
		leastOf(passes, &failed, func() (float64, error) { return w.pass(c) }),
		leastOf(passes, &failed, func() (float64, error) { return q.bare(w.fill(c)) }))
	if failed != nil {
		return Result{}, failed
	}
	if err := w.fill(c); err != nil {
		return Result{}, err
	}
	allocs := allocations(func() { w.drive() })
	if err := errors.Join(w.verify(c, u), w.vault.Close()); err != nil {
		return Result{}, err
	}
	ns := m.a - m.b
	return Result{Name: c.name(), PPS: 1e9 / ns, NS: ns, BestNS: m.bestA - m.bestB, Spread: m.spread, Against: "bare rewrite loop", AgainstNS: m.b,
		Ratio: m.a / m.b, GoalNS: c.goal, Allocs: allocs}, nil
}

// stage is a port in memory whose frames are filled from outside and received once.
type stage struct {
	umem  []byte
	descs []xsk.Desc // one for each frame
	next  int        // to be received
	sent  []xsk.Desc
	done  int      // reaped
	_     [64]byte // the next stage is another core's
}

// newStage makes a stage of frames of a part of the UMEM.
func newStage(u *xsk.UMEM, part, frames int) *stage {
	s := &stage{umem: u.Bytes(), sent: make([]xsk.Desc, 0, 2*frames)}
	pool := u.Pool(part)
	for range frames {
		var one [1]uint64
		if pool.Get(one[:]) == 0 {
			panic("bench: the UMEM is smaller than the stage")
		}
		s.descs = append(s.descs, xsk.Desc{Addr: one[0] + xsk.Headroom})
	}
	s.next = frames // nothing to receive before rewind
	return s
}

func (s *stage) frame(i int) []byte {
	start := s.descs[i].Addr - xsk.Headroom
	return s.umem[start : start+xsk.FrameSize]
}

func (s *stage) rewind() { s.next, s.done, s.sent = 0, 0, s.sent[:0] }

func (s *stage) left() int { return len(s.descs) - s.next }

func (s *stage) Receive(d []xsk.Desc) int {
	n := copy(d, s.descs[s.next:])
	s.next += n
	return n
}

func (s *stage) Transmit(d []xsk.Desc) int {
	s.sent = append(s.sent, d...)
	return len(d)
}

func (s *stage) Kick() {}

func (s *stage) Reap(addrs []uint64) int {
	n := min(len(addrs), len(s.sent)-s.done)
	for i := range n {
		addrs[i] = s.sent[s.done+i].Addr &^ (xsk.FrameSize - 1)
	}
	s.done += n
	return n
}

func (s *stage) Refill(addrs []uint64) int { return len(addrs) }

// bare is the least that a forwarder does with what is on the stage.
func (s *stage) bare(err error) (float64, error) {
	if err != nil {
		return 0, err
	}
	var descs [pipeline.BatchSize]xsk.Desc
	var addrs [pipeline.BatchSize]uint64
	start := time.Now()
	for s.left() > 0 {
		n := s.Receive(descs[:])
		for i := range descs[:n] {
			h := s.umem[descs[i].Addr:][:14]
			copy(h, hopMAC[:])
			copy(h[6:], ownMAC[:])
		}
		s.Transmit(descs[:n])
		s.Kick()
		s.Refill(addrs[:s.Reap(addrs[:])])
	}
	return float64(time.Since(start).Nanoseconds()) / float64(len(s.descs)), nil
}
