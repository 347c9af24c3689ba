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
	tun    int      // interface by which comes what customers sent through their tunnels
}

// Listen opens the sockets in the calling thread's network namespace. tun is the number of the interface by which the
// kernel gets what customers send through their tunnels: nobody there is on the path of an outer packet. Needs
// CAP_NET_RAW.
func Listen(tun int) (*Listener, error) {
	l := &Listener{tun: tun}
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

// filter4 lets only "fragmentation needed" about GRE, ESP and UDP packets through, so that the kernel wakes nobody for pings. The
// packet begins with its IP header.
var filter4 = []bpf.Instruction{
	bpf.LoadMemShift{Off: 0}, // X = header length
	bpf.LoadIndirect{Off: wire.ICMPOffType, Size: 1},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: wire.ICMP4Unreachable, SkipTrue: 7},
	bpf.LoadIndirect{Off: wire.ICMPOffCode, Size: 1},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: wire.ICMP4CodeFragNeeded, SkipTrue: 5},
	bpf.LoadIndirect{Off: wire.ICMPLen + wire.IPv4OffProto, Size: 1},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: wire.ProtoGRE, SkipTrue: 2},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: wire.ProtoESP, SkipTrue: 1},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: wire.ProtoUDP, SkipTrue: 1},
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
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1) // which interface it came by
	}
	if err == nil {
		// Else the kernel takes a quote of ICMP for one of a packet of this socket, believes the error, and lowers the MTU
		// of the host's own route.
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_OMIT)
	}
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
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1) // where it was sent to, and which interface it came by
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
	wg.Go(func() {
		errs[0] = receive(l.v4, func(m message) { l.take4(learner, m, time.Now()) })
	})
	if l.v6 != nil {
		wg.Go(func() {
			errs[1] = receive(l.v6, func(m message) { l.take6(learner, m, time.Now()) })
		})
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

// A message is what one receive call gave.
type message struct {
	data, control []byte
	from          unix.Sockaddr
}

// receive gives each message to take, whose it is until take returns, until the socket is closed.
func receive(socket *os.File, take func(message)) error {
	raw, err := socket.SyscallConn()
	if err != nil {
		return fmt.Errorf("raw %s socket: %w", socket.Name(), err)
	}
	data, control := make([]byte, maxMessage), make([]byte, 256)
	for {
		var n, cn int
		var from unix.Sockaddr
		var err error
		closed := raw.Read(func(fd uintptr) bool {
			n, cn, _, from, err = unix.Recvmsg(int(fd), data, control, 0)
			return err != unix.EAGAIN
		})
		if closed != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("raw %s socket: %w", socket.Name(), err)
		}
		take(message{data[:n], control[:cn], from})
	}
}

// take4 takes an IPv4 datagram as the kernel delivers it.
func (l *Listener) take4(learner *Learner, m message, now time.Time) Verdict {
	info, ok := packetInfo(m.control, unix.IPPROTO_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)
	if !ok || len(m.data) < wire.IPv4Len {
		return learner.count(Malformed)
	}
	if l.throughTunnel(info) { // struct in_pktinfo begins with the interface, ip(7)
		return learner.count(ThroughTunnel)
	}
	hlen := int(m.data[wire.IPv4OffVerIHL]&0x0f) * 4
	total := int(binary.BigEndian.Uint16(m.data[wire.IPv4OffTotal:]))
	if hlen < wire.IPv4Len || total < hlen || len(m.data) < total {
		return learner.count(Malformed)
	}
	dst := netip.AddrFrom4([4]byte(m.data[wire.IPv4OffDst:]))
	return learner.Take4(dst, m.data[hlen:total], now)
}

// take6 takes an ICMPv6 message with its sender and, from the control data, its destination.
func (l *Listener) take6(learner *Learner, m message, now time.Time) Verdict {
	sender, ok := m.from.(*unix.SockaddrInet6)
	info, found := packetInfo(m.control, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo)
	if !ok || !found {
		return learner.count(Malformed)
	}
	if l.throughTunnel(info[16:]) { // struct in6_pktinfo: address, interface (RFC 3542 6.1)
		return learner.count(ThroughTunnel)
	}
	return learner.Take6(netip.AddrFrom16(sender.Addr), netip.AddrFrom16([16]byte(info)), m.data, now)
}

// throughTunnel reports whether the interface number at the start of info is that of the TUN device.
func (l *Listener) throughTunnel(info []byte) bool {
	return l.tun != 0 && int(binary.NativeEndian.Uint32(info)) == l.tun
}

// packetInfo finds the control message of that kind, which has at least size bytes.
func packetInfo(control []byte, level, kind int32, size int) ([]byte, bool) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil, false
	}
	for _, m := range messages {
		if m.Header.Level == level && m.Header.Type == kind && len(m.Data) >= size {
			return m.Data, true
		}
	}
	return nil, false
}
