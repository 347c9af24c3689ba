package reassembly

// The hash table maps keys to datagrams. Each place holds an index or nilIndex; a key
// lies at its hash or behind it, with no free place between. At least half of the
// places are free, so that every search ends.

// find returns the datagram of key, or nilIndex.
func (t *Table) find(key *Key, hash uint32) int32 {
	for p := hash & t.mask; ; p = (p + 1) & t.mask {
		at := t.places[p]
		if at == nilIndex {
			return nilIndex
		}
		if d := &t.datagrams[at]; d.hash == hash && d.key == *key {
			return at
		}
	}
}

// remember adds an empty datagram, as the newest, and returns its index. The
// oldest makes room.
func (t *Table) remember(now int64, key Key, hash uint32, out *Out) int32 {
	if t.freeDatagram == nilIndex {
		out.Evicted = t.forget(t.oldest, out.Evicted)
	}
	at := t.freeDatagram
	d := &t.datagrams[at]
	t.freeDatagram = d.next
	*d = datagram{key: key, hash: hash, born: now, first: nilIndex, older: t.newest, next: nilIndex}
	if t.newest == nilIndex {
		t.oldest = at
	} else {
		t.datagrams[t.newest].next = at
	}
	t.newest = at
	t.waiting++

	p := hash & t.mask
	for t.places[p] != nilIndex {
		p = (p + 1) & t.mask
	}
	t.places[p] = at
	return at
}

// remove takes datagram at, which holds no frames, out of the table and the age
// list.
func (t *Table) remove(at int32) {
	d := &t.datagrams[at]
	if d.older == nilIndex {
		t.oldest = d.next
	} else {
		t.datagrams[d.older].next = d.next
	}
	if d.next == nilIndex {
		t.newest = d.older
	} else {
		t.datagrams[d.next].older = d.older
	}
	p := d.hash & t.mask
	for t.places[p] != at {
		p = (p + 1) & t.mask
	}
	t.closeGap(p)
	d.next, t.freeDatagram = t.freeDatagram, at
	t.waiting--
}

// closeGap frees place p, moving back what lies behind it and would not be found
// any more (Knuth, volume 3, section 6.4, algorithm R).
func (t *Table) closeGap(p uint32) {
	for q := p; ; {
		t.places[p] = nilIndex
		for {
			q = (q + 1) & t.mask
			at := t.places[q]
			if at == nilIndex {
				return
			}
			// Its home lies outside (p, q], going round: it may move to p.
			if home := t.datagrams[at].hash & t.mask; (q-home)&t.mask >= (q-p)&t.mask {
				break
			}
		}
		t.places[p] = t.places[q]
		p = q
	}
}
