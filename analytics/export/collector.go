package export

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	retryInterval   = 10 * time.Second // between attempts to connect
	resolveInterval = 5 * time.Minute  // after which a collector's name is looked up again
)

// CollectorStats are counts since the start of what one collector was sent.
type CollectorStats struct {
	Protocol string // sflow or ipfix
	Address  string // host:port, as configured
	Sent     uint64 // datagrams
	Bytes    uint64
	Failed   uint64 // datagrams that could not be sent, and those that the collector's host has refused (they count as sent, too)
	Error    string // of the last one that failed; empty: none since the last one that was sent
}

// A collector is where datagrams go. Send is for one goroutine.
type collector struct {
	protocol, address string
	named             bool // the host is a name, not an address
	socket            atomic.Pointer[socket]

	sent, bytes, failed atomic.Uint64
	err                 atomic.Pointer[error]
}

func newCollector(protocol, address string) (*collector, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil || host == "" || port == "" {
		return nil, fmt.Errorf("export: %s collector %q: want host:port, for example 192.0.2.9:6343", protocol, address)
	}
	_, err = netip.ParseAddr(host)
	c := &collector{protocol: protocol, address: address, named: err != nil}
	if !c.named {
		c.connect(context.Background())
	}
	return c, nil
}

// connect makes a socket for the collector's address, and takes it if that is another than before.
func (c *collector) connect(ctx context.Context) (connected bool) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "udp", c.address)
	if err != nil {
		c.err.Store(&err)
		return false
	}
	old := c.socket.Load()
	if old != nil && old.conn.RemoteAddr().String() == conn.RemoteAddr().String() {
		conn.Close()
		return false
	}
	s, err := newSocket(conn.(*net.UDPConn))
	if err != nil {
		conn.Close()
		c.err.Store(&err)
		return false
	}
	c.socket.Store(s)
	if old != nil {
		old.conn.Close()
	}
	return true
}

// keep connects to the collector, and follows its name, until ctx is done. Greet is called after each new connection.
func (c *collector) keep(ctx context.Context, greet func()) {
	for {
		wait := resolveInterval
		if c.socket.Load() == nil || c.named {
			if c.connect(ctx) {
				greet()
			}
		}
		if c.socket.Load() == nil {
			wait = retryInterval
		} else if !c.named {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// send sends a datagram, or counts it.
func (c *collector) send(b []byte) {
	s := c.socket.Load()
	if s == nil {
		c.failed.Add(1)
		return
	}
	err := s.write(b)
	refused := errors.Is(err, syscall.ECONNREFUSED)
	if refused {
		// That was the answer to an earlier datagram. This one has not been sent yet.
		c.fail(err)
		err = s.write(b)
	}
	if err != nil {
		c.fail(err)
		return
	}
	c.sent.Add(1)
	c.bytes.Add(uint64(len(b)))
	if !refused && c.err.Load() != nil {
		c.err.Store(nil)
	}
}

func (c *collector) fail(err error) {
	c.failed.Add(1)
	c.err.Store(&err)
}

func (c *collector) stats() CollectorStats {
	s := CollectorStats{Protocol: c.protocol, Address: c.address, Sent: c.sent.Load(), Bytes: c.bytes.Load(), Failed: c.failed.Load()}
	if err := c.err.Load(); err != nil {
		s.Error = (*err).Error()
	}
	return s
}

func (c *collector) close() {
	if s := c.socket.Load(); s != nil {
		s.conn.Close()
	}
}

// A socket writes without waiting: net.Conn would wait for room in the socket's buffer.
type socket struct {
	conn *net.UDPConn
	raw  syscall.RawConn
	b    []byte
	err  error
	try  func(fd uintptr) bool
}

func newSocket(conn *net.UDPConn) (*socket, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &socket{conn: conn, raw: raw}
	s.try = func(fd uintptr) bool {
		_, s.err = syscall.Write(int(fd), s.b)
		return true
	}
	return s, nil
}

func (s *socket) write(b []byte) error {
	s.b = b
	if err := s.raw.Write(s.try); err != nil {
		return err
	}
	return s.err
}
