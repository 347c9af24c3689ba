package reassembly

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

var roomy = Config{MaxDatagrams: 8, MaxFragments: 16, MaxFrames: 64, MaxBytes: 65535, Timeout: time.Second}

var key4 = Key{Src: [16]byte{192, 0, 2, 1}, Dst: [16]byte{203, 0, 113, 1}, ID: 7, Proto: 47}

// frag is a fragment whose frame is n.
func frag(n uint64, off, length int, more bool) Fragment {
	return Fragment{Frame: n, Start: uint32(n) * 10, Off: off, Len: length, More: more}
}

// step is one fragment and what must become of it.
type step struct {
	f       Fragment
	want    Verdict
	dropped []uint64
}

func TestVerdicts(t *testing.T) {
	small := roomy
	small.MaxFragments, small.MaxBytes = 3, 2000
	for _, c := range []struct {
		name   string
		config Config
		steps  []step
		pieces []uint64 // of the last step
	}{
		{"in order", roomy, []step{
			{frag(1, 0, 1480, true), Held, nil}, {frag(2, 1480, 20, false), Complete, nil}}, []uint64{1, 2}},
		{"backwards", roomy, []step{
			{frag(1, 2960, 5, false), Held, nil}, {frag(2, 1480, 1480, true), Held, nil}, {frag(3, 0, 1480, true), Complete, nil}}, []uint64{3, 2, 1}},
		{"one piece that is no fragment", roomy, []step{{frag(1, 0, 100, false), Complete, nil}}, []uint64{1}},
		{"a gap keeps it waiting", roomy, []step{
			{frag(1, 0, 8, true), Held, nil}, {frag(2, 16, 8, false), Held, nil}}, nil},
		{"a duplicate is dropped alone", roomy, []step{
			{frag(1, 0, 8, true), Held, nil}, {frag(2, 0, 8, true), Duplicate, []uint64{2}}, {frag(3, 8, 3, false), Complete, nil}}, []uint64{1, 3}},
		{"a duplicate of the last fragment", roomy, []step{
			{frag(1, 8, 3, false), Held, nil}, {frag(2, 8, 3, false), Duplicate, []uint64{2}}, {frag(3, 0, 8, true), Complete, nil}}, []uint64{3, 1}},
		{"one byte of overlap refuses all, and what comes later", roomy, []step{
			{frag(1, 0, 16, true), Held, nil}, {frag(2, 32, 8, true), Held, nil}, {frag(3, 8, 9, false), Overlap, []uint64{1, 2, 3}},
			{frag(4, 16, 16, true), Overlap, []uint64{4}}, {frag(5, 40, 8, false), Overlap, []uint64{5}}}, nil},
		{"the same place with another length", roomy, []step{
			{frag(1, 0, 16, true), Held, nil}, {frag(2, 0, 8, true), Overlap, []uint64{1, 2}}}, nil},
		{"the same place with another flag", roomy, []step{
			{frag(1, 8, 8, true), Held, nil}, {frag(2, 8, 8, false), Overlap, []uint64{1, 2}}}, nil},
		{"inside another", roomy, []step{
			{frag(1, 0, 32, true), Held, nil}, {frag(2, 8, 8, true), Overlap, []uint64{1, 2}}}, nil},
		{"around another", roomy, []step{
			{frag(1, 8, 8, true), Held, nil}, {frag(2, 0, 32, true), Overlap, []uint64{1, 2}}}, nil},
		{"data behind the end", roomy, []step{
			{frag(1, 8, 8, false), Held, nil}, {frag(2, 16, 8, true), BadEnd, []uint64{1, 2}}}, nil},
		{"one byte of the last fragment", roomy, []step{
			{frag(1, 8, 9, false), Held, nil}, {frag(2, 16, 8, true), Overlap, []uint64{1, 2}}}, nil},
		{"an end before the end", roomy, []step{
			{frag(1, 32, 8, false), Held, nil}, {frag(2, 8, 8, false), BadEnd, []uint64{1, 2}}}, nil},
		{"an end before data", roomy, []step{
			{frag(1, 16, 8, true), Held, nil}, {frag(2, 0, 8, false), BadEnd, []uint64{1, 2}}}, nil},
		{"two ends", roomy, []step{
			{frag(1, 8, 8, false), Held, nil}, {frag(2, 32, 8, false), BadEnd, []uint64{1, 2}}}, nil},
		{"too many", small, []step{
			{frag(1, 0, 8, true), Held, nil}, {frag(2, 16, 8, true), Held, nil}, {frag(3, 32, 8, true), Held, nil},
			{frag(4, 8, 8, true), TooMany, []uint64{1, 2, 3, 4}}}, nil},
		{"as many as are allowed", small, []step{
			{frag(1, 0, 8, true), Held, nil}, {frag(2, 16, 8, false), Held, nil}, {frag(3, 8, 8, true), Complete, nil}}, []uint64{1, 3, 2}},
		{"as long as is allowed", small, []step{
			{frag(1, 0, 1992, true), Held, nil}, {frag(2, 1992, 8, false), Complete, nil}}, []uint64{1, 2}},
		{"too long by one", small, []step{
			{frag(1, 0, 1992, true), Held, nil}, {frag(2, 1992, 9, false), TooBig, []uint64{1, 2}}}, nil},
		{"too long by itself leaves nothing behind", small, []step{
			{frag(1, 1992, 9, false), TooBig, []uint64{1}}, {frag(2, 0, 8, true), Held, nil}, {frag(3, 8, 8, false), Complete, nil}}, []uint64{2, 3}},
		{"not the last and no multiple of 8", roomy, []step{
			{frag(1, 0, 8, true), Held, nil}, {frag(2, 8, 12, true), BadLength, []uint64{1, 2}}}, nil},
		{"empty", roomy, []step{{frag(1, 8, 0, false), BadLength, []uint64{1}}}, nil},
		{"offset no multiple of 8", roomy, []step{{frag(1, 4, 8, false), BadLength, []uint64{1}}}, nil},
		{"negative offset", roomy, []step{{frag(1, -8, 8, false), BadLength, []uint64{1}}}, nil},
		{"length that overflows", roomy, []step{{frag(1, 1<<62, 1<<62, false), TooBig, []uint64{1}}}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, out := New(c.config), Out{}
			held := 0
			for i, s := range c.steps {
				v := r.Add(0, key4, s.f, &out)
				if v != s.want || !slices.Equal(out.Dropped, s.dropped) {
					t.Fatalf("step %d: %q, dropped %d; want %q, %d", i, v, out.Dropped, s.want, s.dropped)
				}
				held += 1 - len(out.Dropped) - len(out.Pieces)
			}
			var pieces []uint64
			for _, p := range out.Pieces {
				pieces = append(pieces, p.Frame)
				if p.Start != uint32(p.Frame)*10 {
					t.Errorf("frame %d came back with start %d", p.Frame, p.Start)
				}
			}
			if !slices.Equal(pieces, c.pieces) || r.Held() != held {
				t.Errorf("pieces %d, want %d; held %d, want %d", pieces, c.pieces, r.Held(), held)
			}
		})
	}
}

// TestKeys: each field that tells datagrams apart does; for IPv6 the protocol
// does not.
func TestKeys(t *testing.T) {
	for name, change := range map[string]func(*Key){
		"source":         func(k *Key) { k.Src[15]++ },
		"destination":    func(k *Key) { k.Dst[0]++ },
		"identification": func(k *Key) { k.ID += 1 << 16 },
		"protocol":       func(k *Key) { k.Proto++ },
		"family":         func(k *Key) { k.V6 = true },
	} {
		r, out := New(roomy), Out{}
		other := key4
		change(&other)
		r.Add(0, key4, frag(1, 0, 8, true), &out)
		if v := r.Add(0, other, frag(2, 8, 8, false), &out); v != Held || r.Waiting() != 2 {
			t.Errorf("%s: %q", name, v)
		}
	}
	r, out := New(roomy), Out{}
	a, b := Key{ID: 1, Proto: 47, V6: true}, Key{ID: 1, Proto: 60, V6: true}
	r.Add(0, a, frag(1, 0, 8, true), &out)
	if v := r.Add(0, b, frag(2, 8, 8, false), &out); v != Complete {
		t.Errorf("ipv6 fragments with different next headers: %q", v)
	}
}

func TestExpire(t *testing.T) {
	r, out := New(Config{MaxDatagrams: 100, MaxFrames: 100, Timeout: time.Second}), Out{}
	for i := range 40 {
		k := key4
		k.ID = uint32(i)
		r.Add(int64(i), k, frag(uint64(i), 8, 8, true), &out)
	}
	var frames []uint64
	keep := func(f uint64) { frames = append(frames, f) }
	second := int64(time.Second)
	if n := r.Expire(second-1, keep); n != 0 || frames != nil {
		t.Fatalf("expired %d before the time", n)
	}
	if n := r.Expire(second, keep); n != 1 || !slices.Equal(frames, []uint64{0}) {
		t.Fatalf("expired %d, frames %d", n, frames)
	}
	if n := r.Expire(second+100, keep); n != expireBatch {
		t.Fatalf("expired %d in one call, want %d", n, expireBatch)
	}
	if n := r.Expire(second+100, keep) + r.Expire(second+100, keep); n != 23 || r.Held() != 0 || r.Waiting() != 0 {
		t.Fatalf("expired %d, held %d, waiting %d", n, r.Held(), r.Waiting())
	}
	for i, f := range frames {
		if f != uint64(i) {
			t.Fatalf("frames not oldest first: %d", frames)
		}
	}
}

// TestStale: a fragment that comes after the timeout starts a new datagram even
// if nobody has called Expire.
func TestStale(t *testing.T) {
	r, out := New(roomy), Out{}
	r.Add(0, key4, frag(1, 0, 8, true), &out)
	if v := r.Add(int64(time.Second), key4, frag(2, 8, 8, false), &out); v != Held || !slices.Equal(out.Evicted, []uint64{1}) {
		t.Errorf("%q, evicted %d", v, out.Evicted)
	}
	// A refused datagram is forgotten after the timeout as well.
	r.Add(int64(time.Second), key4, frag(3, 8, 16, false), &out)
	if v := r.Add(int64(2*time.Second), key4, frag(4, 0, 8, false), &out); v != Complete {
		t.Errorf("%q", v)
	}
}

func TestEviction(t *testing.T) {
	r, out := New(Config{MaxDatagrams: 2, MaxFragments: 4, MaxFrames: 4, Timeout: time.Second}), Out{}
	id := func(n uint32) Key { k := key4; k.ID = n; return k }
	r.Add(0, id(1), frag(1, 0, 8, true), &out)
	r.Add(0, id(2), frag(2, 0, 8, true), &out)
	if r.Add(0, id(3), frag(3, 0, 8, true), &out); !slices.Equal(out.Evicted, []uint64{1}) {
		t.Errorf("third datagram evicted %d, want the oldest", out.Evicted)
	}
	r.Add(0, id(2), frag(4, 8, 8, true), &out)
	r.Add(0, id(2), frag(5, 16, 8, true), &out)
	// Four frames are held; the oldest datagram itself wants one more.
	if v := r.Add(0, id(2), frag(6, 24, 8, false), &out); v != Complete || !slices.Equal(out.Evicted, []uint64{3}) || len(out.Pieces) != 4 {
		t.Errorf("%q, evicted %d, %d pieces", v, out.Evicted, len(out.Pieces))
	}
	if r.Held() != 0 || r.Waiting() != 0 {
		t.Errorf("held %d, waiting %d", r.Held(), r.Waiting())
	}
}

func TestConfigRange(t *testing.T) {
	got := Config{MaxDatagrams: -1, MaxFragments: 1000, MaxFrames: 1, MaxBytes: 1 << 20}.allowed()
	want := Config{MaxDatagrams: 1, MaxFragments: 255, MaxFrames: 255, MaxBytes: 65535, Timeout: 1}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if got := (Config{}).allowed(); got.MaxBytes != 65535 || got.MaxFragments != 2 || got.MaxFrames != 2 {
		t.Errorf("zero value: %+v", got)
	}
}

func TestVerdictText(t *testing.T) {
	seen := map[string]bool{}
	for v := range VerdictCount {
		if v.String() == "" || seen[v.String()] || (v.RFC() == "") != (v <= Complete) {
			t.Errorf("verdict %d: %q, %q", v, v, v.RFC())
		}
		seen[v.String()] = true
	}
	if VerdictCount.String() != "unknown verdict" || VerdictCount.RFC() != "" {
		t.Error("a number beyond the verdicts must say that it is unknown")
	}
}

// TestOracle runs random sequences against the oracle. Few keys, offsets and
// lengths make most verdicts frequent; a short run may miss a rare one by chance,
// so sequences go on until all verdicts were seen. Every frame
// must come back exactly once.
func TestOracle(t *testing.T) {
	seen := map[Verdict]int{}
	for round := 0; round < 100 && len(seen) < int(VerdictCount) && !t.Failed(); round++ {
		rapid.Check(t, func(t *rapid.T) { sequence(t, seen) })
	}
	for v := range VerdictCount {
		if seen[v] == 0 {
			t.Errorf("no sequence brought about %q", v)
		}
	}
}

// sequence is one random sequence, whose verdicts are added to seen.
func sequence(t *rapid.T, seen map[Verdict]int) {
	c := Config{
		MaxDatagrams: rapid.IntRange(1, 6).Draw(t, "datagrams"),
		MaxFragments: rapid.IntRange(2, 4).Draw(t, "fragments"),
		MaxBytes:     64, Timeout: 20,
	}
	c.MaxFrames = rapid.IntRange(c.MaxFragments, 12).Draw(t, "frames")
	r, o, a := New(c), newOracle(c), account{}
	var out Out
	now := int64(0)
	for n := range rapid.IntRange(1, 120).Draw(t, "steps") {
		now += rapid.Int64Range(0, 2).Draw(t, "wait")
		if rapid.IntRange(0, 9).Draw(t, "what") == 0 {
			var got []uint64
			gotN := r.Expire(now, func(f uint64) { got = append(got, f) })
			want, wantN := o.expire(now)
			if !slices.Equal(got, want) || gotN != wantN {
				t.Fatalf("expired %d of %d, want %d of %d", got, gotN, want, wantN)
			}
			a.back(t, got...)
			continue
		}
		key := Key{ID: rapid.Uint32Range(0, 3).Draw(t, "id"), V6: rapid.Bool().Draw(t, "v6"), Proto: rapid.Uint8Range(0, 1).Draw(t, "proto")}
		f := Fragment{
			Frame: uint64(n),
			Off:   rapid.IntRange(0, 6).Draw(t, "off") * 8,
			Len:   rapid.SampledFrom([]int{8, 8, 8, 8, 8, 8, 16, 16, 24, 5, 9, 0, 40}).Draw(t, "len"),
			More:  rapid.IntRange(0, 3).Draw(t, "last") != 0,
		}
		a.in(f.Frame)
		want, wantOut := o.add(now, key, f)
		got := r.Add(now, key, f, &out)
		seen[got]++
		if d := cmp.Diff(wantOut, out, cmpopts.EquateEmpty()); got != want || d != "" {
			t.Fatalf("%+v of %+v: %q, want %q\n%s", f, key, got, want, d)
		}
		a.back(t, out.Dropped...)
		a.back(t, out.Evicted...)
		for _, p := range out.Pieces {
			a.back(t, p.Frame)
		}
		if r.Held() != len(a) || r.Waiting() != len(o.datagrams) {
			t.Fatalf("held %d of %d, waiting %d of %d", r.Held(), len(a), r.Waiting(), len(o.datagrams))
		}
	}
	r.Drain(func(f uint64) { a.back(t, f) })
	if len(a) != 0 || r.Held() != 0 || r.Waiting() != 0 {
		t.Fatalf("after Drain: %d frames missing, held %d, waiting %d", len(a), r.Held(), r.Waiting())
	}
}

// account holds the frames that are in the table.
type account map[uint64]bool

func (a account) in(frame uint64) { a[frame] = true }

func (a account) back(t *rapid.T, frames ...uint64) {
	for _, f := range frames {
		if !a[f] {
			t.Fatalf("frame %d came back that was not held", f)
		}
		delete(a, f)
	}
}

// TestCollisions gives all keys the same few homes in the table, where removal
// must move neighbours back.
func TestCollisions(t *testing.T) {
	r, out := New(Config{MaxDatagrams: 64, MaxFragments: 2, MaxFrames: 128, Timeout: time.Second}), Out{}
	rnd := rand.New(rand.NewPCG(3, 4))
	type entry struct {
		key  Key
		hash uint32
	}
	var in []entry
	for step := range 20000 {
		if len(in) < 64 && rnd.IntN(2) == 0 {
			e := entry{Key{ID: uint32(step)}, uint32(rnd.IntN(5)) - 2} // homes at both ends
			r.remember(int64(step), e.key, e.hash, &out)
			in = append(in, e)
		} else if len(in) > 0 {
			i := rnd.IntN(len(in))
			r.remove(r.find(&in[i].key, in[i].hash))
			in = slices.Delete(in, i, i+1)
		}
		for _, e := range in {
			if at := r.find(&e.key, e.hash); at == nilIndex || r.datagrams[at].key != e.key {
				t.Fatalf("step %d: key %d lost", step, e.key.ID)
			}
		}
		if r.Waiting() != len(in) {
			t.Fatalf("step %d: waiting %d, want %d", step, r.Waiting(), len(in))
		}
	}
}

// TestSeed: two tables do not put the same keys in the same places.
func TestSeed(t *testing.T) {
	a, b, same := New(roomy), New(roomy), 0
	for id := range uint32(64) {
		if k := (Key{ID: id}); a.hash(&k) == b.hash(&k) {
			same++
		}
	}
	if same > 2 {
		t.Errorf("%d of 64 keys have the same hash in two tables", same)
	}
}

// churn puts a datagram of three fragments together, refuses one and leaves one
// waiting. Time stands still for 50 calls, which evict, and then jumps, which
// expires.
func churn(r *Table, out *Out, i int, fn func(uint64)) {
	k := key4
	k.ID = uint32(i)
	now := int64(i/50) * 50_000
	r.Add(now, k, frag(1, 2960, 100, false), out)
	r.Add(now, k, frag(2, 0, 1480, true), out)
	r.Add(now, k, frag(3, 1480, 1480, true), out)
	k.Proto = 1
	r.Add(now, k, frag(4, 0, 16, true), out)
	r.Add(now, k, frag(5, 8, 16, true), out)
	k.Proto = 2
	r.Add(now, k, frag(6, 0, 16, true), out)
	r.Expire(now, fn)
}

func TestNoAllocation(t *testing.T) {
	r := New(Config{MaxDatagrams: 64, MaxFragments: 16, MaxFrames: 128, Timeout: 40 * time.Microsecond})
	out, i, expired, evicted := Out{}, 0, 0, 0
	fn := func(uint64) { expired++ }
	step := func() { churn(r, &out, i, fn); i++; evicted += len(out.Evicted) }
	for range 200 {
		step() // lets the slices of out grow
	}
	if n := testing.AllocsPerRun(1000, step); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if expired == 0 || evicted == 0 {
		t.Errorf("%d expired, %d evicted: the test does not cover both", expired, evicted)
	}
}

func BenchmarkAdd(b *testing.B) {
	r, out := New(Config{MaxDatagrams: 1024, MaxFragments: 16, MaxFrames: 2048, Timeout: time.Second}), Out{}
	k, i := key4, uint32(0)
	b.Run("two-pieces", func(b *testing.B) {
		for b.Loop() {
			i++
			k.ID = i
			r.Add(0, k, frag(1, 0, 1480, true), &out)
			if r.Add(0, k, frag(2, 1480, 100, false), &out) != Complete {
				b.Fatal("not complete")
			}
		}
	})
	b.Run("flood", func(b *testing.B) { // first fragments alone: each evicts one
		for b.Loop() {
			i++
			k.ID = i
			r.Add(0, k, frag(1, 0, 1480, true), &out)
		}
	})
}
