package xsk

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Stats are the counters of one socket since it was opened, and its ring levels
// at the time of asking.
type Stats struct {
	// Packets that the kernel dropped or refused (XDP_STATISTICS).
	RxDropped     uint64 // longer than a frame, or no frame could be had
	RxInvalid     uint64 // fill ring entries outside the UMEM
	RxRingFull    uint64 // the worker was too slow
	RxFillEmpty   uint64 // no frame to receive into
	TxInvalid     uint64 // descriptors outside the UMEM or across two frames
	TxRingEmpty   uint64 // times the kernel found nothing to send; not an error
	KernelUnknown bool   // the kernel did not answer; the six above are 0

	// System calls and what came of them.
	Kicks           uint64 // calls to send
	Polls           uint64 // calls to receive (busy polling, or a fill ring that had run empty)
	Again           uint64 // EAGAIN: more was left, the call was repeated
	Stalled         uint64 // EAGAIN without progress: completion ring or send buffer full
	Busy            uint64 // EBUSY: the driver dropped a packet because its queue was full
	NoBuffers       uint64 // ENOBUFS
	LinkDown        uint64 // ENETDOWN
	Gone            uint64 // ENXIO, ENODEV: the interface was removed
	OtherErrors     uint64
	LastErrno       unix.Errno // of the last error other than EAGAIN; 0 if none
	RingSize        uint32     // slots in each ring
	RxLevel         uint32     // packets received and not taken
	TxLevel         uint32     // packets that the kernel has not taken
	FillLevel       uint32     // frames that the kernel has not taken
	CompletionLevel uint32     // frames sent and not reaped
}

// Stats may be called from any goroutine, also after Close: then it returns the
// state at Close.
func (s *Socket) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return s.last
	}
	return s.stats()
}

func (s *Socket) stats() Stats {
	st := Stats{
		Kicks:           s.count.kicks.Load(),
		Polls:           s.count.polls.Load(),
		Again:           s.count.again.Load(),
		Stalled:         s.count.stalled.Load(),
		Busy:            s.count.busy.Load(),
		NoBuffers:       s.count.noBuffers.Load(),
		LinkDown:        s.count.linkDown.Load(),
		Gone:            s.count.gone.Load(),
		OtherErrors:     s.count.other.Load(),
		LastErrno:       unix.Errno(s.count.lastErrno.Load()),
		RingSize:        uint32(len(s.tx.slots)),
		RxLevel:         s.rx.level(),
		TxLevel:         s.tx.level(),
		FillLevel:       s.fill.level(),
		CompletionLevel: s.done.level(),
	}
	var k unix.XDPStatistics
	if err := getsockopt(s.fd, unix.XDP_STATISTICS, unsafe.Pointer(&k), unsafe.Sizeof(k)); err != nil {
		st.KernelUnknown = true
		return st
	}
	st.RxDropped = k.Rx_dropped
	st.RxInvalid = k.Rx_invalid_descs
	st.RxRingFull = k.Rx_ring_full
	st.RxFillEmpty = k.Rx_fill_ring_empty_descs
	st.TxInvalid = k.Tx_invalid_descs
	st.TxRingEmpty = k.Tx_ring_empty_descs
	return st
}
