package pipeline

// A counter is written by one worker and read by anybody. The worker adds without a locked instruction: an aligned
// word is never torn, and a reader that is one batch behind is what a scrape is anyway. Under the race detector it
// is an atomic (counter_race.go), so that the detector sees no races but real ones.

// TunnelCounters are one worker's counts for one tunnel, or the sum over workers. Bytes are those of inner packets.
type TunnelCounters struct {
	RXPackets, RXBytes uint64 // customer -> node, decapsulated
	TXPackets, TXBytes uint64 // node -> customer, encapsulated
	RXDrops, TXDrops   uint64

	LateralRXPackets, LateralRXBytes uint64 // of RX, what then went into another tunnel of the same account
	LateralTXPackets, LateralTXBytes uint64 // of TX, what had come out of another tunnel of the same account
}

// tunnelCounters is one cache line.
type tunnelCounters struct {
	rxPackets, rxBytes counter
	txPackets, txBytes counter

	// Of those, customer -> node -> customer, by the tunnel that they came out of and by the one that they went into.
	lateralRXPackets, lateralRXBytes counter
	lateralTXPackets, lateralTXBytes counter
}

// tunnelDrops are the drops of one tunnel: of what came out of it, and of what was to go into it.
type tunnelDrops struct{ rx, tx counter }

// countLateral counts a packet of that many bytes that came out of tunnel from and went into the tunnel with counters c.
func (w *worker) countLateral(c *tunnelCounters, from int32, bytes uint64) {
	c.lateralTXPackets.add(1)
	c.lateralTXBytes.add(bytes)
	o := &w.tunnels[from&(MaxTunnels-1)]
	o.lateralRXPackets.add(1)
	o.lateralRXBytes.add(bytes)
}

func (w *worker) resetTunnel(id int) {
	c, d := &w.tunnels[id], &w.tunnelDrops[id]
	for _, x := range [...]*counter{&c.rxPackets, &c.rxBytes, &c.txPackets, &c.txBytes, &d.rx, &d.tx,
		&c.lateralRXPackets, &c.lateralRXBytes, &c.lateralTXPackets, &c.lateralTXBytes} {
		x.set(0)
	}
}

// Counters are a worker's account of frames, or the sum over workers. At rest
// Received + Originated + Fragments = Forwarded + Delivered + Punted + sum(Dropped) + Joined + Held.
type Counters struct {
	Received   uint64 // frames taken from RX rings
	Injected   uint64 // packets that the kernel sent through the TUN device (a part of Originated)
	Originated uint64 // packets made here: echo replies, ICMP errors, keepalive answers, the kernel's own
	Fragments  uint64 // frames made in addition by fragmentation
	Forwarded  uint64 // frames given to TX rings
	Delivered  uint64 // answered by the pipeline itself
	Punted     uint64 // given to the kernel through the TUN device, or to the control side: messages of other nodes
	Joined     uint64 // fragments that became part of a reassembled datagram
	Held       uint64 // frames that wait now: for fragments, or in a ring between workers
	Dropped    [Reasons]uint64

	Decapsulated, Encapsulated uint64
	General                    uint64 // steps of packets that were not as most are: see fast.go
	MSSClamped                 uint64
	ICMPErrors                 uint64 // sent
	ICMPSuppressed             uint64 // not sent because of the rate limit or RFC 1122 3.2.2
	HandedOver                 uint64 // frames given to another worker
	ToOwner, FromNodes         uint64 // packets forwarded to the node that encrypts, and that other nodes have forwarded here
	Samples, SamplesLost       uint64 // packets that were sampled, and that were not because the control side did not keep up
	Batches, EmptyPolls        uint64
	Sleeps                     uint64 // times the worker waited in poll(2) for traffic
	PollGap                    [PollGapBuckets]uint64
	MaxPollGapNS               uint64
}

// PollGapBuckets is the number of buckets of the histogram of times between two polls: bucket i counts gaps below
// PollGapBound(i), the last one all others.
const PollGapBuckets = 14

// PollGapBound is the upper bound of bucket i in nanoseconds: 4 us doubled i times.
func PollGapBound(i int) uint64 { return 4096 << i }

// Balance returns both sides of the formula by which every frame is accounted for.
func (c *Counters) Balance() (in, out uint64) {
	in = c.Received + c.Originated + c.Fragments
	out = c.Forwarded + c.Delivered + c.Punted + c.Joined + c.Held + c.DroppedTotal()
	return in, out
}

// DroppedTotal sums the drops of all reasons.
func (c *Counters) DroppedTotal() uint64 {
	var n uint64
	for _, d := range c.Dropped {
		n += d
	}
	return n
}

// Add adds o to c; the longest poll gap is the longer of the two.
func (c *Counters) Add(o *Counters) {
	c.Received += o.Received
	c.Injected += o.Injected
	c.Originated += o.Originated
	c.Fragments += o.Fragments
	c.Forwarded += o.Forwarded
	c.Delivered += o.Delivered
	c.Punted += o.Punted
	c.Joined += o.Joined
	c.Held += o.Held
	for i, d := range o.Dropped {
		c.Dropped[i] += d
	}
	c.Decapsulated += o.Decapsulated
	c.Encapsulated += o.Encapsulated
	c.General += o.General
	c.MSSClamped += o.MSSClamped
	c.ICMPErrors += o.ICMPErrors
	c.ICMPSuppressed += o.ICMPSuppressed
	c.HandedOver += o.HandedOver
	c.ToOwner += o.ToOwner
	c.FromNodes += o.FromNodes
	c.Samples += o.Samples
	c.SamplesLost += o.SamplesLost
	c.Batches += o.Batches
	c.EmptyPolls += o.EmptyPolls
	c.Sleeps += o.Sleeps
	for i, n := range o.PollGap {
		c.PollGap[i] += n
	}
	c.MaxPollGapNS = max(c.MaxPollGapNS, o.MaxPollGapNS)
}

// workerCounters is the worker's own side of Counters.
type workerCounters struct {
	received, injected, originated, fragments     counter
	forwarded, delivered, punted, joined, held    counter
	dropped                                       [Reasons]counter
	decapsulated, encapsulated, general           counter
	clamped, icmpErrors, icmpSuppressed, handover counter
	toOwner, fromNodes, samples, samplesLost      counter
	batches, emptyPolls, sleeps                   counter
	pollGap                                       [PollGapBuckets]counter
	maxPollGap                                    counter
}

func (c *workerCounters) read() Counters {
	out := Counters{
		Received: c.received.get(), Injected: c.injected.get(), Originated: c.originated.get(), Fragments: c.fragments.get(),
		Forwarded: c.forwarded.get(), Delivered: c.delivered.get(), Punted: c.punted.get(),
		Joined: c.joined.get(), Held: c.held.get(),
		Decapsulated: c.decapsulated.get(), Encapsulated: c.encapsulated.get(),
		General: c.general.get(), MSSClamped: c.clamped.get(), ICMPErrors: c.icmpErrors.get(), ICMPSuppressed: c.icmpSuppressed.get(),
		HandedOver: c.handover.get(), ToOwner: c.toOwner.get(), FromNodes: c.fromNodes.get(), Samples: c.samples.get(), SamplesLost: c.samplesLost.get(), Batches: c.batches.get(), EmptyPolls: c.emptyPolls.get(), Sleeps: c.sleeps.get(),
		MaxPollGapNS: c.maxPollGap.get(),
	}
	for i := range c.dropped {
		out.Dropped[i] = c.dropped[i].get()
	}
	for i := range c.pollGap {
		out.PollGap[i] = c.pollGap[i].get()
	}
	return out
}
