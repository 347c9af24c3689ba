package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/asavie/xdp"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"causeway/cmd/pktgen/bpf"
)

// sinkFlags are the options of pktgen sink as they are typed.
type sinkFlags struct {
	iface, engine, mode, attach string
	queues                      []int
	cpu                         int
	duration, idle              time.Duration
	expect                      string
	verify, json                bool
	name                        string
}

func newSinkCommand() *cobra.Command {
	var f sinkFlags
	cmd := &cobra.Command{
		Use:   "sink -i INTERFACE [options]",
		Short: "receive and count packets",
		Long: `Sink takes the IP packets that arrive at an interface away from the kernel and counts them. Frames to group
addresses, ARP and IPv6 neighbour discovery still reach the kernel, so a sender can resolve the sink's address. It
writes "ready" and a newline to standard error when it receives.

Engines:
  xsk  an AF_XDP socket per queue: looks into every packet for the probe of pktgen send (loss, duplicates, order, delay),
       plain or inside GRE
  xdp  an XDP program that counts and drops: several times as fast; packets and bytes only

Loss is counted between the lowest and the highest sequence number that came: compare with the sender's "attempted" for
what is missing at both ends. One sink serves one run of one sender; the numbers of a second begin at 0 again.`,
		Example: sinkExamples,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runSink(cmd.Context(), &f, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	fl := cmd.Flags()
	fl.SortFlags = false
	fl.StringVarP(&f.iface, "interface", "i", "", "interface to receive on")
	fl.StringVarP(&f.engine, "engine", "e", "xsk", "xsk or xdp")
	fl.IntSliceVarP(&f.queues, "queue", "q", nil, "receive queues, for example 0,1 (xsk; default: all); packets of others are dropped")
	fl.StringVar(&f.mode, "mode", "auto", "auto, copy or zero-copy (xsk)")
	fl.StringVar(&f.attach, "attach", "auto", "where the XDP program runs: auto, native or generic")
	fl.IntVar(&f.cpu, "cpu", -1, "core to receive on (xsk); -1 = any")
	fl.DurationVarP(&f.duration, "duration", "d", 10*time.Second, "stop after this time at the latest")
	fl.StringVarP(&f.expect, "expect", "n", "0", "stop after so many packets, fail if fewer come; 0 = no limit")
	fl.DurationVar(&f.idle, "idle", 0, "stop when nothing came for this time after the first packet; 0 = do not")
	fl.BoolVar(&f.verify, "verify", false, "verify IPv4, TCP and UDP checksums of the innermost packet (xsk)")
	fl.StringVar(&f.name, "name", "sink", "name of the result")
	fl.BoolVar(&f.json, "json", false, "print the result as JSON")
	return cmd
}

// A sink is a checked command line of pktgen sink, and what was received so far.
type sink struct {
	name    string
	index   int
	flags   *sinkFlags
	expect  uint64
	objs    bpf.SinkObjects
	sockets []*xdp.Socket
	packets uint64 // read from the sockets
	track   tracker
	delay   histogram
	sums    verifyResult
}

func runSink(ctx context.Context, f *sinkFlags, out, errs io.Writer) error {
	s, err := f.sink()
	if err != nil {
		return err
	}
	if err := rlimit.RemoveMemlock(); err != nil {
		return fmt.Errorf("raise the limit of locked memory: %w", err)
	}
	if err := pin(f.cpu); err != nil {
		return err
	}
	defer s.close()
	attached, err := s.open(ctx)
	if err != nil {
		return err
	}
	defer attached.Close()
	fmt.Fprintln(errs, "ready")
	r, err := s.run(ctx)
	if err != nil {
		r.Error = err.Error()
	}
	return errors.Join(err, r.print(out, f.json))
}

func (f *sinkFlags) sink() (*sink, error) {
	var c checker
	c.oneOf("engine", f.engine, "xsk", "xdp")
	c.oneOf("mode", f.mode, "auto", "copy", "zero-copy")
	c.oneOf("attach", f.attach, "auto", "native", "generic")
	c.failIf(f.duration <= 0 || f.duration > maxDuration, "duration %v is not allowed: more than 0, at most %v", f.duration, maxDuration)
	c.failIf(f.idle < 0, "--idle %v is negative", f.idle)
	c.failIf(f.engine == "xdp" && (len(f.queues) > 0 || f.verify), "--queue and --verify are for --engine xsk")
	for _, q := range f.queues {
		c.failIf(q < 0 || q >= maxQueues, "queue %d is not allowed: 0 to %d", q, maxQueues-1)
	}
	s := &sink{flags: f, expect: c.count("expect", f.expect, maxSeq)}
	if c.err != nil {
		return nil, c.err
	}
	l, err := findLink(f.iface)
	if err != nil {
		return nil, err
	}
	s.name, s.index = l.Attrs().Name, l.Attrs().Index
	return s, nil
}

const maxQueues = 256 // of the socket map

// open loads the program, binds the sockets and attaches the program last, so that no packet meets an empty map.
func (s *sink) open(ctx context.Context) (link.Link, error) {
	spec, err := bpf.LoadSink()
	if err != nil {
		return nil, err
	}
	toSocket := uint32(0)
	if s.flags.engine == "xsk" {
		toSocket = 1
	}
	if err := spec.Variables[bpf.SinkVarToSocket].Set(toSocket); err != nil {
		return nil, fmt.Errorf("constants of the sink's program: %w", err)
	}
	if err := spec.LoadAndAssign(&s.objs, nil); err != nil {
		return nil, fmt.Errorf("load the sink's program (root is needed): %w", err)
	}
	if toSocket == 1 {
		if err := s.bind(ctx); err != nil {
			return nil, err
		}
	}
	flags := map[string]link.XDPAttachFlags{"native": link.XDPDriverMode, "generic": link.XDPGenericMode}[s.flags.attach]
	l, err := link.AttachXDP(link.XDPOptions{Program: s.objs.Sink, Interface: s.index, Flags: flags})
	if err != nil {
		hint := ""
		if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EEXIST) {
			hint = fmt.Sprintf("; another XDP program is there (`ip link show %s`): end it, or receive elsewhere", s.name)
		}
		return nil, fmt.Errorf("attach XDP program to %s: %w%s", s.name, err, hint)
	}
	return l, nil
}

// rxFrames is a socket's number of frames; all of them are in the fill ring or in the RX ring.
const rxFrames = 4096

func (s *sink) bind(ctx context.Context) error {
	queues := s.flags.queues
	if len(queues) == 0 {
		n, err := rxQueues(s.name)
		if err != nil {
			return err
		}
		for q := range min(n, maxQueues) {
			queues = append(queues, q)
		}
	}
	for _, q := range queues {
		sock, err := openSocket(ctx, s.name, s.index, q, s.flags.mode, xdp.SocketOptions{
			NumFrames: rxFrames, FrameSize: maxFrameLen, FillRingNumDescs: rxFrames,
			RxRingNumDescs: rxFrames, CompletionRingNumDescs: 64,
		})
		if err != nil {
			return err
		}
		s.sockets = append(s.sockets, sock)
		sock.Fill(sock.GetDescs(rxFrames))
		if err := s.objs.Sockets.Put(uint32(q), uint32(sock.FD())); err != nil {
			return fmt.Errorf("queue %d of %s: put socket into the XDP map: %w", q, s.name, err)
		}
	}
	return nil
}

func (s *sink) close() {
	for _, sock := range s.sockets {
		sock.Close()
	}
	s.objs.Close()
}

// run receives until enough came, the time is over, the interface fails, or ctx ends.
func (s *sink) run(ctx context.Context) (sinkResult, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go watchLink(ctx, cancel, s.name, s.index)
	timer := time.AfterFunc(s.flags.duration, func() { cancel(errTimeOver) })
	defer timer.Stop()

	end, err := s.receive(ctx)
	if err == nil {
		err = fault(ctx)
	}
	r, cerr := s.result()
	err = errors.Join(err, cerr)
	r.StoppedBy = end
	if end == "" || err != nil {
		r.StoppedBy = stoppedBy(ctx, err)
	}
	if err == nil && r.Packets < s.expect {
		err = fmt.Errorf("%d of %d expected packets came", r.Packets, s.expect)
	}
	return r, err
}

// receive loops until ctx ends, or returns which of --expect and --idle ended it.
func (s *sink) receive(ctx context.Context) (string, error) {
	var last time.Time // when the last packet was seen
	var seen uint64
	for ctx.Err() == nil {
		n, err := s.poll()
		if err != nil {
			return "", err
		}
		if n > seen {
			seen, last = n, time.Now()
		}
		if s.expect != 0 && n >= s.expect {
			return "expect", nil
		}
		if s.flags.idle > 0 && seen > 0 && time.Since(last) > s.flags.idle {
			return "idle", nil
		}
	}
	return "", nil
}

// pollTime bounds how long Ctrl-C, --idle and a lost interface wait.
const pollTime = 20 * time.Millisecond

// poll takes what has come, or waits a little, and returns the number of packets so far.
func (s *sink) poll() (uint64, error) {
	if len(s.sockets) == 0 {
		time.Sleep(pollTime)
		c, err := s.counts()
		return c.Packets, err
	}
	before := s.packets
	for _, sock := range s.sockets {
		s.take(sock)
	}
	if s.packets != before {
		return s.packets, nil
	}
	fds := make([]unix.PollFd, len(s.sockets))
	for i, sock := range s.sockets {
		fds[i] = unix.PollFd{Fd: int32(sock.FD()), Events: unix.POLLIN}
	}
	if _, err := unix.Poll(fds, int(pollTime.Milliseconds())); err != nil && err != unix.EINTR {
		return s.packets, os.NewSyscallError("poll", err)
	}
	for _, fd := range fds {
		if fd.Revents&(unix.POLLERR|unix.POLLHUP|unix.POLLNVAL) != 0 {
			time.Sleep(pollTime) // the link's watch knows why
		}
	}
	return s.packets, nil
}

// take looks at a batch and gives the frames back. Receive calls them free at once, so they are read first; given
// straight to the fill ring, they need no search for free ones.
func (s *sink) take(sock *xdp.Socket) {
	const batch = 64
	n := min(sock.NumReceived(), batch)
	if n == 0 {
		return
	}
	now := monotonic()
	descs := sock.Receive(n)
	for _, d := range descs {
		s.look(sock.GetFrame(d), now)
	}
	s.packets += uint64(len(descs))
	sock.Fill(descs)
}

func (s *sink) look(frame []byte, now uint64) {
	p, ok := parse(frame)
	if !ok {
		return
	}
	if seq, sentAt, ok := readProbe(p.payload); ok {
		s.track.add(seq)
		s.delay.add(now - min(now, sentAt))
	}
	if s.flags.verify {
		s.sums.Checked++
		if !p.checksumsGood() {
			s.sums.Bad++
		}
	}
}

// counts sums the program's counters over the cores.
func (s *sink) counts() (sum bpf.SinkCount, err error) {
	var all []bpf.SinkCount
	if err := s.objs.Counts.Lookup(uint32(0), &all); err != nil {
		return sum, fmt.Errorf("read the sink's counters: %w", err)
	}
	for _, c := range all {
		if c.Packets == 0 {
			continue
		}
		if sum.Packets == 0 || c.FirstNs < sum.FirstNs {
			sum.FirstNs = c.FirstNs
		}
		sum.LastNs = max(sum.LastNs, c.LastNs)
		sum.Packets += c.Packets
		sum.Bytes += c.Bytes
	}
	return sum, nil
}

func (s *sink) result() (sinkResult, error) {
	f := s.flags
	r := sinkResult{Name: f.name, Engine: f.engine, Interface: s.name}
	c, err := s.counts()
	r.Packets, r.Bytes = c.Packets, c.Bytes
	if r.Seconds = float64(c.LastNs-c.FirstNs) / 1e9; r.Seconds > 0 {
		r.PPS, r.BPS = float64(r.Packets)/r.Seconds, 8*float64(r.Bytes)/r.Seconds
	}
	if f.engine == "xsk" {
		s.takeRest()
		r.RingLost = r.Packets - min(r.Packets, s.packets)
		r.Packets = s.packets
		r.Probes, r.Delay = s.track.result(), s.delay.result()
		if f.verify {
			r.Checksums = &s.sums
		}
	}
	return r, err
}

// takeRest empties the rings, so that what the program counted and what the sockets gave can be compared.
func (s *sink) takeRest() {
	for _, sock := range s.sockets {
		for range rxFrames / 64 {
			s.take(sock)
		}
	}
}
