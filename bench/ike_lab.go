package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// An ikeLab is an initiator between two responders, each in a network namespace:
//
//	ours 192.0.2.2 ===== 192.0.2.1 [initiator] 198.51.100.1 ===== 198.51.100.2 charon
//
// Both responders have one core, the initiator has the other.
type ikeLab struct {
	near, ours, rival *namespace
	cores             [2]int // of the initiator and of the responders
}

var (
	ikeNearOurs, ikeOurs   = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	ikeNearRival, ikeRival = netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("198.51.100.2")
)

func newIKELab() (*ikeLab, error) {
	cores, err := allowedCores()
	if err != nil {
		return nil, err
	}
	if len(cores) < 2 {
		return nil, errors.New("two cores are needed, one for each end")
	}
	l := &ikeLab{cores: [2]int{cores[len(cores)-2], cores[len(cores)-1]}}
	for _, ns := range []**namespace{&l.near, &l.ours, &l.rival} {
		if *ns, err = newNamespace(); err != nil {
			return nil, errors.Join(err, l.close())
		}
	}
	wires := lab{node: l.near}
	if err := errors.Join(
		wires.cable("a1", macA1, l.ours, "a0", macA0), wires.cable("b1", macB1, l.rival, "b0", macB0),
		l.near.address("a1", ikeNearOurs), l.near.address("b1", ikeNearRival),
		l.ours.address("a0", ikeOurs), l.rival.address("b0", ikeRival)); err != nil {
		return nil, errors.Join(err, l.close())
	}
	return l, nil
}

func (l *ikeLab) close() error {
	return (&lab{gen: l.near, node: l.ours, sink: l.rival}).close()
}

// address gives an interface an address with a network of 256.
func (ns *namespace) address(name string, a netip.Addr) error {
	return ns.do(func() error {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		return netlink.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(24, 32)}})
	})
}

// An ikeEnd is a daemon of ours in a process of its own.
type ikeEnd struct {
	cmd     *exec.Cmd
	orders  *json.Encoder
	answers *json.Decoder
	in      io.Closer
	err     strings.Builder
}

func startIKEEnd(ns *namespace, core int, endpoints ...netip.Addr) (*ikeEnd, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := []string{"--cpu-list", strconv.Itoa(core), exe, ikeEndCommand}
	for _, a := range endpoints {
		args = append(args, a.String())
	}
	e := &ikeEnd{cmd: exec.Command("taskset", args...)}
	e.cmd.Stderr = &e.err
	in, err := e.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := e.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	e.in, e.orders, e.answers = in, json.NewEncoder(in), json.NewDecoder(out)
	return e, ns.start(e.cmd)
}

// carryOut gives an order and waits for its account.
func (e *ikeEnd) carryOut(o order) (account, error) {
	var a account
	if err := errors.Join(e.orders.Encode(o), e.answers.Decode(&a)); err != nil {
		return a, fmt.Errorf("daemon: %w: %s", err, lastLine([]byte(e.err.String())))
	}
	if a.Error != "" {
		return a, fmt.Errorf("%s: %s", o.Do, a.Error)
	}
	return a, nil
}

func (e *ikeEnd) stop() error {
	err := e.in.Close()
	kill := time.AfterFunc(10*time.Second, func() { _ = e.cmd.Process.Kill() })
	defer kill.Stop()
	return errors.Join(err, e.cmd.Wait())
}

// processorTime is what a process has had so far, all its threads together, also those that have ended.
func processorTime(p *os.Process) (time.Duration, error) {
	var t unix.Timespec
	err := unix.ClockGettime(int32(^p.Pid<<3|2), &t) // the clock that clock_getcpuclockid(3) names
	return time.Duration(t.Nano()), err
}

// coreBusy is how long a core has not been idle, in the kernel's ticks of 10 ms.
func coreBusy(core int) (time.Duration, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		var user, nice, system, idle, iowait, irq, softirq, steal int64
		name, rest, _ := strings.Cut(line, " ")
		if name != fmt.Sprintf("cpu%d", core) {
			continue
		}
		if _, err := fmt.Sscan(rest, &user, &nice, &system, &idle, &iowait, &irq, &softirq, &steal); err != nil {
			return 0, fmt.Errorf("/proc/stat: %q: %w", line, err)
		}
		return time.Duration(user+nice+system+irq+softirq+steal) * 10 * time.Millisecond, nil
	}
	return 0, fmt.Errorf("/proc/stat has no core %d", core)
}
