package esp

import (
	"encoding/binary"
	"sync"
	"testing"
)

// TestIVsNeverComeTwice: several workers, and a start after a crash at the mark.
func TestIVsNeverComeTwice(t *testing.T) {
	b := newBed(t)
	seen := map[uint64]bool{}
	var mu sync.Mutex
	mark := uint64(0)
	for range 3 { // starts
		source, err := NewIVSource(7, mark)
		if err != nil {
			t.Fatal(err)
		}
		mark += 8 * ivBlock
		source.Reserve(mark)
		var wg sync.WaitGroup
		for range 4 {
			key := b.key(AES128GCM16)
			wg.Go(func() {
				sa, err := NewOutbound(b.vault, Params{SPI: 0x1000, Suite: AES128GCM16, Key: key}, 1)
				if err != nil {
					t.Error(err)
					return
				}
				sa.Mark(1 << 32)
				s := NewSealer(source)
				frame := make([]byte, 128)
				var mine []uint64
				for range ivBlock + 10 {
					from, _, v := s.Add(sa, frame, 40, 60, NextIPv4)
					if v != OK {
						t.Error(v)
						return
					}
					mine = append(mine, binary.BigEndian.Uint64(frame[from+headerLen:]))
					s.Seal()
				}
				mu.Lock()
				defer mu.Unlock()
				for _, iv := range mine {
					if seen[iv] || iv>>counterBits != 7 {
						t.Errorf("%#x came before, or is another writer's", iv)
						return
					}
					seen[iv] = true
				}
			})
		}
		wg.Wait()
		if source.Next() > mark {
			t.Errorf("counter %d is above the mark %d", source.Next(), mark)
		}
	}
}

// TestNoIV: without a reserved block nothing is sent, and no sequence number is lost.
func TestNoIV(t *testing.T) {
	b := newBed(t)
	source, err := NewIVSource(1, 0)
	if err != nil {
		t.Fatal(err)
	}
	s := NewSealer(source)
	p := Params{SPI: 0x1000, Suite: AES128GCM16, Key: b.key(AES128GCM16)}
	sa := b.outbound(p, 1)
	frame := make([]byte, 128)
	add := func() Verdict {
		_, _, v := s.Add(sa, frame, 40, 60, NextIPv4)
		s.Seal()
		return v
	}
	if v := add(); v != NoIV || sa.Next() != 1 {
		t.Errorf("%v, next number %d", v, sa.Next())
	}
	source.Reserve(ivBlock - 1)
	if v := add(); v != NoIV {
		t.Errorf("less than a block: %v", v)
	}
	source.Reserve(ivBlock)
	if v := add(); v != OK || sa.Next() != 2 {
		t.Errorf("%v, next number %d", v, sa.Next())
	}
	for _, c := range []struct {
		writer uint32
		first  uint64
	}{{MaxWriter + 1, 0}, {0, 1 << counterBits}} {
		if _, err := NewIVSource(c.writer, c.first); err == nil {
			t.Errorf("writer %d may begin with %d", c.writer, c.first)
		}
	}
}

// TestCBCIVsAreNotCounted: each differs from the one before in about half of its bits.
func TestCBCIVsAreNotCounted(t *testing.T) {
	b := newBed(t)
	out, _ := b.pair(AES128SHA256, false, 0)
	seen := map[string]bool{}
	for range 1000 {
		iv := string(b.seal(out, make([]byte, 40), NextIPv4)[headerLen : headerLen+16])
		if seen[iv] {
			t.Fatal("an IV came twice")
		}
		seen[iv] = true
	}
	var last string
	turned := 0
	for iv := range seen {
		for i := range len(last) {
			for x := iv[i] ^ last[i]; x != 0; x &= x - 1 {
				turned++
			}
		}
		last = iv
	}
	if mean := float64(turned) / 999; mean < 60 || mean > 68 {
		t.Errorf("%.1f of 128 bits differ on average", mean)
	}
}
