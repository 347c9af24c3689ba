package xsk

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestPoolAgainstMap plays random takes and returns on a pool and on a set, and
// compares after every step.
func TestPoolAgainstMap(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		parts := rapid.IntRange(1, 3).Draw(rt, "parts")
		perPart := rapid.IntRange(minFramesPerPart, 200).Draw(rt, "frames")
		u, err := NewUMEM(UMEMConfig{Parts: parts, FramesPerPart: perPart, Debug: rapid.Bool().Draw(rt, "debug")})
		if err != nil {
			rt.Fatal(err)
		}
		part := rapid.IntRange(0, parts-1).Draw(rt, "part")
		p := u.Pool(part)
		free := map[uint64]bool{}
		for f := range perPart {
			free[uint64(part*perPart+f)*FrameSize] = true
		}
		var held []uint64
		rt.Repeat(map[string]func(*rapid.T){
			"get": func(rt *rapid.T) {
				dst := make([]uint64, rapid.IntRange(0, 100).Draw(rt, "n"))
				n := p.Get(dst)
				if want := min(len(dst), len(free)); n != want {
					rt.Fatalf("got %d frames, want %d", n, want)
				}
				for _, a := range dst[:n] {
					if !free[a] {
						rt.Fatalf("frame %#x was not free", a)
					}
					delete(free, a)
				}
				held = append(held, dst[:n]...)
			},
			"put": func(rt *rapid.T) {
				n := rapid.IntRange(0, min(len(held), 100)).Draw(rt, "n")
				back := held[len(held)-n:]
				held = held[:len(held)-n]
				for i, a := range back {
					free[a] = true
					back[i] = a + uint64(rapid.IntRange(0, FrameSize-1).Draw(rt, "inside"))
				}
				p.Put(back)
			},
			"": func(rt *rapid.T) {
				if p.Len() != len(free) {
					rt.Fatalf("%d frames free, want %d", p.Len(), len(free))
				}
			},
		})
		err = u.Close()
		if leaked := u.ledger != nil && len(held) > 0; leaked != (err != nil) {
			rt.Fatalf("%d frames held at close: %v", len(held), err)
		}
	})
}

func TestPoolIsLIFO(t *testing.T) {
	p := newTestUMEM(t, UMEMConfig{Parts: 1, FramesPerPart: 64}).Pool(0)
	a := make([]uint64, 3)
	p.Get(a)
	p.Put([]uint64{a[1]})
	b := make([]uint64, 1)
	if p.Get(b); b[0] != a[1] {
		t.Errorf("got %#x, want the frame put back last, %#x", b[0], a[1])
	}
}

func TestPoolOverflow(t *testing.T) {
	p := newTestUMEM(t, UMEMConfig{Parts: 1, FramesPerPart: 64}).Pool(0)
	wantPanic(t, "only 0 are out: a frame was freed twice", func() { p.Put([]uint64{0}) })
}

// TestLedgerCatches makes each mistake once.
func TestLedgerCatches(t *testing.T) {
	for _, c := range []struct {
		name    string
		want    []string
		mistake func(u *UMEM, addr uint64) // addr: a frame that the worker owns
	}{
		{"double free", []string{"freed twice", "its last moves:", "free->worker (generation 1)", "worker->free"}, func(u *UMEM, addr uint64) {
			u.Pool(0).Put([]uint64{addr})
			u.Pool(0).Put([]uint64{addr})
		}},
		{"use after free", []string{"moved from worker to tx, but its owner is free", "used after it was freed"}, func(u *UMEM, addr uint64) {
			u.Pool(0).Put([]uint64{addr})
			u.Track(addr+300, Worker, TX)
		}},
		{"write after free", []string{"written to while it was free, at byte 77"}, func(u *UMEM, addr uint64) {
			u.Pool(0).Put([]uint64{addr})
			u.Bytes()[addr+77] = 0
			u.Pool(0).Get(make([]uint64, 1))
		}},
		{"sent twice", []string{"sent twice"}, func(u *UMEM, addr uint64) {
			u.Track(addr, Worker, TX)
			u.Track(addr, Worker, TX)
		}},
		{"freed on the wire", []string{"moved from worker to free, but its owner is tx", "used while the kernel had it"}, func(u *UMEM, addr uint64) {
			u.Track(addr, Worker, TX)
			u.Pool(0).Put([]uint64{addr})
		}},
		{"handed over and kept", []string{"owner is hand-over", "used by someone who does not own it"}, func(u *UMEM, addr uint64) {
			u.Track(addr, Worker, HandOver)
			u.Track(addr, Worker, TX)
		}},
		{"beyond the end", []string{"lies beyond the UMEM's 128 frames"}, func(u *UMEM, addr uint64) {
			u.Track(128*FrameSize, Worker, TX)
		}},
		{"wrong pool", []string{"frame 0 of part 0 was put into the pool of part 1; send it home"}, func(u *UMEM, addr uint64) {
			u.Pool(1).Put([]uint64{addr})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := newTestUMEM(t, UMEMConfig{Parts: 2, FramesPerPart: 64, Debug: true})
			addrs := make([]uint64, 1)
			u.Pool(0).Get(addrs)
			for _, want := range c.want {
				wantPanic(t, want, func() { c.mistake(u, addrs[0]) })
				// Start afresh for the next look at the same panic.
				u = newTestUMEM(t, UMEMConfig{Parts: 2, FramesPerPart: 64, Debug: true})
				u.Pool(0).Get(addrs)
			}
		})
	}
}

func TestLeakCheck(t *testing.T) {
	u, err := NewUMEM(UMEMConfig{Parts: 1, FramesPerPart: 64, Debug: true})
	if err != nil {
		t.Fatal(err)
	}
	addrs := make([]uint64, 5)
	u.Pool(0).Get(addrs)
	u.Track(addrs[0], Worker, HandOver)
	u.Track(addrs[1], Worker, Fill) // with the kernel: no leak
	u.Track(addrs[2], Worker, TX)
	u.Pool(0).Put(addrs[3:4])
	err = u.Close()
	if err == nil {
		t.Fatal("two leaked frames were not reported")
	}
	for _, want := range []string{"1 owned by worker, 1 by hand-over", "frame 0 owned by worker", "frame 4 owned by hand-over"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
}

func TestTrackWithoutDebug(t *testing.T) {
	u := newTestUMEM(t, UMEMConfig{Parts: 1, FramesPerPart: 64})
	u.Track(1<<40, Free, TX) // nothing is checked, nothing happens
}

// wantPanic runs f and checks what it panics with.
func wantPanic(t *testing.T, want string, f func()) {
	t.Helper()
	defer func() {
		t.Helper()
		got := recover()
		if got == nil {
			t.Errorf("no panic; want one that says %q", want)
		} else if !strings.Contains(fmt.Sprint(got), want) {
			t.Errorf("panic %q does not say %q", got, want)
		}
	}()
	f()
}
