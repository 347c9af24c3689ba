package node

import (
	"encoding/json"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"causeway/config"
	"causeway/crypto/esp"
)

// TestMarksStayAhead: long before what is reserved is used up, more is reserved; and what cannot be written is not used.
func TestMarksStayAhead(t *testing.T) {
	a := newTestAssociations(t.TempDir())
	defer a.dir.close()
	defer a.close()
	c := ipsecConfig(t, 1, 1)
	if err := a.prepare(c); err != nil {
		t.Fatal(err)
	}
	out := a.of(c.Tunnels[0]).Outbound
	s := esp.NewSealer(a.ivs)
	frame := make([]byte, 128)
	send := func(n int) (v esp.Verdict) {
		for range n {
			if _, _, v = s.Add(out, frame, 40, 60, esp.NextIPv4); v != esp.OK {
				return v
			}
			s.Seal()
		}
		return v
	}
	before := a.marks.clone()
	if v := send(firstReserve/2 + 2048); v != esp.OK {
		t.Fatal(v)
	}
	if err := a.extend(); err != nil || a.marks.equal(before) {
		t.Errorf("%v, marks %+v", err, a.marks)
	}
	onDisk, err := readESPMarks(a.dir)
	if err != nil || !onDisk.equal(a.marks) {
		t.Errorf("on disk: %+v, %v", onDisk, err)
	}
	// A disk that takes no more: what is reserved is used up, and not one number more.
	if err := os.MkdirAll(a.dir.file(espFile+".new/full"), 0o700); err != nil {
		t.Fatal(err)
	}
	left := int(a.marks.Sequence[a.outs[outKey(c.Tunnels[0].IPsec)].mark] - out.Next())
	if v := send(left - 10); v != esp.OK {
		t.Fatal(v)
	}
	if err := a.extend(); err == nil {
		t.Error("no error of a disk that takes nothing")
	}
	if err := a.extend(); err != nil {
		t.Errorf("the error is told again: %v", err)
	}
	if v := send(10); v != esp.OK {
		t.Errorf("the last reserved number: %v", v)
	}
	if v := send(1); v != esp.Unmarked {
		t.Errorf("one that is not reserved: %v", v)
	}
	os.RemoveAll(a.dir.file(espFile + ".new"))
	if err := a.extend(); err != nil {
		t.Error(err)
	}
	if v := send(1); v != esp.OK {
		t.Errorf("with the disk back: %v", v)
	}
}

// TestLostMarks: who has no marks begins where no other start began, with another writer.
func TestLostMarks(t *testing.T) {
	writers, firsts := map[uint32]bool{}, map[uint64]bool{}
	for range 20 {
		a := newTestAssociations(t.TempDir())
		if err := a.prepare(ipsecConfig(t, 1, 1)); err != nil {
			t.Fatal(err)
		}
		onDisk, err := readESPMarks(a.dir)
		first := a.ivs.Next()
		if err != nil || onDisk.IV != first+ivReserve || first > esp.MaxIVs/2 {
			t.Errorf("IVs from %d on, on disk %+v, %v", first, onDisk, err)
		}
		writers[onDisk.Writer], firsts[first] = true, true
		a.close()
		a.dir.close()
	}
	if len(writers) < 18 || len(firsts) < 18 { // two that are the same happen once in 5,000 runs
		t.Errorf("20 starts without marks had %d writers, and began at %d places", len(writers), len(firsts))
	}
}

// damagedMarks are contents of the file that no daemon wrote.
func damagedMarks(t *testing.T) []string {
	t.Helper()
	file := func(m espMarks) string {
		b, err := json.Marshal(espMarksFile{m, m.check()})
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	none := map[string]uint64{}
	good := file(espMarks{7, 12345678, map[string]uint64{"spi 0x1 key 01020304": 4194304}, none})
	out := []string{"", "null", "{}", `{"iv": -1}`, `{"iv": 1, "sequence": 5}`,
		file(espMarks{7, 1<<64 - 1, none, none}), file(espMarks{7, esp.MaxIVs, none, none}), file(espMarks{7, esp.MaxIVs + 1, none, none}),
		file(espMarks{esp.MaxWriter + 1, 5, none, none}), file(espMarks{7, 5, map[string]uint64{"spi": 1<<64 - 1}, none}),
		file(espMarks{7, 5, nil, none}), file(espMarks{7, 5, none, nil})}
	for _, change := range [][2]string{{`"iv":12345678,`, ``}, {`12345678`, `null`}, {`12345678`, `12345677`}, {`"writer":7,`, ``},
		{`4194304`, `null`}, {`4194304`, `4194303`}, {`"received"`, `"recieved"`}, {`"check"`, `"chek"`}} {
		changed := strings.Replace(good, change[0], change[1], 1)
		if changed == good {
			t.Fatalf("%s is not in %s", change[0], good)
		}
		out = append(out, changed)
	}
	return out
}

// TestBlocksOfSequenceNumbers: a crash skips few numbers of an association that has few, unless it uses them up fast, and it is
// told before they are used up.
func TestBlocksOfSequenceNumbers(t *testing.T) {
	a := newTestAssociations(t.TempDir())
	defer a.dir.close()
	defer a.close()
	var log strings.Builder
	a.log = slog.New(slog.NewTextHandler(&log, nil))
	c := ipsecConfig(t, 1, 1)
	if err := a.prepare(c); err != nil {
		t.Fatal(err)
	}
	first := a.outs[outKey(c.Tunnels[0].IPsec)]
	if first.end != 1+firstReserve {
		t.Errorf("%d numbers at the start, want %d", first.end-1, firstReserve)
	}
	for _, x := range []struct {
		lasted time.Duration
		esn    bool
		block  uint64
		want   uint64
	}{
		{time.Second, false, firstReserve, 4 * firstReserve},
		{time.Second, false, sequenceReserve, sequenceReserve},
		{10 * time.Second, false, 4 * firstReserve, 4 * firstReserve},
		{time.Hour, false, 4 * firstReserve, firstReserve},
		{time.Hour, false, firstReserve, firstReserve},
		{time.Hour, true, sequenceReserve, sequenceReserve},
	} {
		q := &outbound{block: x.block, since: time.Now().Add(-x.lasted), of: config.ManualSA{ESN: x.esn}}
		if got := q.nextBlock(); got != x.want {
			t.Errorf("a block of %d lasted %v: the next has %d, want %d", x.block, x.lasted, got, x.want)
		}
	}
	if err := a.extend(); err != nil || strings.Contains(log.String(), "three quarters") || first.sa.Soft() {
		t.Errorf("%v; soft: %v; log: %s", err, first.sa.Soft(), &log)
	}
	marks := a.marks.clone()
	marks.Sequence[first.mark] = 3 << 30
	if late, err := a.makeOutbound(c.Tunnels[0], esp.AES128GCM16, &marks); err != nil || !late.sa.Soft() {
		t.Errorf("from %d on: %v", 3<<30, err)
	} else {
		a.outs["late"] = late
	}
	for range 2 {
		if err := a.extend(); err != nil {
			t.Error(err)
		}
	}
	if got := strings.Count(log.String(), "three quarters"); got != 1 {
		t.Errorf("told %d times: %s", got, &log)
	}
}

// TestMarksHaveNoKeys: the file may be read by whoever makes backups.
func TestMarksHaveNoKeys(t *testing.T) {
	a := newTestAssociations(t.TempDir())
	defer a.dir.close()
	if err := a.prepare(ipsecConfig(t, 0x5a, 1, 2)); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(a.dir.file(espFile))
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(text, &m); err != nil || len(m) != 5 || strings.Contains(string(text), "5a5a") || strings.Contains(string(text), "ZZZ") {
		t.Errorf("%v in %s", err, text)
	}
}
