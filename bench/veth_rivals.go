package main

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"sync/atomic"

	"github.com/asavie/xdp"
)

// asavieBatch is the most that this library may be given at once: one sendto sends 32 frames in copy mode, and it does
// not call again for the rest.
const asavieBatch = 32

// asavieFrames is the size of each ring and of each socket's packet memory: all frames of the receiving side are in its
// fill ring, so that the library's search for free ones is short.
const asavieFrames = 2048

// forwardAsavie is the bare loop on github.com/asavie/xdp. Its sockets have a packet memory each, so every frame is
// copied from one to the other; and a received frame may be given back only after that, because the library calls it
// free from the moment of Receive.
func forwardAsavie(stop context.Context, core int) (report forwarderReport, err error) {
	in, err := openAsavie("a1")
	if err != nil {
		return report, err
	}
	out, err := openAsavie("b1")
	if err != nil {
		return report, err
	}
	if err := pinThread(core); err != nil {
		return report, err
	}
	in.Fill(in.GetDescs(asavieFrames))
	var stopped atomic.Bool
	context.AfterFunc(stop, func() { stopped.Store(true) })
	for !stopped.Load() {
		n, sent := asavieRound(in, out)
		report.Received += uint64(n)
		report.Forwarded += uint64(sent)
	}
	return report, nil // the sockets go with the process: the library can not unmap their rings
}

func asavieRound(in, out *xdp.Socket) (received, sent int) {
	if n := out.NumCompleted(); n > 0 {
		out.Complete(n)
	}
	n := min(in.NumReceived(), asavieBatch)
	if n == 0 {
		return 0, 0
	}
	got := in.Receive(n)
	room := out.GetDescs(len(got))
	for i := range room {
		from := in.GetFrame(got[i])
		room[i].Len = got[i].Len
		to := out.GetFrame(room[i])
		copy(to, from)
		copy(to, macB0[:])
		copy(to[6:], macB1[:])
	}
	in.Fill(got)
	return len(got), out.Transmit(room)
}

func openAsavie(name string) (*xdp.Socket, error) {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return nil, err
	}
	prog, err := xdp.NewProgram(1)
	if err != nil {
		return nil, fmt.Errorf("asavie/xdp on %s: %w", name, err)
	}
	if err := prog.Attach(ifi.Index); err != nil {
		return nil, fmt.Errorf("asavie/xdp on %s: %w", name, err)
	}
	sock, err := xdp.NewSocket(ifi.Index, 0, &xdp.SocketOptions{
		NumFrames: asavieFrames, FrameSize: 2048, FillRingNumDescs: asavieFrames, CompletionRingNumDescs: asavieFrames,
		RxRingNumDescs: asavieFrames, TxRingNumDescs: asavieFrames,
	})
	if err != nil {
		return nil, fmt.Errorf("asavie/xdp on %s: %w", name, err)
	}
	if err := prog.Register(0, sock.FD()); err != nil {
		return nil, fmt.Errorf("asavie/xdp on %s: %w", name, err)
	}
	return sock, nil
}

// testpmdName is DPDK's forwarder, of Debian's package dpdk-dev; its AF_XDP driver is in librte-net-af-xdp23.
const testpmdName = "dpdk-testpmd"

// testpmdCommand forwards by rewriting the link addresses, on the forwarder's core; the generator's core has its main
// thread, which sleeps.
func testpmdCommand(path string, idle, core int) *exec.Cmd {
	return exec.Command(path,
		"-l", fmt.Sprintf("%d,%d", idle, core), "--main-lcore", fmt.Sprint(idle),
		"--no-huge", "--no-shconf", "-m", "512", "--no-pci", "--no-telemetry",
		"--vdev", "net_af_xdp0,iface=a1", "--vdev", "net_af_xdp1,iface=b1", "--",
		"--total-num-mbufs=16384", "--forward-mode=mac", "--auto-start", "--nb-cores=1", "--eth-peer=1,"+net.HardwareAddr(macB0[:]).String())
}
