package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// secgw is DPDK's ipsec-secgw as the rival of the cases with one association: from a capture file in memory, which is
// received again and again, to a port that throws away what it gets.
type secgw struct {
	program string // "" until it is looked for
	version string
	testpmd string // "" where it is not installed
	why     string // it cannot be run
	core    int
	count   int // windows
	window  time.Duration
}

// errInterrupted ends the scenario.
var errInterrupted = errors.New("interrupted")

func newSecgw(quick bool) *secgw {
	s := &secgw{count: 7, window: 500 * time.Millisecond}
	if quick {
		s.count, s.window = 1, 50*time.Millisecond
	}
	return s
}

// compare adds to a result how long the rival takes, or why that is not known. Only an interruption is an error: our own
// figures stand without.
func (s *secgw) compare(c espCase, to *Result) error {
	if c.sas != 1 {
		return nil
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer cancel()
	runtime.LockOSThread() // a program ends with the thread that started it
	defer runtime.UnlockOSThread()
	if s.program == "" && s.why == "" {
		if err := s.prepare(ctx); err != nil {
			s.why = fmt.Sprintf("no ipsec-secgw: %v", err)
		}
	}
	err := s.measure(ctx, c, to)
	if ctx.Err() != nil {
		return errInterrupted
	}
	if err != nil {
		to.Note = fmt.Sprintf("no figure of ipsec-secgw: %v", err)
	}
	return nil
}

// prepare finds or makes the programs.
func (s *secgw) prepare(ctx context.Context) error {
	if missing := secgwMissing(installed); missing != "" {
		return errors.New(missing)
	}
	cores, err := allowedCores()
	if err != nil {
		return err
	}
	s.core = cores[len(cores)-1]
	if s.testpmd, err = exec.LookPath(testpmdName); err != nil {
		s.testpmd = ""
	}
	if s.version, err = dpdkVersion(ctx); err != nil {
		return err
	}
	s.program, err = buildSecgw(ctx, s.version)
	return err
}

// measure verifies what the rival makes of each packet, and then times it and its ports alone.
func (s *secgw) measure(ctx context.Context, c espCase, to *Result) error {
	if s.why != "" {
		to.Note = s.why
		return nil
	}
	dir, err := os.MkdirTemp("", "bench-secgw-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	t, err := newSecgwTraffic(c)
	if err != nil {
		return err
	}
	if err := s.lay(dir, t); err != nil {
		return err
	}
	if err := s.verify(ctx, dir, t); err != nil {
		return err
	}
	ns, err := s.time(ctx, dir, s.program, s.arguments(c, again, null)...)
	if err != nil {
		return err
	}
	_, memory := dpdkMemory(freeHugePages())
	to.Note = fmt.Sprintf("DPDK %s %s, its ports counted in", s.version, memory)
	to.SecgwNS, to.SecgwBestNS = ns[len(ns)/2], ns[0]
	if s.testpmd == "" {
		to.Note += fmt.Sprintf(": what they cost is not known without %s (Debian: dpdk-dev)", testpmdName)
		return nil
	}
	if ns, err = s.time(ctx, dir, s.testpmd, s.portArguments()...); err != nil {
		to.Note += fmt.Sprintf(": what they cost is not known: %v", err)
		return nil
	}
	to.SecgwPortNS = ns[len(ns)/2]
	return nil
}

// The files in the directory of a measurement.
const secgwIn, secgwOut, secgwConf = "in.pcap", "out.pcap", "secgw.cfg"

// lay writes the rival's packets and its configuration.
func (s *secgw) lay(dir string, t *secgwTraffic) error {
	conf, err := t.configuration()
	if err != nil {
		return err
	}
	return errors.Join(writePcap(filepath.Join(dir, secgwIn), t.frames), os.WriteFile(filepath.Join(dir, secgwConf), conf, 0o600))
}

// The ports of a run.
const (
	once  = "net_pcap0,rx_pcap=" + secgwIn
	again = once + ",infinite_rx=1"
	file  = "net_pcap1,tx_pcap=" + secgwOut
	null  = "net_null1,no-rx=1"
)

// arguments are those of ipsec-secgw. Without anti-replay, which it leaves out unless asked, a packet may come again.
func (s *secgw) arguments(c espCase, in, out string) []string {
	a := []string{"--lcores", fmt.Sprintf("0@%d", s.core), "--vdev", in, "--vdev", out, "--vdev", "crypto_aesni_gcm0", "--",
		"-p", "0x3", "-f", secgwConf, "--config", "(0,0,0)"}
	if c.kind == "decap" {
		a = append(a, "-u", "0x1") // where ESP comes from
	}
	return a
}

// portArguments are those of testpmd, whose main thread sleeps.
func (s *secgw) portArguments() []string {
	return []string{"--lcores", fmt.Sprintf("0@%d,1@%d", s.core, s.core), "--vdev", again, "--vdev", null, "--",
		"--forward-mode=mac", "--auto-start", "--nb-cores=1", "--total-num-mbufs=8192"}
}

// verify lets each packet pass once, and looks at what comes out.
func (s *secgw) verify(ctx context.Context, dir string, t *secgwTraffic) error {
	p, err := startDPDK(ctx, dir, s.program, s.arguments(t.c, once, file)...)
	if err != nil {
		return err
	}
	if err := errors.Join(p.awaitSent(secgwPackets), p.stop()); err != nil {
		return err
	}
	sent, err := readPcap(filepath.Join(dir, secgwOut))
	if err != nil {
		return err
	}
	return t.verify(sent)
}

// time returns the ns per packet of all windows, the shortest first.
func (s *secgw) time(ctx context.Context, dir, program string, arguments ...string) ([]float64, error) {
	p, err := startDPDK(ctx, dir, program, arguments...)
	if err != nil {
		return nil, err
	}
	ns, err := p.windows(s.count, s.window)
	slices.Sort(ns)
	if err := errors.Join(err, p.stop()); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Base(program), err)
	}
	return ns, nil
}
