package sqlite

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"causeway/analytics/dataset"
	"causeway/analytics/store"
	"causeway/analytics/store/storetest"
)

// child is the environment variable that makes this binary a writer, of the directory that it names.
const child = "CAUSEWAY_STORE_CHILD"

func TestMain(m *testing.M) {
	dir, role, _ := strings.Cut(os.Getenv(child), "|")
	switch role {
	case "on":
		writeOn(dir)
	case "limited":
		writeLimited(dir)
	case "much":
		writeMuch(dir)
	default:
		os.Exit(m.Run())
	}
}

func openChild(dir string) (s *Store, now *time.Time) {
	now = new(time.Time)
	s, err := Open(dir, Options{Now: func() time.Time { return *now }})
	if err != nil {
		panic(err)
	}
	return s, now
}

// writeOn writes one second after the other, and says which one is written, until it is killed. Minutes are rolled up meanwhile.
func writeOn(dir string) {
	s, now := openChild(dir)
	for t := noon.Unix(); ; t++ {
		*now = time.Unix(t, 0)
		if err := s.Write(context.Background(), oneSecond(t, 1)); err != nil {
			panic(err)
		}
		fmt.Println(t)
		if err := s.Tidy(context.Background()); err != nil {
			panic(err)
		}
	}
}

// muchTunnels are so many that the process is killed within transactions, not only between them.
const muchTunnels = 200

// writeMuch goes on as writeOn does, with much more in each second, from the second on that standard input names.
func writeMuch(dir string) {
	var t int64
	if _, err := fmt.Scan(&t); err != nil {
		panic(err)
	}
	s, now := openChild(dir)
	for batch := storetest.Many(muchTunnels); ; t++ {
		*now = time.Unix(t, 0)
		b := batch(t)
		b.Samples = storetest.Samples(20, t).Samples
		if err := s.Write(context.Background(), b); err != nil {
			panic(err)
		}
		fmt.Println(t)
		if err := s.Tidy(context.Background()); err != nil {
			panic(err)
		}
	}
}

// writeLimited writes until the files may not grow any more, and then, allowed to, goes on.
func writeLimited(dir string) {
	signal.Ignore(unix.SIGXFSZ)
	s, now := openChild(dir)
	*now = noon
	limit := func(bytes uint64) {
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: bytes, Max: unix.RLIM_INFINITY}); err != nil {
			panic(err)
		}
	}
	limit(1 << 20)
	failures := 0
	for t := noon.Unix(); failures < 10; t++ {
		b := storetest.Samples(100, t)
		b.Traffic = oneSecond(t, 1).Traffic
		err := s.Write(context.Background(), b)
		if err != nil {
			if failures++; !strings.Contains(err.Error(), "2026-11-30.db") {
				panic(err)
			}
			t--
			continue
		}
		fmt.Println(t)
	}
	limit(unix.RLIM_INFINITY)
	if err := s.Write(context.Background(), oneSecond(noon.Unix()-1, 1)); err != nil {
		panic(err)
	}
	fmt.Println(noon.Unix() - 1)
	if err := s.Close(); err != nil {
		panic(err)
	}
}

// start runs this binary as a writer.
func start(t *testing.T, dir, role, input string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	c := exec.Command(os.Args[0])
	c.Stdin = strings.NewReader(input)
	c.Env, c.Stderr = append(os.Environ(), child+"="+dir+"|"+role), os.Stderr
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	return c, bufio.NewScanner(out)
}

// sums asks for a measure of everybody's rows by a time.
func (b *bench) sums(set *dataset.Dataset, by string, m dataset.Measure) map[int64]float64 {
	b.t.Helper()
	out := map[int64]float64{}
	q := &store.Query{Dataset: set, Account: store.Operator, Limit: 1_000_000, By: dims(set, by), Measures: []dataset.Measure{m}}
	for _, g := range b.ask(q).Groups {
		out[g.Values[0].(time.Time).Unix()] = g.Measures[0]
	}
	return out
}

// bySecond asks which seconds are there, of acme's traffic.
func (b *bench) bySecond() map[int64]float64 {
	b.t.Helper()
	a := b.ask(&store.Query{Dataset: dataset.Traffic, Account: "acme", Limit: 1_000_000, By: dims(dataset.Traffic, "datetime"),
		Measures: []dataset.Measure{measure(dataset.Traffic, dataset.Sum, "packets")}})
	out := map[int64]float64{}
	for _, g := range a.Groups {
		out[g.Values[0].(time.Time).Unix()] = g.Measures[0]
	}
	return out
}

// What Write has returned for is there, once, after the process was killed in the middle of whatever it did.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	c, out := start(t, dir, "on", "")
	last := noon.Unix() - 1
	for out.Scan() {
		n, err := strconv.ParseInt(out.Text(), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if last = n; last == noon.Unix()+200 { // what it has printed until it is dead is read, too
			if err := c.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = c.Wait() // it was killed
	b := openBench(t, dir, Options{Retention: Retention{Second: 24 * time.Hour}})
	b.now = time.Unix(last+60, 0)
	got := b.bySecond()
	for s := noon.Unix(); s <= last; s++ {
		if got[s] != 1 {
			t.Fatalf("%v packets in second %d of %d", got[s], s-noon.Unix(), last-noon.Unix())
		}
	}
	if n := last - noon.Unix() + 1; int64(len(got)) > n+1 { // one may be written and not yet printed
		t.Errorf("%d seconds are there, %d were written", len(got), n)
	}
	b.write(oneSecond(last+2, 1))
	b.tidy()
	if n := len(got); len(b.bySecond()) != n+1 {
		t.Errorf("after one more second %d are there, not %d", len(b.bySecond()), n+1)
	}
}

// Killed again and again within large batches and roll-ups, the store opens by itself and goes on: each second that Write has returned for is
// there, whole and once, in seconds, in minutes and as samples; another one, that was being written, is there whole or not at all.
func TestKilledAgain(t *testing.T) {
	dir, written, next := t.TempDir(), map[int64]bool{}, noon.Unix()
	for round := range 5 {
		c, out := start(t, dir, "much", fmt.Sprintln(next))
		for n := 0; out.Scan(); n++ {
			at, err := strconv.ParseInt(out.Text(), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			written[at], next = true, at+2 // the one after it may be there
			if n == 70 {
				time.AfterFunc(time.Duration(rand.IntN(30))*time.Millisecond, func() { _ = c.Process.Kill() }) // it may be dead
			}
		}
		if _ = c.Wait(); len(written) < 70*(round+1) {
			t.Fatalf("round %d: %d seconds were written", round, len(written))
		}
	}
	b := openBench(t, dir, Options{Retention: Retention{Second: 24 * time.Hour}})
	b.now = time.Unix(next+300, 0)
	b.tidy()
	traffic := func(by string) map[int64]float64 {
		return b.sums(dataset.Traffic, by, measure(dataset.Traffic, dataset.Sum, "packets"))
	}
	seconds, minutes := traffic("datetime"), traffic("datetimeMinute")
	samples := b.sums(dataset.Packets, "datetime", measure(dataset.Packets, dataset.Sum, "packets"))
	batch, perMinute := storetest.Many(muchTunnels), map[int64]float64{}
	for at := noon.Unix(); at < next; at++ {
		want := 0.0
		for _, r := range batch(at).Traffic {
			want += float64(r.Packets)
		}
		if got := seconds[at]; got != want && (written[at] || got != 0) {
			t.Errorf("%v packets in second %d, want %v", got, at-noon.Unix(), want)
		}
		if written[at] && samples[at] != samples[noon.Unix()] || !written[at] && samples[at] != 0 && samples[at] != samples[noon.Unix()] {
			t.Errorf("%v samples in second %d", samples[at], at-noon.Unix())
		}
		perMinute[at/60*60] += seconds[at]
	}
	if d := cmp.Diff(perMinute, minutes); d != "" || len(samples) != len(seconds) || samples[noon.Unix()] == 0 {
		t.Errorf("%d seconds with samples of %d; minutes (-sums of seconds +minutes):\n%s", len(samples), len(seconds), d)
	}
}

// A file that cannot grow makes an error that names it, loses nothing, and is written to again when it can.
func TestNoRoom(t *testing.T) {
	dir := t.TempDir()
	c, out := start(t, dir, "limited", "")
	written := map[int64]bool{}
	for out.Scan() {
		n, err := strconv.ParseInt(out.Text(), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		written[n] = true
	}
	if err := c.Wait(); err != nil {
		t.Fatal(err)
	}
	b := openBench(t, dir, Options{})
	b.now = noon.Add(time.Minute)
	got := b.bySecond()
	if len(written) < 3 || len(got) != len(written) {
		t.Errorf("%d seconds are there, %d were written", len(got), len(written))
	}
	for s := range written {
		if got[s] != 1 {
			t.Errorf("%v packets in second %d", got[s], s)
		}
	}
}
