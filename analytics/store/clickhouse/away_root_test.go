package clickhouse

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"causeway/analytics/store"
	"causeway/analytics/store/storetest"
)

// The server is killed and comes back after ten minutes, by the clock of the rows, while 1,000 tunnels go on being written each second: every row
// is there, once, and no more of them was in memory at a time than a file of the buffer holds.
func TestRootAway(t *testing.T) {
	tunnels := 1000
	if testing.Short() {
		tunnels = 100
	}
	server, now := startServer(t), storetest.Noon
	s := server.open("away", storetest.Places[0].Node, func(o *Options) { o.Now = func() time.Time { return now } })
	a := newAbsence(t, s, tunnels)
	until := func(seconds int) {
		for range seconds {
			a.write(now.Unix())
			now = now.Add(time.Second)
		}
	}
	until(30)
	a.flush()
	server.kill()
	for range 20 {
		until(30) // as seldom as Run asks at last
		if err := s.Flush(context.Background()); err == nil {
			t.Fatal("rows were sent to nobody")
		}
	}
	a.say("the buffer when the server comes back")
	server.start()
	began, back, busy := time.Now(), newProcess(t, server.run.Process.Pid), a.process.busy()
	a.flush()
	t.Logf("%d rows in all; caught up %s after it was there; that took %s of processors here and, with its start, %s and %d MB there", a.rows,
		time.Since(began).Round(time.Millisecond), a.process.busy()-busy, back.busy(), back.megabytes())
	until(30)
	now = now.Add(2 * time.Minute) // the last minute is over
	a.flush()
	a.once()
	if most := a.process.megabytes(); most > 200 {
		t.Errorf("the process took %d MB", most)
	}
}

// The same by the clock on the wall: Run finds the server by itself.
func TestRootAwayTenMinutes(t *testing.T) {
	if os.Getenv("CAUSEWAY_FULL") == "" {
		t.Skip("takes twelve minutes: CAUSEWAY_FULL=1 runs it")
	}
	server := startServer(t)
	s := server.open("away", storetest.Places[0].Node, nil)
	a := newAbsence(t, s, 1000)
	ctx, stop := context.WithCancel(context.Background())
	ran := make(chan struct{})
	go func() {
		s.Run(ctx)
		close(ran)
	}()
	next := time.Now().Truncate(time.Second)
	second := func() { // each is written once, however late
		next = next.Add(time.Second)
		time.Sleep(time.Until(next))
		a.write(next.Unix())
	}
	for range 20 {
		second()
	}
	server.kill()
	a.say("the server is gone")
	for range 600 {
		second()
	}
	a.say("the buffer when the server comes back")
	server.start()
	began := time.Now()
	for ; s.Stats().Away || s.Stats().Buffered > 1<<20; second() {
		if time.Since(began) > 5*time.Minute {
			t.Fatalf("not caught up: %+v", s.Stats())
		}
	}
	t.Logf("caught up %s after it was there", time.Since(began).Round(time.Second))
	for range 20 {
		second()
	}
	a.say("at the end")
	stop()
	<-ran
	now := time.Now().Add(2 * time.Minute)
	s.o.Now = func() time.Time { return now } // the last minute is over
	a.flush()
	a.once()
	if most := a.process.megabytes(); most > 200 {
		t.Errorf("the process took %d MB", most)
	}
}

// An absence is what was written while the server was away, and before and after.
type absence struct {
	t       *testing.T
	s       *Store
	batch   func(t int64) *store.Batch
	process *process
	rows    int
	packets uint64
	minutes map[int64]bool
	longest time.Duration // that a write took
}

func newAbsence(t *testing.T, s *Store, tunnels int) *absence {
	second, random := storetest.Many(tunnels), rand.New(rand.NewPCG(1, 2))
	noisy := func(t int64) *store.Batch { // else the buffer would be far smaller than in life
		b := second(t)
		for i := range b.Traffic {
			b.Traffic[i].Packets, b.Traffic[i].Bytes = random.Uint64N(100_000), random.Uint64N(100_000_000)
		}
		return b
	}
	return &absence{t: t, s: s, batch: noisy, process: newProcess(t, os.Getpid()), minutes: map[int64]bool{}}
}

// write writes a second.
func (a *absence) write(at int64) {
	a.t.Helper()
	b := a.batch(at)
	for i := range b.Traffic {
		a.rows, a.packets = a.rows+1, a.packets+b.Traffic[i].Packets
	}
	a.minutes[at/60] = true
	began := time.Now()
	if err := a.s.Write(context.Background(), b); err != nil {
		a.t.Fatal(err)
	}
	a.longest = max(a.longest, time.Since(began))
}

func (a *absence) flush() {
	a.t.Helper()
	if err := a.s.Flush(context.Background()); err != nil {
		a.t.Fatal(err)
	}
}

func (a *absence) say(when string) {
	a.t.Logf("%s: %d rows written, %.1f MB buffered, memory at most %d MB, a write at most %s", when, a.rows, float64(a.s.Stats().Buffered)/1e6,
		a.process.megabytes(), a.longest.Round(time.Millisecond))
}

// once fails if what was written is not there exactly once, in seconds and in minutes.
func (a *absence) once() {
	a.t.Helper()
	for sql, want := range map[string]any{
		"SELECT count() FROM traffic_1s":                                             a.rows,
		"SELECT count() FROM (SELECT series, t FROM traffic_1s GROUP BY series, t)":  a.rows,
		"SELECT sum(packets) FROM traffic_1s":                                        a.packets,
		"SELECT sum(packets) FROM traffic_1m":                                        a.packets,
		"SELECT count() FROM (SELECT intDiv(t, 60) AS m FROM traffic_1m GROUP BY m)": len(a.minutes),
	} {
		if got := a.s.raw(a.t, sql); !slices.Equal(got, []string{fmt.Sprint(want)}) {
			a.t.Errorf("%s: %v, want %v", sql, got, want)
		}
	}
	if st := a.s.Stats(); st.Lost != 0 || st.Refused != 0 || st.Buffered != 0 || st.Sent != uint64(a.rows) {
		a.t.Errorf("%+v", st)
	}
}
