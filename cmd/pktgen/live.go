package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"causeway/cmd/pktgen/bpf"
)

// liveRun is how often the program is called per test run. Ending a run and setting up the next takes 25 ms, ten times
// that on a busy machine, so few long ones are wanted; but a run ends only when all calls are made, and after the stop
// each still costs some ten nanoseconds.
const liveRun = 32 << 20

// sendLive lets the kernel run the program in bpf/live.bpf.c on frames of its own.
func (j *job) sendLive(ctx context.Context, cancel context.CancelCauseFunc) (sendResult, error) {
	name, index := j.link.Attrs().Name, j.link.Attrs().Index
	given, err := livePlan(j.plan, index, j.rate, j.count)
	if err != nil {
		return sendResult{}, err
	}
	objs, err := loadLive(given)
	if err != nil {
		return sendResult{}, err
	}
	defer objs.Close()
	counting, err := link.AttachTracing(link.TracingOptions{Program: objs.CountSent})
	if err != nil {
		return sendResult{}, fmt.Errorf("attach to tracepoint xdp_devmap_xmit (needed to count what the driver takes): %w", err)
	}
	defer counting.Close()

	watch, endWatch := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		watchRefusal(watch, cancel, objs, name)
		objs.Stop.Set(uint32(1))
	}()
	err = runLive(ctx, objs, j.plan, j.rate, j.count)
	endWatch()
	<-done // it reads objs, which are closed next
	r := liveResult(objs, j.plan)
	if err != nil {
		return r, fmt.Errorf("test run with live frames on %s: %w", name, err)
	}
	if r.Packets == 0 && r.Attempted > 0 && fault(ctx) == nil {
		err = refused(name) // over before the watch could see it
	}
	return r, err
}

// loadLive loads the programs with their constants.
func loadLive(given *bpf.LivePlan) (*bpf.LiveObjects, error) {
	spec, err := bpf.LoadLive()
	if err != nil {
		return nil, err
	}
	if err := spec.Variables[bpf.LiveVarGiven].Set(given); err != nil {
		return nil, fmt.Errorf("constants of the live program: %w", err)
	}
	var objs bpf.LiveObjects
	if err := spec.LoadAndAssign(&objs, nil); err != nil {
		return nil, fmt.Errorf("load the live program (Linux 5.18 with BTF and root are needed): %w", err)
	}
	return &objs, nil
}

// livePlan translates a plan for the program.
func livePlan(p *plan, ifindex int, rate, count uint64) (*bpf.LivePlan, error) {
	inode, err := netnsInode()
	if err != nil {
		return nil, err
	}
	g := &bpf.LivePlan{
		Count: count, Interval: paceInterval(rate), Burst: uint64(maxLag) << fraction,
		Ifindex: uint32(ifindex), Netns: inode,
		Flows: uint32(p.spec.Flows), FlowPorts: uint32(p.spec.FlowPorts), Src: p.src, Sport: uint32(p.port),
		SrcOff: uint32(p.srcOff), IpSumOff: uint32(p.ipSumOff), SportOff: uint32(p.portOff),
		L4SumOff: uint32(p.l4SumOff), IsnOff: uint32(p.isnOff),
		OrderLen: uint32(len(p.order)),
	}
	if p.probeOff != 0 {
		g.SeqOff = uint32(p.probeOff + probeSeq)
	}
	if !p.spec.SYN {
		g.Udp = 1
	}
	copy(g.Order[:], p.order)
	for i, f := range p.forms {
		s := &g.Shapes[i]
		s.Frame, s.IpSum, s.L4Sum, s.Header = uint32(len(f.image)), f.ipSum, f.l4Sum, uint32(p.headLen)
		copy(s.Image[:], f.image[:p.headLen])
	}
	return g, nil
}

// runLive calls the program until it has sent count frames or ctx ends.
func runLive(ctx context.Context, objs *bpf.LiveObjects, p *plan, rate, count uint64) error {
	data := make([]byte, p.longest())
	for _, f := range p.forms {
		if len(f.image) == len(data) {
			copy(data, f.image)
		}
	}
	for sent := uint64(0); ctx.Err() == nil && (count == 0 || sent < count); {
		calls := uint64(liveRun)
		if rate == 0 && count != 0 {
			calls = min(calls, count-sent)
		}
		_, err := objs.Emit.Run(&ebpf.RunOptions{Data: data, Repeat: uint32(calls), Flags: unix.BPF_F_TEST_XDP_LIVE_FRAMES})
		if err != nil {
			return err
		}
		now := read(objs.Attempted)
		if now == sent && rate == 0 && ctx.Err() == nil {
			return errors.New("the program made no frame; its own bounds checks failed")
		}
		sent = now
	}
	return nil
}

// watchRefusal cancels with an error when frames are offered for half a second and the driver takes none.
func watchRefusal(ctx context.Context, cancel context.CancelCauseFunc, objs *bpf.LiveObjects, name string) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var offered, taken uint64
	for strikes := 0; strikes < 5; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		o, t := read(objs.Attempted), read(objs.Sent)
		switch {
		case t != taken:
			strikes = 0
		case o != offered:
			strikes++
		}
		offered, taken = o, t
	}
	cancel(refused(name))
}

func refused(name string) error {
	return fmt.Errorf("interface %s took no frame: its driver must accept XDP redirects now. "+
		"A veth does when its peer has an XDP program or GRO: `ethtool -K PEER gro on`; or use --engine xsk", name)
}

func liveResult(objs *bpf.LiveObjects, p *plan) sendResult {
	r := sendResult{Attempted: read(objs.Attempted), Packets: read(objs.Sent)}
	r.Seconds = float64(read(objs.LastNs)-read(objs.FirstNs)) / 1e9
	r.Sizes, r.Bytes = p.sent(r.Attempted)
	return r
}

// read returns a counter of the program, which may be running.
func read(v *ebpf.Variable) (n uint64) {
	if err := v.Get(&n); err != nil {
		return 0
	}
	return n
}
