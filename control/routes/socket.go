package routes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Sizes of the event socket, in bytes unless the name says otherwise.
const (
	defaultReceiveBuffer = 32 << 20
	maxDatagram          = 64 << 10 // the longest message is one of a link with many virtual functions: some 20 KiB
	chunkSize            = 256 << 10
	chunksWaiting        = 64 // what waits in front of the writer beside the socket's buffer
)

// eventGroups are what the mirror listens to, all on one socket: a route's removal and the link's going down stay in order.
var eventGroups = []uint{
	unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_NEXTHOP,
	unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE,
	unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV6_ROUTE,
}

// eventSocket receives the kernel's announcements and hands them on in chunks of whole datagrams. (The receive
// functions of netlink/nl allocate 64 KiB for each datagram, which at ten thousand changes a second is the most
// expensive part of all.)
type eventSocket struct {
	file   *os.File
	chunks chan chunk
	spare  chan []byte // buffers of chunks that were worked off
}

// A chunk is a run of netlink messages, or the news that some were lost.
type chunk struct {
	data []byte
	at   time.Time // when the first of them was received
	lost bool      // announcements before this point were lost; the socket has recovered
}

func openEvents(receiveBuffer int) (*eventSocket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	if err := prepareEvents(fd, receiveBuffer); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &eventSocket{
		file:   os.NewFile(uintptr(fd), "netlink"),
		chunks: make(chan chunk, chunksWaiting),
		spare:  make(chan []byte, chunksWaiting),
	}, nil
}

func prepareEvents(fd, receiveBuffer int) error {
	// Without CAP_NET_ADMIN the limit of net.core.rmem_max holds, which costs a resynchronisation now and then, no more.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer); err != nil {
			return fmt.Errorf("receive buffer of %d bytes: %w", receiveBuffer, err)
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	for _, g := range eventGroups {
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, int(g)); err != nil {
			return fmt.Errorf("multicast group %d: %w", g, err)
		}
	}
	return nil
}

func (s *eventSocket) close() { s.file.Close() }

// read hands chunks on until the socket is closed or ctx is done.
func (s *eventSocket) read(ctx context.Context) {
	conn, err := s.file.SyscallConn()
	if err != nil {
		return
	}
	lost := false
	for {
		c := chunk{data: s.buffer()}
		err := conn.Read(func(fd uintptr) bool { return s.fill(int(fd), &c, &lost) })
		if err != nil {
			return
		}
		select {
		case s.chunks <- c:
		case <-ctx.Done():
			return
		}
	}
}

// fill takes all that waits, as far as there is room, and reports whether that was anything.
//
// After an overrun the kernel keeps quiet, without another error, until the queue has been read empty. So only then is the
// loss announced: a dump that began earlier could miss what was dropped after it.
func (s *eventSocket) fill(fd int, c *chunk, lost *bool) bool {
	for cap(c.data)-len(c.data) >= maxDatagram {
		n, from, err := unix.Recvfrom(fd, c.data[len(c.data):cap(c.data)], 0)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			c.lost, *lost = *lost, false
			return len(c.data) > 0 || c.lost
		case err != nil: // ENOBUFS; whatever else there may be: what it cost us is not known
			*lost = true
			continue
		}
		if k, ok := from.(*unix.SockaddrNetlink); !ok || k.Pid != nl.PidKernel {
			continue // any process may send to the socket
		}
		if len(c.data) == 0 {
			c.at = time.Now()
		}
		c.data = c.data[:len(c.data)+(n+3)&^3] // messages begin at multiples of 4
	}
	return true
}

func (s *eventSocket) buffer() []byte {
	select {
	case b := <-s.spare:
		return b[:0]
	default:
		return make([]byte, 0, chunkSize)
	}
}

// recycle gives the buffer of a chunk back.
func (s *eventSocket) recycle(c chunk) {
	select {
	case s.spare <- c.data:
	default:
	}
}

// openDumpSocket makes a socket for dumps only, so that none waits behind other requests.
func openDumpSocket() (*nl.NetlinkSocket, error) {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE) // no groups
	if err != nil {
		return nil, err
	}
	err = errors.Join(
		s.SetReceiveTimeout(&unix.Timeval{Sec: 60}),
		unix.SetsockoptInt(s.GetFd(), unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1), // filter routes by table
	)
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}
