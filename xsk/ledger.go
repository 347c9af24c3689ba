package xsk

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
)

// Owner is who may touch a frame. At any moment each frame has exactly one.
type Owner uint8

const (
	Free     Owner = iota // on the free list of its part
	Worker                // in a worker's hands
	Fill                  // given to the kernel to receive into, until Receive returns it
	TX                    // given to the kernel to send, until Reap returns it
	HandOver              // on a ring between two workers
)

var ownerNames = [...]string{"free", "worker", "fill", "tx", "hand-over"}

// String is the owner's name as it stands in panics and leak reports.
func (o Owner) String() string {
	if int(o) < len(ownerNames) {
		return ownerNames[o]
	}
	return fmt.Sprintf("owner(%d)", uint8(o))
}

const (
	historyLen = 8
	// poisonByte fills free frames: as an address or a length it is absurd.
	poisonByte = 0xA5
	// leaksShown bounds the leak report.
	leaksShown = 8
)

var poison = bytes.Repeat([]byte{poisonByte}, FrameSize)

// ledger is the debugging allocator's memory of every frame: who owns it, how
// often it left the free list, and its last moves. A lock guards all of it,
// because the mistakes it looks for include two workers with the same frame.
type ledger struct {
	mem []byte

	mu     sync.Mutex
	frames []record
	moves  uint64
}

// record is one frame's page in the ledger.
type record struct {
	owner      Owner
	generation uint32 // how often the frame left the free list
	past       [historyLen]move
	moved      uint64 // moves of this frame; past[moved % historyLen] is the next to overwrite
}

// move is one change of hands. number counts the moves of all frames, so the
// histories of two frames can be laid side by side.
type move struct {
	number     uint64
	generation uint32
	from, to   Owner
}

func newLedger(mem []byte, frames int) *ledger {
	l := &ledger{mem: mem, frames: make([]record, frames)}
	for f := range frames {
		copy(l.frame(f), poison)
	}
	return l
}

func (l *ledger) frame(f int) []byte { return l.mem[f<<frameShift:][:FrameSize] }

// take moves a frame from its free list to the worker, after checking that
// nobody wrote to it meanwhile.
func (l *ledger) take(addr uint64) {
	l.move(addr, Free, Worker)
	f := int(addr >> frameShift)
	mem := l.frame(f)
	if bytes.Equal(mem, poison) {
		return
	}
	at := 0
	for mem[at] == poisonByte {
		at++
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	panic(fmt.Sprintf("xsk: frame %d was written to while it was free, at byte %d; %s", f, at, l.frames[f].history()))
}

// release moves a frame from the worker to its free list and poisons it.
func (l *ledger) release(addr uint64) {
	l.move(addr, Worker, Free)
	copy(l.frame(int(addr>>frameShift)), poison)
}

// move changes a frame's owner and panics if from does not own it.
func (l *ledger) move(addr uint64, from, to Owner) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := addr >> frameShift
	if f >= uint64(len(l.frames)) {
		panic(fmt.Sprintf("xsk: address %#x, moved from %v to %v, lies beyond the UMEM's %d frames",
			addr, from, to, len(l.frames)))
	}
	r := &l.frames[f]
	if r.owner != from {
		panic(fmt.Sprintf("xsk: frame %d (address %#x, generation %d) moved from %v to %v, but its owner is %v: %s; %s",
			f, addr, r.generation, from, to, r.owner, mistake(r.owner, from, to), r.history()))
	}
	if from == Free {
		r.generation++
	}
	l.moves++
	r.past[r.moved%historyLen] = move{number: l.moves, generation: r.generation, from: from, to: to}
	r.moved++
	r.owner = to
}

// mistake names the usual cause of a wrong move.
func mistake(owner, from, to Owner) string {
	switch {
	case owner == Free && to == Free:
		return "freed twice"
	case owner == Free:
		return "used after it was freed"
	case from == Free:
		return "on the free list and in use at once"
	case owner == TX && to == TX:
		return "sent twice"
	case owner == Fill || owner == TX:
		return "used while the kernel had it"
	default:
		return "used by someone who does not own it"
	}
}

// history is the frame's last moves, oldest first. The ledger is locked.
func (r *record) history() string {
	if r.moved == 0 {
		return "it never moved"
	}
	var b strings.Builder
	b.WriteString("its last moves:")
	for i := r.moved - min(r.moved, historyLen); i < r.moved; i++ {
		m := r.past[i%historyLen]
		fmt.Fprintf(&b, " #%d %v->%v (generation %d)", m.number, m.from, m.to, m.generation)
		if i+1 < r.moved {
			b.WriteByte(',')
		}
	}
	return b.String()
}

// leaks reports the frames that a worker or a hand-over ring still owns.
func (l *ledger) leaks() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var count [len(ownerNames)]int
	var shown []string
	for f := range l.frames {
		r := &l.frames[f]
		if r.owner != Worker && r.owner != HandOver {
			continue
		}
		count[r.owner]++
		if len(shown) < leaksShown {
			shown = append(shown, fmt.Sprintf("frame %d owned by %v, %s", f, r.owner, r.history()))
		}
	}
	if len(shown) == 0 {
		return nil
	}
	return fmt.Errorf("umem: frames leaked: %d owned by %v, %d by %v; %s",
		count[Worker], Worker, count[HandOver], HandOver, strings.Join(shown, "; "))
}
