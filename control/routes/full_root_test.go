package routes

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"causeway/pipeline"
)

// The table of TestRootFullTableUnderTraffic: prefix4 and prefix6, of which every fourth is replaced again and again.
// hotRoutes of those, and as many steady ones beside them, get most of the traffic and of the updates. In the upper half of
// the steady ones longer routes come and go, which lead the other way: so memory of the tables is retired and used again.
const hotRoutes = 8

const (
	perSecond = 15_000 // as fast as updates are made: more than is demanded, because ip(8) may be held up
	tries     = 4
)

// quiet reports whether the machine is said to have nothing else to do, so that speed can be demanded.
func quiet() bool { return os.Getenv("CAUSEWAY_FULL") != "" }

func movingRoute(k int) int { return 4 * k }
func steadyRoute(k int) int { return 4*k + 1 }

// ownPort is where a route leads at first.
func ownPort(route int) int { return route >> 2 & 1 }

// rightPorts are those by which packets may leave, a bit for each: what covers the lower or the upper half of a prefix has
// led there at some time.
func rightPorts(route int, upper bool) int {
	moving := route%4 == 0
	if moving || early(route) && upper {
		return 1<<0 | 1<<1
	}
	return 1 << ownPort(route)
}

// families are the two tables as ip(8) wants to know them.
var families = [2]struct {
	flag   string
	prefix func(int) netip.Prefix
	hops   [2]string // by port
}{
	{"-4", prefix4, [2]string{"10.0.0.1", "10.0.1.1"}},
	{"-6", prefix6, [2]string{"fd00::1", "fd00:1::1"}},
}

// longer is the longer route in the upper half of a prefix.
func longer(family, route int) netip.Prefix {
	a := families[family].prefix(route).Addr().AsSlice()
	if family == 0 {
		a[3] |= upper4 & 0xff
	} else {
		a[6] |= upper6 >> 8
	}
	p, _ := netip.AddrFromSlice(a)
	return netip.PrefixFrom(p, []int{26, 56}[family])
}

// update is the i-th change: a fifth are of IPv6, and of each family a third replaces a hot route, a third another one
// anywhere in the table, and a third takes a longer route away or adds one. At each moment a route covers each packet.
func (f *traffic) update(i int) string {
	family := 0
	if i%5 == 4 {
		family, i = 1, i/5
	} else {
		i -= i / 5
	}
	step := i / 3
	switch i % 3 {
	case 0:
		return replace(family, movingRoute(step%hotRoutes), step/hotRoutes)
	case 1:
		rest := (f.routes[family]+3)/4 - hotRoutes
		return replace(family, movingRoute(hotRoutes+step%rest), step/rest)
	}
	k := step / 2
	if step%2 == 0 {
		return fmt.Sprintf("route del %s", longer(family, steadyRoute(k%hotRoutes)))
	}
	return addLonger(family, steadyRoute((k+hotRoutes/2)%hotRoutes))
}

// replace is the change that leads a route away from where it led in the round before.
func replace(family, route, round int) string {
	t := &families[family]
	return fmt.Sprintf("route replace %s via %s", t.prefix(route), t.hops[(ownPort(route)+round+1)%2])
}

func addLonger(family, route int) string {
	return fmt.Sprintf("route add %s via %s", longer(family, route), families[family].hops[1-ownPort(route)])
}

// early are the routes whose traffic flows before the others are loaded.
func early(route int) bool { return route%4 == 1 && route < steadyRoute(hotRoutes) }

// add gives the kernel those routes of the table that accept likes.
func (h *host) add(f *traffic, accept func(route int) bool) {
	h.t.Helper()
	for family, t := range families {
		h.batch(t.flag, func(b *bytes.Buffer) {
			for i := range f.routes[family] {
				if accept(i) {
					fmt.Fprintf(b, "route add %s via %s\n", t.prefix(i), t.hops[ownPort(i)])
				}
			}
		})
	}
}

// mirrored waits until the mirror has so many routes of each family, and two connected ones.
func (h *host) mirrored(n4, n6 int) {
	h.t.Helper()
	h.within(20*time.Second, "mirrored routes", fmt.Sprint(n4+2, n6+2), func() string {
		s := h.m.Stats()
		return fmt.Sprint(s.Routes4, s.Routes6)
	})
}

// agrees compares the route that a worker finds with the kernel's, for each of a family, and returns how many there are.
func (h *host) agrees(family int) (routes int) {
	h.t.Helper()
	ip := exec.Command("ip", families[family].flag, "-n", h.node, "route", "show")
	out, err := ip.StdoutPipe()
	if err == nil {
		err = ip.Start()
	}
	if err != nil {
		h.t.Fatal(err)
	}
	different := 0
	for lines := bufio.NewScanner(out); lines.Scan(); {
		w := strings.Fields(lines.Text())
		if len(w) < 5 || w[1] != "via" {
			continue // connected
		}
		routes++
		want := h.hop(int(w[4][1]-'0'), w[2])
		addr := netip.MustParsePrefix(w[0]).Addr().Next().String() // no longer route of the test begins there
		if got := h.m.at("", addr); got != want {
			if different++; different <= 3 {
				h.t.Errorf("%s leads to %s, in the kernel to %s", w[0], got, want)
			}
		}
	}
	if err := ip.Wait(); err != nil || different > 0 {
		h.t.Errorf("%d of the kernel's %d routes are different: %v", different, routes, err)
	}
	return routes
}

// flowing counts the packets that are forwarded during f.
func (h *host) flowing(what string, f func()) {
	h.t.Helper()
	start, before := time.Now(), h.engine.Total().Forwarded
	f()
	n := h.engine.Total().Forwarded - before
	h.t.Logf("%s: %v, %d packets forwarded meanwhile", what, time.Since(start).Round(time.Millisecond), n)
	if n < 1000 {
		h.t.Errorf("%s: only %d packets flowed: the test shows nothing", what, n)
	}
}

// changeUnderTraffic makes n changes and reports whether all was as fast as is demanded.
func (h *host) changeUnderTraffic(f *traffic, from, n int) bool {
	h.t.Helper()
	h.m.mu.Lock()
	h.m.stats.MaxLag = 0
	h.m.mu.Unlock()
	before := h.m.Stats()
	rate := h.paced(perSecond, n, func(i int) string { return f.update(from + i) })
	h.within(20*time.Second, "the mirror has followed", "true", func() string {
		return fmt.Sprint(h.followed(before, n))
	})
	s := h.m.Stats()
	h.t.Logf("%.0f updates/s, %d: largest lag %v, %d table writes, %d overruns, %d dumps",
		rate, n, s.MaxLag, s.Changes-before.Changes, s.Overruns-before.Overruns, s.Resyncs-before.Resyncs)
	return rate >= 10_000 && s.MaxLag < seen && s.Overruns == before.Overruns
}

// followed reports whether the mirror has taken in n messages more than before, or has lost some and read all again.
func (h *host) followed(before Stats, n int) bool {
	s := h.m.Stats()
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	reading := h.m.pass.running || h.m.pass.wanted
	return s.Updates-before.Updates >= uint64(n) || s.Overruns > before.Overruns && !reading
}

// lossless demands that each frame was forwarded.
func lossless(t *testing.T, c pipeline.Counters) {
	t.Helper()
	for r, n := range c.Dropped {
		if n > 0 {
			t.Errorf("%d packets dropped: %v", n, pipeline.Reason(r))
		}
	}
	if in, out := c.Balance(); in != out || c.Received != c.Forwarded {
		t.Errorf("%d frames received, %d forwarded; balance %d and %d", c.Received, c.Forwarded, in, out)
	}
}

// TestRootFullTableUnderTraffic loads a table and then changes it faster than 10,000 times a second, while a worker
// forwards packets of both families and may lose none. CAUSEWAY_FULL_TABLE=1 makes it a million IPv4 and 200,000 IPv6
// routes. It says nothing about what a card's ring would lose while the worker waits for a core: its source waits too.
func TestRootFullTableUnderTraffic(t *testing.T) {
	f, seconds := &traffic{routes: [2]int{20_000, 4_000}}, 1
	if os.Getenv("CAUSEWAY_FULL_TABLE") == "1" {
		f.routes, seconds = [2]int{1_000_000, 200_000}, 5
	}
	e, streams := newTraffic(t, f)
	h := newWires(t)
	h.start(e)
	stopWorker := startWorker(t, e)

	h.add(f, early)
	h.mirrored(hotRoutes, hotRoutes)
	for p := range h.port {
		h.resolved(p, families[0].hops[p], true)
		h.resolved(p, families[1].hops[p], true)
	}
	f.aims.Store(int32(aimSteady) + 1)
	h.flowing("loading", func() {
		h.add(f, func(i int) bool { return !early(i) })
		h.mirrored(f.routes[0], f.routes[1])
	})
	t.Logf("%d overruns and %d dumps while loading", h.m.Stats().Overruns, h.m.Stats().Resyncs)

	h.seedLonger()
	f.aims.Store(int32(aims))
	h.flowing("changing", func() { h.changeFastEnough(f, seconds*perSecond) })
	stopWorker()
	lossless(t, e.Total())
	account(t, streams)
	for family, n := range f.routes {
		if got := h.agrees(family); got < n+hotRoutes/2 {
			t.Errorf("the kernel has %d routes of family %s, want at least %d", got, families[family].flag, n+hotRoutes/2)
		}
	}
}

// startWorker runs the engine until the returned function is called, which may be done twice.
func startWorker(t *testing.T, e *pipeline.Engine) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var worker sync.WaitGroup
	worker.Go(func() {
		if err := e.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	stop = func() { cancel(); worker.Wait() }
	t.Cleanup(stop)
	return stop
}

// changeFastEnough makes n changes, again if they took too long: a machine with much else to do may starve ip(8), or us.
// Loss is an error whatever the speed, which make test-full alone demands, of a machine with nothing else to do.
func (h *host) changeFastEnough(f *traffic, n int) {
	h.t.Helper()
	for try := range tries {
		if h.changeUnderTraffic(f, try*n, n) || raceDetector || !quiet() {
			return
		}
	}
	h.t.Errorf("in none of %d tries were there 10,000 updates/s, a lag below %v and no overrun", tries, seen)
}

// seedLonger adds the longer routes that the updates begin with.
func (h *host) seedLonger() {
	h.t.Helper()
	for family, t := range families {
		h.batch(t.flag, func(b *bytes.Buffer) {
			for k := range hotRoutes / 2 {
				fmt.Fprintln(b, addLonger(family, steadyRoute(k)))
			}
		})
	}
}
