package aesgcm

import (
	"bytes"
	"testing"
	"unsafe"
)

func address(b []byte) int { return int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }

// TestLayout compares the structures with what gen and key_amd64.s know of them.
func TestLayout(t *testing.T) {
	var (
		p packet
		c context
		w work
		b Burst
		l layoutTables
	)
	for _, x := range []struct {
		what      string
		got, want uintptr
	}{
		{"size of packet", unsafe.Sizeof(p), 64},
		{"packet.key", unsafe.Offsetof(p.key), 0},
		{"packet.iv", unsafe.Offsetof(p.iv), 36},
		{"packet.aad", unsafe.Offsetof(p.aad), 48},
		{"packet.restAAD", unsafe.Offsetof(p.restAAD), 56},
		{"fillers behind packets", unsafe.Offsetof(b.fillers) - unsafe.Offsetof(b.packets), 64 * 64},
		{"size of context", unsafe.Sizeof(c), 1024},
		{"context.rounds", unsafe.Offsetof(c.rounds), 16},
		{"context.powers", unsafe.Offsetof(c.powers), 256},
		{"context.karatsuba", unsafe.Offsetof(c.karatsuba), 768},
		{"work.texts", unsafe.Offsetof(w.texts), 0},
		{"work.extents", unsafe.Offsetof(w.extents), 512},
		{"work.lengths", unsafe.Offsetof(w.lengths), 1024},
		{"work.heads", unsafe.Offsetof(w.heads), 2112},
		{"work.tags", unsafe.Offsetof(w.tags), 2656},
		{"work.tails", unsafe.Offsetof(w.tails), 3200},
		{"work.shapes", unsafe.Offsetof(w.shapes), 3744},
		{"shape.text", unsafe.Offsetof(w.shapes[0].text), 0},
		{"shape.aad", unsafe.Offsetof(w.shapes[0].aad), 1},
		{"shape.empty", unsafe.Offsetof(w.shapes[0].empty), 2},
		{"shape.failed", unsafe.Offsetof(w.shapes[0].failed), 3},
		{"work.classes", unsafe.Offsetof(w.classes), 4288},
		{"work.order", unsafe.Offsetof(w.order), 4352},
		{"work.rounds", unsafe.Offsetof(w.rounds), 4488},
		{"work.end", unsafe.Offsetof(w.end), 4496},
		{"size of layouts", unsafe.Sizeof(l), 1024 + 256},
		{"layouts.j0", unsafe.Offsetof(l.j0), 1024},
	} {
		if x.got != x.want {
			t.Errorf("%s: %d, want %d", x.what, x.got, x.want)
		}
	}
}

// TestCounters: the kernels read them at addresses that gen computes.
func TestCounters(t *testing.T) {
	for i, block := range counters {
		if want := [16]byte{15: byte(i - 2)}; block != want {
			t.Errorf("block %d: %x, want %x", i, block, want)
		}
	}
	if len(counters) != 258 {
		t.Errorf("%d blocks, want 258: the last bytes of -2 to 255", len(counters))
	}
}

// TestLayouts: what the kernels look up by the number of empty lanes begins with a line of the cache, counts from J0 on, and
// takes out the right lane.
func TestLayouts(t *testing.T) {
	if uintptr(unsafe.Pointer(layouts))%64 != 0 {
		t.Error("the tables do not begin with a line of the cache")
	}
	for empty := range 4 {
		for register := range 4 {
			for lane := range 4 {
				block := layouts.counters[empty][0][lane]
				if register > 0 {
					for i, b := range layouts.counters[empty][register][lane] {
						block[i] ^= b
					}
				}
				if want := [16]byte{15: byte(4*register + lane - empty + 1)}; block != want {
					t.Errorf("%d empty lanes, lane %d of register %d: %x, want %x", empty, lane, register, block, want)
				}
			}
		}
		for lane, got := range layouts.j0[empty] {
			want := [16]byte{15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0}
			if lane != empty {
				want = [16]byte(bytes.Repeat([]byte{0x80}, 16))
			}
			if got != want {
				t.Errorf("%d empty lanes, lane %d: %x, want %x", empty, lane, got, want)
			}
		}
	}
}
