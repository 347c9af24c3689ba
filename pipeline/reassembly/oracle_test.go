package reassembly

import "slices"

// oracle is a reassembler that is slow and obvious: a map of datagrams, each with
// one entry per byte.
type oracle struct {
	config    Config
	datagrams map[Key]*slowDatagram
	ages      []Key // oldest first
	frames    int
}

type slowDatagram struct {
	born    int64
	owner   [1 << 16]int // per byte: 1 + index of its fragment
	list    []Fragment
	total   int // 0: not known
	refused Verdict
}

func newOracle(c Config) *oracle {
	return &oracle{config: c, datagrams: map[Key]*slowDatagram{}}
}

// forget removes key and returns its frames.
func (o *oracle) forget(key Key) (frames []uint64) {
	frames = o.take(o.datagrams[key])
	delete(o.datagrams, key)
	o.ages = slices.DeleteFunc(o.ages, func(k Key) bool { return k == key })
	return frames
}

// take empties d and returns its frames, which are in order of offset.
func (o *oracle) take(d *slowDatagram) (frames []uint64) {
	for _, f := range sorted(d.list) {
		frames = append(frames, f.Frame)
	}
	o.frames -= len(d.list)
	d.list = nil
	return frames
}

func sorted(list []Fragment) []Fragment {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b Fragment) int { return a.Off - b.Off })
	return list
}

func (o *oracle) add(now int64, key Key, f Fragment) (v Verdict, out Out) {
	if key.V6 {
		key.Proto = 0
	}
	if d := o.datagrams[key]; d != nil && now-d.born >= int64(o.config.Timeout) {
		out.Evicted = append(out.Evicted, o.forget(key)...)
	}
	wrong := Held
	if f.Len == 0 || f.Off%8 != 0 || f.More && f.Len%8 != 0 {
		wrong = BadLength
	} else if f.Off+f.Len > o.config.MaxBytes {
		wrong = TooBig
	}
	d := o.datagrams[key]
	if d == nil {
		if wrong != Held {
			return wrong, Out{Dropped: []uint64{f.Frame}, Evicted: out.Evicted}
		}
		if len(o.datagrams) == o.config.MaxDatagrams {
			out.Evicted = append(out.Evicted, o.forget(o.ages[0])...)
		}
		d = &slowDatagram{born: now}
		o.datagrams[key] = d
		o.ages = append(o.ages, key)
	}
	if d.refused == Held && wrong == Held {
		wrong = o.judge(d, f)
	}
	switch {
	case d.refused != Held:
		out.Dropped = []uint64{f.Frame}
		return d.refused, out
	case wrong == Duplicate:
		out.Dropped = []uint64{f.Frame}
		return Duplicate, out
	case wrong != Held:
		d.refused = wrong
		out.Dropped = append(o.take(d), f.Frame)
		return wrong, out
	}
	for o.frames == o.config.MaxFrames {
		victim := o.ages[0]
		if victim == key {
			victim = o.ages[1]
		}
		out.Evicted = append(out.Evicted, o.forget(victim)...)
	}
	d.list = append(d.list, f)
	o.frames++
	for i := range f.Len {
		d.owner[f.Off+i] = len(d.list)
	}
	if !f.More {
		d.total = f.Off + f.Len
	}
	for i := range d.total {
		if d.owner[i] == 0 {
			return Held, out
		}
	}
	if d.total == 0 {
		return Held, out
	}
	out.Pieces = sorted(d.list)
	o.forget(key)
	return Complete, out
}

// judge says how f fits with the bytes that are there.
func (o *oracle) judge(d *slowDatagram, f Fragment) Verdict {
	for _, g := range d.list {
		if g.Off == f.Off && g.Len == f.Len && g.More == f.More {
			return Duplicate
		}
	}
	for i := range f.Len {
		if d.owner[f.Off+i] != 0 {
			return Overlap
		}
	}
	for i := f.Off + f.Len; !f.More && i < len(d.owner); i++ {
		if d.owner[i] != 0 {
			return BadEnd // data behind this last fragment
		}
	}
	if d.total != 0 && (!f.More || f.Off >= d.total) {
		return BadEnd
	}
	if len(d.list) == o.config.MaxFragments {
		return TooMany
	}
	return Held
}

func (o *oracle) expire(now int64) (frames []uint64, datagrams int) {
	for range expireBatch {
		if len(o.ages) == 0 || now-o.datagrams[o.ages[0]].born < int64(o.config.Timeout) {
			break
		}
		gone := o.forget(o.ages[0])
		if len(gone) > 0 {
			datagrams++
		}
		frames = append(frames, gone...)
	}
	return frames, datagrams
}
