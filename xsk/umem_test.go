package xsk

import (
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestDescLayout(t *testing.T) {
	var d Desc
	var k unix.XDPDesc
	if unsafe.Sizeof(d) != unsafe.Sizeof(k) ||
		unsafe.Offsetof(d.Addr) != unsafe.Offsetof(k.Addr) ||
		unsafe.Offsetof(d.Len) != unsafe.Offsetof(k.Len) ||
		unsafe.Offsetof(d.Options) != unsafe.Offsetof(k.Options) {
		t.Error("Desc is not laid out like struct xdp_desc")
	}
	if Headroom != unix.XDP_PACKET_HEADROOM+48 || Headroom+MaxPacket != FrameSize || 1<<frameShift != FrameSize {
		t.Error("frame constants disagree")
	}
}

func TestUMEMRefusesImpossibleSizes(t *testing.T) {
	for _, c := range []struct {
		cfg  UMEMConfig
		want string
	}{
		{UMEMConfig{Parts: 0, FramesPerPart: 64}, "0 parts: allowed are 1 to 1024"},
		{UMEMConfig{Parts: -1, FramesPerPart: 64}, "-1 parts"},
		{UMEMConfig{Parts: 1025, FramesPerPart: 64}, "1025 parts"},
		{UMEMConfig{Parts: 1, FramesPerPart: 63}, "63 frames per part: at least 64"},
		{UMEMConfig{Parts: 1, FramesPerPart: -5}, "-5 frames per part"},
		{UMEMConfig{Parts: 2, FramesPerPart: maxFrames/2 + 1}, "at most 16777216 frames (32 GiB)"},
		{UMEMConfig{Parts: 1024, FramesPerPart: 1 << 62}, "at most 16777216 frames"},
	} {
		u, err := NewUMEM(c.cfg)
		if err == nil {
			u.Close()
			t.Errorf("%+v: accepted", c.cfg)
		} else if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %q does not say %q", c.cfg, err, c.want)
		}
	}
}

func TestRefusesRingSizes(t *testing.T) {
	u := newTestUMEM(t, UMEMConfig{Parts: 1, FramesPerPart: 1000})
	for _, c := range []struct {
		size uint32
		want string // "" = accepted
	}{
		{64, ""}, {512, ""},
		{0, "ring size 0: allowed are powers of two from 64 to 65536"},
		{32, "ring size 32: allowed"},
		{1 << 17, "ring size 131072: allowed"},
		{100, "ring size 100 is not a power of two: take 64 or 128"},
		{65, "take 64 or 128"},
		{65535, "take 32768 or 65536"},
		{1024, "ring size 1024: a worker's part of the umem has only 1000 frames; give it 2048 or more"},
	} {
		err := validateRingSize(c.size, u)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%d: %v", c.size, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%d: %v does not say %q", c.size, err, c.want)
		}
	}
}

// TestHome compares the multiplication with the division that it stands for.
func TestHome(t *testing.T) {
	for _, perPart := range []int{64, 65, 100, 1000, 4096, 12345} {
		u := newTestUMEM(t, UMEMConfig{Parts: 3, FramesPerPart: perPart})
		for f := range 3 * perPart {
			for _, in := range []uint64{0, 1, FrameSize - 1} {
				if got, want := u.Home(uint64(f)*FrameSize+in), f/perPart; got != want {
					t.Fatalf("%d frames per part: frame %d belongs to part %d, want %d", perPart, f, got, want)
				}
			}
		}
	}
	// The largest legal memory, without mapping it.
	u := &UMEM{framesPerPart: maxFrames / 3}
	u.reciprocal = ^uint64(0)/uint64(u.framesPerPart) + 1
	for _, f := range []int{0, maxFrames/3 - 1, maxFrames / 3, 2*(maxFrames/3) - 1, 2 * (maxFrames / 3), maxFrames - 2} {
		if got, want := u.Home(uint64(f)<<frameShift), f/(maxFrames/3); got != want {
			t.Errorf("frame %d belongs to part %d, want %d", f, got, want)
		}
	}
}

func TestUMEMPages(t *testing.T) {
	for _, huge := range []bool{false, true} {
		u := newTestUMEM(t, UMEMConfig{Parts: 2, FramesPerPart: 65, HugePages: huge})
		if len(u.Bytes()) != 2*65*FrameSize {
			t.Errorf("huge %v: %d bytes", huge, len(u.Bytes()))
		}
		pages := u.Pages()
		switch {
		case !huge && strings.Contains(pages, "2 MiB"):
			t.Errorf("huge pages were not asked for: %s", pages)
		case huge && pages != "2 MiB" && !strings.Contains(pages, "vm.nr_hugepages"):
			t.Errorf("a fallback without a next step: %s", pages)
		}
		// All of it can be written.
		for i := 0; i < len(u.Bytes()); i += FrameSize {
			u.Bytes()[i] = 1
		}
	}
}

func TestCloseTwice(t *testing.T) {
	u, err := NewUMEM(UMEMConfig{Parts: 1, FramesPerPart: 64})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := u.Close(); err != nil {
			t.Error(err)
		}
	}
}

// newTestUMEM is a UMEM that the test closes without looking for leaks.
func newTestUMEM(t testing.TB, cfg UMEMConfig) *UMEM {
	t.Helper()
	u, err := NewUMEM(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = u.Close() })
	return u
}
