package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
)

// protoAt is where an IPv4 frame without a VLAN tag names its protocol.
const protoAt = 14 + 9

// A sink counts the frames that reach an interface by their IPv4 protocol and drops them, all inside its driver, so
// that the far end costs as little as an end can.
type sink struct {
	counts *ebpf.Map
	link   link.Link
}

func newSink(ns *namespace, ifname string) (*sink, error) {
	counts, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: 256})
	if err != nil {
		return nil, fmt.Errorf("sink: %w", err)
	}
	s := &sink{counts: counts}
	if err := ns.do(func() error { return s.attach(ifname) }); err != nil {
		counts.Close()
		return nil, fmt.Errorf("sink on %s: %w", ifname, err)
	}
	return s, nil
}

func (s *sink) attach(ifname string) error {
	ifi, err := net.InterfaceByName(ifname)
	if err != nil {
		return err
	}
	const ctxData, ctxDataEnd, xdpDrop = 0, 4, 1
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "GPL", Instructions: asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, ctxData, asm.Word),
		asm.LoadMem(asm.R3, asm.R1, ctxDataEnd, asm.Word),
		asm.Mov.Reg(asm.R4, asm.R2),
		asm.Add.Imm(asm.R4, protoAt+1),
		asm.JGT.Reg(asm.R4, asm.R3, "drop"),
		asm.LoadMem(asm.R0, asm.R2, protoAt, asm.Byte),
		asm.StoreMem(asm.RFP, -4, asm.R0, asm.Word),
		asm.LoadMapPtr(asm.R1, s.counts.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "drop"),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.DWord),
		asm.Add.Imm(asm.R1, 1),
		asm.StoreMem(asm.R0, 0, asm.R1, asm.DWord),
		asm.Mov.Imm(asm.R0, xdpDrop).WithSymbol("drop"),
		asm.Return(),
	}})
	if err != nil {
		return err
	}
	defer prog.Close()
	s.link, err = link.AttachXDP(link.XDPOptions{Program: prog, Interface: ifi.Index, Flags: link.XDPDriverMode})
	return err
}

// packets is how many frames of a protocol have come.
func (s *sink) packets(proto byte) (uint64, error) {
	var perCore []uint64
	if err := s.counts.Lookup(uint32(proto), &perCore); err != nil {
		return 0, fmt.Errorf("sink: %w", err)
	}
	var sum uint64
	for _, n := range perCore {
		sum += n
	}
	return sum, nil
}

func (s *sink) close() error { return errors.Join(s.link.Close(), s.counts.Close()) }

// buildPktgen compiles the generator into dir.
func buildPktgen(ctx context.Context, dir string) (path string, err error) {
	path = dir + "/pktgen"
	cmd := exec.CommandContext(ctx, "go", "build", "-o", path, "causeway/cmd/pktgen")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build causeway/cmd/pktgen: %w: %s", err, bytes.TrimSpace(out))
	}
	return path, nil
}

// A generator sends smallest frames of 64 flows from a0 as fast as one core can: XDP test runs with live frames, which
// outrun every forwarder.
type generator struct {
	cmd *exec.Cmd
	err bytes.Buffer
}

// startGenerator sends what the case says until stop is called.
func startGenerator(l *lab, pktgen string, core int, c vethCase) (*generator, error) {
	g := &generator{}
	g.cmd = exec.Command(pktgen, append([]string{"send", "--interface", "a0", "--engine", "live", "--cpu", strconv.Itoa(core),
		"--dst-mac", net.HardwareAddr(macA1[:]).String(), "--size", "64", "--probe", "off", "--flows", "64",
		"--duration", "5m"}, c.traffic...)...)
	g.cmd.Stderr = &g.err
	if err := l.gen.start(g.cmd); err != nil {
		return nil, fmt.Errorf("pktgen: %w", err)
	}
	return g, nil
}

// stop ends the generator. A test run that is not killed makes all its calls first, which takes long on a busy machine.
func (g *generator) stop() error {
	if err := g.cmd.Process.Kill(); err == nil {
		_ = g.cmd.Wait() // says that it was killed
		return nil
	}
	return fmt.Errorf("pktgen ended by itself: %w: %s", g.cmd.Wait(), bytes.TrimSpace(g.err.Bytes()))
}

// arrived is how many frames the driver of the node's a1 has had.
func (l *lab) arrived() (n uint64, err error) {
	err = l.node.do(func() error {
		link, err := netlink.LinkByName("a1")
		if err == nil {
			n = link.Attrs().Statistics.RxPackets
		}
		return err
	})
	return n, err
}
