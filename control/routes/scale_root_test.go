package routes

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// prefix4 is the i-th /24 of 16.0.0.0/4 and what follows; prefix6 the i-th /48 of 3000::/4.
func prefix4(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(16 + i>>16), byte(i >> 8), byte(i), 0}), 24)
}

func prefix6(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom16([16]byte{0x30, 0, byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)}), 48)
}

// keptWhole calls check all the time until the returned function is called, which says how often it failed.
func keptWhole(check func() bool) (stop func() (failures int64)) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var failures atomic.Int64
	wg.Go(func() {
		for ctx.Err() == nil {
			if !check() {
				failures.Add(1)
			}
			time.Sleep(50 * time.Microsecond)
		}
	})
	return func() int64 { cancel(); wg.Wait(); return failures.Load() }
}

// truth compares the number of mirrored routes with the kernel's, and n lookups with what the test has set.
func (h *host) truth(n int, want func(i int) string) string {
	for i := range n {
		if got := h.m.at("", prefix4(i).Addr().Next().String()); got != want(i) {
			return fmt.Sprintf("%s: %s, want %s", prefix4(i), got, want(i))
		}
	}
	return ""
}

func TestRootOverrunResynchronises(t *testing.T) {
	const routes = 20000
	h := newHost(t, func(o *Options) { o.ReceiveBuffer = 1024 })
	h.ip(h.node, "route add 192.0.2.0/24 via 10.0.0.1")
	h.soon("192.0.2.1", h.hop(0, "10.0.0.1"))
	whole := keptWhole(func() bool { return lookup(h.engine, "", "192.0.2.1") != 0 })

	h.batch("-4", func(b *bytes.Buffer) {
		for i := range routes {
			fmt.Fprintf(b, "route add %s via 10.0.0.1\n", prefix4(i))
		}
	})
	added := func(int) string { return h.hop(0, "10.0.0.1") }
	h.within(3*time.Second, "after 20,000 additions", "", func() string { return h.truth(routes, added) })
	overruns := h.m.Stats().Overruns
	if overruns == 0 {
		t.Fatal("a buffer of 4 KiB was never overrun: the test shows nothing")
	}

	h.batch("-4", func(b *bytes.Buffer) {
		for i := range routes {
			switch i % 3 {
			case 0:
				fmt.Fprintf(b, "route del %s\n", prefix4(i))
			case 1:
				fmt.Fprintf(b, "route replace %s via 10.0.1.1\n", prefix4(i))
			}
		}
	})
	h.within(3*time.Second, "after deletions and replacements", "", func() string {
		return h.truth(routes, func(i int) string {
			return []string{"none", h.hop(1, "10.0.1.1"), h.hop(0, "10.0.0.1")}[i%3]
		})
	})
	s := h.m.Stats()
	t.Logf("overruns %d, resyncs %d of %v, swept %d", s.Overruns, s.Resyncs, s.ResyncTime, s.Swept)
	if s.Overruns == overruns {
		t.Error("the deletions did not overrun the buffer")
	}
	if n := whole(); n != 0 {
		t.Errorf("a route that was there all the time was missing in %d looks", n)
	}
}

// TestRootUpdateRate changes routes at 12,000/s for two seconds, and then as fast as ip(8) can.
func TestRootUpdateRate(t *testing.T) {
	const routes, perSecond, seconds = 10000, 12000, 2
	h := newHost(t)
	h.batch("-4", func(b *bytes.Buffer) {
		for i := range routes {
			fmt.Fprintf(b, "route add %s via 10.0.0.1\n", prefix4(i))
		}
	})
	through := func(port int) func(int) string {
		return func(int) string { return h.hop(port, fmt.Sprintf("10.0.%d.1", port)) }
	}
	h.within(time.Second, "loaded", "", func() string { return h.truth(routes, through(0)) })
	whole := keptWhole(func() bool { return lookup(h.engine, "", prefix4(77).Addr().String()) != 0 })
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = h.engine.Run(ctx) }) // with a worker whose batches retired memory must wait for
	defer wg.Wait()
	defer cancel()

	hops := make([]int, routes)
	// On a busy machine ip(8) may be held up, or the mirror wait for a core: no loss, but no judgement either.
	for try := 1; ; try++ {
		h.m.mu.Lock()
		h.m.stats.MaxLag = 0
		h.m.mu.Unlock()
		before := h.m.Stats()
		rate := h.paced(perSecond, perSecond*seconds, func(i int) string {
			hops[i%routes] ^= 1 // the kernel tells of changes alone
			return fmt.Sprintf("route replace %s via 10.0.%d.1", prefix4(i%routes), hops[i%routes])
		})
		h.soon("192.0.2.1", h.hop(0, "10.0.0.1")) // the last line of the batch
		s := h.m.Stats()
		t.Logf("%.0f updates/s: largest lag %v, %d table writes", rate, s.MaxLag, s.Changes-before.Changes)
		if s.Overruns > 0 || s.Updates-before.Updates < perSecond*seconds {
			t.Fatalf("%d overruns, %d messages of %d", s.Overruns, s.Updates-before.Updates, perSecond*seconds)
		}
		if rate >= 10000 && s.MaxLag <= seen || !quiet() {
			break
		}
		if try == tries {
			t.Fatalf("%d times: at last %.0f changes/s, of which 10,000 are needed, and a lag of %v", try, rate, s.MaxLag)
		}
	}

	start := time.Now()
	h.batch("-4", func(b *bytes.Buffer) {
		for i := range 5 * routes {
			fmt.Fprintf(b, "route replace %s via 10.0.%d.1\n", prefix4(i%routes), i/routes%2)
		}
	})
	rate := 5 * routes / time.Since(start).Seconds()
	h.within(2*time.Second, "after a burst", "", func() string { return h.truth(routes, through(0)) })
	t.Logf("burst of %.0f updates/s: largest lag %v, %d overruns", rate, h.m.Stats().MaxLag, h.m.Stats().Overruns)
	if n := whole(); n != 0 {
		t.Errorf("a route was missing in %d looks while it was replaced", n)
	}
}

// paced gives n lines to one ip(8), so many a second, and a last one for 192.0.2.0/24. It returns the rate.
func (h *host) paced(perSecond, n int, line func(int) string) float64 {
	h.t.Helper()
	ip := exec.Command("ip", "-n", h.node, "-batch", "-")
	ip.Stderr = os.Stderr
	in, err := ip.StdinPipe()
	if err == nil {
		err = ip.Start()
	}
	if err != nil {
		h.t.Fatal(err)
	}
	start := time.Now()
	w := bufio.NewWriter(in)
	for i := range n {
		fmt.Fprintln(w, line(i))
		if ahead := time.Duration(i)*time.Second/time.Duration(perSecond) - time.Since(start); ahead > 5*time.Millisecond {
			w.Flush()
			time.Sleep(ahead)
		}
	}
	fmt.Fprintln(w, "route replace 192.0.2.0/24 via 10.0.0.1")
	w.Flush()
	in.Close()
	if err := ip.Wait(); err != nil {
		h.t.Fatal(err)
	}
	return float64(n) / time.Since(start).Seconds()
}

// TestRootLoad starts on a full table. CAUSEWAY_FULL_TABLE=1 makes it a million IPv4 and 200,000 IPv6 routes.
func TestRootLoad(t *testing.T) {
	n4, n6 := 200_000, 40_000
	if os.Getenv("CAUSEWAY_FULL_TABLE") == "1" {
		n4, n6 = 1_000_000, 200_000
	}
	h := newHost(t)
	h.batch("-4", func(b *bytes.Buffer) {
		for i := range n4 {
			fmt.Fprintf(b, "route add %s via 10.0.%d.1\n", prefix4(i), i%2)
		}
	})
	h.batch("-6", func(b *bytes.Buffer) {
		for i := range n6 {
			fmt.Fprintf(b, "route add %s via fd00:%d::1\n", prefix6(i), i%2)
		}
	})
	live := h.m.Stats()
	start := time.Now()
	h.start(newEngine(t, 2)) // a second Manager, with a second engine, meets the full table
	s := h.m.Stats()
	t.Logf("%d + %d routes: first dump %v, ready after %v, resident %s; the first Manager followed with %d overruns and %d dumps",
		s.Routes4, s.Routes6, s.ResyncTime, time.Since(start), resident(t), live.Overruns, live.Resyncs)
	if s.Routes4 != n4+2 || s.Routes6 != n6+2 { // and two connected prefixes each
		t.Fatalf("%d and %d routes, want %d and %d", s.Routes4, s.Routes6, n4+2, n6+2)
	}
	for i := 0; i < n4; i += 997 {
		if got, want := h.m.at("", prefix4(i).Addr().String()), h.hop(i%2, fmt.Sprintf("10.0.%d.1", i%2)); got != want {
			t.Fatalf("%s: %s, want %s", prefix4(i), got, want)
		}
	}
	for i := 0; i < n6; i += 997 {
		want := h.hop(i%2, []string{"fd00::1", "fd00:1::1"}[i%2])
		if got := h.m.at("", prefix6(i).Addr().String()); got != want {
			t.Fatalf("%s: %s, want %s", prefix6(i), got, want)
		}
	}
	h.ip(h.node, "route replace "+prefix4(12345).String()+" via 10.0.0.1")
	h.soon(prefix4(12345).Addr().String(), h.hop(0, "10.0.0.1"))

	// While everything is dumped again a change still comes through in time, and nothing is withdrawn.
	whole := keptWhole(func() bool { return lookup(h.engine, "", prefix4(n4-1).Addr().String()) != 0 })
	h.m.mu.Lock()
	h.m.loseTrack()
	h.m.mu.Unlock()
	h.within(time.Second, "a dump", "true", func() string {
		h.m.mu.Lock()
		defer h.m.mu.Unlock()
		return strconv.FormatBool(h.m.pass.running)
	})
	h.ip(h.node, "route replace "+prefix4(12345).String()+" via 10.0.1.1")
	h.soon(prefix4(12345).Addr().String(), h.hop(1, "10.0.1.1"))
	h.within(20*time.Second, "the end of the dump", "false", func() string {
		h.m.mu.Lock()
		defer h.m.mu.Unlock()
		return strconv.FormatBool(h.m.pass.running)
	})
	if n := whole(); n != 0 {
		t.Errorf("a route was missing in %d looks during a dump", n)
	}
	// The loss of a link with half of the table.
	start = time.Now()
	h.ip(h.node, "link set p1 down")
	h.within(5*time.Second, "the last route over it", "none", func() string { return h.m.at("", prefix4(n4-1).Addr().String()) })
	t.Logf("link down: the last of %d routes is gone after %v, swept %d", n4/2, time.Since(start), h.m.Stats().Swept)
	h.within(20*time.Second, "sweep", strconv.Itoa(n4/2+1), func() string { return strconv.Itoa(h.m.Stats().Routes4) })
}

// resident is the memory of this process.
func resident(t *testing.T) string {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			return strings.TrimSpace(v)
		}
	}
	return "unknown"
}
