package node

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"causeway/config"
	"causeway/crypto/aesgcm"
	"causeway/crypto/esp"
)

// TestEncryptions compares what config knows of the algorithms with what they do.
func TestEncryptions(t *testing.T) {
	names := esp.SuiteNames()
	if len(names) != len(config.Encryptions) {
		t.Fatalf("config has %d encryptions, esp has %d", len(config.Encryptions), len(names))
	}
	for i, e := range config.Encryptions {
		s, err := esp.ParseSuite(e.Name)
		if err != nil || names[i] != e.Name {
			t.Fatalf("%s: %v, esp has %s there", e.Name, err, names[i])
		}
		if s.KeySize() != e.Key || s.CounterMode() != e.Counter || s.Null() != e.Null || s.Weak() != e.Weak {
			t.Errorf("%+v is not %v", e, s)
		}
		for n := 20; n < 100; n++ {
			padded := (n + 2 + e.Align - 1) / e.Align * e.Align
			if got, want := 8+e.IV+padded+e.ICV, s.PacketLen(n); got != want {
				t.Errorf("%s: %d bytes make %d, want %d", e.Name, n, got, want)
			}
		}
	}
}

// ipsecConfig has tunnels with these numbers; key tells their keys apart.
func ipsecConfig(t *testing.T, key byte, tunnels ...int) *config.Config {
	t.Helper()
	var s strings.Builder
	s.WriteString("interfaces: [{name: eth0}]\nendpoints: [192.0.2.1]\n")
	if len(tunnels) > 0 {
		s.WriteString("tunnels:\n")
	}
	for _, k := range tunnels {
		fmt.Fprintf(&s, "  - {name: t%d, type: ipsec, lab: true, endpoint: 192.0.2.1, customer_endpoint: 198.51.100.%d, interface_address: 10.213.0.%d/31, "+
			"manual_sas: [{spi_in: %d, spi_out: %d, encryption: aes128gcm16, key_in: \"%s\", key_out: \"%s\"}]}\n",
			k, k, 2*k, 0x1000+k, 0x2000+k, strings.Repeat(fmt.Sprintf("%02x", key), 19)+fmt.Sprintf("%02x", k), strings.Repeat(fmt.Sprintf("%02x", key+1), 19)+fmt.Sprintf("%02x", k))
	}
	c, err := config.Parse("test.yaml", []byte(s.String()))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newTestAssociations(dir string) *associations {
	a := newAssociations(&stateDir{path: dir}, slog.New(slog.DiscardHandler))
	a.vault = aesgcm.NewVault(aesgcm.Options{Unlocked: true})
	return a
}

// TestNothingComesTwice lives through many starts of a daemon, of which most end in a crash at a random moment, and looks
// at each IV and sequence number on the wire.
func TestNothingComesTwice(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 12))
	dir := t.TempDir()
	c := ipsecConfig(t, 1, 1, 2)
	ivs := map[uint64]bool{}
	numbers := map[string]map[uint64]bool{"t1": {}, "t2": {}}
	for start := range 60 {
		a := newTestAssociations(dir)
		if err := a.prepare(c); err != nil {
			t.Fatal(err)
		}
		sealers := []*esp.Sealer{esp.NewSealer(a.ivs), esp.NewSealer(a.ivs)} // of two workers
		for range rng.IntN(400) {
			k := rng.IntN(2)
			frame := make([]byte, 128)
			from, _, v := sealers[k].Add(a.of(c.Tunnels[k]).Outbound, frame, 40, 60, esp.NextIPv4)
			if v != esp.OK {
				t.Fatalf("start %d: %v", start, v)
			}
			sealers[k].Seal()
			sequence, iv := be(frame[from+4:from+8]), be(frame[from+8:from+16])
			if ivs[iv] || numbers[c.Tunnels[k].Name][sequence] {
				t.Fatalf("start %d: iv %#x or sequence number %d came before", start, iv, sequence)
			}
			ivs[iv], numbers[c.Tunnels[k].Name][sequence] = true, true
			if rng.IntN(300) == 0 {
				if err := a.extend(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if rng.IntN(3) == 0 {
			if err := a.settle(); err != nil {
				t.Fatal(err)
			}
		}
		if err := a.close(); err != nil {
			t.Fatal(err)
		}
		a.dir.close()
	}
}

// TestReceivedSurvives: after a crash nothing that was noted as received is received again, after a stop nothing at all, and
// extended sequence numbers go on above 2^32.
func TestReceivedSurvives(t *testing.T) {
	dir := t.TempDir()
	c := ipsecConfig(t, 1, 1)
	i := c.Tunnels[0].IPsec
	i.SA.ESN, i.ReplayWindow = true, 1024
	v := aesgcm.NewVault(aesgcm.Options{Unlocked: true})
	ivs, err := esp.NewIVSource(7, 0)
	if err != nil {
		t.Fatal(err)
	}
	ivs.Reserve(1 << 30)
	suite, err := esp.ParseSuite(i.SA.Encryption)
	if err != nil {
		t.Fatal(err)
	}
	peer, err := esp.NewOutbound(v, esp.Params{SPI: i.SA.SPIIn, Suite: suite, Key: i.SA.KeyIn, ESN: true}, 1<<32-300)
	if err != nil {
		t.Fatal(err)
	}
	peer.Mark(1 << 40)
	sealer := esp.NewSealer(ivs)
	var sent [][]byte
	send := func(n int) {
		for range n {
			frame := make([]byte, 128)
			from, to, _ := sealer.Add(peer, frame, 40, 60, esp.NextIPv4)
			sealer.Seal()
			sent = append(sent, frame[from:to])
		}
	}
	received := func(a *associations, k int) bool {
		var o esp.Opener
		if o.Add(a.of(c.Tunnels[0]).Inbound[0], slices.Clone(sent[k])) != esp.OK {
			return false
		}
		o.Open()
		_, _, _, v := o.Result(0)
		return v == esp.OK
	}
	begin := func() *associations {
		a := newTestAssociations(dir)
		if err := a.prepare(c); err != nil {
			t.Fatal(err)
		}
		return a
	}
	end := func(a *associations) {
		if err := a.close(); err != nil {
			t.Fatal(err)
		}
		a.dir.close()
	}

	a := begin()
	send(1000)
	for k := range 900 {
		if !received(a, k) {
			t.Fatalf("packet %d is not received", k)
		}
	}
	if err := a.extend(); err != nil {
		t.Fatal(err)
	}
	end(a) // a crash
	a = begin()
	for k := range 900 {
		if received(a, k) {
			t.Fatalf("packet %d is received again", k)
		}
	}
	for k := 900; k < 950; k++ {
		if !received(a, k) {
			t.Fatalf("packet %d is not received after the crash", k)
		}
	}
	if err := a.settle(); err != nil {
		t.Fatal(err)
	}
	end(a) // a stop
	a = begin()
	for k := range 1000 {
		if received(a, k) != (k >= 950) {
			t.Fatalf("packet %d after the stop: received is %v", k, k < 950)
		}
	}
	end(a)
	if err := v.Close(); err != nil {
		t.Error(err)
	}
}

// TestFullDiskIsToldOnce: what was received is written every two seconds, and nothing in between.
func TestFullDiskIsToldOnce(t *testing.T) {
	a := newTestAssociations(t.TempDir())
	defer a.dir.close()
	defer a.close()
	c := ipsecConfig(t, 1, 1)
	if err := a.prepare(c); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(a.dir.file(espFile+".new/full"), 0o700); err != nil { // where the new file would be
		t.Fatal(err)
	}
	told := 0
	for k := range 5 {
		a.of(c.Tunnels[0]).Inbound[0].Begin(uint64(1000 * (k + 1)))
		a.noted = time.Now().Add(-receivedInterval)
		for range 20 {
			if a.extend() != nil {
				told++
			}
		}
	}
	if told != 1 {
		t.Errorf("told %d times", told)
	}
}

func be(b []byte) (n uint64) {
	for _, x := range b {
		n = n<<8 | uint64(x)
	}
	return n
}

// TestFailedStartsUseNothing: a pair that never sent gives back what was reserved for it.
func TestFailedStartsUseNothing(t *testing.T) {
	dir := t.TempDir()
	var before espMarks
	for start := range 5 {
		a := newTestAssociations(dir)
		if err := a.prepare(ipsecConfig(t, 1, 1)); err != nil {
			t.Fatal(err)
		}
		if start%2 == 0 {
			a.retain(ipsecConfig(t, 1)) // a reload that was not taken over
		}
		if err := a.settle(); err != nil {
			t.Fatal(err)
		}
		if start > 0 && !a.marks.equal(before) {
			t.Errorf("start %d: %+v, before %+v", start, a.marks, before)
		}
		before = a.marks
		a.close()
		a.dir.close()
	}
}

// TestSameKeyTwice: a tunnel that gets extended sequence numbers has two associations with one key for a moment, and neither
// gets the other's numbers.
func TestSameKeyTwice(t *testing.T) {
	a := newTestAssociations(t.TempDir())
	defer a.dir.close()
	defer a.close()
	old, changed := ipsecConfig(t, 1, 1), ipsecConfig(t, 1, 1)
	changed.Tunnels[0].IPsec.SA.ESN = true
	for _, c := range []*config.Config{old, changed} {
		if err := a.prepare(c); err != nil {
			t.Fatal(err)
		}
	}
	first, second := a.of(old.Tunnels[0]).Outbound, a.of(changed.Tunnels[0]).Outbound
	s, frame := esp.NewSealer(a.ivs), make([]byte, 128)
	begin, n := second.Next(), 0
	for v := esp.OK; v == esp.OK && n < 2*sequenceReserve; n++ {
		if _, _, v = s.Add(first, frame, 40, 60, esp.NextIPv4); v == esp.OK {
			s.Seal()
		}
		if n%1000 == 0 {
			if err := a.extend(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if first.Next() > begin {
		t.Errorf("the old pair got up to %d, the new one began with %d", first.Next(), begin)
	}
}

// TestReloadKeepsAssociations: what stays in the configuration stays the same association, with its window and numbers, whatever
// else of its tunnel changes; what goes is wiped; and the same SPI with other keys is another, with numbers of its own.
func TestReloadKeepsAssociations(t *testing.T) {
	a := newTestAssociations(t.TempDir())
	defer a.dir.close()
	defer a.close()
	one, both, other := ipsecConfig(t, 1, 1), ipsecConfig(t, 1, 1, 2), ipsecConfig(t, 9, 1)
	for _, c := range []*config.Config{one, both} {
		if err := a.prepare(c); err != nil {
			t.Fatal(err)
		}
		a.retain(c)
	}
	first := a.of(one.Tunnels[0])
	if again := a.of(both.Tunnels[0]); first.Outbound == nil || again.Outbound != first.Outbound || again.Inbound[0] != first.Inbound[0] {
		t.Error("a tunnel that stayed has another pair")
	}
	window, outKeys := ipsecConfig(t, 1, 1), ipsecConfig(t, 1, 1)
	window.Tunnels[0].IPsec.ReplayWindow = 64
	window.Tunnels[0].CustomerEndpoint = netip.MustParseAddr("198.51.100.77")
	outKeys.Tunnels[0].IPsec.SA.KeyOut = bytes.Repeat([]byte{77}, 20)
	for _, x := range []struct {
		c               *config.Config
		sameIn, sameOut bool
	}{{window, false, true}, {outKeys, true, false}} {
		if err := a.prepare(x.c); err != nil {
			t.Fatal(err)
		}
		if now := a.of(x.c.Tunnels[0]); now.Inbound[0] == first.Inbound[0] != x.sameIn || now.Outbound == first.Outbound != x.sameOut {
			t.Errorf("window %d: the same inbound: %v, outbound: %v", x.c.Tunnels[0].IPsec.ReplayWindow, now.Inbound[0] == first.Inbound[0], now.Outbound == first.Outbound)
		}
		a.retain(both)
	}
	if err := a.prepare(other); err != nil {
		t.Fatal(err)
	}
	changed := a.of(other.Tunnels[0])
	if changed.Outbound == first.Outbound || changed.Outbound.Next() != 1 {
		t.Errorf("other keys: the same pair, or numbers from %d on", changed.Outbound.Next())
	}
	if len(a.ins) != 3 || len(a.outs) != 3 {
		t.Errorf("%d and %d live beside each other, want 3", len(a.ins), len(a.outs))
	}
	a.retain(other)
	if gone := a.of(one.Tunnels[0]); len(a.ins) != 1 || len(a.outs) != 1 || gone.Outbound != nil {
		t.Errorf("%d and %d are left", len(a.ins), len(a.outs))
	}
}

func TestAssociationErrors(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c := ipsecConfig(t, 1, 1)
	if err := newTestAssociations(filepath.Join(file, "below")).prepare(c); err == nil || !strings.HasPrefix(err.Error(),
		"node.state_dir: IPsec tunnels keep marks of their IVs and sequence numbers there: mkdir") {
		t.Error(err)
	}
	broken := filepath.Join(dir, "broken")
	if err := os.MkdirAll(broken, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, content := range damagedMarks(t) {
		for start := range 2 { // and the first leaves nothing that the second takes
			if start == 0 {
				if err := os.WriteFile(filepath.Join(broken, espFile), []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			a := newTestAssociations(broken)
			if err := a.prepare(c); err == nil || !strings.Contains(err.Error(), "give all IPsec tunnels new keys") {
				t.Errorf("start %d with %q: %v", start, content, err)
			}
			a.dir.close()
		}
	}
	first, second := newTestAssociations(filepath.Join(dir, "shared")), newTestAssociations(filepath.Join(dir, "shared"))
	defer first.dir.close()
	if err := first.prepare(c); err != nil {
		t.Fatal(err)
	}
	if err := second.prepare(c); err == nil || !strings.Contains(err.Error(), "is in use by another daemon: give each its own") {
		t.Error(err)
	}
	// A node without IPsec tunnels needs no directory.
	if err := newTestAssociations(filepath.Join(file, "below")).prepare(ipsecConfig(t, 1)); err != nil {
		t.Error(err)
	}
}

// TestFailedReloadOnAFullDisk: the pair that stays goes on when there is room again.
func TestFailedReloadOnAFullDisk(t *testing.T) {
	a := newTestAssociations(t.TempDir())
	defer a.dir.close()
	defer a.close()
	old, changed := ipsecConfig(t, 1, 1), ipsecConfig(t, 1, 1)
	changed.Tunnels[0].IPsec.SA.ESN = true
	for _, c := range []*config.Config{old, changed} {
		if err := a.prepare(c); err != nil {
			t.Fatal(err)
		}
	}
	obstacle := a.dir.file(espFile + ".new")
	if err := os.MkdirAll(filepath.Join(obstacle, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	a.retain(old)
	if err := os.RemoveAll(obstacle); err != nil {
		t.Fatal(err)
	}
	s, frame := esp.NewSealer(a.ivs), make([]byte, 128)
	for n := range 2 * firstReserve {
		if _, _, v := s.Add(a.of(old.Tunnels[0]).Outbound, frame, 40, 60, esp.NextIPv4); v != esp.OK {
			t.Fatalf("packet %d: %v", n, v)
		}
		s.Seal()
		if a.ivs.Wanted() {
			if err := a.extend(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestWindowTurnedOn: who gets a replay window by a reload takes nothing that came before.
func TestWindowTurnedOn(t *testing.T) {
	a := newTestAssociations(t.TempDir())
	defer a.dir.close()
	defer a.close()
	off, on := ipsecConfig(t, 1, 1), ipsecConfig(t, 1, 1)
	off.Tunnels[0].IPsec.ReplayWindow = 0
	if err := a.prepare(off); err != nil {
		t.Fatal(err)
	}
	a.of(off.Tunnels[0]).Inbound[0].Begin(1000)
	if err := a.prepare(on); err != nil {
		t.Fatal(err)
	}
	if got := a.of(on.Tunnels[0]).Inbound[0].Received(); got != 1000 {
		t.Errorf("the new window begins behind %d, want 1000", got)
	}
}

// TestShownEncapsulation: it may change without another pair.
func TestShownEncapsulation(t *testing.T) {
	a := newTestAssociations(t.TempDir())
	defer a.dir.close()
	defer a.close()
	c := ipsecConfig(t, 1, 1)
	if err := a.prepare(c); err != nil {
		t.Fatal(err)
	}
	c.Tunnels[0].IPsec.SA.UDPEncap = true
	for _, s := range a.show(c, newChildren(a.vault, a.ivs), func(uint32) int { return 0 }) {
		if !s.UDPEncap {
			t.Errorf("%s: without udp_encap", s.Direction)
		}
	}
}
