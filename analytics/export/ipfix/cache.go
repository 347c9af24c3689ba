package ipfix

// A key is what the packets of a flow have in common. Packets that were forwarded and those that were not are different flows.
type key struct {
	src, dst         [16]byte // of IPv4 the first four bytes
	in, out          uint32   // interface numbers; 0: no tunnel
	srcPort, dstPort uint16
	protocol         uint8
	version          uint8
	status           uint8
}

// reversed is the key of the other direction.
func (k *key) reversed() key {
	return key{src: k.dst, dst: k.src, in: k.out, out: k.in, srcPort: k.dstPort, dstPort: k.srcPort,
		protocol: k.protocol, version: k.version, status: k.status}
}

// An entry is a flow in the cache.
type entry struct {
	key             key
	octets, packets uint64 // that its samples stand for
	samples         uint32
	first, last     int64 // times of the first and last sample, milliseconds since 1970
	opened, touched int64 // the meter's times of them
	icmp            uint16
	class, flags    uint8 // TOS or traffic class of the first sample; TCP flags of all
	initiates       bool  // a SYN without ACK was seen
	reason          uint8 // flowEndReason

	links [lists]link
}

// The lists that all entries are in.
const (
	byUse = iota // least recently used first
	byAge        // oldest first
	lists
)

type link struct{ prev, next int32 }

// A cache holds a bounded number of entries. Indexes stay those of an entry until it is removed; pointers only until the next add.
type cache struct {
	entries []entry // the first one is the head of the lists and no flow
	free    []int32
	index   map[key]int32
	limit   int
}

func newCache(limit int) *cache {
	return &cache{entries: make([]entry, 1), index: make(map[key]int32), limit: limit}
}

// find returns the index of a flow's entry, 0 if there is none.
func (c *cache) find(k *key) int32 { return c.index[*k] }

// front returns the first entry of a list, 0 if it is empty.
func (c *cache) front(list int) int32 { return c.entries[0].links[list].next }

func (c *cache) full() bool { return len(c.index) >= c.limit }

// add makes an entry for a flow that has none, at the end of both lists. The cache must not be full.
func (c *cache) add(k *key) int32 {
	var i int32
	if n := len(c.free); n > 0 {
		i, c.free = c.free[n-1], c.free[:n-1]
	} else {
		i = int32(len(c.entries))
		c.entries = append(c.entries, entry{})
	}
	c.entries[i] = entry{key: *k}
	c.index[*k] = i
	for list := range lists {
		c.link(i, list, 0)
	}
	return i
}

func (c *cache) remove(i int32) {
	for list := range lists {
		c.unlink(i, list)
	}
	delete(c.index, c.entries[i].key)
	c.free = append(c.free, i)
}

// use moves an entry to the end of the list by use.
func (c *cache) use(i int32) { c.useAs(i, 0) }

// useAs moves an entry in the list by use to where another is.
func (c *cache) useAs(i, other int32) {
	c.unlink(i, byUse)
	c.link(i, byUse, other)
}

// link puts an entry before another; before the head means at the end.
func (c *cache) link(i int32, list int, next int32) {
	prev := c.entries[next].links[list].prev
	c.entries[i].links[list] = link{prev: prev, next: next}
	c.entries[prev].links[list].next = i
	c.entries[next].links[list].prev = i
}

func (c *cache) unlink(i int32, list int) {
	l := c.entries[i].links[list]
	c.entries[l.prev].links[list].next = l.next
	c.entries[l.next].links[list].prev = l.prev
}
