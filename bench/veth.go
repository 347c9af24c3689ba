package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The veth scenario forwards between network namespaces through AF_XDP: the daemon's worker against the least that a loop
// can do on the same rings, against that loop on another library, and against DPDK. What it shows is that nothing of the
// worker stands in the rings' way; the kernel's copying dominates each of them, so the absolute figures say nothing.

// vethCase is one kind of traffic.
type vethCase struct {
	name    string
	proto   byte     // of the frames that must arrive
	traffic []string // what the generator is told beside the frame size
}

const protoUDP, protoGRE = 17, 47

var vethCases = []vethCase{
	{"forward", protoUDP, []string{"--src", "198.19.0.1", "--dst", "198.18.0.1"}},
	{"encap", protoGRE, []string{"--src", "198.19.0.1", "--dst", inside(0).Addr().Next().String()}},
	{"decap", protoUDP, []string{"--src", inside(0).Addr().Next().String(), "--dst", "198.18.0.1",
		"--gre-src", customer(0).String(), "--gre-dst", endpoint.String()}},
}

// A lane is one forwarder under one kind of traffic.
type lane struct {
	forwarder string
	traffic   vethCase
	arrives   byte // protocol of the frames that it sends
}

// A comparison is one line of the result.
type comparison struct {
	ours, rival lane
	against     string
	share       float64 // of the rival's packets/s that ours must reach
}

func (c comparison) name() string {
	return fmt.Sprintf("veth/%s/64B/%s", c.ours.traffic.name, c.rival.forwarder)
}

// bareShare is how much of the bare loop's rate the worker must reach.
const bareShare = 0.95

func comparisons() []comparison {
	var cs []comparison
	for _, k := range vethCases {
		in := byte(protoUDP) // the bare loop sends what it receives
		if k.name == "decap" {
			in = protoGRE
		}
		ours := lane{"causeway", k, k.proto}
		cs = append(cs, comparison{ours, lane{"bare", k, in}, "bare loop on the same rings", bareShare})
		if k.name == "forward" {
			cs = append(cs, comparison{ours, lane{"asavie", k, in}, "loop on asavie/xdp", 1},
				comparison{ours, lane{"testpmd", k, in}, "dpdk-testpmd mac", 1})
		}
	}
	return cs
}

func vethScenario(o options, report func(Result)) error {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer cancel()
	v, err := newVethBench(ctx, o.quick)
	if err != nil {
		return err
	}
	defer v.close()
	var todo []comparison
	for _, c := range comparisons() {
		switch {
		case !strings.Contains(c.name(), o.only):
		case c.rival.forwarder == "testpmd" && v.testpmd == "":
			fmt.Fprintf(os.Stderr, "bench: %s skipped: no %s: apt-get install dpdk-dev librte-net-af-xdp23\n", c.name(), testpmdName)
		default:
			todo = append(todo, c)
		}
	}
	if err := v.measureAll(todo); err != nil {
		return err
	}
	for _, c := range todo {
		report(v.result(c))
	}
	return nil
}

// vethBench is one run of the scenario.
type vethBench struct {
	ctx            context.Context
	dir            string // for pktgen
	pktgen         string
	testpmd        string // "" when it is not installed
	genCore, fwd   int
	rounds         int           // samples that are used of each lane
	limit          time.Duration // after which no further round begins
	settle, window time.Duration
	samples        map[string][]sample // by lane
}

// A sample is what one forwarder did in one round.
type sample struct {
	pps     float64 // per second of the forwarder's processor time
	waited  float64 // share of the time that the generator or the forwarder waited for its core
	offered float64 // packets/s that arrived in a1's driver
	report  forwarderReport
}

func (l lane) key() string { return l.forwarder + "/" + l.traffic.name }

func newVethBench(ctx context.Context, quick bool) (*vethBench, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("needs root: veth makes network namespaces, AF_XDP sockets and XDP programs")
	}
	v := &vethBench{ctx: ctx, rounds: 5, limit: 75 * time.Second, settle: 100 * time.Millisecond, window: 500 * time.Millisecond, samples: map[string][]sample{}}
	if quick {
		v.rounds, v.limit, v.settle, v.window = 1, 0, 50*time.Millisecond, 200*time.Millisecond
	}
	cores, err := allowedCores()
	if err != nil {
		return nil, err
	}
	if len(cores) < 2 {
		return nil, fmt.Errorf("%d core may be used: the generator and the forwarder need one each", len(cores))
	}
	v.genCore, v.fwd = cores[0], cores[1]
	if v.testpmd, err = exec.LookPath(testpmdName); err != nil {
		v.testpmd = ""
	}
	if v.dir, err = os.MkdirTemp("", "bench-veth-"); err != nil {
		return nil, err
	}
	if v.pktgen, err = buildPktgen(ctx, v.dir); err != nil {
		v.close()
		return nil, err
	}
	return v, nil
}

func (v *vethBench) close() { _ = os.RemoveAll(v.dir) }

// measureAll runs the lanes that the comparisons need in turn, round after round, so that a change of the machine's speed
// meets all of them, until each has enough samples that no other program disturbed, or the time is over.
func (v *vethBench) measureAll(cs []comparison) error {
	var lanes []lane
	for _, c := range cs {
		for _, l := range []lane{c.ours, c.rival} {
			if !slices.ContainsFunc(lanes, func(o lane) bool { return o.key() == l.key() }) {
				lanes = append(lanes, l)
			}
		}
	}
	for start := time.Now(); len(v.samples) == 0 || time.Since(start) < v.limit && !v.enough(); {
		for _, l := range lanes {
			s, err := v.measure(l)
			if v.ctx.Err() != nil {
				return errors.New("interrupted")
			}
			if err != nil {
				return fmt.Errorf("%s: %w", l.key(), err)
			}
			v.samples[l.key()] = append(v.samples[l.key()], s)
		}
	}
	return nil
}

func (v *vethBench) enough() bool {
	for _, all := range v.samples {
		if len(all) < v.rounds || v.quietest(all)[v.rounds-1].waited > mostWait {
			return false
		}
	}
	return true
}

// mostWait is the share of its time that generator and forwarder may have waited in a sample that is as good as any. When
// the generator waits, the forwarder's ring runs dry, and its time is no longer that of forwarding.
const mostWait = 0.03

// quietest returns the samples that other programs disturbed least, as many as are wanted, the best first.
func (v *vethBench) quietest(all []sample) []sample {
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b sample) int { return cmp.Compare(a.waited, b.waited) })
	return all[:min(v.rounds, len(all))]
}

// measure builds a lab, lets one forwarder run in it, and takes all of it down again.
func (v *vethBench) measure(l lane) (s sample, err error) {
	bed, err := newLab()
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, bed.close()) }()
	end, err := newSink(bed.sink, "b0")
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, end.close()) }()
	f, err := v.startForwarder(bed, l)
	if err != nil {
		return s, err
	}
	g, err := startGenerator(bed, v.pktgen, v.genCore, l.traffic)
	if err != nil {
		_, errFwd := f.stop()
		return s, errors.Join(err, errFwd)
	}
	err = v.count(&s, bed, end, l.arrives, f, g)
	errGen := g.stop()
	var errFwd error
	s.report, errFwd = f.stop()
	return s, errors.Join(err, errGen, errFwd)
}

// count waits until frames flow, and measures how many reach the sink in a second of the forwarder's processor time. A
// forwarder never sleeps here, so on a quiet machine that is a second.
func (v *vethBench) count(s *sample, bed *lab, end *sink, proto byte, f *process, g *generator) error {
	if _, err := v.await(end, proto, 0); err != nil {
		return err
	}
	if err := v.sleep(v.settle); err != nil {
		return err
	}
	before, err := end.packets(proto)
	offered, errIn := bed.arrived()
	start, fwd, gen := time.Now(), schedOf(f.cmd), schedOf(g.cmd)
	if err := errors.Join(err, errIn, v.sleep(v.window)); err != nil {
		return err
	}
	after, err := v.await(end, proto, before)
	fwd, gen = schedOf(f.cmd).since(fwd), schedOf(g.cmd).since(gen)
	if err == nil && fwd.ran == 0 {
		err = errors.New("the kernel tells no processor time in /proc/PID/task/TID/schedstat")
	}
	took := time.Since(start).Seconds()
	arrived, errIn := bed.arrived()
	s.pps = float64(after-before) / fwd.ran.Seconds()
	s.offered = float64(arrived-offered) / took
	s.waited = (fwd.waited + gen.waited).Seconds() / took
	return errors.Join(err, errIn)
}

// await returns the sink's count once it is more than least.
func (v *vethBench) await(end *sink, proto byte, least uint64) (uint64, error) {
	for deadline := time.Now().Add(10 * time.Second); ; {
		n, err := end.packets(proto)
		if err != nil || n > least {
			return n, err
		}
		if time.Now().After(deadline) {
			return n, errors.New("no frame has arrived for 10 s")
		}
		if err := v.sleep(10 * time.Millisecond); err != nil {
			return n, err
		}
	}
}

func (v *vethBench) sleep(d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-v.ctx.Done():
		return v.ctx.Err()
	}
}

// A process is a forwarder in the node's namespace.
type process struct {
	cmd      *exec.Cmd
	stdin    io.Closer
	out, err bytes.Buffer
	signal   os.Signal // that ends it
	report   bool      // it says at the end what it did
}

// startForwarder returns when the forwarder is ready for frames.
func (v *vethBench) startForwarder(bed *lab, l lane) (p *process, err error) {
	p = &process{}
	if l.forwarder == "testpmd" {
		p.cmd, p.signal = testpmdCommand(v.testpmd, v.genCore, v.fwd), unix.SIGINT
	} else {
		p.cmd = exec.Command("/proc/self/exe", forwarderCommand, l.forwarder, strconv.Itoa(v.fwd))
		p.signal, p.report = unix.SIGTERM, true
	}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.err
	if p.stdin, err = p.cmd.StdinPipe(); err != nil { // testpmd ends when there is nothing to read from
		return nil, err
	}
	if err := bed.node.start(p.cmd); err != nil {
		return nil, errors.Join(err, p.stdin.Close())
	}
	if err := v.awaitPrograms(bed); err != nil {
		_, errStop := p.stop()
		return nil, errors.Join(err, errStop)
	}
	return p, nil
}

// awaitPrograms returns when both interfaces of the node have an XDP program, which is when their sockets are open.
func (v *vethBench) awaitPrograms(bed *lab) error {
	for range 2000 {
		both := true
		err := bed.node.do(func() error {
			for _, name := range []string{"a1", "b1"} {
				link, err := netlink.LinkByName(name)
				if err != nil {
					return err
				}
				both = both && link.Attrs().Xdp != nil && link.Attrs().Xdp.Attached
			}
			return nil
		})
		if err != nil || both {
			return err
		}
		if err := v.sleep(10 * time.Millisecond); err != nil {
			return err
		}
	}
	return errors.New("the forwarder had no XDP programs on its interfaces after 20 s")
}

// sched is how long the threads of a process ran, and how long they waited for a core.
type sched struct{ ran, waited time.Duration }

// schedOf reads both; a thread that has just ended is left out.
func schedOf(cmd *exec.Cmd) (sum sched) {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", cmd.Process.Pid)) // the pattern is good
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		var ran, waited int64
		if _, err := fmt.Sscan(string(b), &ran, &waited); err == nil {
			sum.ran += time.Duration(ran)
			sum.waited += time.Duration(waited)
		}
	}
	return sum
}

func (s sched) since(before sched) sched { return sched{s.ran - before.ran, s.waited - before.waited} }

// stop ends the forwarder in order and returns its account.
func (p *process) stop() (r forwarderReport, err error) {
	_ = p.cmd.Process.Signal(p.signal) // an error says that it has ended already, which Wait explains
	kill := time.AfterFunc(5*time.Second, func() { _ = p.cmd.Process.Kill() })
	defer kill.Stop()
	if err := p.cmd.Wait(); err != nil {
		return r, fmt.Errorf("forwarder: %w: %s", err, lastLine(p.err.Bytes()))
	}
	if p.report {
		err = json.Unmarshal(p.out.Bytes(), &r)
	}
	return r, err
}

func lastLine(b []byte) string {
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return lines[len(lines)-1]
}

// result compares two lanes. Ratio is that of times, as everywhere; the note gives the share of the rival's packets/s.
func (v *vethBench) result(c comparison) Result {
	use, useRival := v.quietest(v.samples[c.ours.key()]), v.quietest(v.samples[c.rival.key()])
	ours, spread := median(use)
	rival, _ := median(useRival)
	r := Result{Name: c.name(), PPS: ours, NS: 1e9 / ours, Spread: spread, Against: c.against, AgainstNS: 1e9 / rival,
		Ratio: rival / ours, GoalNS: 1e9 / (rival * c.share)}
	r.Note = fmt.Sprintf("%.3f of its packets/s (goal %.2f), %.1f M/s offered", ours/rival, c.share, v.offered(c.ours)/1e6)
	if lost := v.dropped(c.ours); lost > 0 {
		r.Note += fmt.Sprintf(", %.2f %% dropped by the worker", 100*lost)
	}
	if w := max(use[len(use)-1].waited, useRival[len(useRival)-1].waited); w > mostWait {
		r.Note += fmt.Sprintf("; BUSY MACHINE: up to %.0f %% of a sample was waiting for a core", 100*w)
	}
	return r
}

func median(samples []sample) (pps, spread float64) {
	samples = slices.Clone(samples)
	slices.SortFunc(samples, func(a, b sample) int { return cmp.Compare(a.pps, b.pps) })
	pps = samples[len(samples)/2].pps
	return pps, (samples[len(samples)-1].pps - samples[0].pps) / pps
}

func (v *vethBench) offered(l lane) float64 {
	var sum float64
	for _, s := range v.samples[l.key()] {
		sum += s.offered
	}
	return sum / float64(len(v.samples[l.key()]))
}

// dropped is the share of the received frames that a forwarder did not send.
func (v *vethBench) dropped(l lane) float64 {
	var in, out uint64
	for _, s := range v.samples[l.key()] {
		in += s.report.Received
		out += s.report.Forwarded
	}
	return float64(in-out) / float64(in)
}

// allowedCores lists the cores that this process may use.
func allowedCores() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("the cores that may be used are not known: %w", err)
	}
	var cores []int
	for i := range 64 * len(set) {
		if set.IsSet(i) {
			cores = append(cores, i)
		}
	}
	return cores, nil
}
