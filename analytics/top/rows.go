package top

import (
	"cmp"
	"slices"

	"causeway/analytics/store"
)

// rows lists what all slots have, in the order of the samples that they had: where there is not room for all, the last ones are told by their
// totals alone.
func (c *Counter) rows(began int64, hour bool) []store.Top {
	var all []*slot
	for _, x := range c.slots {
		if x.total.samples > 0 {
			all = append(all, x)
		}
	}
	slices.SortFunc(all, func(a, b *slot) int {
		return cmp.Or(cmp.Compare(b.total.samples, a.total.samples), cmp.Compare(a.account, b.account), cmp.Compare(a.id, b.id),
			cmp.Compare(a.direction, b.direction))
	})
	n := c.length(all)
	out := make([]store.Top, 0, min(c.o.Rows, len(all)*len(c.kinds)*(n+1)))
	for i, x := range all {
		row := store.Top{Time: began, Hour: hour, Account: x.account, Tunnel: x.tunnel, Direction: x.direction}
		out = append(out, rowOf(row, store.TopTotal, "", &entry{weight: x.total}))
		out[len(out)-1].Sources = x.sources.count()
		if len(out)+x.most(n)+len(all)-i-1 > c.o.Rows {
			continue
		}
		for j := range x.tables {
			out = x.tables[j].list(out, row, c.kinds[j], n, &x.total)
		}
	}
	return out
}

// length is how long lists may be: as many values as Options say, or less if there would be too many rows.
func (c *Counter) length(all []*slot) int {
	for _, part := range []int{1, 2, 3, 5, 10} {
		n, rows := max(c.o.Values/part, 1), 0
		for _, x := range all {
			rows += 1 + x.most(n)
		}
		if rows <= c.o.Rows {
			return n
		}
	}
	return 1
}

// most is how many rows of values a slot can have.
func (x *slot) most(n int) (rows int) {
	for i := range x.tables {
		rows += min(n, x.tables[i].keys.Len()) + 1
	}
	return rows
}

func rowOf(row store.Top, kind store.TopKind, value string, e *entry) store.Top {
	row.Kind, row.Value = kind, value
	row.Samples, row.Packets, row.Bytes = e.samples, e.packets, e.bytes
	row.PacketsVariance, row.BitsVariance = e.packetsVariance, e.bitsVariance
	row.PacketsError, row.BytesError = e.missedPackets, e.missedBytes
	return row
}

// list appends rows of the n values with the most bits, and the most packets; and of all others together.
func (t *table) list(out []store.Top, row store.Top, kind store.TopKind, n int, total *weight) []store.Top {
	all := make([]entry, t.keys.Len())
	for i := range all {
		all[i] = t.at(i)
	}
	listed := choose(all, n)
	rest := entry{weight: *total, missedPackets: t.keys.Lost(), missedBytes: t.lost}
	for i := range all {
		e := &all[i]
		if i < listed {
			rest.weight = rest.less(&e.weight)
			out = append(out, rowOf(row, kind, e.key.text(kind), e))
			continue
		}
		rest.missedPackets = max(rest.missedPackets, e.packets+e.missedPackets)
		rest.missedBytes = max(rest.missedBytes, e.bytes+e.missedBytes)
	}
	if rest.samples > 0 {
		out = append(out, rowOf(row, kind, store.TopOther, &rest))
	}
	return out
}

// choose brings the values that are listed to the front, and says how many they are: half of n are those with the most bytes, the others those
// with the most packets. A single sample that stands for many packets says nothing about its value, and is not listed.
func choose(all []entry, n int) int {
	telling := 0
	for i := range all {
		if e := &all[i]; e.samples > 1 || e.packets == 1 {
			all[telling], all[i] = all[i], all[telling]
			telling++
		}
	}
	slices.SortFunc(all[:telling], func(a, b entry) int { return cmp.Or(cmp.Compare(b.bytes, a.bytes), compareKeys(a.key, b.key)) })
	if telling > n {
		slices.SortFunc(all[(n+1)/2:telling], func(a, b entry) int {
			return cmp.Or(cmp.Compare(b.packets, a.packets), cmp.Compare(b.bytes, a.bytes), compareKeys(a.key, b.key))
		})
	}
	return min(telling, n)
}

func compareKeys(a, b key) int { return cmp.Or(cmp.Compare(a.high, b.high), cmp.Compare(a.low, b.low)) }
