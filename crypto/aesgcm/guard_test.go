package aesgcm

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"
)

// guarded is memory between two pages that nobody may touch.
func guarded(t *testing.T, pages int) []byte {
	t.Helper()
	size := unix.Getpagesize()
	m, err := unix.Mmap(-1, 0, (pages+2)*size, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(m) })
	inside := m[size : (pages+1)*size]
	if err := unix.Mprotect(inside, unix.PROT_READ|unix.PROT_WRITE); err != nil {
		t.Fatal(err)
	}
	return inside
}

// TestGuardPages: texts that begin or end, with their tags, at the edge of what may be read and written.
func TestGuardPages(t *testing.T) {
	implementations(t, func(t *testing.T, v *Vault) {
		s := newSource(t, v, 8, 4)
		m := guarded(t, 3)
		for n := 0; n <= 1500; n += 1 + n/300 {
			for _, at := range []int{0, len(m) - n - TagSize} {
				x := s.subject(n, 0, 8)
				x.text = m[at : at+n+TagSize]
				copy(x.text, x.plain)
				b := new(Burst)
				x.add(b)
				b.Seal()
				if !bytes.Equal(x.text, x.sealed) {
					t.Fatalf("%d bytes at %d: sealed wrong", n, at)
				}
				if b.Open() != 0 || !bytes.Equal(x.text[:n], x.plain) {
					t.Fatalf("%d bytes at %d: opened wrong", n, at)
				}
			}
		}
	})
}
