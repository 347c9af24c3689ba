package pmtu

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"causeway/pipeline/wire"
)

// A Listener holds the raw sockets on which the kernel delivers ICMP errors.
type Listener struct {
	v4, v6 *os.File // v6 is nil where the kernel has no IPv6
}

// Listen opens the sockets in the calling thread's network namespace. Needs CAP_NET_RAW.
func Listen() (*Listener, error) {
	l := &Listener{}
	var err error
	if l.v4, err = open4(); err != nil {
		return nil, fmt.Errorf("path MTU discovery: raw ICMP socket: %w", err)
	}
	l.v6, err = open6()
	if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
		l.v4.Close()
		return nil, fmt.Errorf("path MTU discovery: raw ICMPv6 socket: %w", err)
	}
	return l, nil
}

// filter4 lets only "fragmentation needed" about GRE packets through, so that the kernel wakes nobody for pings. The
// packet begins with its IP header.
var filter4 = []bpf.Instruction{
	bpf.LoadMemShift{Off: 0}, // X = header length
	bpf.LoadIndirect{Off: wire.ICMPOffType, Size: 1},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: wire.ICMP4Unreachable, SkipTrue: 5},
	bpf.LoadIndirect{Off: wire.ICMPOffCode, Size: 1},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: wire.ICMP4CodeFragNeeded, SkipTrue: 3},
	bpf.LoadIndirect{Off: wire.ICMPLen + wire.IPv4OffProto, Size: 1},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: wire.ProtoGRE, SkipTrue: 1},
	bpf.RetConstant{Val: 1 << 16},
	bpf.RetConstant{Val: 0},
}

func open4() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_ICMP)
	if err != nil {
		return nil, err
	}
	raw, err := bpf.Assemble(filter4)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	program := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		program[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("filter: %w", err)
	}
	return os.NewFile(uintptr(fd), "icmp"), nil
}

func open6() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_ICMPV6)
	if err != nil {
		return nil, err
	}
	// RFC 3542 3.2: a bit that is set blocks the type.
	var filter unix.ICMPv6Filter
	for i := range filter.Data {
		filter.Data[i] = ^uint32(0)
	}
	filter.Data[0] &^= 1 << wire.ICMP6TooBig
	err = unix.SetsockoptICMPv6Filter(fd, unix.IPPROTO_ICMPV6, unix.ICMPV6_FILTER, &filter)
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1) // where it was sent to
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "icmpv6"), nil
}

// Close closes the sockets and ends Run.
func (l *Listener) Close() error {
	err := l.v4.Close()
	if l.v6 != nil {
		err = errors.Join(err, l.v6.Close())
	}
	return err
}

// expireInterval is how often is looked for what has become too old.
const expireInterval = 5 * time.Second

// Run gives what the sockets receive to learner until ctx is done, and closes them.
func (l *Listener) Run(ctx context.Context, learner *Learner) error {
	var wg sync.WaitGroup
	var errs [2]error
	wg.Go(func() { errs[0] = l.run4(learner) })
	if l.v6 != nil {
		wg.Go(func() { errs[1] = l.run6(learner) })
	}
	tick := time.NewTicker(expireInterval)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case now := <-tick.C:
			learner.Expire(now)
		}
	}
	err := l.Close()
	wg.Wait()
	return errors.Join(err, errs[0], errs[1])
}

// maxMessage is more than any error about a packet of ours has to say; what is longer is cut, which fails its checksum.
const maxMessage = 4096

func (l *Listener) run4(learner *Learner) error {
	buf := make([]byte, maxMessage)
	for {
		n, err := l.v4.Read(buf)
		if errors.Is(err, os.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("raw ICMP socket: %w", err)
		}
		take4(learner, buf[:n], time.Now())
	}
}

// take4 takes an IPv4 datagram as the kernel delivers it.
func take4(learner *Learner, packet []byte, now time.Time) Verdict {
	if len(packet) < wire.IPv4Len {
		return learner.count(Malformed)
	}
	hlen := int(packet[wire.IPv4OffVerIHL]&0x0f) * 4
	total := int(binary.BigEndian.Uint16(packet[wire.IPv4OffTotal:]))
	if hlen < wire.IPv4Len || total < hlen || len(packet) < total {
		return learner.count(Malformed)
	}
	dst := netip.AddrFrom4([4]byte(packet[wire.IPv4OffDst:]))
	return learner.Take4(dst, packet[hlen:total], now)
}

func (l *Listener) run6(learner *Learner) error {
	raw, err := l.v6.SyscallConn()
	if err != nil {
		return fmt.Errorf("raw ICMPv6 socket: %w", err)
	}
	buf, control := make([]byte, maxMessage), make([]byte, 256)
	for {
		var n, cn int
		var from unix.Sockaddr
		var err error
		closed := raw.Read(func(fd uintptr) bool {
			n, cn, _, from, err = unix.Recvmsg(int(fd), buf, control, 0)
			return err != unix.EAGAIN
		})
		if closed != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("raw ICMPv6 socket: %w", err)
		}
		take6(learner, buf[:n], control[:cn], from, time.Now())
	}
}

// take6 takes an ICMPv6 message with its sender and, from the control data, its destination.
func take6(learner *Learner, icmp, control []byte, from unix.Sockaddr, now time.Time) Verdict {
	sender, ok := from.(*unix.SockaddrInet6)
	dst, found := destination6(control)
	if !ok || !found {
		return learner.count(Malformed)
	}
	return learner.Take6(netip.AddrFrom16(sender.Addr), dst, icmp, now)
}

func destination6(control []byte) (netip.Addr, bool) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return netip.Addr{}, false
	}
	for _, m := range messages {
		// struct in6_pktinfo: address, interface index (RFC 3542 6.1).
		if m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= 16 {
			return netip.AddrFrom16([16]byte(m.Data)), true
		}
	}
	return netip.Addr{}, false
}
