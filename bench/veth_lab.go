package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A lab is three network namespaces in a row:
//
//	gen            node               sink
//	a0 ========= a1  [forwarder]  b1 ========= b0
//
// The namespaces have no names: each lives as long as a thread or a child of this process is in it, so that nothing is
// left behind however the process ends.
type lab struct {
	gen, node, sink *namespace
}

// The lab's link addresses, by interface.
var (
	macA0 = [6]byte{2, 0, 0, 0, 0, 0xa0}
	macA1 = [6]byte{2, 0, 0, 0, 0, 0xa1}
	macB1 = [6]byte{2, 0, 0, 0, 0, 0xb1}
	macB0 = [6]byte{2, 0, 0, 0, 0, 0xb0}
)

func newLab() (*lab, error) {
	l := &lab{}
	for _, ns := range []**namespace{&l.gen, &l.node, &l.sink} {
		var err error
		if *ns, err = newNamespace(); err != nil {
			return nil, errors.Join(err, l.close())
		}
	}
	if err := errors.Join(l.cable("a1", macA1, l.gen, "a0", macA0), l.cable("b1", macB1, l.sink, "b0", macB0)); err != nil {
		return nil, errors.Join(err, l.close())
	}
	return l, nil
}

// cable joins an interface of the node's with one of a namespace's.
func (l *lab) cable(port string, mac [6]byte, far *namespace, peer string, peerMAC [6]byte) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr, attrs.NumRxQueues, attrs.NumTxQueues = port, mac[:], 1, 1
	err := l.node.do(func() error {
		err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: peer, PeerHardwareAddr: peerMAC[:],
			PeerNamespace: netlink.NsFd(far.file.Fd())})
		return errors.Join(err, up(port))
	})
	if err == nil {
		err = far.do(func() error { return up(peer) })
	}
	if err != nil {
		return fmt.Errorf("veth %s = %s: %w", port, peer, err)
	}
	return errors.Join(l.node.running(port), far.running(peer))
}

func up(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(link)
}

// close lets the namespaces go; the kernel removes their interfaces.
func (l *lab) close() error {
	var errs []error
	for _, ns := range []*namespace{l.gen, l.node, l.sink} {
		if ns != nil {
			errs = append(errs, ns.close())
		}
	}
	return errors.Join(errs...)
}

// A namespace is a thread in a network namespace of its own.
type namespace struct {
	work chan func()
	file *os.File // the namespace, as other threads name it
}

func newNamespace() (*namespace, error) {
	ns := &namespace{work: make(chan func())}
	entered := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine, and with it the namespace
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			// What the stacks would say of their own accord has no place in the counts.
			_ = os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0)
			ns.file, err = os.Open("/proc/thread-self/ns/net")
		}
		entered <- err
		for f := range ns.work {
			f()
		}
	}()
	if err := <-entered; err != nil {
		close(ns.work)
		return nil, fmt.Errorf("a network namespace cannot be made: %w", err)
	}
	return ns, nil
}

// do runs f in the namespace.
func (ns *namespace) do(f func() error) error {
	done := make(chan error)
	ns.work <- func() { done <- f() }
	return <-done
}

// start starts a command in the namespace, which ends with the namespace's thread at the latest.
func (ns *namespace) start(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return ns.do(cmd.Start)
}

func (ns *namespace) close() error {
	close(ns.work)
	return ns.file.Close()
}

// running waits until the kernel calls an interface operational: before, it throws away what is sent.
func (ns *namespace) running(name string) error {
	for range 200 {
		var flags net.Flags
		err := ns.do(func() error {
			ifi, err := net.InterfaceByName(name)
			if err == nil {
				flags = ifi.Flags
			}
			return err
		})
		if err != nil || flags&net.FlagRunning != 0 {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("%s was not running after 2 s", name)
}
