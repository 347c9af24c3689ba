package routes

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"causeway/pipeline"
	"causeway/xsk"
)

// aim says which routes a packet is for. It travels in the packet's source port.
type aim uint8

const (
	aimSteady   aim = iota // routes that never change, though longer ones inside them come and go
	aimMoving              // routes that are replaced all the time
	aimAnywhere            // any route of the table
	aims
)

var aimNames = [aims]string{"steady", "moving", "anywhere"}

const (
	burst      = 128                    // packets that a port offers at a time: two batches of the worker's
	burstEvery = 500 * time.Microsecond // so the worker sleeps between them, and leaves two cores time for all else
	umemFrames = 1024
	fillFrames = 256
)

// tally counts packets by aim and family.
type tally [aims][2]uint64

func (t *tally) add(o *tally) {
	for a := range t {
		for f := range t[a] {
			t[a][f] += o[a][f]
		}
	}
}

// traffic is what the streams of all ports share.
type traffic struct {
	routes [2]int // by family: how many the table has
	began  time.Time
	aims   atomic.Int32 // how many aims are in use, in their order
}

// A stream is one queue of a port in memory, that offers packets as long as the traffic has aims and looks at what
// leaves. It allocates nothing once it runs. Only the worker uses it; its counts are for everybody when the worker has
// stopped.
type stream struct {
	*traffic
	umem       *xsk.UMEM
	port       int
	fill, done []uint64 // frames to receive into, and frames that have left
	tick       time.Duration
	room       int // what may be offered yet in this tick
	random     uint64
	frames     [2][]byte // of each family, without a destination
	sum        uint32    // of that IPv4 header

	offered, left tally
	wrong         uint64 // packets that left by a port that none of their routes leads to, or to another host; not in left
	firstWrong    [62]byte
}

// newTraffic makes an engine of one worker and two such ports. When the test is over every frame must be where it belongs.
func newTraffic(t *testing.T, f *traffic) (*pipeline.Engine, []*stream) {
	t.Helper()
	u, err := xsk.NewUMEM(xsk.UMEMConfig{Parts: 1, FramesPerPart: umemFrames, Debug: true})
	if err != nil {
		t.Fatal(err)
	}
	f.began = time.Now()
	c := pipeline.EngineConfig{UMEM: u, Ports: 2, Workers: []pipeline.WorkerConfig{{CPU: -1, Wait: f.wait}}}
	var streams []*stream
	for p := range c.Ports {
		s := newStream(u, p, f)
		streams = append(streams, s)
		c.Workers[0].Queues = append(c.Workers[0].Queues, pipeline.QueueConfig{Port: p, Queue: s, FillSize: fillFrames})
	}
	e, err := pipeline.NewEngine(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		e.Close()
		if err := u.Close(); err != nil {
			t.Error(err)
		}
	})
	return e, streams
}

// wait sleeps until the next packets are due, as the worker does in poll(2): two cores have more to do than to spin.
func (f *traffic) wait(limit time.Duration) {
	time.Sleep(min(limit, burstEvery-time.Since(f.began)%burstEvery))
}

func newStream(u *xsk.UMEM, port int, f *traffic) *stream {
	s := &stream{
		traffic: f, umem: u, port: port, random: uint64(port) + 1,
		fill: make([]uint64, 0, fillFrames), done: make([]uint64, 0, umemFrames),
	}
	link := func(typ ...byte) []byte {
		return append([]byte{2, 0, 0, 0, 0, 0x10 + byte(port), 2, 0, 0, 0, 0, 0x20 + byte(port)}, typ...)
	}
	udp := []byte{0, 0, 0x9c, 0x40, 0, 8, 0, 0} // nobody here looks at its checksum
	s.frames[0] = append(link(0x08, 0x00),
		0x45, 0, 0, 28, 0, 0, 0x40, 0, 64, 17, 0, 0, 198, 18, 0, byte(port), 0, 0, 0, 0)
	s.frames[0] = append(s.frames[0], udp...)
	for i := 14; i < 34; i += 2 {
		s.sum += uint32(binary.BigEndian.Uint16(s.frames[0][i:]))
	}
	s.frames[1] = append(link(0x86, 0xdd), 0x60, 0, 0, 0, 0, 8, 17, 64, 0x20, 1, 0x0d, 0xb8)
	s.frames[1] = append(append(s.frames[1], make([]byte, 12+16)...), udp...)
	return s
}

// due is how many packets are to be offered now. What the worker has not fetched in time is not made up for: it shares
// two cores with all else that the test runs.
func (s *stream) due() int {
	if tick := time.Since(s.began) / burstEvery; tick != s.tick {
		s.tick, s.room = tick, burst
	}
	return s.room
}

func (s *stream) Receive(d []xsk.Desc) int {
	inUse := int(s.aims.Load())
	if inUse == 0 {
		return 0
	}
	n := min(len(d), len(s.fill), s.due())
	s.room -= n
	for i := range n {
		chunk := s.fill[len(s.fill)-1]
		s.fill = s.fill[:len(s.fill)-1]
		s.umem.Track(chunk, xsk.Fill, xsk.Worker)
		at := chunk + xsk.Headroom
		k := s.write(s.umem.Bytes()[at:at+xsk.MaxPacket], aim(i%inUse), i/inUse%2)
		d[i] = xsk.Desc{Addr: at, Len: uint32(k)}
	}
	return n
}

// write makes a packet and returns its length.
func (s *stream) write(b []byte, a aim, family int) int {
	s.offered[a][family]++
	n := copy(b, s.frames[family])
	b[n-7] = byte(a)
	host := s.number()
	if family == 0 {
		dst := 0x100000_00 + uint32(s.route(a, family))<<8 | uint32(host&0xff)
		if a == aimSteady {
			dst &^= upper4
		}
		sum := s.sum + dst>>16 + dst&0xffff
		sum = sum>>16 + sum&0xffff
		binary.BigEndian.PutUint16(b[24:], ^uint16(sum>>16+sum)) // the second carry is the last
		binary.BigEndian.PutUint32(b[30:], dst)
		return n
	}
	hi := 0x3000<<48 | uint64(s.route(a, family))<<16 | host&0xffff
	if a == aimSteady {
		hi &^= upper6
	}
	binary.BigEndian.PutUint64(b[38:], hi)
	binary.BigEndian.PutUint64(b[46:], host)
	return n
}

// The upper half of what a /24 or a /48 covers is where longer routes come and go.
const (
	upper4 = 1 << 7
	upper6 = 1 << 15
)

// route picks a route for a packet.
func (s *stream) route(a aim, family int) int {
	r := s.number()
	switch a {
	case aimSteady:
		return steadyRoute(int(r % hotRoutes))
	case aimMoving:
		return movingRoute(int(r % hotRoutes))
	}
	return int(r % uint64(s.routes[family]))
}

// number is the next one of a xorshift generator, without its weak low bits.
func (s *stream) number() uint64 {
	s.random ^= s.random << 13
	s.random ^= s.random >> 7
	s.random ^= s.random << 17
	return s.random >> 16
}

func (s *stream) Transmit(d []xsk.Desc) int {
	for _, x := range d {
		chunk := x.Addr &^ (xsk.FrameSize - 1)
		s.umem.Track(chunk, xsk.Worker, xsk.TX)
		s.judge(s.umem.Bytes()[x.Addr : x.Addr+uint64(x.Len)])
		s.done = append(s.done, chunk)
	}
	return len(d)
}

// judge counts a packet that leaves, and whether it may: by this port, to the world's host there.
func (s *stream) judge(b []byte) {
	family := 0
	if b[12] == 0x86 {
		family = 1
	}
	a := aim(b[len(b)-7])
	if len(b) != len(s.frames[family]) || a >= aims || !s.right(b, family) {
		if s.wrong++; s.wrong == 1 {
			copy(s.firstWrong[:], b)
		}
		return
	}
	s.left[a][family]++
}

func (s *stream) right(b []byte, family int) bool {
	var route int
	var upper bool
	if family == 0 {
		dst := binary.BigEndian.Uint32(b[30:])
		route, upper = int(dst>>8)-0x100000, dst&upper4 != 0
	} else {
		hi := binary.BigEndian.Uint64(b[38:])
		route, upper = int(hi>>16&0xffffffff), hi&upper6 != 0
	}
	return rightPorts(route, upper)>>s.port&1 == 1 && [6]byte(b) == [6]byte{2, 0, 0, 0, 0, 0x20 + byte(s.port)}
}

func (s *stream) Kick() {}

func (s *stream) Reap(addrs []uint64) int { return s.move(&s.done, addrs, xsk.TX, xsk.Worker) }

// move takes frames off a stack.
func (s *stream) move(from *[]uint64, to []uint64, was, is xsk.Owner) int {
	n := copy(to, (*from)[max(0, len(*from)-len(to)):])
	*from = (*from)[:len(*from)-n]
	for _, a := range to[:n] {
		s.umem.Track(a, was, is)
	}
	return n
}

func (s *stream) Refill(addrs []uint64) int {
	n := min(len(addrs), cap(s.fill)-len(s.fill))
	for _, a := range addrs[:n] {
		s.umem.Track(a, xsk.Worker, xsk.Fill)
	}
	s.fill = append(s.fill, addrs[:n]...)
	return n
}

// account compares what was offered with what has left. The worker must have stopped.
func account(t *testing.T, streams []*stream) {
	t.Helper()
	var offered tally
	var left [2]tally // by port
	for _, s := range streams {
		offered.add(&s.offered)
		left[s.port].add(&s.left)
		if s.wrong > 0 {
			t.Errorf("port %d: %d packets left that should not leave there; the first is %x", s.port, s.wrong, s.firstWrong)
		}
	}
	for a := range aims {
		for f := range 2 {
			in, out := offered[a][f], [2]uint64{left[0][a][f], left[1][a][f]}
			what := fmt.Sprintf("IPv%d to %s routes: %d offered, by port %v left", 4+2*f, aimNames[a], in, out)
			t.Log(what)
			if in != out[0]+out[1] {
				t.Error("lost, doubled or led astray: " + what)
			}
			if out[0] == 0 || out[1] == 0 {
				t.Error("the test shows nothing, there must be packets on both ways: " + what)
			}
		}
	}
}
