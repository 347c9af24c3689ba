package esp

import (
	"encoding/binary"
	"sync/atomic"

	"causeway/analytics/tally"
	"causeway/crypto/aesgcm"
)

// An Inbound is an association for receiving. It is its owner's alone.
type Inbound struct {
	association
	window window
	shown  tally.Counter // the window's top, as others see it
	floor  atomic.Uint64 // numbers below it are refused
	_      [24]byte      // two cache lines: the allocator aligns them
}

// NewInbound makes an association with a replay window of that many packets; 0 means none. The vault holds its key.
func NewInbound(v *aesgcm.Vault, p Params, windowSize int) (*Inbound, error) {
	in := &Inbound{}
	var err error
	if in.window, err = newWindow(windowSize); err != nil {
		return nil, err
	}
	if err := in.init(v, p); err != nil {
		return nil, err
	}
	return in, nil
}

// Begin takes an association on that received packets up to number floor before a restart: none of them may come again, and
// the upper half of extended sequence numbers is known. Only the one who made it may call it, before its owner has it.
func (in *Inbound) Begin(floor uint64) {
	in.window.begin(floor)
	in.shown.Set(floor)
}

// SetFloor has numbers below floor refused: they were received elsewhere, or are too late. Any goroutine may call it. It only rises, and
// without a window it means nothing.
func (in *Inbound) SetFloor(floor uint64) {
	if floor > in.floor.Load() {
		in.floor.Store(floor)
	}
}

// Received is the highest number of an authentic packet. Any goroutine may ask.
func (in *Inbound) Received() uint64 { return in.shown.Get() }

// An Opener checks and decrypts the packets of a batch. It belongs to one goroutine.
type Opener struct {
	burst  aesgcm.Burst
	n      int
	opened [aesgcm.MaxBurst]opening
}

// opening is a packet that waits for Open.
type opening struct {
	sa     *Inbound
	packet []byte
	seq    uint64
	burst  uint8 // number in the burst
	failed bool  // set by Open, but for those in the burst
	newest bool  // set by Result
}

// Len returns how many packets were added since the last Reset.
func (o *Opener) Len() int { return o.n }

// Full reports whether nothing can be added any more.
func (o *Opener) Full() bool { return o.n == aesgcm.MaxBurst }

// Reset forgets all packets.
func (o *Opener) Reset() {
	o.burst.Reset()
	o.n = 0
}

// Add takes a packet, from the SPI, by which the caller has found sa, to the end of the integrity check value. Open will work
// on it in place. What can be refused without the key is: sizes, and sequence numbers that came before (RFC 4303, section
// 3.4.3), so that replays cost no decryption. Only if the verdict is OK it was added.
func (o *Opener) Add(sa *Inbound, packet []byte) Verdict {
	before, icv, align := headerLen+gcmIV, gcmICV, gcmAlign
	if sa.kind != kindGCM {
		i := sa.suite.info()
		before, icv, align = headerLen+i.iv, i.icv, i.align
	}
	if text := len(packet) - before - icv; text < align || text&(align-1) != 0 || text > aesgcm.MaxText {
		return sa.refuse(Short)
	}
	if sa.expired() {
		return sa.refuse(Expired)
	}
	low := binary.BigEndian.Uint32(packet[4:])
	seq, floor := uint64(low), sa.floor.Load()
	if sa.esn {
		seq = sa.window.infer(low, floor)
	}
	if v := sa.window.check(seq); v != OK {
		return sa.refuse(v)
	}
	if seq < floor && sa.window.size > 0 {
		return sa.refuse(Below)
	}
	p := &o.opened[o.n]
	p.sa, p.packet, p.seq = sa, packet, seq
	if sa.kind == kindGCM {
		i := o.burst.Len()
		p.burst = uint8(i)
		o.burst.Set(i, &sa.gcm, packet[headerLen+gcmIV:], binary.LittleEndian.Uint64(packet[headerLen:]), gcmAAD(sa.spi, seq, sa.esn))
	}
	o.n++
	return OK
}

// Open checks and decrypts all packets.
func (o *Opener) Open() {
	o.burst.Open()
	if o.burst.Len() == o.n {
		return
	}
	for k := range o.opened[:o.n] {
		if p := &o.opened[k]; p.sa.kind != kindGCM {
			p.failed = !p.sa.single.open(p.packet, uint32(p.seq>>32), p.sa.esn)
		}
	}
}

// Result returns where in packet k, counted in the order of Add, its text begins and ends, and the text's protocol. It
// must be called once for each packet, in order: this is where the replay window moves, only for packets that are
// authentic, and of two with one number in a batch only for the first.
func (o *Opener) Result(k int) (from, to int, next uint8, v Verdict) {
	p := &o.opened[k]
	failed := false
	if p.sa.kind == kindGCM {
		failed, from, to = o.burst.Failed(int(p.burst)), headerLen+gcmIV, len(p.packet)-gcmICV
	} else {
		i := p.sa.suite.info()
		failed, from, to = p.failed, headerLen+i.iv, len(p.packet)-i.icv
	}
	if failed {
		return 0, 0, 0, p.sa.refuse(Forged)
	}
	p.newest = p.seq > p.sa.window.top
	if v := p.sa.window.commit(p.seq); v != OK {
		return 0, 0, 0, p.sa.refuse(v)
	}
	p.sa.shown.Set(p.sa.window.top)
	to, next, v = unpad(p.packet, from, to)
	p.sa.used(max(to-from, 0))
	if v != OK {
		p.sa.refuse(v)
	}
	return from, to, next, v
}

// Newest reports whether packet k, about which Result has said OK, has a higher number than all that came before.
func (o *Opener) Newest(k int) bool { return o.opened[k].newest }

// unpad takes padding and trailer off the text packet[from:to] (RFC 4303, section 2.4).
func unpad(packet []byte, from, to int) (end int, next uint8, v Verdict) {
	last := binary.LittleEndian.Uint64(packet[to-8:]) // a packet's header alone is longer than what this reads too much
	n, next := int(last>>48&0xff), uint8(last>>56)
	end = to - trailerLen - n
	if end < from {
		return from, 0, Padding
	}
	if n < len(paddings) {
		if p := &paddings[n]; (last^p.want)&p.mask != 0 {
			return from, 0, Padding
		}
	} else if !isPadding(packet[end : to-trailerLen]) {
		return from, 0, Padding
	}
	if next == NoNextHeader {
		return from, next, Dummy
	}
	return end, next, OK
}

// isPadding reports whether bytes are 1, 2, 3...
func isPadding(b []byte) bool {
	for i, c := range b {
		if c != byte(i+1) {
			return false
		}
	}
	return true
}

// paddings are those that fit between the last 8 bytes of a text and its trailer, by length: what these bytes must be under
// a mask, read little-endian.
var paddings = shortPaddings()

func shortPaddings() (ps [8 - trailerLen + 1]struct{ want, mask uint64 }) {
	for n := range ps {
		for i := range n {
			at := 8 * (8 - trailerLen - n + i)
			ps[n].want |= uint64(i+1) << at
			ps[n].mask |= 0xff << at
		}
	}
	return ps
}
