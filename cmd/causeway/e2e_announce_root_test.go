package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"causeway/control/tun"
)

// announced are the prefixes that the router has from bird.
func (b *bed) announced() []string {
	var list []string
	for _, family := range []string{"-4", "-6"} {
		for line := range strings.Lines(b.rt.MustRun("ip", family, "route", "show", "proto", "bird")) {
			if f := strings.Fields(line); len(f) > 0 && f[0] != "unreachable" {
				list = append(list, f[0])
			}
		}
	}
	slices.Sort(list)
	return list
}

// routed waits until the router has a number of prefixes from bird, and returns how long that took.
func (b *bed) routed(t *testing.T, what string, n int, limit time.Duration) time.Duration {
	t.Helper()
	begin := time.Now()
	for ; len(b.announced()) != n; time.Sleep(2 * time.Millisecond) {
		if time.Since(begin) > limit {
			t.Fatalf("%s: after %v the router has %v, want %d; the daemon says:\n%s", what, limit, b.announced(), n, b.daemon.Log())
		}
	}
	took := time.Since(begin).Round(time.Millisecond)
	t.Logf("%s: %v", what, took)
	return took
}

// routingWords are what stands in place of the words in the files of scripts/routing.
var routingWords = []string{"NODE4", "172.31.2.1", "ROUTER4", "172.31.2.254", "ROUTER6", "2001:db8:32::fe"}

// routerConf is bird's on the router. The customer's prefixes lead to where an endpoint is.
const routerConf = `router id 172.31.2.254;
protocol device { scan time 1; }
protocol kernel k4 { ipv4 { import none; export where dest != RTD_UNREACHABLE; }; }
protocol kernel k6 { ipv6 { import none; export where dest != RTD_UNREACHABLE; }; }
protocol static customers4 { ipv4; route 198.18.5.0/24 recursive ` + endpoint4 + `; }
protocol static customers6 { ipv6; route 2001:db8:18:5::/64 recursive ` + endpoint6 + `; }
protocol bfd { interface "*" { min rx interval 100 ms; min tx interval 100 ms; multiplier 3; }; }
protocol bgp node4 { local 172.31.2.254 as 65000; neighbor 172.31.2.1 as 65001; bfd on; connect delay time 1; connect retry time 1; error wait time 1, 2; ipv4 { import all; export none; }; }
protocol bgp node6 { local 2001:db8:32::fe as 65000; neighbor 2001:db8:32::1 as 65001; bfd on; connect delay time 1; connect retry time 1; error wait time 1, 2; ipv6 { import all; export none; }; }
`

// TestRootAnnounce: routing daemons announce the endpoints while the node can serve: not when
// it is killed, hangs, drains, or a worker stands still.
func TestRootAnnounce(t *testing.T) {
	b := newBed(t, bedOptions{})
	b.rt.MustRun("ip", "route", "del", endpoint4, "via", "172.31.2.1")
	b.rt.MustRun("ip", "-6", "route", "del", endpoint6, "via", "2001:db8:32::1")
	b.rt.Bird(routerConf)
	const all = 4 // two endpoints by BGP, and two prefixes that lead there
	cust := tunnel{name: "cust", endpoint: endpoint4, customer: "198.51.100.2", interface4: "10.213.0.10/31", prefixes: []string{"198.18.5.0/24", "2001:db8:18:5::/64"}}
	for _, daemon := range []string{"bird", "frr"} {
		t.Run(daemon, func(t *testing.T) {
			var stop func()
			if daemon == "bird" {
				p := b.node.Bird(b.net.RoutingConf("bird.conf", routingWords...))
				stop = func() { _ = p.Stop() }
			} else {
				f := b.node.FRR(b.net.RoutingConf("frr.conf", routingWords...))
				stop = func() {
					if t.Failed() {
						t.Log(f.Show("show ip bgp summary"), f.Show("show ip bgp"), f.Show("show ip route"), f.Show("show bfd peers brief"), f.Show("show interface brief"))
					}
					f.Stop()
				}
			}
			defer func() { stop() }()
			time.Sleep(3 * time.Second) // the sessions are up, and nothing is announced
			if got := b.announced(); len(got) > 0 {
				t.Fatalf("announced without a daemon: %v", got)
			}
			b.run(t, b.configuration([]tunnel{cust}))
			b.routed(t, "the node is started", all, 15*time.Second)

			b.daemon.Signal(unix.SIGKILL)
			if took := b.routed(t, "killed", 0, 5*time.Second); took > time.Second {
				t.Errorf("killed: withdrawn after %v", took)
			}
			_ = b.daemon.Wait(startLimit)
			b.start()
			b.routed(t, "started again", all, 15*time.Second)

			b.daemon.Signal(unix.SIGSTOP)
			b.routed(t, "the process hangs", 0, 2*tun.AnnouncementLife+4*time.Second)
			b.daemon.Signal(unix.SIGCONT)
			b.routed(t, "the process goes on", all, 10*time.Second)

			stands := b.standStill(t)
			b.routed(t, "the worker stands still", 0, 3*time.Second)
			stands()
			b.routed(t, "the worker goes on", all, 10*time.Second)

			out, err := b.node.Run(b.bin, "drain", "--socket", b.socket)
			if err != nil || !strings.Contains(out, "; the daemon stops") {
				t.Errorf("drain: %v, %s", err, out)
			}
			b.routed(t, "drained", 0, time.Second)
			if err := b.daemon.Wait(startLimit); err != nil {
				t.Errorf("the daemon that was drained ended with %v", err)
			}
			b.daemon = nil
		})
	}
}

// standStill stops the thread of the node's worker, and returns what lets it go on: a process that is traced stops thread by thread.
func (b *bed) standStill(t *testing.T) func() {
	t.Helper()
	list, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/comm", b.daemon.PID()))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range list {
		name, err := os.ReadFile(path)
		if err != nil || !strings.HasPrefix(string(name), "cw-worker") {
			continue
		}
		tid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			t.Fatal(err)
		}
		return freeze(t, tid)
	}
	t.Fatal("the daemon has no thread of a worker")
	return nil
}

// freeze stops a thread as a debugger does, and returns what lets it go on.
func freeze(t *testing.T, tid int) func() {
	t.Helper()
	frozen, thaw, thawed := make(chan error), make(chan bool), make(chan error)
	go func() {
		runtime.LockOSThread() // the tracer is a thread
		defer runtime.UnlockOSThread()
		err := unix.PtraceSeize(tid)
		if err == nil {
			err = unix.PtraceInterrupt(tid)
		}
		if err == nil {
			_, err = unix.Wait4(tid, nil, unix.WALL, nil)
		}
		frozen <- err
		<-thaw
		thawed <- unix.PtraceDetach(tid)
	}()
	if err := <-frozen; err != nil {
		t.Fatalf("thread %d cannot be stopped: %v", tid, err)
	}
	return func() {
		close(thaw)
		if err := <-thawed; err != nil {
			t.Errorf("thread %d: %v", tid, err)
		}
	}
}
