package top

import (
	"fmt"
	"math"
	"net/netip"
	"time"
	"unsafe"

	"causeway/analytics/dataset"
	"causeway/analytics/flow"
	"causeway/analytics/sketch"
	"causeway/analytics/store"
	"causeway/analytics/store/query"
)

var (
	acme    = &flow.Tunnel{ID: "a0", Name: "acme-a", Account: "acme", Kind: "GRE"}
	acmeB   = &flow.Tunnel{ID: "b0", Name: "acme-b", Account: "acme", Kind: "GRE"}
	other   = &flow.Tunnel{ID: "c0", Name: "other-a", Account: "other", Kind: "GRE"}
	nothing = (*flow.Tunnel)(nil)
)

// sampleOf is a TCP packet into, or out of, tunnels.
func sampleOf(account string, in, out *flow.Tunnel, every uint32, length int, src, dst netip.Addr, srcPort, dstPort uint16) *store.Sample {
	s := &store.Sample{Account: account}
	s.Time, s.In, s.Out, s.Every, s.Length = time.Unix(1_800_000_000, 0), in, out, every, length
	s.Packet = flow.Header{Version: 4, Src: src, Dst: dst, Protocol: 6, SrcPort: srcPort, DstPort: dstPort}
	s.Packet.TCP.Flags = flow.ACK
	return s
}

func v4(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

// valueOf is a sample's value of a kind as the store's table of samples has it, which is found by the name of the dimension.
func valueOf(kind store.TopKind, s *store.Sample) string {
	column := dataset.Packets.Lookup(kind.String()).SQL
	for i := range query.SampleColumns {
		if query.SampleColumns[i].Name == column {
			return fmt.Sprint(query.SampleColumns[i].Value(s))
		}
	}
	panic("samples have no column " + column)
}

// An oracle counts everything.
type oracle map[string]map[store.TopKind]map[string]*weight

func nameOf(account string, t *flow.Tunnel, d flow.Direction) string {
	if t == nil {
		t = &flow.Tunnel{}
	}
	return account + " " + t.Name + " " + d.String()
}

func (o oracle) take(s *store.Sample) {
	t := s.Out
	if t == nil {
		t = s.In
	}
	name := nameOf(s.Account, t, s.Direction())
	if o[name] == nil {
		o[name] = map[store.TopKind]map[string]*weight{}
	}
	for i := range store.TopKinds {
		kind, value := store.TopKind(i), ""
		if kind != store.TopTotal {
			value = valueOf(kind, s)
		}
		if o[name][kind] == nil {
			o[name][kind] = map[string]*weight{}
		}
		if o[name][kind][value] == nil {
			o[name][kind][value] = &weight{}
		}
		w, every, bits := o[name][kind][value], float64(s.Every), float64(8*s.Length)
		w.samples, w.packets, w.bytes = w.samples+1, w.packets+uint64(s.Every), w.bytes+uint64(s.Every)*uint64(s.Length)
		w.packetsVariance, w.bitsVariance = w.packetsVariance+every*(every-1), w.bitsVariance+every*(every-1)*bits*bits
	}
}

// A failing test.
type failing interface {
	Helper()
	Fatalf(string, ...any)
}

// check compares rows with what the oracle knows. Slots that had no room have no rows.
func (o oracle) check(t failing, rows []store.Top, values int, mayMiss bool) {
	t.Helper()
	bySlot := map[string]map[store.TopKind][]store.Top{}
	for _, r := range rows {
		name := nameOf(r.Account, r.Tunnel, r.Direction)
		if bySlot[name] == nil {
			bySlot[name] = map[store.TopKind][]store.Top{}
		}
		bySlot[name][r.Kind] = append(bySlot[name][r.Kind], r)
	}
	for name := range o {
		if bySlot[name] == nil && !mayMiss {
			t.Fatalf("%s has no rows", name)
		}
	}
	for name, kinds := range bySlot {
		if o[name] == nil || len(kinds[store.TopTotal]) != 1 {
			t.Fatalf("%s has the rows %+v; the oracle knows %v", name, kinds, o[name])
		}
		total := kinds[store.TopTotal][0]
		if !mayMiss {
			same(t, name+" in all", total, *o[name][store.TopTotal][""])
		}
		for kind, list := range kinds {
			checkKind(t, name, total, list, o[name][kind], values, mayMiss)
		}
	}
}

func same(t failing, what string, r store.Top, w weight) {
	t.Helper()
	near := func(a, b float64) bool { return math.Abs(a-b) <= 1e-9*math.Max(math.Abs(a), math.Abs(b)) }
	if r.Samples != w.samples || r.Packets != w.packets || r.Bytes != w.bytes || !near(r.PacketsVariance, w.packetsVariance) ||
		!near(r.BitsVariance, w.bitsVariance) {
		t.Fatalf("%s: the row %+v, want %+v", what, r, w)
	}
}

// checkKind: the rows of a kind add up to the total; each value had what its row says, and at most its error more; each value without a row had at
// most the error of the others.
func checkKind(t failing, name string, total store.Top, list []store.Top, truth map[string]*weight, values int, mayMiss bool) {
	t.Helper()
	var sum weight
	var rest store.Top
	listed := map[string]bool{}
	for _, r := range list {
		sum.add(&weight{r.Samples, r.Packets, r.Bytes, r.PacketsVariance, r.BitsVariance})
		if listed[r.Value] {
			t.Fatalf("%s: %s %q stands twice", name, r.Kind, r.Value)
		}
		listed[r.Value] = true
		if r.Value == store.TopOther {
			rest = r
			continue
		}
		w := truth[r.Value]
		if w == nil || r.Samples > w.samples || r.Packets > w.packets || r.Bytes > w.bytes || r.PacketsVariance > w.packetsVariance*(1+1e-9) {
			t.Fatalf("%s: %s %q: the row says more than there was: %+v, %+v", name, r.Kind, r.Value, r, w)
		}
		if !mayMiss && (r.Packets+r.PacketsError < w.packets || r.Bytes+r.BytesError < w.bytes) {
			t.Fatalf("%s: %s %q had more than its row and the error say: %+v, %+v", name, r.Kind, r.Value, r, w)
		}
	}
	if n := len(list); n > values+1 || rest.Kind != list[0].Kind && n > values {
		t.Fatalf("%s: %d rows of kind %s, where %d values are allowed", name, n, list[0].Kind, values)
	}
	near := func(a, b float64) bool { return math.Abs(a-b) <= 1e-6*math.Max(1, math.Max(math.Abs(a), math.Abs(b))) }
	if sum.samples != total.Samples || sum.packets != total.Packets || sum.bytes != total.Bytes || !near(sum.packetsVariance, total.PacketsVariance) ||
		!near(sum.bitsVariance, total.BitsVariance) {
		t.Fatalf("%s: rows of %s add up to %+v, not to %+v", name, list[0].Kind, sum, total)
	}
	for value, w := range truth {
		if !mayMiss && !listed[value] && (w.packets > rest.PacketsError || w.bytes > rest.BytesError) {
			t.Fatalf("%s: %s %q is not listed, and had more than others can have had: %+v, %+v", name, list[0].Kind, value, w, rest)
		}
	}
}

// held is what a Counter holds, by its structures' own sizes.
func held(c *Counter) (bytes int64) {
	for _, x := range c.slots {
		bytes += int64(unsafe.Sizeof(*x)+8*uintptr(cap(x.sources.few))+1<<coarseSources) + int64(2*(unsafe.Sizeof(slotKey{})+8))
		if x.sources.fine {
			bytes += 1 << fineSources
		}
		for i := range x.tables {
			t := &x.tables[i]
			bytes += int64(unsafe.Sizeof(*t)+unsafe.Sizeof(sketch.SpaceSaving[key]{})) + int64(cap(t.more))*int64(unsafe.Sizeof(more{})) +
				int64(t.keys.Cap())*sketch.CounterBytes
		}
	}
	return bytes
}
