package esp

import (
	"bytes"
	"sync"
	"testing"
)

// TestSingleIVs: those that one caller takes come neither twice nor to a worker, and end at the mark.
func TestSingleIVs(t *testing.T) {
	const mark = 3*ivBlock + 100
	source, err := NewIVSource(9, 50)
	if err != nil {
		t.Fatal(err)
	}
	if iv, ok := source.One(); ok {
		t.Errorf("%#x was given out before anything was reserved", iv)
	}
	source.Reserve(mark)
	seen := map[uint64]bool{}
	var mu sync.Mutex
	note := func(ivs []uint64) {
		mu.Lock()
		defer mu.Unlock()
		for _, iv := range ivs {
			if seen[iv] || iv>>counterBits != 9 || iv&(1<<counterBits-1) < 50 || iv&(1<<counterBits-1) >= mark {
				t.Errorf("%#x came before, or is not reserved", iv)
				return
			}
			seen[iv] = true
		}
	}
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() { // a worker
			s := NewSealer(source)
			var mine []uint64
			for range ivBlock {
				if s.haveIV() {
					mine = append(mine, s.nextIV())
				}
			}
			note(mine)
		})
		all.Go(func() {
			var mine []uint64
			for range ivBlock / 2 {
				if iv, ok := source.One(); ok {
					mine = append(mine, iv)
				}
			}
			note(mine)
		})
	}
	all.Wait()
	for iv, ok := source.One(); ok; iv, ok = source.One() {
		note([]uint64{iv})
	}
	if len(seen) != mark-50 || source.Next() != mark {
		t.Errorf("%d IVs of %d, the next counter is %d", len(seen), mark-50, source.Next())
	}
}

// TestNewest: a packet is the newest if its number is above all authentic ones, in its batch too; replay windows or not.
func TestNewest(t *testing.T) {
	for _, suite := range []Suite{AES128GCM16, ChaCha20Poly1305, AES128SHA256} {
		for _, window := range []int{0, 64} {
			b := newBed(t)
			out, in := b.pair(suite, false, window)
			var p [5][]byte
			for i := range p {
				p[i] = b.seal(out, make([]byte, 40), NextIPv4)
			}
			forged := bytes.Clone(p[4])
			forged[len(forged)-1] ^= 1
			b.opener.Reset()
			for _, packet := range [][]byte{p[1], bytes.Clone(p[0]), p[3], p[2], forged} {
				if v := b.opener.Add(in, packet); v != OK {
					t.Fatal(v)
				}
			}
			b.opener.Open()
			for k, want := range []bool{true, false, true, false} {
				if _, _, _, v := b.opener.Result(k); v != OK || b.opener.Newest(k) != want {
					t.Errorf("%v, window of %d, packet %d: %v, newest %v", suite, window, k, v, !want)
				}
			}
			if _, _, _, v := b.opener.Result(4); v != Forged {
				t.Error(v)
			}
			if window > 0 {
				continue
			}
			if _, _, v := b.open(in, p[0]); v != OK || b.opener.Newest(0) {
				t.Errorf("%v: a replay is the newest, or %v", suite, v)
			}
		}
	}
}

// TestHardEnds: by packets and by bytes, and when the sequence numbers are used up.
func TestHardEnds(t *testing.T) {
	b := newBed(t)
	key := b.key(AES128GCM16)
	p := Params{SPI: 0x1000, Suite: AES128GCM16, Key: key, Life: Life{HardPackets: 2}}
	out, in := b.outbound(p, 1), b.inbound(p, 64)
	for range 2 {
		if out.Hard() || in.Hard() {
			t.Fatal("over before the end")
		}
		if _, _, v := b.open(in, b.seal(out, make([]byte, 40), NextIPv4)); v != OK {
			t.Fatal(v)
		}
	}
	if !out.Hard() || !in.Hard() {
		t.Error("not over after two packets")
	}
	last := b.outbound(Params{SPI: 0x1001, Suite: AES128GCM16, Key: key}, 1<<32-1)
	if last.Hard() {
		t.Error("over with a number left")
	}
	b.seal(last, make([]byte, 40), NextIPv4)
	if !last.Hard() {
		t.Error("not over without numbers")
	}
	if esn := b.outbound(Params{SPI: 0x1002, Suite: AES128GCM16, Key: key, ESN: true}, 1<<32); esn.Hard() {
		t.Error("with ESN 2^32 is no end")
	}
}
