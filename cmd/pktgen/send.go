package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"time"

	"github.com/cilium/ebpf/rlimit"
	"github.com/spf13/cobra"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// sendFlags are the options of pktgen send as they are typed.
type sendFlags struct {
	iface, engine, mode string
	queue, cpu          int
	src, dst            string
	srcMAC, dstMAC      string
	sport, dport        int
	flows, flowPorts    string
	size                string
	syn                 bool
	mss, vlan           int
	greSrc, greDst      string
	greKey              uint32
	hasKey              bool
	rate, count         string
	duration            time.Duration
	probe, name         string
	json                bool
}

// A job is a checked command line of pktgen send.
type job struct {
	link     netlink.Link
	engine   string
	mode     string
	queue    int
	cpu      int
	rate     uint64 // packets/s, 0 = no limit
	count    uint64 // 0 = no limit
	duration time.Duration
	plan     *plan
}

const maxDuration = 24 * time.Hour // what the pacers' clocks hold, with room

func newSendCommand() *cobra.Command {
	var f sendFlags
	cmd := &cobra.Command{
		Use:   "send -i INTERFACE --dst ADDRESS [options]",
		Short: "generate packets",
		Long: `Send generates UDP packets or TCP SYNs, plain or inside GRE, and sends them out of one interface.

Engines:
  xsk   an AF_XDP socket on one queue; needs nothing of the other side
  live  an XDP program that the kernel runs on frames of its own (BPF_PROG_RUN with live frames): 2 to 5 times as fast;
        the driver must accept XDP redirects (of a veth, the peer must have an XDP program, or GRO on). It keeps one
        core busy at any rate.

Packet n of the run belongs to flow n modulo --flows. Flow f has source port SPORT + f modulo FLOW-PORTS and source
address SRC + f / FLOW-PORTS. A TCP SYN has n as its sequence number.`,
		Example: sendExamples,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f.hasKey = cmd.Flags().Changed("gre-key")
			return runSend(cmd.Context(), &f, cmd.OutOrStdout())
		},
	}
	fl := cmd.Flags()
	fl.SortFlags = false
	fl.StringVarP(&f.iface, "interface", "i", "", "interface to send out of")
	fl.StringVarP(&f.engine, "engine", "e", "xsk", "xsk or live")
	fl.IntVarP(&f.queue, "queue", "q", 0, "transmit queue (xsk)")
	fl.StringVar(&f.mode, "mode", "auto", "auto, copy or zero-copy (xsk)")
	fl.IntVar(&f.cpu, "cpu", -1, "core to send from; -1 = any")
	fl.StringVar(&f.dst, "dst", "", "destination address, IPv4 or IPv6 (with GRE: of the inner packet)")
	fl.StringVar(&f.src, "src", "", "source address of flow 0 (default: the interface's; with GRE it must be given)")
	fl.StringVar(&f.dstMAC, "dst-mac", "", "destination MAC (default: of the next hop, from the kernel's neighbour table)")
	fl.StringVar(&f.srcMAC, "src-mac", "", "source MAC (default: the interface's)")
	fl.IntVar(&f.sport, "sport", 1024, "source port of flow 0")
	fl.IntVar(&f.dport, "dport", 9, "destination port")
	fl.StringVarP(&f.flows, "flows", "f", "1", "number of flows")
	fl.StringVar(&f.flowPorts, "flow-ports", "1024", "source ports per source address")
	fl.StringVarP(&f.size, "size", "s", "min", "frame size in bytes, the 4 of the FCS counted (1518 is a packet of 1500), VLAN tag and GRE not; min; or imix (7:4:1 of 64, 594, 1518)")
	fl.BoolVar(&f.syn, "tcp-syn", false, "TCP SYNs in place of UDP")
	fl.IntVar(&f.mss, "mss", 0, "MSS option of the SYN in bytes; 0 = none")
	fl.IntVar(&f.vlan, "vlan", 0, "802.1Q VLAN identifier; 0 = no tag")
	fl.StringVar(&f.greDst, "gre-dst", "", "encapsulate in GRE to this address")
	fl.StringVar(&f.greSrc, "gre-src", "", "outer source address (default: the interface's)")
	fl.Uint32Var(&f.greKey, "gre-key", 0, "GRE key (default: none)")
	fl.StringVarP(&f.rate, "rate", "r", "0", "packets/s, k and M understood; 0 = as fast as possible")
	fl.StringVarP(&f.count, "count", "n", "0", "stop after so many packets; 0 = no limit")
	fl.DurationVarP(&f.duration, "duration", "d", 10*time.Second, "stop after this time at the latest")
	fl.StringVar(&f.probe, "probe", "auto", "sequence number and time in the payload: on, off, auto (where there is room, not in a SYN)")
	fl.StringVar(&f.name, "name", "send", "name of the result")
	fl.BoolVar(&f.json, "json", false, "print the result as JSON")
	return cmd
}

func runSend(ctx context.Context, f *sendFlags, out io.Writer) error {
	j, err := f.job(ctx)
	if err != nil {
		return err
	}
	if err := rlimit.RemoveMemlock(); err != nil {
		return fmt.Errorf("raise the limit of locked memory: %w", err)
	}
	if err := pin(j.cpu); err != nil {
		return err
	}
	r, err := j.send(ctx)
	r.Name = f.name
	r.fill(j, err)
	return errors.Join(err, r.print(out, f.json))
}

// send runs the engine until the count is reached, the duration is over, the interface fails, or ctx ends.
func (j *job) send(ctx context.Context) (sendResult, error) {
	name, index := j.link.Attrs().Name, j.link.Attrs().Index
	if err := linkTrouble(name, index); err != nil {
		return sendResult{StoppedBy: "error"}, err
	}
	drops := linkDrops(index)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go watchLink(ctx, cancel, name, index)
	timer := time.AfterFunc(j.duration, func() { cancel(errTimeOver) })
	defer timer.Stop()

	engine := j.sendXSK
	if j.engine == "live" {
		engine = j.sendLive
	}
	r, err := engine(ctx, cancel)
	if now := linkDrops(index); now > drops {
		r.LinkDropped = now - drops
	}
	if err == nil {
		err = fault(ctx)
	} else {
		err = explain(err, name, index)
	}
	r.StoppedBy = stoppedBy(ctx, err)
	return r, err
}

// explain adds what is wrong with the interface to an error that came from it. An interface that is being deleted is
// down first, so it gets a moment.
func explain(err error, name string, index int) error {
	time.Sleep(100 * time.Millisecond)
	if trouble := linkTrouble(name, index); trouble != nil {
		return fmt.Errorf("%w (%w)", trouble, err)
	}
	return err
}

var errTimeOver = errors.New("time over")

// fault is what ended ctx, when that was neither the time, nor the user, nor nothing at all.
func fault(ctx context.Context) error {
	err := context.Cause(ctx)
	if errors.Is(err, errTimeOver) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func stoppedBy(ctx context.Context, err error) string {
	switch {
	case err != nil:
		return "error"
	case ctx.Err() == nil:
		return "count"
	case errors.Is(context.Cause(ctx), errTimeOver):
		return "duration"
	}
	return "signal"
}

// pin locks the calling goroutine to its thread, and the thread to a core unless cpu is negative.
func pin(cpu int) error {
	runtime.LockOSThread()
	if cpu < 0 {
		return nil
	}
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return usagef("--cpu %d: %v; this process may use %d cores", cpu, err, runtime.NumCPU())
	}
	return nil
}

// job checks the options and looks up what was left to the kernel.
func (f *sendFlags) job(ctx context.Context) (*job, error) {
	j := &job{engine: f.engine, mode: f.mode, queue: f.queue, cpu: f.cpu, duration: f.duration}
	spec, err := f.spec(j)
	if err != nil {
		return nil, err
	}
	if j.link, err = findLink(f.iface); err != nil {
		return nil, err
	}
	if err := f.resolve(ctx, j.link, &spec); err != nil {
		return nil, err
	}
	if j.plan, err = newPlan(spec); err != nil {
		return nil, usageError{err.Error()}
	}
	a := j.link.Attrs()
	if most := a.MTU + etherLen + j.plan.tagLen(); j.plan.longest() > most {
		return nil, usagef("the longest frame has %d bytes (without FCS), %s takes %d: lower --size or `ip link set %s mtu %d`",
			j.plan.longest(), a.Name, most, a.Name, j.plan.longest()-etherLen-j.plan.tagLen())
	}
	return j, nil
}

// spec checks everything that needs no look at the machine.
func (f *sendFlags) spec(j *job) (frameSpec, error) {
	s := frameSpec{VLAN: f.vlan, SrcPort: f.sport, DstPort: f.dport, SYN: f.syn, MSS: f.mss}
	var c checker
	c.oneOf("engine", f.engine, "xsk", "live")
	c.oneOf("mode", f.mode, "auto", "copy", "zero-copy")
	s.Probe = probeMode(c.oneOf("probe", f.probe, "auto", "on", "off"))
	c.failIf(f.queue < 0 || f.queue > 1023, "queue %d is not allowed: 0 to 1023", f.queue)
	c.failIf(f.queue != 0 && f.engine == "live", "--queue %d is for --engine xsk: with live the driver chooses", f.queue)
	c.failIf(f.duration <= 0 || f.duration > maxDuration, "duration %v is not allowed: more than 0, at most %v", f.duration, maxDuration)
	s.Dst = c.addr("dst", f.dst)
	c.failIf(f.dst == "", "no destination: give --dst ADDRESS")
	s.Src = c.addr("src", f.src)
	s.SrcMAC, s.DstMAC = c.mac("src-mac", f.srcMAC), c.mac("dst-mac", f.dstMAC)
	s.Flows, s.FlowPorts = int(c.count("flows", f.flows, 1<<24)), int(c.count("flow-ports", f.flowPorts, 65536))
	j.rate, j.count = c.count("rate", f.rate, maxRate), c.count("count", f.count, maxSeq)
	s.Mix = c.mix(f.size)
	c.failIf(f.greDst == "" && (f.greSrc != "" || f.hasKey), "--gre-src and --gre-key need --gre-dst ADDRESS")
	if f.greDst != "" {
		s.GRE = &greSpec{Src: c.addr("gre-src", f.greSrc), Dst: c.addr("gre-dst", f.greDst), Key: f.greKey, HasKey: f.hasKey}
		c.failIf(f.src == "", "no inner source address: give --src ADDRESS with --gre-dst")
	}
	return s, c.err
}

// resolve fills in the addresses that were not given.
func (f *sendFlags) resolve(ctx context.Context, l netlink.Link, s *frameSpec) (err error) {
	src, dst := &s.Src, s.Dst
	if s.GRE != nil {
		src, dst = &s.GRE.Src, s.GRE.Dst
	}
	if !src.IsValid() {
		if *src, err = sourceAddr(l, dst); err != nil {
			return err
		}
	}
	if s.SrcMAC == nil {
		s.SrcMAC = l.Attrs().HardwareAddr
	}
	if len(s.SrcMAC) != 6 {
		return usagef("interface %s is not Ethernet: it has no MAC", l.Attrs().Name)
	}
	if s.DstMAC == nil {
		s.DstMAC, err = resolveMAC(ctx, l, dst)
	}
	return err
}

// A checker reads option values and keeps the first mistake.
type checker struct{ err error }

func (c *checker) failIf(bad bool, format string, args ...any) {
	if bad && c.err == nil {
		c.err = usagef(format, args...)
	}
}

// oneOf returns the index of value among the allowed ones.
func (c *checker) oneOf(name, value string, allowed ...string) int {
	for i, a := range allowed {
		if value == a {
			return i
		}
	}
	c.failIf(true, "--%s %q is not allowed: one of %v", name, value, allowed)
	return 0
}

func (c *checker) addr(name, value string) netip.Addr {
	if value == "" {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(value)
	c.failIf(err != nil || a.Zone() != "", "--%s %q is not an IPv4 or IPv6 address (without zone)", name, value)
	return a.Unmap()
}

func (c *checker) mac(name, value string) net.HardwareAddr {
	if value == "" {
		return nil
	}
	m, err := net.ParseMAC(value)
	c.failIf(err != nil || len(m) != 6, "--%s %q is not a MAC address like 02:00:00:00:00:01", name, value)
	return m
}

func (c *checker) count(name, value string, most uint64) uint64 {
	n, err := parseCount(value)
	c.failIf(err != nil, "--%s: %v", name, err)
	c.failIf(n > most, "--%s %s is too large: at most %d", name, value, most)
	return n
}

func (c *checker) mix(value string) mix {
	m, err := parseMix(value)
	c.failIf(err != nil, "--size: %v", err)
	return m
}
