package xsk

import (
	"errors"
	"fmt"
	"math/bits"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Sizes that the whole node shares. They are fixed so that an address turns
// into a frame by a shift and a mask.
const (
	// FrameSize is one UMEM chunk in bytes.
	FrameSize = 2048
	// Headroom is how many bytes the kernel leaves free before a received
	// packet in its frame: XDP_PACKET_HEADROOM and what the UMEM asks for
	// beyond it.
	Headroom = unix.XDP_PACKET_HEADROOM + extraHeadroom
	// extraHeadroom leaves what encapsulation over IPv4 adds (GRE with a key 28
	// bytes, ESP 36, ESP in UDP 44) in the cache line that the packet begins in:
	// without it the outer header would be written to a line that nobody has
	// touched, in each frame.
	extraHeadroom = 48
	// MaxPacket is the longest packet, link header included, that the kernel
	// can put into one frame.
	MaxPacket = FrameSize - Headroom

	frameShift = 11
	frameMask  = FrameSize - 1
)

// Bounds of a UMEM. The lower one keeps a part useful (one batch); the upper
// one is 32 GiB and catches a slipped digit before the kernel pins memory.
const (
	minFramesPerPart = 64
	maxParts         = 1024
	maxFrames        = 1 << 24
	hugePage         = 2 << 20
)

// Desc describes a packet in the UMEM. Its memory layout is that of the
// kernel's struct xdp_desc, so rings are copied and never converted.
type Desc struct {
	Addr    uint64 // offset of the first byte of the packet from the start of the UMEM
	Len     uint32 // bytes
	Options uint32 // XDP_PKT_CONTD and the like; 0 for a packet in one frame
}

// UMEMConfig says how large a UMEM is and how it is watched.
type UMEMConfig struct {
	// Parts is the number of workers: each owns one part.
	Parts int
	// FramesPerPart is the number of frames in each part. A worker needs, for
	// every socket that it owns, one ring of frames to receive into and what
	// is in flight on the TX ring.
	FramesPerPart int
	// HugePages asks for 2 MiB pages. If the system has none reserved, normal
	// pages are used; [UMEM.Pages] tells which.
	HugePages bool
	// Debug turns the ledger on: owner, generation and history of each frame,
	// poison in free frames, a leak check at Close. It costs some 200
	// nanoseconds per packet and one lock for all workers.
	Debug bool
}

// UMEM is the packet memory of a node: one anonymous mapping, cut into frames,
// shared by all sockets of all ports. It is registered with the kernel by the
// first socket that is opened over it; until then it needs no privilege, so
// memory and pcap back ends use it too.
//
// Methods are safe for concurrent use, except that Close must come last.
type UMEM struct {
	mem           []byte // whole frames
	mapping       []byte // mem rounded up to whole pages
	pages         string
	framesPerPart int
	reciprocal    uint64 // 2^64 / framesPerPart, rounded up
	pools         []*Pool
	ledger        *ledger // nil unless Debug

	mu      sync.Mutex
	sockets []*Socket // open ones, in the order of opening
}

// NewUMEM maps the memory and puts every frame on the free list of its part.
func NewUMEM(cfg UMEMConfig) (*UMEM, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	frames := cfg.Parts * cfg.FramesPerPart
	size := frames * FrameSize
	mapping, pages, err := mapFrames(size, cfg.HugePages)
	if err != nil {
		return nil, err
	}
	u := &UMEM{
		mem:           mapping[:size:size],
		mapping:       mapping,
		pages:         pages,
		framesPerPart: cfg.FramesPerPart,
		reciprocal:    ^uint64(0)/uint64(cfg.FramesPerPart) + 1,
	}
	if cfg.Debug {
		u.ledger = newLedger(u.mem, frames)
	}
	for part := range cfg.Parts {
		u.pools = append(u.pools, newPool(u, part))
	}
	return u, nil
}

func (cfg UMEMConfig) validate() error {
	switch {
	case cfg.Parts < 1 || cfg.Parts > maxParts:
		return fmt.Errorf("umem: %d parts: allowed are 1 to %d, one for each worker", cfg.Parts, maxParts)
	case cfg.FramesPerPart < minFramesPerPart:
		return fmt.Errorf("umem: %d frames per part: at least %d are needed; "+
			"give each worker twice the ring size for every socket it owns", cfg.FramesPerPart, minFramesPerPart)
	case cfg.FramesPerPart > maxFrames/cfg.Parts:
		return fmt.Errorf("umem: %d parts of %d frames: at most %d frames (%d GiB) are allowed in all",
			cfg.Parts, cfg.FramesPerPart, maxFrames, maxFrames*FrameSize>>30)
	}
	return nil
}

// mapFrames maps size bytes, on huge pages if asked and possible, and touches
// them so that the packet path meets no page fault. The second result says in
// words which pages were had, and why if they are not those asked for.
func mapFrames(size int, huge bool) ([]byte, string, error) {
	const prot = unix.PROT_READ | unix.PROT_WRITE
	const flags = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS
	page := os.Getpagesize()
	pages := fmt.Sprintf("%d KiB", page>>10)
	if huge {
		mem, err := unix.Mmap(-1, 0, roundUp(size, hugePage), prot,
			flags|unix.MAP_HUGETLB|unix.MAP_HUGE_2MB|unix.MAP_POPULATE)
		if err == nil {
			return mem, "2 MiB", nil
		}
		pages += fmt.Sprintf(" (2 MiB pages: %v; reserve %d with sysctl vm.nr_hugepages; transparent ones were asked for)",
			err, roundUp(size, hugePage)/hugePage)
	}
	mem, err := unix.Mmap(-1, 0, roundUp(size, page), prot, flags)
	if err != nil {
		return nil, "", fmt.Errorf("umem: mapping %d MiB: %w", size>>20, err)
	}
	if huge {
		// Both calls are advice: without them the memory is only slower.
		_ = unix.Madvise(mem, unix.MADV_HUGEPAGE)
	}
	_ = unix.Madvise(mem, unix.MADV_POPULATE_WRITE)
	return mem, pages, nil
}

func roundUp(n, multiple int) int { return (n + multiple - 1) / multiple * multiple }

// Bytes is the whole UMEM. A descriptor d owns Bytes()[d.Addr:][:d.Len]. The
// slice must not be used after Close.
func (u *UMEM) Bytes() []byte { return u.mem }

// Pool is the free list of one part, counted from 0.
func (u *UMEM) Pool(part int) *Pool { return u.pools[part] }

// Parts is the number of parts.
func (u *UMEM) Parts() int { return len(u.pools) }

// FramesPerPart is the number of frames in each part.
func (u *UMEM) FramesPerPart() int { return u.framesPerPart }

// Pages says which memory pages back the UMEM, and why they are not huge if
// huge ones were asked for.
func (u *UMEM) Pages() string { return u.pages }

// Home is the part that a frame came from. addr may lie anywhere in the frame
// but must lie in the UMEM.
func (u *UMEM) Home(addr uint64) int {
	// Division by multiplication: exact, because frame numbers stay under 2^32.
	part, _ := bits.Mul64(addr>>frameShift, u.reciprocal)
	return int(part)
}

// Track tells the ledger that the frame of addr changes hands. Socket and Pool
// call it themselves; callers do so only where a frame moves between workers
// (Worker to HandOver and back). It does nothing unless the UMEM was made with
// Debug; then it panics, with the frame's history, if from does not own the
// frame: it was freed twice, used after it was freed, or sent twice.
func (u *UMEM) Track(addr uint64, from, to Owner) {
	if u.ledger != nil {
		u.ledger.move(addr, from, to)
	}
}

// Close unmaps the memory. All sockets must be closed before. With Debug it
// returns an error that lists the frames still owned by a worker or a hand-over
// ring; frames that the kernel held when its sockets closed are not leaks.
func (u *UMEM) Close() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if n := len(u.sockets); n > 0 {
		return fmt.Errorf("umem: close: %d sockets are still open over it; close their ports first", n)
	}
	if u.mapping == nil {
		return nil
	}
	var leak error
	if u.ledger != nil {
		leak = u.ledger.leaks()
	}
	err := unix.Munmap(u.mapping)
	u.mem, u.mapping = nil, nil
	return errors.Join(leak, err)
}

// base is the address of the UMEM in this process, as the kernel wants it.
func (u *UMEM) base() uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(u.mem)))) }
