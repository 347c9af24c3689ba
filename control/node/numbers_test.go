package node

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"causeway/pipeline"
)

func numbered(names ...string) *pipeline.Spec {
	s := &pipeline.Spec{Tunnels: []pipeline.TunnelSpec{{Name: "plain"}}}
	for i, name := range names {
		s.Tunnels = append(s.Tunnels, pipeline.TunnelSpec{Name: name, Sequence: true, HasKey: true, Key: uint32(i),
			Endpoint: netip.MustParseAddr("192.0.2.1"), CustomerEndpoint: netip.MustParseAddr("198.51.100.2")})
	}
	return s
}

// counting is the tunnels that number their packets, with the next number of each.
type counting map[string]uint64

func (c counting) next(tunnel string) (uint64, bool) { number, ok := c[tunnel]; return number, ok }

// TestNumbersNeverComeAgain lives through a hundred starts of a daemon, of which half end in a crash at a random
// moment, and compares each first number with all that were used.
func TestNumbersNeverComeAgain(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	dir := t.TempDir()
	used := counting{}
	clean := true
	for start := range 100 {
		now := counting{}
		n := newNumbers(&stateDir{path: dir}, now.next)
		s := numbered("a", "b")
		if err := n.reserve(s); err != nil {
			t.Fatal(err)
		}
		for _, u := range s.Tunnels[1:] {
			if u.FirstNumber < used[u.Name] || clean && u.FirstNumber != used[u.Name] {
				t.Fatalf("start %d: %s begins at %d, the next number is %d; the last stop was orderly: %v", start, u.Name, u.FirstNumber, used[u.Name], clean)
			}
			now[u.Name] = u.FirstNumber
		}
		n.use(s)
		for range rng.IntN(20) {
			now["a"] += rng.Uint64N(numberBlock / 2)
			if err := n.extend(); err != nil {
				t.Fatal(err)
			}
		}
		now["a"] += rng.Uint64N(numberBlock / 2) // after the last look, before the crash
		now["b"] += rng.Uint64N(numberBlock / 2)
		if clean = rng.IntN(2) == 0; clean {
			if err := n.settle(); err != nil {
				t.Fatal(err)
			}
		}
		n.dir.close()
		used = now
	}
}

// TestNumbersOfATunnelThatComesBack: what a reload takes away and brings back goes on above its mark, and so does what
// was reserved for tables that were not taken over.
func TestNumbersOfATunnelThatComesBack(t *testing.T) {
	now := counting{}
	n := newNumbers(&stateDir{path: t.TempDir()}, now.next)
	defer n.dir.close()
	for round := range uint64(3) {
		refused, s := numbered("a"), numbered("a")
		if err := errors.Join(n.reserve(refused), n.reserve(s)); err != nil {
			t.Fatal(err)
		}
		if first, again := refused.Tunnels[1].FirstNumber, s.Tunnels[1].FirstNumber; first != 2*round*numberBlock || again != first+numberBlock {
			t.Errorf("round %d: begins at %d and %d", round, first, again)
		}
		now["a"] = s.Tunnels[1].FirstNumber
		n.use(s)
		same := numbered("a")
		if err := errors.Join(n.reserve(same), n.extend()); err != nil || same.Tunnels[1].FirstNumber != 0 {
			t.Errorf("round %d: a tunnel that goes on got another number: %+v, %v", round, same.Tunnels[1], err)
		}
		delete(now, "a")
	}
}

// TestNumbersOfATunnelWithAnotherName: a router knows a tunnel by its ends.
func TestNumbersOfATunnelWithAnotherName(t *testing.T) {
	now := counting{}
	n := newNumbers(&stateDir{path: t.TempDir()}, now.next)
	defer n.dir.close()
	before, after := numbered("a"), numbered("b")
	if err := n.reserve(before); err != nil {
		t.Fatal(err)
	}
	n.use(before)
	now["a"] = 100
	if err := n.reserve(after); err != nil || after.Tunnels[1].FirstNumber != numberBlock {
		t.Errorf("begins at %d, %v", after.Tunnels[1].FirstNumber, err)
	}
}

// TestNumbersWhileTheDiskHangs: new tables in which no tunnel begins do not wait for a mark that is being written. A pipe
// that nobody reads is the disk.
func TestNumbersWhileTheDiskHangs(t *testing.T) {
	now := counting{}
	n := newNumbers(&stateDir{path: t.TempDir()}, now.next)
	defer n.dir.close()
	s := numbered("a")
	if err := n.reserve(s); err != nil {
		t.Fatal(err)
	}
	n.use(s)
	now["a"] = numberBlock
	n.writing.Lock() // as while extend asks the disk
	hung, changed := make(chan error, 1), make(chan error, 1)
	go func() { hung <- n.extend() }()
	go func() {
		err := n.reserve(numbered("a"))
		n.use(s)
		changed <- err
	}()
	select {
	case err := <-changed:
		if err != nil {
			t.Error(err)
		}
	case <-hung:
		t.Error("the disk did not hang")
	case <-time.After(5 * time.Second):
		t.Error("a change of links waits for the disk")
	}
	n.writing.Unlock() // the disk comes back
	if err := <-hung; err != nil {
		t.Error(err)
	}
}

func TestNumbersNeedNothingUnlessATunnelDoes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	n := newNumbers(&stateDir{path: dir}, counting{}.next)
	defer n.dir.close()
	if err := errors.Join(n.reserve(numbered()), n.extend(), n.settle()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the directory was made: %v", err)
	}
}

func TestNumbersErrors(t *testing.T) {
	reserve := func(dir string) error {
		n := newNumbers(&stateDir{path: dir}, counting{}.next)
		defer n.dir.close()
		return n.reserve(numbered("a"))
	}
	want := func(err error, words ...string) {
		t.Helper()
		for _, w := range words {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("%v; want %q", err, w)
			}
		}
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("[]"), 0o600); err != nil {
		t.Fatal(err)
	}
	want(reserve(file), "node.state_dir", "sequence: true", file, "not a directory")

	first := newNumbers(&stateDir{path: dir}, counting{}.next)
	if err := first.reserve(numbered("a")); err != nil {
		t.Fatal(err)
	}
	want(reserve(dir), "in use by another daemon", dir)
	first.dir.close()
	if err := reserve(dir); err != nil {
		t.Errorf("the directory was not given back: %v", err)
	}

	for _, damaged := range []string{"", "[]", "null", `{"a": -1}`, `{"a": 4194304`} {
		if err := os.WriteFile(filepath.Join(dir, numbersFile), []byte(damaged), 0o600); err != nil {
			t.Fatal(err)
		}
		want(reserve(dir), numbersFile, "remove it")
	}
}

// TestNumbersSurviveAFullDisk: a write that fails is reported once and tried again, and leaves the last file whole.
func TestNumbersSurviveAFullDisk(t *testing.T) {
	const mark = "192.0.2.1 198.51.100.2 key 0"
	dir := t.TempDir()
	now := counting{}
	n := newNumbers(&stateDir{path: dir}, now.next)
	defer n.dir.close()
	if err := n.reserve(numbered("a")); err != nil {
		t.Fatal(err)
	}
	n.use(numbered("a"))
	now["a"] = numberBlock - 1
	obstacle := filepath.Join(dir, numbersFile+".new")
	if err := os.MkdirAll(obstacle+"/full", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := n.extend(); err == nil {
		t.Error("the first failure is not told")
	}
	if err := n.extend(); err != nil {
		t.Errorf("told again: %v", err)
	}
	if marks, err := readMarks(n.dir); err != nil || marks[mark] != numberBlock {
		t.Errorf("on disk %v, %v", marks, err)
	}
	now["a"] = 3 * numberBlock
	if err := n.settle(); err == nil || !strings.Contains(err.Error(), "may come again") {
		t.Errorf("at the stop: %v", err)
	}
	if err := os.RemoveAll(obstacle); err != nil {
		t.Fatal(err)
	}
	delete(now, "a") // a reload takes it away, another one brings it back
	s := numbered("a")
	if err := n.reserve(s); err != nil || s.Tunnels[1].FirstNumber <= 3*numberBlock {
		t.Errorf("begins at %d, %v", s.Tunnels[1].FirstNumber, err)
	}
	now["a"] = numberBlock - 1
	n.marks[mark] = 0
	if err := n.extend(); err != nil {
		t.Error(err)
	}
	if marks, err := readMarks(n.dir); err != nil || marks[mark] != 2*numberBlock-1 {
		t.Errorf("on disk %v, %v", marks, err)
	}
}
