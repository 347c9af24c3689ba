package xsk

import (
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// kernelBatch is how many packets one system call sends in copy mode unless the
// kernel lets us raise it (TX_BATCH_SIZE in net/xdp/xsk.c).
const kernelBatch = 32

// counters are written by the owner of the socket and read by anyone. Only
// system calls touch them, never single packets.
type counters struct {
	kicks     atomic.Uint64
	polls     atomic.Uint64
	again     atomic.Uint64
	stalled   atomic.Uint64
	busy      atomic.Uint64
	noBuffers atomic.Uint64
	linkDown  atomic.Uint64
	gone      atomic.Uint64
	other     atomic.Uint64
	lastErrno atomic.Uint32
	_         [64]byte
}

// Kick makes the kernel send what waits on the TX ring, if it needs to be told.
// Call it in every round, with or without new packets: packets that an error
// left on the ring go out with a later call, and with nothing to do it costs
// about a nanosecond. Errors are counted in Stats; none is fatal.
func (s *Socket) Kick() {
	if s.tx.pending() != 0 && s.tx.needWakeup() {
		s.wakeSender()
	}
}

// wakeSender calls the kernel again as long as it says EAGAIN and the ring gets
// shorter. It does not wait for a ring that stands still: then the completion
// ring is full or the driver is, and the caller's next Reap or round cures it.
func (s *Socket) wakeSender() {
	waiting := s.tx.pending()
	for range s.maxKicks {
		// RawSyscall, because the call never blocks and the scheduler need not know.
		_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(s.fd), 0, 0, unix.MSG_DONTWAIT, 0, 0)
		s.count.kicks.Add(1)
		if errno == 0 {
			return
		}
		s.countError(errno)
		if errno != unix.EAGAIN {
			return
		}
		left := s.tx.pending()
		if left == 0 {
			return
		}
		if left == waiting {
			s.count.stalled.Add(1)
			return
		}
		waiting = left
	}
}

// wakeReceiver runs when the RX ring is empty. It makes the kernel look at the
// fill ring if it went to sleep over an empty one, and receive if we busy-poll.
func (s *Socket) wakeReceiver() {
	if !s.busyPoll && !s.fill.needWakeup() {
		return
	}
	_, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(s.fd), 0, 0, unix.MSG_DONTWAIT, 0, 0)
	s.count.polls.Add(1)
	if errno != 0 && errno != unix.EAGAIN {
		s.countError(errno)
	}
}

// countError files an errno under what it means to an operator.
func (s *Socket) countError(errno unix.Errno) {
	switch errno {
	case unix.EAGAIN:
		s.count.again.Add(1)
		return // the usual end of a batch, not an error
	case unix.EBUSY:
		s.count.busy.Add(1)
	case unix.ENOBUFS:
		s.count.noBuffers.Add(1)
	case unix.ENETDOWN:
		s.count.linkDown.Add(1)
	case unix.ENXIO, unix.ENODEV:
		s.count.gone.Add(1)
	default:
		s.count.other.Add(1)
	}
	s.count.lastErrno.Store(uint32(errno))
}
