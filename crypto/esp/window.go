package esp

import "fmt"

// MaxWindow is the largest replay window, in packets.
const MaxWindow = 1 << 16

// A window remembers which sequence numbers were received: a ring of words in which a number always has the same bit, so
// that nothing is shifted when it moves on (RFC 6479). The ring has a word more than the window needs, so clearing the
// words ahead never touches what is still inside. Size 0 accepts everything.
type window struct {
	top  uint64   // highest number that was received
	size uint64   // in packets
	ring []uint64 // its length is a power of two
}

func newWindow(size int) (window, error) {
	if size < 0 || size > MaxWindow {
		return window{}, fmt.Errorf("esp: replay window of %d packets: at most %d, or 0 for none", size, MaxWindow)
	}
	if size == 0 {
		return window{}, nil
	}
	words := uint64(1)
	for words < uint64(size+63)/64+1 {
		words *= 2
	}
	return window{size: uint64(size), ring: make([]uint64, words)}, nil
}

// begin fills the window up to a number: all that lies in it came before.
func (w *window) begin(top uint64) {
	w.top = top
	for i := range w.ring {
		w.ring[i] = 1<<64 - 1
	}
	if w.size > 0 { // but for what comes next in the top's word
		*w.word(top) = 1<<(top%64+1) - 1
	}
}

// word is the one that has a number's bit.
func (w *window) word(n uint64) *uint64 { return &w.ring[n/64&uint64(len(w.ring)-1)] }

// check says whether a number may be received: before the packet is known to be authentic. It changes nothing.
func (w *window) check(n uint64) Verdict {
	if w.size == 0 {
		return OK
	}
	word := *w.word(n) // for commit too, which finds it in the cache
	switch {
	case n == 0: // the first packet has 1 (RFC 4303, section 3.3.3)
		return Replayed
	case n > w.top:
		return OK
	case w.top-n >= w.size:
		return Left
	case word>>(n%64)&1 != 0:
		return Replayed
	}
	return OK
}

// commit notes the number of an authentic packet. It checks again, since an earlier packet of the same burst may have the
// same number.
func (w *window) commit(n uint64) Verdict {
	if w.size == 0 {
		w.top = max(w.top, n) // for infer
		return OK
	}
	if n <= w.top {
		if v := w.check(n); v != OK {
			return v
		}
	} else {
		if n/64 != w.top/64 {
			w.clearTo(n / 64)
		}
		w.top = n
	}
	*w.word(n) |= 1 << (n % 64)
	return OK
}

// clearTo clears the words behind that of the top up to word last.
func (w *window) clearTo(last uint64) {
	for word := w.top/64 + 1; word <= last && word <= w.top/64+uint64(len(w.ring)); word++ {
		*w.word(word * 64) = 0
	}
}

// infer completes a sequence number whose upper half was not sent (RFC 4303, appendix A2.2): it is the one nearest to the
// window, and never far behind it. Where nothing came for long, or ever, the window is thought to end at a floor above it: what came to others.
func (w *window) infer(low uint32, floor uint64) uint64 {
	size, top := max(w.size, 1), max(w.top, floor)
	topLow, high := uint32(top), top>>32
	bottom := topLow - uint32(size-1) // of the window, modulo 2^32
	switch {
	case uint64(topLow) >= size-1: // the window lies within one half
		if low < bottom {
			high++
		}
	case low >= bottom && high > 0: // it spans two: in the upper part of the half before
		high--
	}
	return high<<32 | uint64(low)
}
