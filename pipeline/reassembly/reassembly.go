// Package reassembly puts the fragments of IP datagrams together, within a fixed
// memory and a fixed time, without touching a byte of them.
//
// It deals in frames, which are opaque numbers: a frame goes in with the place of
// its data in the datagram, and comes back exactly once, as a piece of a complete
// datagram or to be recycled. Copying the pieces together is the caller's.
//
//	fragment -> Add -> Held        kept
//	                -> Complete    Out.Pieces: all frames of the datagram, in order
//	                -> other       Out.Dropped: this frame, or all of its datagram
//	            Expire, Drain      frames that waited in vain
//
// Rules: RFC 791 section 3.2 and RFC 8200 section 4.5, with overlaps refused in
// both families (RFC 5722, RFC 8200; for IPv4 that is stricter than RFC 791,
// because the overlap is only ever an attack on whoever looks at the first copy).
// Datagrams wait in order of their first fragment; when there is no room the
// oldest makes it.
package reassembly

import (
	"encoding/binary"
	"hash/maphash"
	"math"
	"time"
)

// Config sets the bounds. Memory is taken once, by New. A value out of its range
// is moved to the nearest that is allowed.
type Config struct {
	MaxDatagrams int           // incomplete datagrams at a time, at least 1
	MaxFragments int           // fragments of one datagram, 2 to 255
	MaxFrames    int           // frames held altogether, at least MaxFragments
	MaxBytes     int           // longest datagram, its data in bytes, 8 to 65535; 0 means 65535
	Timeout      time.Duration // from the first fragment to giving up, at least 1 ns
}

// maxEntries keeps every index within an int32 and the table within reason.
const maxEntries = 1 << 24

// allowed returns c with every value in its range.
func (c Config) allowed() Config {
	c.MaxDatagrams = min(max(c.MaxDatagrams, 1), maxEntries)
	c.MaxFragments = min(max(c.MaxFragments, 2), math.MaxUint8)
	c.MaxFrames = min(max(c.MaxFrames, c.MaxFragments), maxEntries)
	if c.MaxBytes == 0 {
		c.MaxBytes = math.MaxUint16
	}
	c.MaxBytes = min(max(c.MaxBytes, 8), math.MaxUint16)
	c.Timeout = max(c.Timeout, 1)
	return c
}

// Key tells datagrams apart: addresses and identification, for IPv4 the protocol
// too (RFC 791 section 3.2). IPv6 ignores Proto, since only the first fragment's
// next header counts (RFC 8200 section 4.5). An IPv4 address fills the first four
// bytes or any other four, always the same.
type Key struct {
	Src, Dst [16]byte
	ID       uint32
	Proto    uint8
	V6       bool
}

// Fragment is one frame and the place of its data.
type Fragment struct {
	Frame uint64 // opaque
	Start uint32 // where the data starts in the frame; kept for the caller, not read
	Off   int    // place in the datagram's data, bytes
	Len   int    // bytes of data
	More  bool   // the more-fragments flag
}

// Out takes what an Add gives back. The caller owns it and uses it again: Add
// empties the slices first and keeps their memory.
type Out struct {
	Pieces  []Fragment // of the complete datagram, in order of Off, without gaps
	Dropped []uint64   // frames of this datagram to recycle
	Evicted []uint64   // frames of another datagram to recycle: the oldest, for room; or an older one of the same key, for time
}

// A nilIndex ends lists and marks free places of the hash table.
const nilIndex = -1

// expireBatch bounds the datagrams that one call of Expire gives up.
const expireBatch = 16

// Table holds incomplete datagrams. It belongs to one goroutine. No method
// allocates once the slices of Out have grown.
type Table struct {
	config    Config
	timeout   int64        // nanoseconds
	seed      maphash.Seed // of this process: the place in the table cannot be guessed
	datagrams []datagram
	nodes     []node
	places    []int32 // the hash table: index into datagrams, see lookup.go
	mask      uint32

	freeDatagram, freeNode int32 // list heads
	oldest, newest         int32 // datagrams by age
	waiting, held          int   // datagrams; frames in them
}

// datagram is an incomplete datagram, or the memory of one that was refused.
type datagram struct {
	key         Key
	hash        uint32
	born        int64 // when the first fragment came
	first       int32 // fragments by offset
	count       int32 // fragments
	bytes       int32 // of data, together
	total       int32 // length of the datagram; 0 until the last fragment has come
	older, next int32 // neighbours in age; next is the free list too
	refused     Verdict
}

// node is a held fragment.
type node struct {
	Fragment
	next int32
}

// New returns an empty table with all the memory that it will use.
func New(c Config) *Table {
	c = c.allowed()
	size := uint32(4)
	for size < uint32(c.MaxDatagrams)*2 { // half empty: probes stay short
		size *= 2
	}
	t := &Table{
		config:    c,
		timeout:   int64(c.Timeout),
		seed:      maphash.MakeSeed(),
		datagrams: make([]datagram, c.MaxDatagrams),
		nodes:     make([]node, c.MaxFrames),
		places:    make([]int32, size),
		mask:      size - 1,
		oldest:    nilIndex,
		newest:    nilIndex,
	}
	for i := range t.datagrams {
		t.datagrams[i].next = int32(i) + 1
	}
	t.datagrams[c.MaxDatagrams-1].next = nilIndex
	for i := range t.nodes {
		t.nodes[i].next = int32(i) + 1
	}
	t.nodes[c.MaxFrames-1].next = nilIndex
	for i := range t.places {
		t.places[i] = nilIndex
	}
	return t
}

// Held returns how many frames are held.
func (t *Table) Held() int { return t.held }

// Waiting returns how many datagrams are remembered: incomplete ones, and refused
// ones whose late fragments are still to be refused.
func (t *Table) Waiting() int { return t.waiting }

// Add takes the fragment f of datagram key at time now, in nanoseconds of a
// monotonic clock that never goes back, and says what became of it. Whatever the
// verdict, f.Frame is then held, or in out.Pieces, or in out.Dropped.
func (t *Table) Add(now int64, key Key, f Fragment, out *Out) Verdict {
	out.Pieces, out.Dropped, out.Evicted = out.Pieces[:0], out.Dropped[:0], out.Evicted[:0]
	if key.V6 {
		key.Proto = 0
	}
	hash := t.hash(&key)
	at := t.find(&key, hash)
	if at != nilIndex && now-t.datagrams[at].born >= t.timeout {
		out.Evicted = t.forget(at, out.Evicted)
		at = nilIndex
	}
	verdict := t.judgeAlone(f)
	if at == nilIndex && verdict == Held {
		at = t.remember(now, key, hash, out)
	}
	if at == nilIndex {
		out.Dropped = append(out.Dropped, f.Frame)
		return verdict // nothing is remembered of a fragment that is wrong by itself
	}
	d, before := &t.datagrams[at], int32(nilIndex)
	if d.refused != Held {
		verdict = d.refused
	} else if verdict == Held {
		before, verdict = t.place(d, f)
	}
	if verdict == Held {
		return t.insert(at, before, f, out)
	}
	if verdict != Duplicate {
		d.refused = verdict
		out.Dropped = t.release(d, out.Dropped)
	}
	out.Dropped = append(out.Dropped, f.Frame)
	return verdict
}

// judgeAlone returns Held, or what is wrong with f whatever else has come.
func (t *Table) judgeAlone(f Fragment) Verdict {
	switch {
	case f.Len <= 0 || f.Off < 0 || f.Off%8 != 0 || f.More && f.Len%8 != 0:
		return BadLength
	case f.Len > t.config.MaxBytes || f.Off > t.config.MaxBytes-f.Len:
		return TooBig
	}
	return Held
}

// place returns the node behind which f belongs in d, nilIndex for the front, or
// why f does not fit.
func (t *Table) place(d *datagram, f Fragment) (before int32, v Verdict) {
	before = nilIndex
	overlap, lastEnd := false, 0
	for i := d.first; i != nilIndex; i = t.nodes[i].next {
		n := &t.nodes[i]
		if n.Off == f.Off && n.Len == f.Len && n.More == f.More {
			return nilIndex, Duplicate
		}
		if n.Off < f.Off+f.Len && f.Off < n.Off+n.Len {
			overlap = true
		}
		if n.Off < f.Off {
			before = i
		}
		lastEnd = n.Off + n.Len
	}
	end, total := f.Off+f.Len, int(d.total)
	switch {
	case overlap:
		return nilIndex, Overlap
	case total != 0 && end > total, !f.More && end < lastEnd:
		return nilIndex, BadEnd // a second end is behind the first or before it
	case int(d.count) == t.config.MaxFragments:
		return nilIndex, TooMany
	}
	return before, Held
}

// insert puts f into datagram at, behind the node before, and returns Complete
// with the pieces in out, or Held. Another datagram makes room if no frame may be
// held any more.
func (t *Table) insert(at, before int32, f Fragment, out *Out) Verdict {
	if t.freeNode == nilIndex {
		t.evict(at, out)
	}
	d, i := &t.datagrams[at], t.freeNode
	n := &t.nodes[i]
	t.freeNode = n.next
	n.Fragment = f
	if before == nilIndex {
		n.next, d.first = d.first, i
	} else {
		n.next, t.nodes[before].next = t.nodes[before].next, i
	}
	d.count++
	d.bytes += int32(f.Len)
	t.held++
	if !f.More {
		d.total = int32(f.Off + f.Len)
	}
	if d.total == 0 || d.bytes != d.total {
		return Held // pieces never overlap, so it is the sum that tells of gaps
	}
	t.complete(at, out)
	return Complete
}

// complete moves the pieces of datagram at to out and forgets it.
func (t *Table) complete(at int32, out *Out) {
	d := &t.datagrams[at]
	for i := d.first; i != nilIndex; i = t.nodes[i].next {
		out.Pieces = append(out.Pieces, t.nodes[i].Fragment)
	}
	t.freeNodes(d)
	t.remove(at)
}

// Expire gives up datagrams that have waited as long as the timeout, oldest first, and calls fn for each frame. One call gives up at most 16, so that the
// work between two batches is bounded: call it once per batch. It returns how
// many incomplete datagrams it gave up.
func (t *Table) Expire(now int64, fn func(frame uint64)) (datagrams int) {
	for range expireBatch {
		if t.oldest == nilIndex || now-t.datagrams[t.oldest].born < t.timeout {
			break
		}
		if t.giveUp(fn) {
			datagrams++
		}
	}
	return datagrams
}

// Drain gives up everything, for a table that is to be closed, and calls fn for
// each frame. The table is empty then and can be used again.
func (t *Table) Drain(fn func(frame uint64)) {
	for t.oldest != nilIndex {
		t.giveUp(fn)
	}
}

// giveUp forgets the oldest datagram and reports whether it held frames.
func (t *Table) giveUp(fn func(frame uint64)) bool {
	at := t.oldest
	d := &t.datagrams[at]
	had := d.first != nilIndex
	for i := d.first; i != nilIndex; i = t.nodes[i].next {
		fn(t.nodes[i].Frame)
	}
	t.freeNodes(d)
	t.remove(at)
	return had
}

// evict forgets the oldest datagrams other than keep until a frame may be held.
// Refused ones hold none, and go too: their number is paid for by those that were
// refused before. It ends, because keep alone holds fewer than MaxFrames.
func (t *Table) evict(keep int32, out *Out) {
	for t.freeNode == nilIndex {
		at := t.oldest
		if at == keep {
			at = t.datagrams[at].next
		}
		out.Evicted = t.forget(at, out.Evicted)
	}
}

// forget removes datagram at and appends its frames to frames.
func (t *Table) forget(at int32, frames []uint64) []uint64 {
	frames = t.release(&t.datagrams[at], frames)
	t.remove(at)
	return frames
}

// release takes the frames of d out of it and appends them to frames.
func (t *Table) release(d *datagram, frames []uint64) []uint64 {
	for i := d.first; i != nilIndex; i = t.nodes[i].next {
		frames = append(frames, t.nodes[i].Frame)
	}
	t.freeNodes(d)
	return frames
}

// freeNodes gives the nodes of d back.
func (t *Table) freeNodes(d *datagram) {
	for i := d.first; i != nilIndex; {
		n := &t.nodes[i]
		next := n.next
		n.next, t.freeNode = t.freeNode, i
		i = next
	}
	t.held -= int(d.count)
	d.first, d.count, d.bytes = nilIndex, 0, 0
}

// hash returns the place where key belongs in the table. The seed keeps a sender
// from choosing keys that meet (RFC 8200 section 10 asks for care with state).
func (t *Table) hash(key *Key) uint32 {
	var b [38]byte
	copy(b[0:], key.Src[:])
	copy(b[16:], key.Dst[:])
	binary.NativeEndian.PutUint32(b[32:], key.ID)
	b[36] = key.Proto
	if key.V6 {
		b[37] = 1
	}
	return uint32(maphash.Bytes(t.seed, b[:]))
}
