package node

import (
	"bytes"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A pair of ways is that between two nodes, and what of it a network lets through.
type wayBed struct {
	a, b    *ways
	taken   []string // by b
	told    []string // likewise
	answers []string // likewise
	bfd     []string // likewise
	dropped func(to string) bool
	away    bool
	log     bytes.Buffer
}

func newWayBed() *wayBed {
	x := &wayBed{dropped: func(string) bool { return false }}
	make := func(self string) *ways {
		return &ways{self: self, good: map[string]time.Time{}, tried: map[string]trial{}, log: slog.New(slog.NewTextHandler(&x.log, nil)),
			alone: func() bool { return x.away },
			take:  func(b []byte) { x.taken = append(x.taken, string(b)) },
			told:  func(b []byte) { x.told = append(x.told, string(b)) },
			probe: func(b []byte) { x.answers = append(x.answers, string(b)) },
			spoken: func(tunnel string, packet []byte, passed byte) {
				x.bfd = append(x.bfd, fmt.Sprint(tunnel, " ", string(packet), " ", passed))
			},
			send: func(node string, m []byte) bool {
				if x.dropped(node) {
					return true
				}
				to := x.a
				if node == "b" {
					to = x.b
				}
				to.hear(bytes.Clone(m))
				return true
			}}
	}
	x.a, x.b = make("a"), make("b")
	x.a.setOpen(map[string]bool{"b": true})
	x.b.setOpen(map[string]bool{"a": true})
	return x
}

// What the cluster tells goes to nodes that have keys for it, whether that way was good or not.
func TestTold(t *testing.T) {
	x := newWayBed()
	if x.a.tell("c", []byte("nobody")) || !x.a.tell("b", []byte("a record")) {
		t.Error("it goes to who has no keys, or not to who has")
	}
	if !slices.Equal(x.told, []string{"a record"}) || len(x.taken) > 0 {
		t.Errorf("told %q, taken %q", x.told, x.taken)
	}
}

// The answer to a probe goes to the node that has sent it, and to nobody if that is not known.
func TestAnswersGoHome(t *testing.T) {
	x := newWayBed()
	x.a.answer(func(node string) bool { return node == "b" }, []byte("an answer"))
	x.a.answer(func(node string) bool { return node == "c" }, []byte("nobody's"))
	if !slices.Equal(x.answers, []string{"an answer"}) {
		t.Errorf("%q", x.answers)
	}
}

// A packet of BFD goes to the node that speaks, with what it needs to know of it; what is none is not taken.
func TestBFDIsPassedOn(t *testing.T) {
	x := newWayBed()
	x.a.speak("b", "cust-a", []byte("a packet"), 1)
	x.a.speak("c", "cust-a", []byte("nobody's"), 1)
	for _, m := range [][]byte{{byte(saySpoken)}, {byte(saySpoken), 1}, {byte(saySpoken), 1, 9, 'a'}} {
		x.b.hear(m)
	}
	if !slices.Equal(x.bfd, []string{"cust-a a packet 1"}) {
		t.Errorf("%q", x.bfd)
	}
}

// The way in ESP is taken when it was shown to be good, and, without any other, in any case.
func TestWays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newWayBed()
		time.Sleep(time.Hour)
		if x.a.forward("b", []byte("first")) || !x.a.forward("b", []byte("second")) {
			t.Error("a way is taken before it has shown to be good, or not after that")
		}
		if !slices.Equal(x.taken, []string{"second"}) {
			t.Errorf("taken: %q", x.taken)
		}
		x.dropped = func(string) bool { return true } // a firewall
		time.Sleep(goodTime / 2)
		begin := time.Now()
		for time.Since(begin) < goodTime/2 && x.a.forward("b", []byte("lost")) {
			time.Sleep(100 * time.Millisecond)
		}
		if took := time.Since(begin); took < badAfter*tryAgain || took > (badAfter+1)*tryAgain {
			t.Errorf("a way that was good a moment ago is given up after %v", took)
		}
		for range 100 {
			if x.a.forward("b", []byte("by the hub")) {
				t.Fatal("a way from which nothing came is taken")
			}
			time.Sleep(100 * time.Millisecond)
		}
		if n := strings.Count(x.log.String(), "protocol 50"); n != 1 {
			t.Errorf("%d warnings: %s", n, &x.log)
		}
		if n := x.a.tried["b"].times; n < 5 || n > 16 {
			t.Errorf("tried %d times", n)
		}
		x.away = true
		if !x.a.forward("b", []byte("without a hub")) {
			t.Error("without a hub it does not try")
		}
		x.away = false
		x.dropped = func(to string) bool { return to == "a" } // one direction
		time.Sleep(2 * tryAgain)
		if x.a.forward("b", nil); x.a.forward("b", []byte("one way")) {
			t.Error("half a way is taken")
		}
		x.dropped = func(string) bool { return false }
		time.Sleep(2 * tryAgain)
		if x.a.forward("b", nil); !x.a.forward("b", []byte("again")) {
			t.Error("a way that is good again is not taken")
		}
		x.a.setOpen(map[string]bool{})
		x.a.hear(named(sayGood, "b"))
		if x.a.forward("b", []byte("no keys")) || len(x.a.good) != 0 || len(x.a.tried) != 0 {
			t.Error("a node without keys is said something, or remembered")
		}
		if !slices.Equal(x.taken, []string{"second", "again"}) {
			t.Errorf("taken: %q", x.taken)
		}
	})
}

// What is no message does nothing, whoever says it.
func TestWaysMalformed(t *testing.T) {
	x := newWayBed()
	for _, m := range [][]byte{{0}, {byte(sayTry)}, {byte(sayTry), 5, 'a'}, {byte(sayGood)}, {byte(sayGood), 255}, {9, 1, 'b'}, named(sayTry, "c"), named(sayGood, "c"), named(sayTry, "")} {
		x.a.hear(m)
	}
	if len(x.taken) > 0 || len(x.a.good) > 0 || len(x.b.good) > 0 {
		t.Errorf("%q %v %v", x.taken, x.a.good, x.b.good)
	}
	if long := named(sayTry, strings.Repeat("n", 63)); len(long) != 65 {
		t.Errorf("%d bytes", len(long))
	}
}

// FuzzMessages: whatever another node says, nothing is taken for good that is not known, and no message makes more than one.
func FuzzMessages(f *testing.F) {
	f.Add([]byte{byte(sayForwarded), 4, 192, 0, 2, 1})
	f.Add(named(sayTry, "b"))
	f.Add(named(sayGood, "b"))
	f.Add(named(sayGood, "c"))
	f.Add([]byte{byte(sayTry), 255, 'b'})
	f.Fuzz(func(t *testing.T, m []byte) {
		if len(m) == 0 {
			return // the workers give none
		}
		sent, taken := 0, 0
		w := &ways{self: "a", good: map[string]time.Time{}, tried: map[string]trial{}, open: map[string]bool{"b": true}, alone: func() bool { return false },
			send: func(string, []byte) bool { sent++; return true }, take: func([]byte) { taken++ }}
		w.hear(m)
		delete(w.good, "b")
		if sent+taken > 1 || len(w.good) > 0 {
			t.Errorf("%d sent, %d taken, good: %v", sent, taken, w.good)
		}
	})
}
