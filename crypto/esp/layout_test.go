//go:build !race

package esp

import (
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
		{"Inbound.window.top", unsafe.Offsetof(in.window) + unsafe.Offsetof(in.window.top), 56},
		{"Outbound.bytes", unsafe.Offsetof(out.bytes), 56},
		{"Outbound.gcm", unsafe.Offsetof(out.gcm), 16},
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
