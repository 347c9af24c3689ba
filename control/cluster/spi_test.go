package cluster

import (
	"testing"
	"time"
)

// A node that negotiates little holds few SPIs ahead, and one that has used half of them since it was filled up the last time holds twice
// as many, up to a bound.
func TestStockGrows(t *testing.T) {
	c := speaker("hub", oneKey())
	next := uint32(256)
	fill := func() int {
		n := max(c.stockWanted, stockIdle)
		for len(c.stock) < n {
			c.set(next, &held{kind: reserved, own: true, expires: time.Now().Add(2 * stockTime)})
			c.stock = append(c.stock, next)
			next++
		}
		return n
	}
	take := func(n int) {
		t.Helper()
		for range n {
			if _, ok := c.fromStock(); !ok {
				t.Fatal("the stock is empty")
			}
		}
	}
	for range 20 {
		fill()
		take(stockIdle / 2)
		if n := fill(); n != stockIdle {
			t.Fatalf("%d are held ahead, want %d", n, stockIdle)
		}
	}
	for want := 2 * stockIdle; want <= stockSize; want *= 2 {
		take(want/4 + 1)
		if n := fill(); n != want {
			t.Fatalf("%d are held ahead, want %d", n, want)
		}
	}
	take(stockSize)
	if _, ok := c.fromStock(); ok {
		t.Error("an SPI that was not reserved")
	}
	if n := fill(); n != stockSize {
		t.Errorf("%d are held ahead, want %d", n, stockSize)
	}
}
