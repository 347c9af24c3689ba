//go:build !race

package esp

import (
	"runtime"
	"testing"
	"unsafe"
)

// TestLayout: associations of two owners share no cache line, what a packet needs is in the first one, and prefetch asks for
// that and the key. (The race detector lays memory out otherwise.)
func TestLayout(t *testing.T) {
	var (
		in  Inbound
		out Outbound
	)
	for _, x := range []struct {
		what      string
		got, want uintptr
	}{
		{"size of Inbound", unsafe.Sizeof(in), 128},
		{"size of Outbound", unsafe.Sizeof(out), 128},
		{"Inbound.window.top", unsafe.Offsetof(in.window) + unsafe.Offsetof(in.window.top), 48},
		{"Outbound.bytes", unsafe.Offsetof(out.bytes), 56},
		{"Outbound.gcm", unsafe.Offsetof(out.gcm), 24},
	} {
		if x.got != x.want {
			t.Errorf("%s: %d, want %d", x.what, x.got, x.want)
		}
	}
	for range 100 {
		if at := uintptr(unsafe.Pointer(new(Inbound))); at%64 != 0 {
			t.Fatalf("an Inbound at %#x", at)
		}
	}
}

// TestMemory: a pair of any suite, with a window of 1,024, takes less than 5 KiB on the heap and in the vault, so that
// 100,000 pairs fit in 500 MiB.
func TestMemory(t *testing.T) {
	for suite := AES128GCM16; suite < suiteEnd; suite++ {
		const pairs = 1000
		b := newBed(t)
		keep := make([]any, 0, 2*pairs)
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for i := range uint32(pairs) {
			p := Params{SPI: 1000 + i, Suite: suite, Key: b.key(suite)}
			keep = append(keep, b.inbound(p, 1024), b.outbound(p, 1))
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		each := int(after.HeapAlloc-before.HeapAlloc) / pairs
		if suite.info().kind == kindGCM {
			each += 2 << 10 // contexts in the vault: TestLayout of aesgcm has their size
		}
		if each > 5<<10 {
			t.Errorf("a pair of %s takes %d bytes", suite, each)
		}
		t.Logf("%s: %d bytes", suite, each)
		runtime.KeepAlive(keep)
	}
}
