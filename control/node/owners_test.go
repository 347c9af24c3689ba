package node

import (
	"testing"
	"time"

	"causeway/control/cluster"
	"causeway/crypto/aesgcm"
	"causeway/crypto/esp"
)

// outboundOf makes an association for sending.
func outboundOf(t *testing.T, v *aesgcm.Vault, spi uint32) outboundChild {
	t.Helper()
	out, err := esp.NewOutbound(v, esp.Params{SPI: spi, Suite: esp.AES128GCM16, Key: make([]byte, esp.AES128GCM16.KeySize())}, 1)
	if err != nil {
		t.Fatal(err)
	}
	return outboundChild{spi, out}
}

// A node that encrypts again goes on where the owner between was, whether or not it saw that there was one.
func TestOwnerAgain(t *testing.T) {
	v := aesgcm.NewVault(aesgcm.Options{Unlocked: true})
	t.Cleanup(func() { v.Close() })
	k := outboundOf(t, v, 0x1000)
	list := []outboundChild{k}
	var o owning
	o.init()
	now := time.Now()
	here := func(mark uint64) cluster.Ownership {
		return cluster.Ownership{Tunnel: "acme", Here: true, Marks: map[uint32]uint64{0x1000: mark}}
	}
	reserve := func(x cluster.Ownership) uint64 {
		t.Helper()
		want, short := o.want(x, list, now)
		if !short || want[0x1000] != k.out.Next()+leastBlock {
			t.Fatalf("wants %v (short %v) with next number %d", want, short, k.out.Next())
		}
		o.reserved("acme", list, want, true, now)
		if _, short := o.want(here(want[0x1000]), list, now); short {
			t.Fatal("wants more than it has just got")
		}
		return want[0x1000]
	}
	at := reserve(here(0))
	if o.passed(here(at)) {
		t.Fatal("its own mark is taken for another node's")
	}
	if !o.passed(here(at + 1)) {
		t.Fatal("another node's mark is taken for its own")
	}
	delete(o.marks, "acme") // as when it is passed, or another node is the owner
	reserve(here(at + 1000))
	if next := k.out.Next(); next != at+1000 {
		t.Fatalf("goes on at %d, and the owner between has reserved up to %d", next, at+1000)
	}
}

// What is known of children ends with them: an old one that was never reserved in the store does not count for ever.
func TestOwnerForgetsChildren(t *testing.T) {
	v := aesgcm.NewVault(aesgcm.Options{Unlocked: true})
	t.Cleanup(func() { v.Close() })
	var o owning
	o.init()
	now := time.Now()
	for spi := range uint32(100) {
		list := []outboundChild{outboundOf(t, v, 0x1000+spi)}
		want, _ := o.want(cluster.Ownership{Tunnel: "acme", Here: true}, list, now)
		o.reserved("acme", list, want, spi%2 == 0, now)
		if n := o.countUnconfirmed(false); n != int64(spi%2) {
			t.Fatalf("%d of 1 children are not reserved", n)
		}
	}
	if n := len(o.marks["acme"]); n != 1 {
		t.Fatalf("%d children are known, and there is 1", n)
	}
}
