package attack

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"net/netip"
	"os"
	"testing"
	"time"

	"causeway/analytics/flow"
	"causeway/analytics/store"
)

// A world makes samples of traffic that is described by rates, and a detector sees them, by a clock of its own.
type world struct {
	d        *Detector
	r        *rand.Rand
	now      time.Time
	every    uint32
	oneWay   bool // nothing that customers send comes by here
	events   []Event
	seconds  int
	observed int
	account  string
}

func newWorld(seed uint64, every uint32, change func(*Config)) *world {
	w := &world{r: rand.New(rand.NewPCG(seed, 77)), now: time.Unix(1_000_000, 0), every: every, account: "acme"}
	c := DefaultConfig()
	if change != nil {
		change(&c)
	}
	w.d = New(c, seed+1, func(e Event) { w.events = append(w.events, e) })
	w.d.Tick(w.now)
	return w
}

// second lets one second pass: what happens in it, then the tick.
func (w *world) second(traffic ...func()) {
	for _, t := range traffic {
		t()
	}
	w.now = w.now.Add(time.Second)
	w.seconds++
	w.d.Tick(w.now)
}

// A packet is what a sample is made of.
type packet struct {
	src, dst     netip.Addr
	protocol     uint8
	sport, dport uint16
	flags        uint8
	length       int
	fragment     int  // offset in bytes
	more         bool // fragments
	dropped      string
	out          bool // from a customer
	icmp         uint8
}

// rate makes samples of so many packets a second, each by make.
func (w *world) rate(packets float64, make func() packet) {
	for range w.poisson(packets / float64(w.every)) {
		p := make()
		if p.out && w.oneWay {
			continue
		}
		w.show(p)
	}
}

func (w *world) show(p packet) {
	b := p.bytes()
	s := store.Sample{Account: w.account, Sample: flow.Sample{Time: w.now, Every: w.every, Length: p.length, Header: b}, Packet: flow.Parse(b)}
	switch {
	case p.dropped != "":
		s.Verdict, s.Reason = flow.Dropped, p.dropped
	case p.out:
		s.In = &flow.Tunnel{}
	default:
		s.Out = &flow.Tunnel{}
	}
	w.observed++
	w.d.Observe(&s)
}

// poisson draws a number with that mean.
func (w *world) poisson(mean float64) int {
	if mean > 200 {
		return int(max(0, math.Round(mean+math.Sqrt(mean)*w.r.NormFloat64())))
	}
	n, limit := 0, math.Exp(-mean)
	for p := w.r.Float64(); p > limit; p *= w.r.Float64() {
		n++
	}
	return n
}

func (p packet) bytes() []byte {
	var b []byte
	if p.dst.Is4() {
		b = make([]byte, 40)
		b[0], b[8], b[9] = 0x45, 60, p.protocol
		binary.BigEndian.PutUint16(b[2:], uint16(p.length))
		frag := uint16(p.fragment / 8)
		if p.more {
			frag |= 0x2000
		}
		binary.BigEndian.PutUint16(b[6:], frag)
		copy(b[12:], p.src.AsSlice())
		copy(b[16:], p.dst.AsSlice())
	} else {
		b = make([]byte, 60)
		b[0], b[6], b[7] = 0x60, p.protocol, 60
		binary.BigEndian.PutUint16(b[4:], uint16(p.length-40))
		copy(b[8:], p.src.AsSlice())
		copy(b[24:], p.dst.AsSlice())
	}
	t := b[len(b)-20:]
	binary.BigEndian.PutUint16(t, p.sport)
	binary.BigEndian.PutUint16(t[2:], p.dport)
	switch p.protocol {
	case 6:
		t[12], t[13] = 0x50, p.flags
	case 17:
		binary.BigEndian.PutUint16(t[4:], uint16(p.length-20))
	case 1, 58:
		t[0], t[1] = p.icmp, 0
	}
	return b
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// anyone is a random address of the Internet.
func (w *world) anyone() netip.Addr {
	v := w.r.Uint32()
	return netip.AddrFrom4([4]byte{byte(1 + v>>24%220), byte(v >> 16), byte(v >> 8), byte(v)})
}

func (w *world) port() uint16 { return uint16(1024 + w.r.IntN(64000)) }

// crowd is web traffic of so many new connections a second, each with so many acknowledgements from the client.
func (w *world) crowd(server netip.Addr, connections float64, acks float64) func() {
	return func() {
		in := func(flags uint8, length int) func() packet {
			return func() packet {
				return packet{src: w.anyone(), dst: server, protocol: 6, sport: w.port(), dport: 443, flags: flags, length: length}
			}
		}
		out := func(flags uint8, length int) func() packet {
			return func() packet {
				return packet{src: server, dst: w.anyone(), protocol: 6, sport: 443, dport: w.port(), flags: flags, length: length, out: true}
			}
		}
		w.rate(connections*1.15, in(flow.SYN, 60)) // some are sent again
		w.rate(connections, out(flow.SYN|flow.ACK, 60))
		w.rate(connections*(1+acks), in(flow.ACK, 40))
		w.rate(connections, in(flow.PSH|flow.ACK, 600))
		w.rate(connections*2*acks, out(flow.ACK, 1500))
		w.rate(connections*0.9, in(flow.FIN|flow.ACK, 40))
		w.rate(connections*0.1, in(flow.RST, 40))
	}
}

// transfer is one TCP connection, of so many data packets a second, into the customer's network or out of it.
func (w *world) transfer(host netip.Addr, packets float64, in bool) func() {
	peer := addr("198.51.100.77")
	up := packet{src: peer, dst: host, protocol: 6, sport: 33333, dport: 873, flags: flow.ACK, length: 1500}
	back := packet{src: host, dst: peer, protocol: 6, sport: 873, dport: 33333, flags: flow.ACK, length: 40, out: true}
	if !in {
		up.length, back.length = 40, 1500
		return func() {
			w.rate(packets/2, func() packet { return up })
			w.rate(packets, func() packet { return back })
		}
	}
	return func() {
		w.rate(packets, func() packet { return up })
		w.rate(packets/2, func() packet { return back })
	}
}

// resolver asks so many questions a second: of the whole Internet, or of one other resolver.
func (w *world) resolver(host netip.Addr, questions float64, of netip.Addr) func() {
	server := func() netip.Addr {
		if of.IsValid() {
			return of
		}
		return w.anyone()
	}
	return func() {
		w.rate(questions, func() packet {
			return packet{src: host, dst: server(), protocol: 17, sport: w.port(), dport: 53, length: 60 + w.r.IntN(40), out: true}
		})
		w.rate(questions, func() packet {
			length := 80 + w.r.IntN(300)
			if w.r.IntN(100) < 15 {
				length = 512 + w.r.IntN(800)
			}
			return packet{src: server(), dst: host, protocol: 17, sport: 53, dport: w.port(), length: length}
		})
	}
}

// datagrams is a service of UDP with so many clients, that answers.
func (w *world) datagrams(server netip.Addr, port uint16, packets float64, clients uint32) func() {
	client := func() (netip.Addr, uint16) {
		n := w.r.Uint32N(clients)
		return netip.AddrFrom4([4]byte{203, byte(n >> 16), byte(n >> 8), byte(n)}), uint16(1024 + n*7%60000)
	}
	return func() {
		w.rate(packets, func() packet {
			a, p := client()
			return packet{src: a, dst: server, protocol: 17, sport: p, dport: port, length: 90 + w.r.IntN(900)}
		})
		w.rate(packets*1.5, func() packet {
			a, p := client()
			return packet{src: server, dst: a, protocol: 17, sport: port, dport: p, length: 90 + w.r.IntN(1300), out: true}
		})
	}
}

// noise is what everybody receives: probes, clocks, pings, errors, fragments.
func (w *world) noise(net func() netip.Addr) func() {
	one := func(p packet) func() packet {
		return func() packet {
			p.src, p.dst = w.anyone(), net()
			if p.sport == 0 {
				p.sport = w.port()
			}
			return p
		}
	}
	return func() {
		w.rate(2000, one(packet{protocol: 6, dport: uint16(w.r.Uint32()), flags: flow.SYN, length: 44}))
		w.rate(500, one(packet{protocol: 6, sport: 443, dport: w.port(), flags: flow.RST | flow.ACK, length: 40}))
		w.rate(500, one(packet{protocol: 6, sport: 80, dport: w.port(), flags: flow.SYN | flow.ACK, length: 44}))
		w.rate(500, one(packet{protocol: 17, sport: 123, dport: 123, length: 76}))
		w.rate(300, one(packet{protocol: 17, sport: 123, dport: 80, length: 468}))
		w.rate(1000, one(packet{protocol: 1, icmp: 8, length: 84}))
		w.rate(800, one(packet{protocol: 17, sport: 4500, dport: 4500, length: 1500, more: true}))
		w.rate(800, one(packet{protocol: 17, length: 200, fragment: 1480}))
		w.rate(1500, one(packet{protocol: 50, length: 1400}))
		w.rate(700, one(packet{protocol: 47, length: 1400, dropped: "tunnel_unknown"}))
	}
}

// clean is traffic of a customer's network without an attack, at a time in seconds.
func (w *world) clean(at int) []func() {
	web, shop, files, dns, forwarder := addr("10.0.0.80"), addr("10.0.0.81"), addr("10.0.0.5"), addr("10.0.0.53"), addr("10.0.0.54")
	minute := at / 60
	all := []func(){
		w.crowd(web, 2000+800*math.Sin(float64(at)/300), 6),
		w.resolver(dns, 15_000, netip.Addr{}), w.resolver(forwarder, 8_000, addr("8.8.8.8")),
		w.datagrams(addr("10.0.0.44"), 443, 15_000, 1<<20), w.datagrams(addr("10.0.0.45"), 51820, 20_000, 1),
		w.noise(func() netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(w.r.Uint32())}) }),
		w.crowd(addr("10.0.0.90"), 20, 20),
	}
	switch crowd := float64(at%900 - 300); { // the flash crowd: from one second to the next, or within ten
	case minute >= 20 && crowd > 0 && crowd < 240:
		all = append(all, w.crowd(shop, 12_000, 5))
	case crowd > 0 && crowd < 240:
		all = append(all, w.crowd(shop, 12_000*min(1, crowd/10), 5))
	default:
		all = append(all, w.crowd(shop, 50, 5))
	}
	if m := minute % 15; m >= 8 && m < 13 {
		all = append(all, w.transfer(files, 100_000, true))
	} else if m >= 3 && m < 7 {
		all = append(all, w.transfer(files, 120_000, false))
	}
	return all
}

// seen are the events of one kind, as "vector at destination".
func (w *world) seen(c Change) (out []string) {
	for _, e := range w.events {
		if e.Change == c {
			out = append(out, e.Vector.String()+" at "+e.Attack.Dst+" of "+e.Attack.Account)
		}
	}
	return
}

// TestClean: half an hour of clean traffic raises no alarm, whether both directions are seen or only what goes to customers, and
// however much is sampled. With CAUSEWAY_FULL=1 it is 20 hours.
func TestClean(t *testing.T) {
	seeds := map[bool]uint64{false: 3, true: 1}[testing.Short()]
	if os.Getenv("CAUSEWAY_FULL") != "" {
		seeds = 20
	}
	for seed := range seeds {
		for _, oneWay := range []bool{false, true} {
			w := newWorld(seed, 1000, nil)
			w.oneWay = oneWay
			if seed%10 == 2 {
				w.every = 100
			}
			for at := range 1800 {
				w.second(w.clean(at)...)
			}
			if len(w.events) != 0 {
				t.Errorf("seed %d, one way %v, 1 in %d: started %q", seed, oneWay, w.every, w.seen(Started))
			}
			t.Logf("seed %d, one way %v, 1 in %d: %d samples, %d hosts", seed, oneWay, w.every, w.observed, w.d.Hosts())
		}
	}
}
