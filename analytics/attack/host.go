package attack

import (
	"math"
	"net/netip"
	"time"

	"causeway/analytics/flow"
	"causeway/analytics/sketch"
)

// slots is how many ticks a window has.
const slots = 5

// A cell is an estimate from samples (Horvitz-Thompson): each stands for `every` packets, and adds every(every-1) to the variance.
type cell struct {
	packets, variance float32
	samples           uint32
}

func (c *cell) add(every uint32) {
	c.packets += float32(every)
	c.variance += float32(every) * float32(every-1)
	c.samples++
}

func (c *cell) sum(o *cell) {
	c.packets += o.packets
	c.variance += o.variance
	c.samples += o.samples
}

// A hostKey names a host: two accounts' private addresses are two hosts.
type hostKey struct {
	account string
	addr    netip.Addr
}

// A host is an address whose traffic is looked at.
type host struct {
	hostKey
	counts  [slots][counted]cell
	flows   bitmap // that it received packets of, since the bitmap was emptied
	targets bitmap // ports and addresses that it sent probes to
	peer    peer   // of its probes by UDP
	heat    float32
	watched uint32 // vectors with evidence, a bit each
	tracks  [Vectors]track
	base    baseline
}

// A track is how far one vector has got at one host.
type track struct {
	evidence  *evidence // nil: it was not above its threshold at the last tick
	threshold float32   // of an active attack, in packets a second
	active    bool
	loud      time.Time // when it was last above half of its threshold
	told      time.Time
}

// receive counts a packet to the host.
func (h *host) receive(slot int, c class, every uint32, flowHash uint64) class {
	// Fresh flows of TCP and of UDP are told from others by what has been seen.
	if (c == inACKFresh || c == inUDPFresh) && !h.flows.add(flowHash) {
		c++ // the repeat stands behind the fresh one
	}
	h.counts[slot][c].add(every)
	return c
}

// send counts a packet of the host.
func (h *host) send(slot int, c class, every uint32) {
	if c != unclassed {
		h.counts[slot][c].add(every)
	}
}

// probe counts a packet that a scan could have sent, and says what it was.
func (h *host) probe(slot int, p *flow.Header, every uint32, seed uint64) class {
	// Answers to many clients look like a scan by UDP over many hosts. One over the ports of one host does not.
	if p.HasUDP && !h.peer.vote(p.Dst) {
		return unclassed
	}
	c := probeRepeat
	if h.targets.add(sketch.Hash(sketch.HashAddr(seed, p.Dst), uint64(p.DstPort))) {
		c = probeFresh
	}
	h.counts[slot][c].add(every)
	return c
}

// sums adds up the window.
func (h *host) sums() (out [classes]cell) {
	for s := range h.counts {
		for c := range h.counts[s] {
			out[c].sum(&h.counts[s][c])
		}
	}
	fresh, repeat := &out[inACKFresh], &out[inACKRepeat]
	out[inACKShort] = *repeat
	if most := shortFlow * fresh.packets; repeat.packets > most {
		out[inACKShort] = cell{packets: most, variance: shortFlow * shortFlow * fresh.variance}
	}
	return
}

// samples is how many there were in a slot.
func (h *host) samples(slot int) (n uint32) {
	for c := range h.counts[slot] {
		n += h.counts[slot][c].samples
	}
	return
}

// A bitmap remembers hashes, about. When half of its bits are set it remembers nothing any more, and all is new: then there are more
// than a thousand.
type bitmap struct {
	set  uint16
	bits [32]uint64
}

// add takes in a hash and says whether it is new.
func (b *bitmap) add(hash uint64) bool {
	const bits = 64 * len(b.bits)
	if b.set >= uint16(bits/2) {
		return true
	}
	at := hash % uint64(bits)
	word, bit := &b.bits[at/64], uint64(1)<<(at%64)
	if *word&bit != 0 {
		return false
	}
	*word |= bit
	b.set++
	return true
}

// A peer is the address that most votes are for, if there is a clear majority (Boyer and Moore).
type peer struct {
	addr  netip.Addr
	votes int32
}

// vote says whether an address is the one that has the majority up to now. With many addresses none gets far ahead.
func (p *peer) vote(a netip.Addr) bool {
	switch {
	case p.addr == a:
		p.votes = min(p.votes+1, 1000)
		return p.votes > 5
	case p.votes > 0:
		p.votes--
	default:
		p.addr, p.votes = a, 1
	}
	return false
}

// A baseline is what is normal for a host: exponentially weighted means over minutes of what is left unexplained.
type baseline struct {
	steps     int
	mean      [Jump]float32 // packets a second, by vector
	odd       float32       // of all together
	deviation float32       // mean absolute one, of odd
}

const (
	baselineStep  = 10  // ticks from one step to the next
	baselineSteps = 30  // that the mean is taken over: 5 minutes
	oldEnough     = 18  // steps: 3 minutes, from which on twice the mean of a vector counts as explained
	jumpEnough    = 30  // steps: 5 minutes, from which on there are jumps
	jumpDeviation = 7.5 // mean absolute deviations: six standard ones, were it a normal distribution
)

// learn takes one step: what was found of each vector, and of all together.
func (b *baseline) learn(found *[Jump]reading, odd float64) {
	b.steps++
	weight := 1 / float32(min(b.steps, baselineSteps)) // the plain mean first
	for v := range found {
		b.mean[v] += weight * (float32(max(found[v].rate, 0)) - b.mean[v])
	}
	b.deviation += weight * (float32(math.Abs(odd-float64(b.odd))) - b.deviation)
	b.odd += weight * (float32(odd) - b.odd)
}

// explained is how many packets a second of a vector are normal.
func (b *baseline) explained(v Vector) float64 {
	if b.steps < oldEnough {
		return 0
	}
	return 2 * float64(b.mean[v])
}

// jump is the rate of everything unexplained above which it is no longer normal; infinite without enough history.
func (b *baseline) jump(c *Config) float64 {
	if b.steps < jumpEnough || c.Thresholds[Jump] == 0 {
		return math.Inf(1)
	}
	return max(c.Thresholds[Jump], c.JumpFactor*float64(b.odd), float64(b.odd)+jumpDeviation*float64(b.deviation))
}
