package esp

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// slowWindow is a window as RFC 4303 describes it: a set.
type slowWindow struct {
	size, top uint64
	seen      map[uint64]bool
}

func (w *slowWindow) check(n uint64) Verdict {
	switch {
	case w.size == 0:
		return OK
	case n == 0:
		return Replayed
	case n+w.size <= w.top:
		return Left
	case w.seen[n]:
		return Replayed
	}
	return OK
}

func (w *slowWindow) commit(n uint64) Verdict {
	if v := w.check(n); v != OK {
		return v
	}
	w.seen[n], w.top = true, max(w.top, n)
	return OK
}

func TestWindowEqualsSet(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for _, size := range []int{0, 1, 2, 31, 32, 33, 63, 64, 65, 100, 127, 128, 129, 1000, 1024, 4096, MaxWindow} {
		w, err := newWindow(size)
		if err != nil {
			t.Fatal(err)
		}
		slow := &slowWindow{size: uint64(size), seen: map[uint64]bool{}}
		for i := range 30000 {
			n := w.top + uint64(rng.IntN(size+2))
			switch rng.IntN(20) {
			case 0:
				n += uint64(rng.IntN(3*size + 300))
			case 1:
				n = uint64(rng.IntN(200))
			default:
				n -= min(n, uint64(rng.IntN(size+70)))
			}
			if got, want := w.check(n), slow.check(n); got != want {
				t.Fatalf("size %d, step %d: %d with top %d is %v, want %v", size, i, n, w.top, got, want)
			}
			if rng.IntN(3) > 0 {
				if got, want := w.commit(n), slow.commit(n); got != want || w.top != slow.top {
					t.Fatalf("size %d, step %d: commit %d: %v, want %v; top %d, want %d", size, i, n, got, want, w.top, slow.top)
				}
			}
		}
	}
}

// TestInfer: of all numbers with the lower half that was sent, the one is meant that is not left of the window and is
// nearest to its left edge: with W packets the window begins at top-W+1.
func TestInfer(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for range 100000 {
		size := 1 + rng.IntN(MaxWindow)
		w, err := newWindow(size)
		if err != nil {
			t.Fatal(err)
		}
		w.top = uint64(rng.IntN(4))<<32 + uint64(rng.Uint32())
		if rng.IntN(2) == 0 {
			w.top = uint64(1+rng.IntN(3))<<32 + uint64(rng.IntN(2*size)) - uint64(size)
		}
		low := uint32(w.top) + uint32(rng.IntN(4*size)) - uint32(2*size)
		if rng.IntN(4) == 0 {
			low = rng.Uint32()
		}
		bottom := int64(w.top) - int64(size) + 1
		want := int64(low)
		for want < bottom {
			want += 1 << 32
		}
		if got := w.infer(low, 0); got != uint64(want) {
			t.Fatalf("top %#x, window %d, low %#x: %#x, want %#x", w.top, size, low, got, want)
		}
	}
}

// TestInferFromFloor: a node to which nothing has come knows the upper half by what came to others.
func TestInferFromFloor(t *testing.T) {
	b := newBed(t)
	for _, s := range []Suite{AES256GCM16, AES128SHA256} {
		for _, begin := range []uint64{1<<32 - 20, 7<<32 + 5, 7<<32 + 1<<31} {
			p := Params{SPI: 0x1000, Suite: s, Key: make([]byte, s.KeySize()), ESN: true}
			out := b.outbound(p, begin)
			in, err := NewInbound(b.vault, p, 64)
			if err != nil {
				t.Fatal(err)
			}
			late, err := NewInbound(b.vault, p, 64)
			if err != nil {
				t.Fatal(err)
			}
			late.SetFloor(begin - 63)
			for i := range 40 {
				packet := b.seal(out, make([]byte, 40), NextIPv4)
				if i == 0 && begin > 1<<32 {
					if _, _, v := b.open(in, bytes.Clone(packet)); v != Forged {
						t.Errorf("%v from %#x: without a floor %v", s, begin, v)
					}
				}
				if i%10 == 0 { // the others come elsewhere
					if _, _, v := b.open(late, packet); v != OK {
						t.Errorf("%v: number %#x: %v", s, begin+uint64(i), v)
					}
				}
			}
		}
	}
}

// TestInferWithoutWindow: the upper half follows even where nothing is refused.
func TestInferWithoutWindow(t *testing.T) {
	w, err := newWindow(0)
	if err != nil {
		t.Fatal(err)
	}
	at := uint64(1)
	for range 100 {
		at += 1 << 30
		n := w.infer(uint32(at), 0)
		if n != at || w.commit(n) != OK {
			t.Fatalf("%#x is understood as %#x", at, n)
		}
	}
}

// TestWindowBegins: a window that goes on at a number takes each number above it once, and none up to it.
func TestWindowBegins(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 1))
	for range 2000 {
		size, top := 1+rng.IntN(300), rng.Uint64N(1<<40)
		w, err := newWindow(size)
		if err != nil {
			t.Fatal(err)
		}
		w.begin(top)
		want := slowWindow{size: uint64(size), top: top, seen: map[uint64]bool{}}
		for n := range min(top, uint64(size)) {
			want.seen[top-n] = true
		}
		for range 50 {
			n := max(1, want.top+uint64(rng.IntN(400))-min(want.top, uint64(rng.IntN(400))))
			if got, want := w.commit(n), want.commit(n); got != want {
				t.Fatalf("window of %d that began at %d: %d is %v, want %v", size, top, n, got, want)
			}
		}
	}
}

// TestFloor: what is below the floor is refused before it is decrypted, also when the window would take it; the floor only rises, and
// without a window it means nothing.
func TestFloor(t *testing.T) {
	b := newBed(t)
	for _, size := range []int{0, 64} {
		p := Params{SPI: 0x1000, Suite: AES128GCM16, Key: make([]byte, AES128GCM16.KeySize())}
		out := b.outbound(p, 1)
		var packets [][]byte
		for range 50 {
			packets = append(packets, b.seal(out, make([]byte, 40), NextIPv4))
		}
		in, err := NewInbound(b.vault, p, size)
		if err != nil {
			t.Fatal(err)
		}
		in.SetFloor(30)
		in.SetFloor(7)
		for i, packet := range packets {
			want := OK
			if size > 0 && i+1 < 30 {
				want = Below
			}
			if _, _, v := b.open(in, packet); v != want {
				t.Errorf("window %d, number %d: %v, want %v", size, i+1, v, want)
			}
		}
		if n := in.Refused(Below); size > 0 && n != 29 || size == 0 && n != 0 {
			t.Errorf("window %d: %d are counted", size, n)
		}
	}
}
