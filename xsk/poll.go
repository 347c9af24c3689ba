package xsk

import (
	"time"

	"golang.org/x/sys/unix"
)

// PollSet makes the list that [Poll] waits on. The caller owns it and may
// append descriptors of its own, an eventfd for instance.
func PollSet(sockets []*Socket) []unix.PollFd {
	set := make([]unix.PollFd, len(sockets))
	for i, s := range sockets {
		set[i] = unix.PollFd{Fd: int32(s.fd), Events: unix.POLLIN}
	}
	return set
}

// Poll sleeps until a socket of the set has received something or the timeout
// is over, and returns how many have. A worker calls it after some empty rounds
// to give its core back; in copy mode the kernel also sends what waits on the
// TX rings. An interrupted sleep is no error, and neither is a link that is
// down: it makes the call return early, with nothing ready. It does not
// allocate.
func Poll(set []unix.PollFd, timeout time.Duration) (int, error) {
	ts := unix.NsecToTimespec(int64(max(timeout, 0)))
	n, err := unix.Ppoll(set, &ts, nil)
	if err == unix.EINTR {
		return 0, nil
	}
	return n, err
}
