package bpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

var (
	// ErrOccupied says that another XDP program is on the interface.
	ErrOccupied = errors.New("another XDP program is attached")
	// ErrNoNative says that the driver has no native XDP; generic XDP works with
	// every driver.
	ErrNoNative = errors.New("the driver has no native XDP")
)

// Attach puts the program on an interface of the calling thread's network
// namespace: in the driver, or (generic) behind it, which is slower and works
// everywhere. The attachment is a bpf_link without a pin: it lives until Close,
// or until the process dies in whatever way, and leaves nothing behind.
//
// Errors match ErrOccupied, ErrNoNative, or the kernel's errno.
func (p *Program) Attach(ifindex int, generic bool) error {
	if p.link != nil {
		return fmt.Errorf("bpf: attach to interface %d: the program is already attached; each port needs its own", ifindex)
	}
	mode := link.XDPDriverMode
	if generic {
		mode = link.XDPGenericMode
	}
	l, err := link.AttachXDP(link.XDPOptions{Program: p.prog, Interface: ifindex, Flags: mode})
	if err != nil {
		return attachError(ifindex, generic, err)
	}
	p.link = l
	return nil
}

// attachError turns the errno of the attachment into a sentence with a next step.
func attachError(ifindex int, generic bool, err error) error {
	mode := "native"
	if generic {
		mode = "generic"
	}
	where := fmt.Sprintf("bpf: attach (%s) to interface %d", mode, ifindex)
	dev, devErr := netlink.LinkByIndex(ifindex)
	if devErr != nil {
		return fmt.Errorf("%s: %w; no such interface in this network namespace (%v)", where, err, devErr)
	}
	name := dev.Attrs().Name
	where += " (" + name + ")"
	switch {
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EEXIST):
		return fmt.Errorf("%s: %w: %s; %w", where, ErrOccupied, Occupant(dev.Attrs()), err)
	case errors.Is(err, unix.EOPNOTSUPP) && !generic:
		return fmt.Errorf("%s: %w; use generic mode; %w", where, ErrNoNative, err)
	case errors.Is(err, unix.ERANGE):
		return fmt.Errorf("%s: the MTU of %s or of its peer (here %d) does not fit one receive buffer; lower it to 1500: %w",
			where, name, dev.Attrs().MTU, err)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%s: refused by the driver; its MTU may be above the driver's limit for XDP, or LRO on"+
			" (ip link set %s mtu 1500; ethtool -K %s lro off): %w", where, name, name, err)
	}
	return fmt.Errorf("%s: %w", where, explain(err))
}

// Occupant describes the XDP program on an interface, and how to remove it.
func Occupant(dev *netlink.LinkAttrs) string {
	if dev.Xdp == nil || !dev.Xdp.Attached {
		return "it is gone by now, try again"
	}
	id := dev.Xdp.ProgId
	what := fmt.Sprintf("program id %d", id)
	if name := programName(id); name != "" {
		what += fmt.Sprintf(" (%s)", name)
	}
	linkID, err := linkOf(id)
	if linkID != 0 {
		return fmt.Sprintf("%s, held by bpf_link %d: end the process that holds it (bpftool link show id %d names it)", what, linkID, linkID)
	}
	if err != nil {
		return fmt.Sprintf("%s, whose holder this process may not see: ask bpftool net and bpftool link", what)
	}
	mode := "xdp"
	if dev.Xdp.AttachMode == xdpAttachedGeneric {
		mode = "xdpgeneric"
	}
	return fmt.Sprintf("%s, held by nobody: remove it with: ip link set dev %s %s off", what, dev.Name, mode)
}

// xdpAttachedGeneric is XDP_ATTACHED_SKB of linux/if_link.h.
const xdpAttachedGeneric = 2

// programName returns the name of a loaded program, or nothing if this process
// may not see it.
func programName(id uint32) string {
	prog, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
	if err != nil {
		return ""
	}
	defer prog.Close()
	info, err := prog.Info()
	if err != nil {
		return ""
	}
	return info.Name
}

// linkOf finds the bpf_link that holds a program, 0 if none does. Looking needs
// CAP_SYS_ADMIN.
func linkOf(prog uint32) (link.ID, error) {
	it := new(link.Iterator)
	defer it.Close()
	for it.Next() {
		info, err := it.Link.Info()
		if err == nil && info.Program == ebpf.ProgramID(prog) {
			return it.ID, nil
		}
	}
	return 0, it.Err()
}
