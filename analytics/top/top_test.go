package top

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"causeway/analytics/flow"
	"causeway/analytics/store"
)

// drawSample is of few values or many, of one of some tunnels.
func drawSample(t *rapid.T, spread int) *store.Sample {
	way := rapid.SampledFrom([][2]*flow.Tunnel{{nil, acme}, {acme, nil}, {acme, acmeB}, {nil, acmeB}, {other, nil}, {nothing, nothing}}).Draw(t, "way")
	account := ""
	for _, x := range way {
		if x != nil {
			account = x.Account
		}
	}
	n := func(name string) int { return rapid.IntRange(0, spread).Draw(t, name) }
	s := sampleOf(account, way[0], way[1], uint32(rapid.SampledFrom([]int{1, 1, 7, 1000}).Draw(t, "every")), 20+10*n("length"),
		v4(uint32(n("src"))), netip.MustParseAddr("2001:db8::").Next(), uint16(n("port")), uint16(n("to")))
	h := &s.Packet
	h.Protocol, h.TCP.Flags = uint8(n("protocol")), uint8(n("flags"))
	s.Src, s.Dst = store.Origin{ASN: uint32(n("asn")), Country: []string{"", "NL", "DE"}[n("country")%3]},
		store.Origin{ASN: math.MaxUint32, Country: "ZZ"}
	if n("unreadable") == 1 {
		s.Packet = flow.Header{}
	}
	return s
}

// Whatever comes, however little memory there is: rows add up, errors hold, and memory is what it may be. Each interval begins with nothing.
func TestRows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := Options{Origins: rapid.Bool().Draw(t, "origins"), Memory: int64(rapid.SampledFrom([]int{4 << 10, 20 << 10, 60 << 10, 0}).Draw(t, "memory")),
			Values: rapid.IntRange(1, 20).Draw(t, "values"), Rows: rapid.SampledFrom([]int{6, 40, 0}).Draw(t, "rows")}
		c := New(o)
		for range rapid.IntRange(1, 3).Draw(t, "intervals") {
			truth, left := oracle{}, c.LeftOut()
			spread := rapid.SampledFrom([]int{1, 8, 60, 255}).Draw(t, "spread")
			for range rapid.IntRange(0, 300).Draw(t, "samples") {
				s := drawSample(t, spread)
				truth.take(s)
				c.Observe(s)
				if c.used > c.o.Memory {
					t.Fatalf("%d bytes are used, %d are allowed", c.used, c.o.Memory)
				}
			}
			rows := c.End(60, false)
			if c.used != held(c) {
				t.Fatalf("%d bytes are booked, and %d are held", c.used, held(c))
			}
			truth.check(t, rows, o.Values, c.LeftOut() > left)
			if slots := len(truth); len(rows) > max(c.o.Rows, slots) {
				t.Fatalf("%d rows of %d slots; %d are allowed", len(rows), slots, c.o.Rows)
			}
			for _, r := range rows {
				if r.Time != 60 || r.Hour || r.Account == "" && r.Tunnel != nil || r.Tunnel != nil && r.Account != r.Tunnel.Account {
					t.Fatalf("a row of nobody: %+v", r)
				}
				if small := r.Kind == store.TopProtocol || r.Kind == store.TopTCPFlags || r.Kind == store.TopPacketSize; small && o.Memory == 0 &&
					r.Value != store.TopOther && r.PacketsError+r.BytesError > 0 {
					t.Fatalf("a small domain is not counted exactly: %+v", r)
				}
			}
		}
	})
}

// A value that loses its counter, and gets one again, has in its error what it had before, in packets and in bytes.
func TestMissed(t *testing.T) {
	c, truth := New(Options{}), oracle{}
	c.o.Memory = c.baseline // for one slot, whose tables cannot grow
	for _, x := range []struct {
		src   uint32
		every uint32
		size  int
	}{{1, 1, 1500}, {2, 5, 40}, {3, 1, 40}, {1, 1, 1500}} {
		s := sampleOf("acme", nil, acme, x.every, x.size, v4(x.src), v4(9), 0, 0)
		truth.take(s)
		c.Observe(s)
	}
	rows := c.End(0, false)
	truth.check(t, rows, 20, false)
	for _, r := range rows {
		if r.Kind == store.TopSourceAddress && r.Value == v4(1).String() && (r.Packets != 1 || r.PacketsError != 2 ||
			r.Bytes != 1500 || r.BytesError != 1540) {
			t.Errorf("%+v", r)
		}
	}
}

// Where nothing was thinned, the rows say of each value exactly what a table of samples says.
func TestExact(t *testing.T) {
	c, truth, r := New(Options{Origins: true, Values: 256}), oracle{}, rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		s := sampleOf("acme", nil, acme, 1, 40+r.IntN(1460), v4(0xC6336400+uint32(r.IntN(200))), v4(1), uint16(r.IntN(50)), uint16(r.IntN(250)))
		truth.take(s)
		c.Observe(s)
	}
	rows := c.End(0, true)
	truth.check(t, rows, 256, false)
	n := 0
	for _, row := range rows {
		if row.Value == store.TopOther || !row.Hour {
			t.Errorf("something is left: %+v", row)
		}
		same(t, row.Value, row, *truth["acme acme-a ingress"][row.Kind][row.Value])
		n++
	}
	want := 0
	for _, values := range truth["acme acme-a ingress"] {
		want += len(values)
	}
	if n != want {
		t.Errorf("%d rows, want %d", n, want)
	}
	if rows[0].Kind != store.TopTotal || math.Abs(float64(rows[0].Sources)-200) > 4*0.01625*200 {
		t.Errorf("%d distinct sources, want 200", rows[0].Sources)
	}
	if rows := c.End(60, false); len(rows) != 0 || c.used != held(c) {
		t.Errorf("an interval without samples has %d rows", len(rows))
	}
	if c.End(120, false); c.used != 0 || len(c.slots) != 0 {
		t.Errorf("%d bytes are kept for %d slots that nobody uses", c.used, len(c.slots))
	}
}

// Values that are large in either measure are found in a flood of random sources, in the first minute and in the next.
func TestFlood(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	elephant, chatter := v4(0x01010101), v4(0x02020202)
	c := New(Options{})
	for minute := range int64(2) {
		distinct := map[netip.Addr]bool{}
		for i := range 50_000 {
			src, length := v4(r.Uint32()), 60
			switch {
			case i%50 == 7:
				src, length = elephant, 1500
			case i%30 == 11:
				src, length = chatter, 40
			}
			distinct[src] = true
			c.Observe(sampleOf("acme", nil, acme, 1000, length, src, v4(9), uint16(r.Uint32()), 443))
		}
		found := map[string]store.Top{}
		for _, row := range c.End(60*minute, false) {
			if row.Kind == store.TopTotal {
				if n := float64(len(distinct)); math.Abs(float64(row.Sources)-n) > 4*0.01625*n {
					t.Errorf("minute %d: %v sources are counted as %d", minute, n, row.Sources)
				}
			}
			if row.Kind == store.TopSourceAddress {
				found[row.Value] = row
			}
		}
		for addr, samples := range map[netip.Addr]uint64{elephant: 1000, chatter: 1656} {
			if row := found[addr.String()]; row.Samples < samples*99/100 || row.PacketsError > 50_000_000/256 {
				t.Errorf("minute %d: %s had about %d samples: %+v", minute, addr, samples, row)
			}
		}
		if rest := found[store.TopOther]; rest.Samples < 45_000 || rest.PacketsError > 50_000_000/256 {
			t.Errorf("minute %d: of the others %+v", minute, rest)
		}
	}
}

// Random sources through a thousand tunnels, and ten thousand, both ways: memory is bounded, in fact and not only in the books; nobody is left
// out; and the few rows of each tunnel add up.
func TestBudget(t *testing.T) {
	for tunnels, samples := range map[int]int{1000: 200_000, 10_000: 400_000} {
		var list []*flow.Tunnel
		for i := range tunnels {
			list = append(list, &flow.Tunnel{ID: strconv.Itoa(i), Name: strconv.Itoa(i), Account: "acme", Kind: "GRE"})
		}
		runtime.GC()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		c, r := New(Options{}), rand.New(rand.NewPCG(5, 6))
		truth, sums := map[slotKey]uint64{}, map[slotKey]uint64{}
		s := sampleOf("acme", nil, nil, 1000, 60, v4(0), v4(0), 0, 0)
		for range samples {
			x := list[r.IntN(tunnels)]
			s.In, s.Out, s.Packet.Src, s.Packet.SrcPort, s.Packet.DstPort = x, nil, v4(r.Uint32()), uint16(r.Uint32()), uint16(r.Uint32())
			if r.IntN(2) == 0 {
				s.In, s.Out = nil, x
			}
			s.Packet.Dst, s.Packet.Protocol, s.Packet.TCP.Flags, s.Length = v4(r.Uint32()), uint8(r.Uint32()), uint8(r.Uint32()), 40+r.IntN(1460)
			truth[slotKey{"acme", x.ID, s.Direction()}] += 1000
			c.Observe(s)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		heap := int64(after.HeapAlloc) - int64(before.HeapAlloc)
		t.Logf("%d tunnels: %d slots, %d MiB booked, %d MiB of heap", tunnels, len(c.slots), c.used>>20, heap>>20)
		if c.used > c.o.Memory || heap > c.o.Memory*115/100 || c.used != held(c) {
			t.Errorf("%d bytes are booked, %d held, and the heap has %d more; %d are allowed", c.used, held(c), heap, c.o.Memory)
		}
		if c.LeftOut() > 0 || len(c.slots) != 2*tunnels {
			t.Errorf("%d samples were left out, and %d slots are there", c.LeftOut(), len(c.slots))
		}
		rows := c.End(0, false)
		if len(rows) > c.o.Rows {
			t.Errorf("%d rows; %d are allowed", len(rows), c.o.Rows)
		}
		for _, row := range rows {
			if row.Kind == store.TopTotal {
				sums[slotKey{"acme", row.Tunnel.ID, row.Direction}] = row.Packets
			}
		}
		for k, n := range truth {
			if sums[k] != n {
				t.Fatalf("%v had %d packets, and its row says %d", k, n, sums[k])
			}
		}
		runtime.KeepAlive(c)
	}
}

// In steady state nothing is allocated for a sample.
func TestObserveAllocates(t *testing.T) {
	c, r := New(Options{Origins: true}), rand.New(rand.NewPCG(7, 8))
	s := sampleOf("acme", nil, acme, 1000, 60, v4(0), v4(1), 0, 0)
	flood := func() {
		for range 5000 {
			s.Packet.Src, s.Packet.SrcPort = v4(r.Uint32()), uint16(r.Uint32())
			c.Observe(s)
		}
	}
	flood()
	if n := testing.AllocsPerRun(5, flood); n != 0 {
		t.Errorf("%v allocations in 5000 samples, want none", n)
	}
}

// A sample of one tunnel among a hundred: of few sources, and of random ones.
func BenchmarkObserve(b *testing.B) {
	var list []*flow.Tunnel
	for i := range 100 {
		list = append(list, &flow.Tunnel{ID: strconv.Itoa(i), Name: strconv.Itoa(i), Account: "acme", Kind: "GRE"})
	}
	for name, mask := range map[string]uint32{"few": 63, "random": math.MaxUint32} {
		for _, origins := range []bool{false, true} {
			b.Run(name+map[bool]string{false: "/seven-kinds", true: "/eleven-kinds"}[origins], func(b *testing.B) {
				c, r := New(Options{Origins: origins}), rand.New(rand.NewPCG(9, 10))
				s := sampleOf("acme", nil, nil, 1000, 60, v4(0), v4(1), 0, 0)
				next := func() {
					n := r.Uint32()
					s.Out, s.Packet.Src, s.Packet.SrcPort, s.Length = list[n%100], v4(n&mask), uint16(n&mask), 40+int(n%1400)
					s.Src.ASN = n & mask & 0xffff
					c.Observe(s)
				}
				for range 200_000 { // tables have grown
					next()
				}
				b.ReportAllocs()
				began := processorTime(b)
				for b.Loop() {
					next()
				}
				b.ReportMetric(float64(processorTime(b)-began)/float64(b.N), "cpu-ns/op") // whatever else the machine does
			})
		}
	}
}

func processorTime(b *testing.B) int64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// FuzzObserve takes bytes for packets: nothing of theirs makes memory grow beyond its bound, or rows that do not add up.
func FuzzObserve(f *testing.F) {
	f.Add([]byte("\x45\x00\x00\x28\x00\x00\x00\x00\x40\x06\x00\x00\xc6\x33\x64\x01\xcb\x00\x71\x07"+
		"\x00\x50\x01\xbb\x00\x00\x00\x00\x00\x00\x00\x00\x50\x02\x00\x00"), uint16(20))
	f.Fuzz(func(t *testing.T, packets []byte, size uint16) {
		c, truth := New(Options{Origins: true, Memory: 24 << 10}), oracle{}
		step := int(size%60) + 1
		for i := 0; i < len(packets) && i < 200*step; i += step {
			s := sampleOf("acme", nil, acme, uint32(size)+1, int(size), netip.Addr{}, netip.Addr{}, 0, 0)
			s.Packet = flow.Parse(packets[i:min(len(packets), i+60)])
			s.Src.ASN, s.Src.Country = uint32(i), string(packets[i:min(len(packets), i+2)])
			truth.take(s)
			c.Observe(s)
			if c.used > c.o.Memory || c.used != held(c) {
				t.Fatalf("%d bytes are booked, %d held, %d allowed", c.used, held(c), c.o.Memory)
			}
		}
		truth.check(t, c.End(0, false), 20, c.LeftOut() > 0)
	})
}
