package ike

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Sockets are the daemon's UDP sockets: for each endpoint two of port 500, because a flood of new peers must not fill the
// queue in which the datagrams of established ones wait, and two of port 4500.
type Sockets struct {
	mu     sync.Mutex
	byEnd  map[netip.AddrPort]*endpointSockets
	to     *Daemon // nil before Serve
	want   []netip.Addr
	again  *time.Timer // opens what could not be opened, and closes what is not wanted any more
	closed bool
	wg     sync.WaitGroup
}

// How long sockets of an endpoint that is not wanted any more stay open, for the last messages of its SAs, and when those that could
// not be opened are tried again.
const (
	closeLater = 3 * time.Second
	openAgain  = 5 * time.Second
)

// endpointSockets are those of one address and port: known is for datagrams with a responder's SPI.
type endpointSockets struct{ fresh, known *net.UDPConn }

// receiveBuffer is what the kernel keeps of datagrams for one socket: some thousands.
const receiveBuffer = 4 << 20

// Serve opens sockets for endpoints and gives what they receive to d until Close.
func (s *Sockets) Serve(d *Daemon, endpoints []netip.Addr) error {
	s.mu.Lock()
	s.to, s.byEnd, s.want = d, map[netip.AddrPort]*endpointSockets{}, endpoints
	err := s.open()
	s.mu.Unlock()
	if err != nil {
		return errors.Join(err, s.Close())
	}
	return nil
}

// Close closes all sockets and waits for their readers.
func (s *Sockets) Close() error {
	s.mu.Lock()
	s.closed, s.want = true, nil
	if s.again != nil {
		s.again.Stop()
	}
	err := s.close()
	s.mu.Unlock()
	s.wg.Wait()
	return err
}

// SetEndpoints opens sockets, so that those of endpoints are open, and soon closes the others. What cannot be opened it returns as an
// error, and goes on to try.
func (s *Sockets) SetEndpoints(endpoints []netip.Addr) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.to == nil || s.closed {
		return nil // Serve opens them
	}
	s.want = endpoints
	err := s.open()
	s.tryAgain(closeLater)
	return err
}

// tryAgain plans settle. It is called with the lock held.
func (s *Sockets) tryAgain(wait time.Duration) {
	if s.again != nil {
		s.again.Stop()
	}
	s.again = time.AfterFunc(wait, s.settle)
}

// settle opens and closes what is left to do.
func (s *Sockets) settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	before := len(s.byEnd)
	err := s.open()
	if len(s.byEnd) > before {
		s.to.log.Info("ike: listening on what another process had", "sockets", len(s.byEnd)-before)
	}
	if err != nil {
		s.to.log.Warn("ike: not listening", "error", err, "again_in", openAgain)
		s.tryAgain(openAgain)
	}
	if err := s.close(); err != nil {
		s.to.log.Warn("ike: sockets not closed", "error", err)
	}
}

// wanted are the addresses and ports of the endpoints.
func (s *Sockets) wanted() map[netip.AddrPort]bool {
	want := map[netip.AddrPort]bool{}
	for _, a := range s.want {
		want[netip.AddrPortFrom(a, Port)], want[netip.AddrPortFrom(a, NATPort)] = true, true
	}
	return want
}

// open opens what is wanted. It is called with the lock held.
func (s *Sockets) open() error {
	var errs []error
	for at := range s.wanted() {
		if s.byEnd[at] != nil {
			continue
		}
		e, err := listen(at)
		if err != nil {
			errs = append(errs, fmt.Errorf("IKE on %v: %w%s", at, err, hint(err)))
			continue
		}
		s.byEnd[at] = e
		s.wg.Go(func() { s.read(at, e.fresh, freshRate) })
		s.wg.Go(func() { s.read(at, e.known, knownRate) })
	}
	return errors.Join(errs...)
}

// close closes what is not wanted. It is called with the lock held.
func (s *Sockets) close() error {
	want := s.wanted()
	var errs []error
	for at, e := range s.byEnd {
		if !want[at] {
			errs = append(errs, e.fresh.Close(), e.known.Close())
			delete(s.byEnd, at)
		}
	}
	return errors.Join(errs...)
}

func hint(err error) string {
	if errors.Is(err, unix.EADDRINUSE) {
		return "; another IKE daemon, such as strongSwan's charon, has the port: stop it"
	}
	return ""
}

// listen opens the two sockets of an address and port. A program in the kernel chooses: of a message without a responder's SPI the
// first, else the second.
func listen(at netip.AddrPort) (*endpointSockets, error) {
	fresh, err := open(at)
	if err != nil {
		return nil, err
	}
	if err := choose(fresh, at.Port()); err != nil {
		return nil, errors.Join(err, fresh.Close())
	}
	known, err := open(at)
	if err != nil {
		return nil, errors.Join(err, fresh.Close())
	}
	return &endpointSockets{fresh, known}, nil
}

// open opens a socket. The endpoint's address need not be there yet: it comes when the node is ready.
func open(at netip.AddrPort) (*net.UDPConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		return errors.Join(c.Control(func(fd uintptr) {
			freebind, level := unix.IP_FREEBIND, unix.SOL_IP
			if at.Addr().Is6() {
				freebind, level = unix.IPV6_FREEBIND, unix.SOL_IPV6
				err = errors.Join(err, unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_V6ONLY, 1))
			}
			err = errors.Join(err, unix.SetsockoptInt(int(fd), level, freebind, 1), unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) // less does too
		}), err)
	}}
	c, err := lc.ListenPacket(context.Background(), "udp", at.String())
	if err != nil {
		return nil, err
	}
	return c.(*net.UDPConn), nil
}

// choose sets the program that chooses between the sockets of a group by the datagram: it sees the UDP payload.
func choose(c *net.UDPConn, port uint16) error {
	spi := uint32(8) // the responder's SPI
	if port == NATPort {
		spi += 4
	}
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_LEN},
		{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, K: spi + 8, Jt: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0}, // too short
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: spi},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 0, Jf: 3},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: spi + 4},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 0, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		{Code: unix.BPF_RET | unix.BPF_K, K: 1},
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		set = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
	})
	return errors.Join(err, set)
}

// How many datagrams are taken from a socket in a second at most. More are a flood, which the kernel drops when the socket's buffer
// is full, for less than it would cost here: the workers of the dataplane need the cores.
const (
	freshRate = 20_000
	knownRate = 100_000
	burst     = 256
)

// read gives what comes to the daemon, at most so many in a second, until the socket is closed.
func (s *Sockets) read(at netip.AddrPort, c *net.UDPConn, rate int) {
	buf := make([]byte, 64<<10)
	begun := time.Now()
	for n := 1; ; n++ {
		if n%burst == 0 {
			if early := burst*time.Second/time.Duration(rate) - time.Since(begun); early > 0 {
				time.Sleep(early)
			}
			begun = time.Now()
		}
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue // an ICMP error about what was sent
		}
		s.to.Receive(at, netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), buf[:n])
	}
}

// Send sends a datagram from an endpoint.
func (s *Sockets) Send(local, remote netip.AddrPort, datagram []byte) error {
	s.mu.Lock()
	e := s.byEnd[local]
	s.mu.Unlock()
	if e == nil {
		return fmt.Errorf("%v is no endpoint any more", local)
	}
	_, err := e.known.WriteToUDPAddrPort(datagram, remote)
	return err
}
