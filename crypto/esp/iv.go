package esp

import (
	"fmt"
	"sync/atomic"
)

// An IV of a counter mode is the number of a writer, which belongs to one process start of one node for ever, and a
// counter that all of the process's associations share (RFC 6054 has the idea). So no key can see one twice, whoever else
// uses it.
const (
	writerBits  = 20
	counterBits = 64 - writerBits

	// MaxWriter is the largest number of a writer.
	MaxWriter = 1<<writerBits - 1

	// MaxIVs is how many IVs a writer has.
	MaxIVs = 1 << counterBits
)

// ivBlock is how many IVs a Sealer takes at a time: 65 ms at a million packets a second, and one atomic operation.
const ivBlock = 1 << 16

// An IVSource gives out IVs. Its methods may be called by any goroutine; the workers never wait.
type IVSource struct {
	writer   uint64
	next     atomic.Uint64
	reserved atomic.Uint64 // counters below it may be given out
	wanted   atomic.Bool   // an association needs a higher mark
}

// NewIVSource makes a source for a writer whose counter begins at first. It gives out nothing before Reserve.
func NewIVSource(writer uint32, first uint64) (*IVSource, error) {
	s := new(IVSource)
	if err := s.Begin(writer, first); err != nil {
		return nil, err
	}
	return s, nil
}

// Begin sets writer and counter of a source that has given out nothing, where they are known only after the workers were
// made: they see both when they see what Reserve permits.
func (s *IVSource) Begin(writer uint32, first uint64) error {
	switch {
	case writer > MaxWriter || first >= 1<<counterBits:
		return fmt.Errorf("esp: writer %d with counter %d: at most %d and 2^%d", writer, first, MaxWriter, counterBits)
	case s.reserved.Load() != 0:
		return fmt.Errorf("esp: IVs from %d on were permitted already", s.next.Load())
	}
	s.writer = uint64(writer)
	s.next.Store(first)
	s.reserved.Store(first)
	return nil
}

// Reserve permits counters below mark, which stands on disk or in the cluster's store.
func (s *IVSource) Reserve(mark uint64) { s.reserved.Store(min(mark, 1<<counterBits)) }

// Next is the next counter that is given out.
func (s *IVSource) Next() uint64 { return s.next.Load() }

// Wanted reports, once each time, whether an association has used half of the sequence numbers that its mark permits.
func (s *IVSource) Wanted() bool { return s.wanted.Load() && s.wanted.Swap(false) }

// One gives out a single IV, for a key that is not an association's. It fails when none is reserved.
func (s *IVSource) One() (iv uint64, ok bool) {
	ivs, ok := s.take(1)
	return ivs.next, ok
}

// take gets n counters that follow each other. It fails when what is reserved does not suffice, and takes nothing then.
func (s *IVSource) take(n uint64) (ivs ivRange, ok bool) {
	for {
		first := s.next.Load()
		if first+n > s.reserved.Load() {
			return ivRange{}, false
		}
		if s.next.CompareAndSwap(first, first+n) {
			at := s.writer<<counterBits | first
			return ivRange{at, at + n}, true
		}
	}
}

// ivRange is IVs that one goroutine may use.
type ivRange struct{ next, end uint64 }
