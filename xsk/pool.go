package xsk

import "fmt"

// Pool is the free list of one part of a UMEM. It is last-in-first-out, so the
// frame handed out next is the one most likely still in the cache. It belongs
// to one goroutine, the part's worker, and does not allocate.
type Pool struct {
	umem *UMEM
	part int
	free []uint64 // chunk base addresses; capacity is the whole part
	_    [64]byte // two workers' pools must not share a cache line
}

func newPool(u *UMEM, part int) *Pool {
	p := &Pool{umem: u, part: part, free: make([]uint64, u.framesPerPart)}
	first := uint64(part * u.framesPerPart)
	for i := range p.free {
		// The lowest address is on top of the stack.
		p.free[i] = (first + uint64(len(p.free)-1-i)) << frameShift
	}
	return p
}

// Len is the number of free frames.
func (p *Pool) Len() int { return len(p.free) }

// Get fills dst with chunk base addresses and returns how many there were. The
// frames pass from Free to Worker: the caller owns them.
func (p *Pool) Get(dst []uint64) int {
	left := len(p.free) - min(len(dst), len(p.free))
	n := copy(dst, p.free[left:])
	p.free = p.free[:left]
	if p.umem.ledger != nil {
		for _, addr := range dst[:n] {
			p.umem.ledger.take(addr)
		}
	}
	return n
}

// Put takes back frames of this part that the caller owns (Worker to Free). An
// address may lie anywhere in its frame. With Debug the frames are poisoned.
func (p *Pool) Put(addrs []uint64) {
	if p.umem.ledger != nil {
		for _, addr := range addrs {
			p.checkHome(addr)
			p.umem.ledger.release(addr)
		}
	}
	n := len(p.free)
	if n+len(addrs) > cap(p.free) {
		// Going on would hand one frame to two owners: packets of one customer
		// would show up in another's tunnel.
		panic(fmt.Sprintf("xsk: pool of part %d: %d frames put back, but only %d are out: a frame was freed twice",
			p.part, len(addrs), cap(p.free)-n))
	}
	p.free = p.free[:n+len(addrs)]
	for i, addr := range addrs {
		p.free[n+i] = addr &^ frameMask
	}
}

func (p *Pool) checkHome(addr uint64) {
	if home := p.umem.Home(addr); home != p.part {
		panic(fmt.Sprintf("xsk: frame %d of part %d was put into the pool of part %d; send it home instead",
			addr>>frameShift, home, p.part))
	}
}
