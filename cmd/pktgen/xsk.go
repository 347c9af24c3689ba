package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/asavie/xdp"
	"golang.org/x/sys/unix"
)

const (
	xskBatch  = 32 // one sendto sends no more in copy mode, and the library does not kick again
	xskFrames = 1024
)

// sendXSK sends through an AF_XDP socket.
func (j *job) sendXSK(ctx context.Context, _ context.CancelCauseFunc) (sendResult, error) {
	sock, err := openSocket(ctx, j.link.Attrs().Name, j.link.Attrs().Index, j.queue, j.mode, xdp.SocketOptions{
		NumFrames: xskFrames, FrameSize: maxFrameLen, FillRingNumDescs: 64,
		CompletionRingNumDescs: xskFrames, TxRingNumDescs: xskFrames,
	})
	if err != nil {
		return sendResult{}, err
	}
	defer sock.Close()
	s := &xskSender{sock: sock, plan: j.plan, loaded: make([]int8, xskFrames)}
	for i := range s.loaded {
		s.loaded[i] = -1
	}
	start := monotonic()
	err = s.loop(ctx, newPacer(j.rate, start), j.count)
	if err == nil {
		err = s.drain()
	}
	return s.result(start), err
}

// An xskSender owns the socket and its frames. It uses no more of the library than is safe: see transmit.
type xskSender struct {
	sock      *xdp.Socket
	plan      *plan
	loaded    []int8 // form that a UMEM frame holds; the kernel leaves transmitted frames as they are
	seq       uint64 // frames submitted
	completed uint64
	last      uint64 // time of the last batch
}

func (s *xskSender) loop(ctx context.Context, p *pacer, count uint64) error {
	for ctx.Err() == nil && (count == 0 || s.seq < count) {
		want := uint64(xskBatch)
		if count != 0 {
			want = min(want, count-s.seq)
		}
		s.reap()
		descs := s.sock.GetDescs(min(int(want), s.sock.NumFreeTxSlots()))
		now := monotonic()
		n := 0
		if len(descs) > 0 {
			n = p.take(now, len(descs))
		}
		if n == 0 && len(descs) > 0 && s.sock.NumTransmitted() == 0 {
			p.wait(now)
			continue
		}
		s.prepare(descs[:n], now)
		// With nothing new this still makes the kernel send what an earlier EAGAIN left in the ring.
		if _, err := transmit(s.sock, descs[:n]); err != nil {
			return err
		}
		if n > 0 {
			s.last = now
		}
	}
	return nil
}

// prepare makes each descriptor the next packet of the plan.
func (s *xskSender) prepare(descs []xdp.Desc, now uint64) {
	for i := range descs {
		d := &descs[i]
		form := s.plan.form(s.seq)
		image := s.plan.forms[form].image
		d.Len = uint32(len(image))
		frame := s.sock.GetFrame(*d)
		if at := d.Addr / maxFrameLen; s.loaded[at] != int8(form) {
			copy(frame, image)
			s.loaded[at] = int8(form)
		}
		s.plan.stamp(frame, s.seq, now)
		s.seq++
	}
}

func (s *xskSender) reap() {
	if n := s.sock.NumCompleted(); n > 0 {
		s.sock.Complete(n)
		s.completed += uint64(n)
	}
}

// drain waits until the kernel has sent everything.
func (s *xskSender) drain() error {
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		if s.reap(); s.completed == s.seq {
			return nil
		}
		if _, err := transmit(s.sock, nil); err != nil {
			return err
		}
	}
	return fmt.Errorf("%d of %d frames were not sent within 1 s after the end", s.seq-s.completed, s.seq)
}

func (s *xskSender) result(start uint64) sendResult {
	s.reap()
	r := sendResult{Attempted: s.seq, Packets: s.completed, Seconds: float64(s.last-min(start, s.last)) / 1e9}
	r.Sizes, r.Bytes = s.plan.sent(s.seq)
	return r
}

// transmit submits at most xskBatch frames. The library panics when sendto fails with anything but EINTR, EAGAIN or
// EBUSY; that becomes an error here. Frames submitted before it are the kernel's.
func transmit(sock *xdp.Socket, descs []xdp.Desc) (n int, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = sendtoError(r)
		}
	}()
	return sock.Transmit(descs), nil
}

// sendtoError translates the library's panic, of which only the text is left. Any other panic goes on.
func sendtoError(r any) error {
	var rc uint64
	var errno int
	if err, ok := r.(error); ok {
		if _, scan := fmt.Sscanf(err.Error(), "sendto failed with rc=%d and errno=%d", &rc, &errno); scan == nil {
			return fmt.Errorf("transmit: %w", unix.Errno(errno))
		}
	}
	panic(r)
}

// openSocket binds an AF_XDP socket to a queue. It retries while the queue is busy: a closed socket leaves it some
// milliseconds later.
func openSocket(ctx context.Context, name string, index, queue int, mode string, o xdp.SocketOptions) (*xdp.Socket, error) {
	xdp.DefaultSocketFlags = map[string]uint16{"copy": unix.XDP_COPY, "zero-copy": unix.XDP_ZEROCOPY}[mode]
	for tries := 0; ; tries++ {
		sock, err := xdp.NewSocket(index, queue, &o)
		if err == nil {
			return sock, nil
		}
		if tries < 50 && isErrno(err, unix.EBUSY) && ctx.Err() == nil {
			time.Sleep(10 * time.Millisecond)
			continue
		}
		return nil, fmt.Errorf("AF_XDP socket on queue %d of %s: %w%s", queue, name, err, bindHint(err, mode))
	}
}

// isErrno looks for an errno in the library's error texts: it does not wrap them.
func isErrno(err error, e unix.Errno) bool {
	return errors.Is(err, e) || strings.HasSuffix(err.Error(), ": "+e.Error())
}

func bindHint(err error, mode string) string {
	switch {
	case isErrno(err, unix.EBUSY):
		return "; another AF_XDP socket has this queue: give another --queue, or end that program"
	case isErrno(err, unix.EINVAL):
		return "; does the queue exist? `ethtool -l` and `ip -d link` show how many there are"
	case isErrno(err, unix.EOPNOTSUPP) && mode == "zero-copy":
		return "; the driver has no zero-copy: give --mode copy"
	case isErrno(err, unix.EPERM):
		return "; root is needed"
	}
	return ""
}
