package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"causeway/cmd/pktgen/bpf"
)

// A pair is two network namespaces joined by a veth pair: a0 (10.0.0.1) in a, b0 (10.0.0.2) in b.
type pair struct {
	t    *testing.T
	a, b string
}

var pairs int

func newPair(t *testing.T, queues int) *pair {
	t.Helper()
	needRoot(t)
	pairs++
	p := &pair{t: t, a: fmt.Sprintf("pg%d-%da", os.Getpid(), pairs), b: fmt.Sprintf("pg%d-%db", os.Getpid(), pairs)}
	t.Cleanup(func() {
		exec.Command("ip", "netns", "del", p.a).Run()
		exec.Command("ip", "netns", "del", p.b).Run()
	})
	q := strconv.Itoa(queues)
	p.must("ip", "netns", "add", p.a)
	p.must("ip", "netns", "add", p.b)
	p.must("ip", "link", "add", "a0", "netns", p.a, "numrxqueues", q, "numtxqueues", q, "type", "veth",
		"peer", "name", "b0", "netns", p.b, "numrxqueues", q, "numtxqueues", q)
	for ns, l := range map[string][2]string{p.a: {"a0", "10.0.0.1/24"}, p.b: {"b0", "10.0.0.2/24"}} {
		p.must("ip", "-n", ns, "addr", "add", l[1], "dev", l[0])
		p.must("ip", "-n", ns, "link", "set", "lo", "up")
		p.must("ip", "-n", ns, "link", "set", l[0], "up")
	}
	return p
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("needs root: network namespaces, AF_XDP and XDP programs")
	}
}

func (p *pair) must(args ...string) {
	p.t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		p.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// A program is a pktgen that runs in a namespace.
type program struct {
	cmd       *exec.Cmd
	out, errs bytes.Buffer
	ready     chan struct{}
	copied    chan struct{}
}

// start runs pktgen with --json; the command line is split at spaces.
func (p *pair) start(ns, line string) *program {
	p.t.Helper()
	args := append([]string{"netns", "exec", ns, "/proc/self/exe"}, strings.Fields(line)...)
	args[3], _ = os.Executable()
	g := &program{cmd: exec.Command("ip", append(args, "--json")...), ready: make(chan struct{}), copied: make(chan struct{})}
	g.cmd.Env = append(os.Environ(), "PKTGEN_TEST_IS_PROGRAM=1")
	g.cmd.Stdout = &g.out
	errs, err := g.cmd.StderrPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := g.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { g.cmd.Process.Kill() })
	go g.copyErrors(bufio.NewScanner(errs))
	return g
}

func (g *program) copyErrors(s *bufio.Scanner) {
	defer close(g.copied)
	for s.Scan() {
		if s.Text() == "ready" {
			close(g.ready)
			continue
		}
		fmt.Fprintln(&g.errs, s.Text())
	}
}

// wait returns the exit status and fills result from the JSON.
func (g *program) wait(t *testing.T, result any) int {
	t.Helper()
	<-g.copied
	g.cmd.Wait()
	if strings.Contains(g.errs.String(), "goroutine ") {
		t.Fatalf("panic:\n%s", g.errs.String())
	}
	if err := json.Unmarshal(g.out.Bytes(), result); err != nil {
		t.Fatalf("no JSON result: %v\n%s%s", err, g.out.String(), g.errs.String())
	}
	return g.cmd.ProcessState.ExitCode()
}

// sink starts a sink on b0 and waits until it receives.
func (p *pair) sink(line string) *program {
	p.t.Helper()
	g := p.start(p.b, "sink -i b0 "+line)
	select {
	case <-g.ready:
	case <-g.copied:
		p.t.Fatalf("the sink did not start: %s", g.errs.String())
	case <-time.After(10 * time.Second):
		p.t.Fatal("the sink is not ready after 10 s")
	}
	return g
}

// send runs a generator on a0 to its end.
func (p *pair) send(line string) sendResult {
	p.t.Helper()
	var r sendResult
	g := p.start(p.a, "send -i a0 "+line)
	if status := g.wait(p.t, &r); status != 0 {
		p.t.Fatalf("send %s: status %d\n%s", line, status, g.errs.String())
	}
	return r
}

// Each engine's packets all arrive once, in order, with good checksums, and both ends count alike.
func TestRootSendToSink(t *testing.T) {
	for _, c := range []struct {
		name, send string
		queues     int
	}{
		{"xsk", "--dst 10.0.0.2 --flows 500 --size imix", 1},
		{"live", "--engine live --dst 10.0.0.2 --flows 500 --size imix", 1},
		{"xsk queue 1", "--queue 1 --dst 10.0.0.2", 2},
		{"xsk SYN", "--dst 10.0.0.2 --tcp-syn --mss 1460 --probe on --flows 3000", 1},
		{"live SYN", "--engine live --dst 10.0.0.2 --tcp-syn --mss 1460 --probe on --flows 3000", 1},
		{"xsk GRE", "--gre-dst 10.0.0.2 --gre-key 7 --src 2001:db8::1 --dst 2001:db8::2 --vlan 5", 1},
		{"live GRE", "--engine live --gre-dst 10.0.0.2 --gre-key 7 --src 2001:db8::1 --dst 2001:db8::2 --vlan 5", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			const n = 10_000
			p := newPair(t, c.queues)
			sink := p.sink(fmt.Sprintf("--verify --expect %d", n))
			sent := p.send(fmt.Sprintf("%s --rate 20k --count %d", c.send, n))
			var got sinkResult
			if status := sink.wait(t, &got); status != 0 {
				t.Fatalf("sink: status %d\n%s", status, sink.errs.String())
			}
			if sent.Packets != n || sent.Attempted != n || got.Packets != n || got.Bytes != sent.Bytes {
				t.Errorf("sent %d of %d (%d bytes), received %d (%d bytes)", sent.Packets, sent.Attempted, sent.Bytes, got.Packets, got.Bytes)
			}
			if r := got.Probes; r.Received != n || r.First != 0 || r.Last != n-1 || r.Lost+r.Duplicates+r.Reordered != 0 {
				t.Errorf("probes %+v", *r)
			}
			if got.Checksums.Checked != n || got.Checksums.Bad != 0 {
				t.Errorf("checksums %+v", *got.Checksums)
			}
			if got.Delay.Min == 0 || got.Delay.Max > 5e9 {
				t.Errorf("delay %+v", *got.Delay)
			}
		})
	}
}

func TestRootRate(t *testing.T) {
	for _, engine := range []string{"xsk", "live"} {
		t.Run(engine, func(t *testing.T) {
			p := newPair(t, 1)
			sink := p.sink("--engine xdp --idle 500ms")
			sent := p.send("--engine " + engine + " --dst 10.0.0.2 --rate 2000 --duration 2s")
			var got sinkResult
			sink.wait(t, &got)
			// The rate is a promise never to send faster. How much slower a busy machine makes it is not the generator's
			// doing, so the test only wants it to be a rate at all.
			if got.Packets != sent.Packets || got.Packets < 1000 || got.Packets > 4400 || got.PPS > 2200 {
				t.Errorf("sent %d, received %d at %.0f/s; want at most 4000 at 2000/s, within 10 %%", sent.Packets, got.Packets, got.PPS)
			}
			if sent.StoppedBy != "duration" || got.StoppedBy != "idle" {
				t.Errorf("stopped by %s and %s", sent.StoppedBy, got.StoppedBy)
			}
		})
	}
}

// At full speed what the generator says was sent is what an XDP program at the other side counts.
func TestRootFullSpeedIsCountedAlike(t *testing.T) {
	for _, engine := range []string{"xsk", "live"} {
		t.Run(engine, func(t *testing.T) {
			p := newPair(t, 1)
			for try := 1; ; try++ {
				sink := p.sink("--engine xdp --idle 500ms")
				sent := p.send("--engine " + engine + " --dst 10.0.0.2 --count 300k")
				var got sinkResult
				sink.wait(t, &got)
				if sent.Attempted == 300_000 && got.Packets == sent.Packets && sent.StoppedBy == "count" {
					return
				}
				// Between two namespaces the kernel has a queue, which overflows when the receiver's core is taken away.
				say := t.Logf
				if try == 3 || sent.Attempted != 300_000 || sent.StoppedBy != "count" || got.Packets > sent.Packets {
					say = t.Fatalf
				}
				say("attempted %d, sent %d, received %d, stopped by %s", sent.Attempted, sent.Packets, got.Packets, sent.StoppedBy)
			}
		})
	}
}

// Tshark is the judge of a SYN.
func TestRootSYNAsTsharkSeesIt(t *testing.T) {
	for _, engine := range []string{"xsk", "live"} {
		t.Run(engine, func(t *testing.T) {
			p := newPair(t, 1)
			p.must("ip", "netns", "exec", p.b, "ethtool", "-K", "b0", "gro", "on") // lets a0 take XDP redirects
			file := t.TempDir() + "/syn.pcap"
			capture := exec.Command("ip", "netns", "exec", p.b, "tshark", "-i", "b0", "-w", file, "-c", "20", "-a", "duration:20", "-f", "tcp")
			errs, _ := capture.StderrPipe()
			if err := capture.Start(); err != nil {
				t.Fatalf("start tshark: %v", err)
			}
			lines := bufio.NewScanner(errs)
			for lines.Scan() && !strings.Contains(lines.Text(), "Capture started") {
			}
			go func() {
				for lines.Scan() {
				}
			}()
			time.Sleep(200 * time.Millisecond)
			p.send("--engine " + engine + " --dst 10.0.0.2 --src 10.0.0.100 --tcp-syn --mss 1380 --flows 5 --flow-ports 2 --rate 1000 --count 20")
			capture.Wait()
			out, err := exec.Command("tshark", "-r", file, "-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE", "-o", "tcp.relative_sequence_numbers:FALSE",
				"-T", "fields", "-E", "separator= ", "-e", "ip.src", "-e", "tcp.srcport", "-e", "tcp.dstport", "-e", "tcp.flags", "-e", "tcp.seq_raw",
				"-e", "tcp.options.mss_val", "-e", "tcp.len", "-e", "ip.checksum.status", "-e", "tcp.checksum.status").Output()
			if err != nil {
				t.Fatalf("tshark: %v", err)
			}
			var want strings.Builder
			for n := range 20 {
				f := n % 5
				fmt.Fprintf(&want, "10.0.0.%d %d 9 0x0002 %d 1380 0 1 1\n", 100+f/2, 1024+f%2, n)
			}
			if string(out) != want.String() {
				t.Errorf("tshark sees\n%swant\n%s", out, want.String())
			}
		})
	}
}

// The generator inside the kernel makes the very bytes that stamp makes.
func TestRootLiveProgramMatchesStamp(t *testing.T) {
	needRoot(t)
	for name, s := range testSpecs() {
		t.Run(name, func(t *testing.T) {
			p := mustPlan(t, s)
			given, err := livePlan(p, 1, 0, 0)
			if err != nil {
				t.Fatal(err)
			}
			objs, err := loadLive(given)
			if err != nil {
				t.Fatal(err)
			}
			defer objs.Close()
			compareWithStamp(t, p, objs)
		})
	}
}

func compareWithStamp(t *testing.T, p *plan, objs *bpf.LiveObjects) {
	t.Helper()
	data := make([]byte, p.longest())
	for _, f := range p.forms {
		if len(f.image) == len(data) {
			copy(data, f.image)
		}
	}
	for seq := range uint64(p.spec.Flows + 30) {
		in := bytes.Clone(data)
		for i := range p.headLen { // what a page's last user may have left
			in[i] = 0x5a
		}
		opts := ebpf.RunOptions{Data: in, DataOut: make([]byte, maxFrameLen)}
		if ret, err := objs.Emit.Run(&opts); err != nil || ret != 4 {
			t.Fatalf("packet %d: verdict %d, %v; want 4 (XDP_REDIRECT)", seq, ret, err)
		}
		if want := frameOf(p, seq, read(objs.LastNs)); !bytes.Equal(opts.DataOut, want) {
			t.Fatalf("packet %d:\n have %x\n want %x", seq, opts.DataOut, want)
		}
	}
}

// An interface that goes away or down under a running generator or sink ends it with a clear error, not a panic.
func TestRootInterfaceGoesAway(t *testing.T) {
	for _, c := range []struct{ name, end, want string }{
		{"deleted", "ip -n %s link del a0", "interface a0 went away"},
		{"down", "ip -n %s link set a0 down", "interface a0 is down"},
	} {
		for _, engine := range []string{"xsk", "live"} {
			t.Run(engine+" "+c.name, func(t *testing.T) {
				p := newPair(t, 1)
				p.must("ip", "netns", "exec", p.b, "ethtool", "-K", "b0", "gro", "on")
				g := p.start(p.a, "send -i a0 --dst 10.0.0.2 --rate 20k --engine "+engine)
				time.Sleep(700 * time.Millisecond)
				p.must(strings.Fields(fmt.Sprintf(c.end, p.a))...)
				var r sendResult
				status := g.wait(t, &r)
				if status != exitFailed || !strings.Contains(r.Error, c.want) || r.StoppedBy != "error" || r.Packets == 0 {
					t.Errorf("status %d, error %q, want %q in it; stopped by %q after %d packets", status, r.Error, c.want, r.StoppedBy, r.Packets)
				}
			})
		}
	}
	for _, engine := range []string{"xsk", "xdp"} {
		t.Run("sink "+engine, func(t *testing.T) {
			p := newPair(t, 1)
			g := p.sink("--engine " + engine)
			p.must("ip", "-n", p.b, "link", "del", "b0")
			var r sinkResult
			if status := g.wait(t, &r); status != exitFailed || !strings.Contains(r.Error, "interface b0 went away") {
				t.Errorf("status %d, error %q", status, r.Error)
			}
		})
	}
}

// A veth whose peer has neither an XDP program nor GRO takes no redirect: that is said.
func TestRootLiveRefused(t *testing.T) {
	p := newPair(t, 1)
	for _, args := range []string{"--count 1000", "--duration 5s --rate 100"} {
		g := p.start(p.a, "send -i a0 --engine live --dst 10.0.0.2 "+args)
		var r sendResult
		if status := g.wait(t, &r); status != exitFailed || r.Packets != 0 || !strings.Contains(r.Error, "took no frame") {
			t.Errorf("%s: status %d, %d packets, error %q", args, status, r.Packets, r.Error)
		}
	}
}

func TestRootQueueBusy(t *testing.T) {
	p := newPair(t, 1)
	p.sink("--duration 20s")
	g := p.start(p.b, "send -i b0 --dst 10.0.0.1 --dst-mac 02:00:00:00:00:01")
	var r sendResult
	if status := g.wait(t, &r); status != exitFailed || !strings.Contains(r.Error, "another AF_XDP socket has this queue") {
		t.Errorf("status %d, error %q", status, r.Error)
	}
}

// Ctrl-C ends both commands cleanly, with their results.
func TestRootInterrupt(t *testing.T) {
	for _, engine := range []string{"xsk", "live"} {
		t.Run(engine, func(t *testing.T) {
			p := newPair(t, 1)
			sink := p.sink("")
			g := p.start(p.a, "send -i a0 --dst 10.0.0.2 --rate 1000 --engine "+engine)
			time.Sleep(1500 * time.Millisecond)
			g.cmd.Process.Signal(os.Interrupt)
			var sent sendResult
			if status := g.wait(t, &sent); status != 0 || sent.StoppedBy != "signal" || sent.Packets == 0 {
				t.Errorf("send: status %d, stopped by %q after %d packets", status, sent.StoppedBy, sent.Packets)
			}
			sink.cmd.Process.Signal(os.Interrupt)
			var got sinkResult
			if status := sink.wait(t, &got); status != 0 || got.StoppedBy != "signal" || got.Packets != sent.Packets {
				t.Errorf("sink: status %d, stopped by %q with %d packets of %d", status, got.StoppedBy, got.Packets, sent.Packets)
			}
		})
	}
}

// Fewer packets than --expect is a failure; lost ones are counted.
func TestRootSinkMisses(t *testing.T) {
	p := newPair(t, 1)
	sink := p.sink("--expect 200 --idle 300ms")
	p.send("--dst 10.0.0.2 --count 100 --rate 10k")
	var got sinkResult
	if status := sink.wait(t, &got); status != exitFailed || got.Packets != 100 || got.StoppedBy != "idle" {
		t.Errorf("status %d, %d packets, stopped by %q", status, got.Packets, got.StoppedBy)
	}
	if !strings.Contains(sink.errs.String(), "100 of 200 expected packets came") {
		t.Errorf("error %q", sink.errs.String())
	}
}
