package aesgcm

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func kernelVault(t *testing.T) *Vault {
	t.Helper()
	if !Accelerated() {
		t.Skip("this machine has no kernels: AVX-512, VAES and VPCLMULQDQ are needed")
	}
	return NewVault(Options{Unlocked: true})
}

func (c *context) bytes() []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(c)), contextSize)
}

// TestKeysAreWiped: the room of a key that ended is empty, and is used again.
func TestKeysAreWiped(t *testing.T) {
	v := kernelVault(t)
	defer v.Close()
	rooms := map[*context]bool{}
	for range 1000 {
		k, err := v.Key(bytes.Repeat([]byte{7}, 32), [SaltSize]byte{})
		if err != nil {
			t.Fatal(err)
		}
		c := (*context)(k.state)
		rooms[c] = true
		if bytes.Count(c.bytes(), []byte{0}) > int(contextSize)/2 {
			t.Fatal("the key is empty")
		}
		v.Wipe(&k)
		if k != (Key{}) || bytes.Count(c.bytes(), []byte{0}) != int(contextSize) {
			t.Fatal("something is left of a key that was wiped")
		}
		v.Wipe(&k) // again is harmless
	}
	if len(rooms) != 1 {
		t.Errorf("%d rooms were used for one key after the other", len(rooms))
	}
}

// TestKeysHaveRoomsOfTheirOwn: more keys than one chunk holds.
func TestKeysHaveRoomsOfTheirOwn(t *testing.T) {
	v := kernelVault(t)
	defer v.Close()
	rooms := map[*context]bool{}
	for range 3*chunkSize/int(contextSize) + 1 {
		k, err := v.Key(make([]byte, 16), [SaltSize]byte{})
		if err != nil {
			t.Fatal(err)
		}
		if uintptr(k.state)%64 != 0 {
			t.Fatal("a context does not begin with a line of the cache")
		}
		rooms[(*context)(k.state)] = true
	}
	if want := 3*chunkSize/int(contextSize) + 1; len(rooms) != want {
		t.Errorf("%d rooms for %d keys", len(rooms), want)
	}
}

// TestKeysAreKeptFromDumps asks the kernel what it will do with the memory: dd is "do not dump", dc "do not copy on
// fork", lo "locked".
func TestKeysAreKeptFromDumps(t *testing.T) {
	if !Accelerated() {
		t.Skip("this machine has no kernels: AVX-512, VAES and VPCLMULQDQ are needed")
	}
	v := NewVault(Options{})
	defer v.Close()
	k, err := v.Key(make([]byte, 16), [SaltSize]byte{})
	if errors.Is(err, unix.ENOMEM) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EAGAIN) {
		t.Skipf("this process may not lock memory: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	b := new(Burst)
	b.Set(0, &k, make([]byte, 1000), 0, AAD{})
	b.Seal()
	for what, addr := range map[string]unsafe.Pointer{"keys": k.state, "round keys of a burst": unsafe.Pointer(b.work.rounds)} {
		flags := flagsOf(t, uintptr(addr))
		for _, want := range []string{"dd", "dc", "lo"} {
			if !strings.Contains(flags+" ", " "+want+" ") {
				t.Errorf("flags of the memory for %s:%s, want %s among them", what, flags, want)
			}
		}
	}
}

// TestSpreadRoundsComeBack: the memory of a burst that is gone serves the next one.
func TestSpreadRoundsComeBack(t *testing.T) {
	if !Accelerated() {
		t.Skip("this machine has no kernels: AVX-512, VAES and VPCLMULQDQ are needed")
	}
	v := NewVault(Options{Unlocked: true})
	defer v.Close()
	k, err := v.Key(make([]byte, 16), [SaltSize]byte{})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[*spreadRounds]bool{}
	for range 100 {
		for range 100 {
			b := new(Burst)
			b.Set(0, &k, make([]byte, 100), 0, AAD{})
			b.Seal()
			seen[b.work.rounds] = true
		}
		runtime.GC()
		time.Sleep(time.Millisecond) // for the goroutine that cleans up
	}
	if len(seen) > 2000 {
		t.Errorf("10,000 bursts, 100 at a time, took memory for %d", len(seen))
	}
}

// flagsOf finds the VmFlags of an address in /proc/self/smaps.
func flagsOf(t *testing.T, addr uintptr) string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	inside := false
	for line := range strings.Lines(string(text)) {
		var first, end uintptr
		if n, _ := fmt.Sscanf(line, "%x-%x ", &first, &end); n == 2 {
			inside = first <= addr && addr < end
		}
		if flags, ok := strings.CutPrefix(line, "VmFlags:"); ok && inside {
			return strings.TrimRight(flags, "\n ")
		}
	}
	t.Fatal("the keys' memory is not in smaps")
	return ""
}

func TestSecretsOfAWrongLength(t *testing.T) {
	for _, o := range []Options{{}, {Portable: true}} {
		v := NewVault(o)
		for _, n := range []int{0, 15, 17, 24, 31, 33} {
			if _, err := v.Key(make([]byte, n), [SaltSize]byte{}); !errors.Is(err, ErrKeySize) {
				t.Errorf("%+v, %d bytes: %v", o, n, err)
			}
		}
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	}
}
