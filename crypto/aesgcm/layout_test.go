package aesgcm

import (
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
	)
	for _, x := range []struct {
		what      string
		got, want uintptr
	}{
		{"size of packet", unsafe.Sizeof(p), 64},
		{"packet.key", unsafe.Offsetof(p.key), 0},
		{"packet.text", unsafe.Offsetof(p.text), 8},
		{"packet.textBits", unsafe.Offsetof(p.textBits), 16},
		{"packet.aadBits", unsafe.Offsetof(p.aadBits), 24},
		{"packet.salt", unsafe.Offsetof(p.salt), 32},
		{"packet.iv", unsafe.Offsetof(p.iv), 36},
		{"packet.aad", unsafe.Offsetof(p.aad), 48},
		{"size of context", unsafe.Sizeof(c), 1024},
		{"context.rounds", unsafe.Offsetof(c.rounds), 16},
		{"context.powers", unsafe.Offsetof(c.powers), 256},
		{"context.karatsuba", unsafe.Offsetof(c.karatsuba), 768},
		{"work.streams", unsafe.Offsetof(w.streams), 0},
		{"work.failed", unsafe.Offsetof(w.failed), 256},
		{"work.tags", unsafe.Offsetof(w.tags), 328},
		{"work.end", unsafe.Offsetof(w.end), 360},
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
