package pipeline

import (
	"testing"
	"unsafe"
)

// TestContextsFillCacheLines keeps what is read per packet within the lines that are prefetched.
func TestContextsFillCacheLines(t *testing.T) {
	for name, got := range map[string][2]uintptr{
		"packet":         {unsafe.Sizeof(packet{}), 64},
		"rxTunnel":       {unsafe.Sizeof(rxTunnel{}), 128},
		"txTunnel":       {unsafe.Sizeof(txTunnel{}), 128},
		"tunnelBucket":   {unsafe.Sizeof(tunnelBucket{}), 64},
		"tunnelCounters": {unsafe.Sizeof(tunnelCounters{}), 64},
	} {
		if got[0] != got[1] {
			t.Errorf("%s has %d bytes, want %d", name, got[0], got[1])
		}
	}
	if at := unsafe.Offsetof(rxTunnel{}.customer6); at != 64 {
		t.Errorf("rxTunnel's second line begins at %d, want 64", at)
	}
}
