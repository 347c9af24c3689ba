package health

import (
	"encoding/binary"
	"errors"
	"slices"
	"time"
)

// What nodes tell each other begins with one of these. Later releases add others, which this one does not know.
const (
	kindEvidence = 1 // to the nodes of the data center: what became of a node's probes
	kindSummary  = 2 // to all nodes: how the tunnels are in a data center
	kindCounts   = 3 // to all nodes: how many of its probes were answered
)

// Evidence is what a node tells: its kind, flags, the length of its name and that, and findings.
type evidence struct {
	node     string
	leaving  bool // it probes no more
	knows    bool // it knows the others, and may speak BFD
	findings []finding
}

// A finding is what a node tells of a tunnel: its tag, how many probes were answered and how many not since the last telling, its state and
// whether it has just become worse, or better, big endian.
type finding struct {
	tunnel         uint64
	answered, lost uint16
	state          State
	worse, better  bool
	speaks         bool // its session of BFD is the teller's
}

const (
	findingLen  = 8 + 2 + 2 + 1 + 1
	maxFindings = 4096 // in one message
	flagLeaving = 1
	flagKnows   = 2
	flagWorse   = 1
	flagSpeaks  = 2
	flagBetter  = 4
)

func (e evidence) marshal() []byte {
	b := append(make([]byte, 0, 3+len(e.node)+len(e.findings)*findingLen), kindEvidence, flag(e.leaving, flagLeaving)|flag(e.knows, flagKnows), byte(len(e.node)))
	b = append(b, e.node...)
	for _, f := range e.findings {
		b = binary.BigEndian.AppendUint64(b, f.tunnel)
		b = binary.BigEndian.AppendUint16(b, f.answered)
		b = binary.BigEndian.AppendUint16(b, f.lost)
		b = append(b, byte(f.state), flag(f.worse, flagWorse)|flag(f.better, flagBetter)|flag(f.speaks, flagSpeaks))
	}
	return b
}

func flag(is bool, bit byte) byte {
	if is {
		return bit
	}
	return 0
}

var errEvidence = errors.New("what is told of tunnels' health is none")

func parseEvidence(b []byte) (e evidence, err error) {
	name, rest, ok := nameIn(b)
	if !ok || b[0] != kindEvidence || len(rest)%findingLen != 0 || len(rest) > maxFindings*findingLen {
		return e, errEvidence
	}
	e.node, e.leaving, e.knows = name, b[1]&flagLeaving != 0, b[1]&flagKnows != 0
	for f := range slices.Chunk(rest, findingLen) {
		if f[12] > byte(Down) {
			return e, errEvidence
		}
		e.findings = append(e.findings, finding{binary.BigEndian.Uint64(f), binary.BigEndian.Uint16(f[8:]), binary.BigEndian.Uint16(f[10:]), State(f[12]), f[13]&flagWorse != 0, f[13]&flagBetter != 0, f[13]&flagSpeaks != 0})
	}
	return e, nil
}

// nameIn splits a message into the name that follows its kind and flags, and what is behind that.
func nameIn(b []byte) (name string, rest []byte, ok bool) {
	if len(b) < 3 || len(b)-3 < int(b[2]) {
		return "", nil, false
	}
	return string(b[3:][:b[2]]), b[3+int(b[2]):], true
}

// A summary of a tunnel is its tag, how many nodes find it healthy, degraded and down, and the round-trip time in microseconds, big endian.
const summaryLen = 8 + 3*2 + 4

func appendSummary(b []byte, tunnel uint64, s Summary) []byte {
	b = binary.BigEndian.AppendUint64(b, tunnel)
	for _, n := range []int{s.Healthy, s.Degraded, s.Down} {
		b = binary.BigEndian.AppendUint16(b, uint16(n))
	}
	return binary.BigEndian.AppendUint32(b, uint32(s.RTT/time.Microsecond))
}

// tellSummary tells how the tunnels are in this data center.
func (p *Prober) tellSummary(now time.Time) {
	head := append([]byte{kindSummary, 0, byte(len(p.opts.Datacenter))}, p.opts.Datacenter...)
	head = append(append(head, byte(len(p.opts.Node))), p.opts.Node...)
	b := slices.Clone(head)
	for tag, x := range p.byTag {
		if b = appendSummary(b, tag, p.here(x, now)); len(b) > maxFindings*summaryLen {
			p.opts.Tell(b, true)
			b = slices.Clone(head)
		}
	}
	p.opts.Tell(b, true)
	p.tellCounts(head)
}

// The counts of a tunnel are its tag, how many probes of the data center were answered, and how many not, big endian.
const countsLen = 3 * 8

func appendCounts(b []byte, tunnel uint64, c Counts) []byte {
	for _, n := range []uint64{tunnel, c.Answered, c.Lost} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	return b
}

// tellCounts tells them, with the head of a summary.
func (p *Prober) tellCounts(head []byte) {
	head[0] = kindCounts
	b := slices.Clone(head)
	for tag, x := range p.byTag {
		if b = appendCounts(b, tag, x.total); len(b) > maxFindings*countsLen {
			p.opts.Tell(b, true)
			b = slices.Clone(head)
		}
	}
	p.opts.Tell(b, true)
}

// hearCounts takes the counts of a data center that has told a summary.
func (p *Prober) hearCounts(b []byte) error {
	name, _, rest, ok := namesIn(b)
	if !ok || len(rest)%countsLen != 0 {
		return errEvidence
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	d := p.team.datacenters[name]
	if d == nil {
		return nil
	}
	for r := range slices.Chunk(rest, countsLen) {
		tunnel := binary.BigEndian.Uint64(r)
		if s, known := d.tunnels[tunnel]; known {
			s.Counts = Counts{binary.BigEndian.Uint64(r[8:]), binary.BigEndian.Uint64(r[16:])}
			d.tunnels[tunnel] = s
		}
	}
	return nil
}

// namesIn splits a message about a data center into its name, that of the node that tells it, and what is behind that.
func namesIn(b []byte) (center, teller string, rest []byte, ok bool) {
	center, rest, ok = nameIn(b)
	if !ok || len(rest) < 1 || len(rest)-1 < int(rest[0]) {
		return "", "", nil, false
	}
	return center, string(rest[1:][:rest[0]]), rest[1+int(rest[0]):], true
}

// maxDatacenters bounds those that are remembered.
const maxDatacenters = 1024

// hearSummary takes what another data center has told. Of tunnels that are not probed here nothing is kept.
func (p *Prober) hearSummary(b []byte) error {
	name, teller, rest, ok := namesIn(b)
	if !ok || len(rest)%summaryLen != 0 {
		return errEvidence
	}
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	d := p.team.datacenters[name]
	if name == p.opts.Datacenter || d == nil && len(p.team.datacenters) >= maxDatacenters {
		return nil
	}
	if d == nil {
		d = &datacenter{tunnels: map[uint64]Summary{}}
		p.team.datacenters[name] = d
		p.team.version++
	}
	d.at, d.teller = now, teller
	for r := range slices.Chunk(rest, summaryLen) {
		tunnel := binary.BigEndian.Uint64(r)
		s := Summary{Datacenter: name, Healthy: int(binary.BigEndian.Uint16(r[8:])), Degraded: int(binary.BigEndian.Uint16(r[10:])), Down: int(binary.BigEndian.Uint16(r[12:])),
			RTT: time.Duration(binary.BigEndian.Uint32(r[14:])) * time.Microsecond}
		if s.Healthy+s.Degraded+s.Down == 0 {
			return errEvidence
		}
		s.State = verdict(s.Healthy, s.Degraded, s.Down)
		if x := p.byTag[tunnel]; x != nil {
			s.Counts = d.tunnels[tunnel].Counts
			d.tunnels[tunnel] = s
			if x.Silent && x.BFD && p.speakerCenter(x.tag) == name {
				p.signal(x, BFD, s.State == Down, "data center "+name+" has no session of BFD with its router", x.Thresholds.Hold, now)
			}
		}
	}
	return nil
}
