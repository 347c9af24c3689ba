package pipeline

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"causeway/crypto/esp"
)

func messageOf(n int) []byte {
	m := make([]byte, n)
	for i := range m {
		m[i] = byte(i*31 + n)
	}
	return m
}

// heard are the messages that came.
func (b *bed) heard() (list [][]byte) {
	b.nodes.Drain(func(m []byte) { list = append(list, bytes.Clone(m)) })
	return list
}

// What a node's control side says to another node's arrives there, once, and cannot be read on its way; also if it needs fragments.
func TestMessages(t *testing.T) {
	for _, nodes6 := range []bool{false, true} {
		for _, workers := range []int{1, 2, 3} {
			t.Run(fmt.Sprintf("nodes over IPv6 %v, %d workers", nodes6, workers), func(t *testing.T) {
				b := newPairBed(t, workers, espOptions{suite: esp.AES128GCM16, window: 64}, nodes6)
				for k, n := range []int{minMessage, 100, 1300, 1500, MaxMessage} {
					m := messageOf(n)
					if !b.nodes[0].nodes.Send("node:other", m) {
						t.Fatalf("%d bytes are not taken", n)
					}
					between := arrived(b.nodes[0].run())
					if want := 1 + n/1400; len(between) != want {
						t.Fatalf("%d bytes: %d frames between the nodes, want %d; %v", n, len(between), want, b.nodes[0].dropped())
					}
					for _, f := range between {
						if bytes.Contains(f, m[:minMessage]) {
							t.Error("it can be read between the nodes")
						}
						b.nodes[1].queues[k%workers][0].Put(f)
					}
					if out := b.nodes[1].run(); len(out) != 0 {
						t.Errorf("%d frames leave the other node", len(out))
					}
					if got := b.nodes[1].heard(); len(got) != 1 || !bytes.Equal(got[0], m) {
						t.Fatalf("%d messages of %d bytes came; %v", len(got), n, b.nodes[1].dropped())
					}
					b.nodes[1].queues[0][0].Put(between...)
					b.nodes[1].run()
					if got := b.nodes[1].heard(); len(got) != 0 || b.nodes[1].dropped()["esp_replayed"] != uint64(k+1) {
						t.Errorf("a copy gives %d messages; %v", len(got), b.nodes[1].dropped())
					}
				}
				if c := b.nodes[0].engine.Total(); c.Originated != 5 || c.ToOwner != 0 || len(b.nodes[0].dropped()) > 0 {
					t.Errorf("%+v", c)
				}
				if c := b.nodes[1].engine.Total(); c.Punted != 5 || c.FromNodes != 0 {
					t.Errorf("%+v", c)
				}
			})
		}
	}
}

// What is no message, or finds no room or no node, is not taken, or is counted.
func TestMessagesDropped(t *testing.T) {
	b := newPairBed(t, 1, espOptions{suite: esp.AES128GCM16, window: 64}, false)
	b.ownedBy(1) // which gives that node the customer's associations
	from, to := b.nodes[0], b.nodes[1]
	if from.nodes.Send("node:other", make([]byte, minMessage-1)) || from.nodes.Send("node:other", make([]byte, MaxMessage+1)) {
		t.Error("a message of no length is taken")
	}
	for range 64 {
		if !from.nodes.Send("node:other", messageOf(40)) {
			t.Fatal("there is no room for 64")
		}
	}
	if from.nodes.Send("node:other", messageOf(40)) {
		t.Error("there is room for 65")
	}
	for _, f := range arrived(from.run()) {
		to.queues[0][0].Put(f)
	}
	from.nodes.Send("node:other", messageOf(40))
	to.queues[0][0].Put(arrived(from.run())...)
	to.run()
	if got := to.heard(); len(got) != 64 || to.dropped()["punt_queue_full"] != 1 {
		t.Errorf("%d messages came; %v", len(got), to.dropped())
	}

	from.nodes.Send("node:third", messageOf(40))
	from.nodes.Send("cust-a", messageOf(40)) // a tunnel, and no node
	b.must(from.engine.SetChildren("node:other", nil))
	from.nodes.Send("node:other", messageOf(40))
	if out := from.run(); len(out) > 0 || from.dropped()["owner_away"] != 3 {
		t.Errorf("%d frames leave; %v", len(out), from.dropped())
	}

	tagged := append([]byte{0, 0, 0, 0}, messageOf(40)...) // from a customer
	to.wantDrop(b.customer.wrap(b.customer.packetOf(tagged, esp.NextForward)), ESPProtocol)
	if len(to.heard()) > 0 {
		t.Error("a customer says something to the control side")
	}
	long := append([]byte{0, 0, 0, 0}, make([]byte, MaxMessage+4)...) // a later release may
	sealer := esp.NewSealer(ivs(t, 9))
	frame := append(append(make([]byte, 64), long...), make([]byte, 64)...)
	start, end, v := sealer.Add(b.sender[0], frame, 64, 64+len(long), esp.NextForward)
	if v != esp.OK {
		t.Fatal(v)
	}
	sealer.Seal()
	outer := serialize(t, ip(nodeAddresses[0][0], nodeAddresses[0][1], layers.IPProtocol(50)), gopacket.Payload(frame[start:end]))
	to.wantDrop(framed(outer), ESPProtocol)
	if len(to.heard()) > 0 {
		t.Error("a message is too long, and cut")
	}
}

// Messages of several goroutines do not mix.
func TestMessagesOfMany(t *testing.T) {
	b := newPairBed(t, 2, espOptions{suite: esp.AES128GCM16, window: 64}, false)
	done := make(chan struct{})
	for k := range 4 {
		go func() {
			for range 10 {
				b.nodes[0].nodes.Send("node:other", bytes.Repeat([]byte{byte(k)}, 200+k))
			}
			done <- struct{}{}
		}()
	}
	for range 4 {
		<-done
	}
	b.nodes[1].queues[0][0].Put(arrived(b.nodes[0].run())...)
	b.nodes[1].run()
	got := b.nodes[1].heard()
	if len(got) != 40 {
		t.Fatalf("%d messages; %v %v", len(got), b.nodes[0].dropped(), b.nodes[1].dropped())
	}
	for _, m := range got {
		if len(m) != 200+int(m[0]) || slices.Max(m) != slices.Min(m) {
			t.Errorf("messages are mixed: %x", m)
		}
	}
}

// A message costs the worker no allocation.
func TestMessagesAllocate(t *testing.T) {
	b := newPairBed(t, 1, espOptions{suite: esp.AES128GCM16, window: 0}, false)
	m := messageOf(200)
	n := b.nodes[0]
	w := n.engine.workers[0]
	q := &loopQueue{umem: n.umem}
	w.queues[0].queue, w.ports[0].queue = q, q
	if got := testing.AllocsPerRun(200, func() { n.nodes.Send("node:other", m); w.poll() }); got != 0 {
		t.Errorf("%v allocations for a message that leaves", got)
	}
	if d := n.dropped(); len(d) > 0 {
		t.Error(d)
	}
}
