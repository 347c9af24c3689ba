package node

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"
)

// What a node's control side says to another node's goes in ESP between their addresses, like what is forwarded (peers.go), and needs no
// store. Whether such packets arrive depends on the network: a firewall may let TCP to the hub pass and nothing else. So the way is tried
// where it is wanted: until an answer has come the same way, what there is to say goes by the cluster's connections, if there are any.

// A messageKind is the first byte of a message.
type messageKind byte

// The kinds.
const (
	sayForwarded messageKind = iota + 1 // an IKE datagram: cluster.TakeDirect
	sayTry                              // is this way good? The name of who asks follows
	sayGood                             // it is. The name of who answers follows
	sayTold                             // what neighbours tell each other: cluster.TakeTold
	sayAnswer                           // what has come back of a probe: health.Prober.Answer
	saySpoken                           // a packet for whoever speaks for a tunnel, BFD or what its device does: how often it was passed on, the tunnel's name, the packet
)

// How long a way that was good is taken for good, when it is tried again, and how often one is tried.
const (
	goodTime = 30 * time.Second
	tryAfter = 10 * time.Second
	tryAgain = time.Second
)

// shortest is how long a message is at least: names are filled up with zeros.
const shortest = 20

// ways are what a node knows of the ways to others.
type ways struct {
	self   string
	send   func(node string, message []byte) bool
	alone  func() bool // no hub is reached: there is no other way
	take   func(forwarded []byte)
	told   func(message []byte)
	probe  func(answer []byte) // to a probe of this node's
	spoken func(tunnel string, packet []byte, passed byte)

	mu    sync.Mutex
	open  map[string]bool // nodes that have the keys for it
	good  map[string]time.Time
	tried map[string]trial
	log   *slog.Logger
}

// A trial is when a way was tried the last time, and how often since it was good.
type trial struct {
	last  time.Time
	times int
}

// How often a way that was good is tried in vain until it is not taken any more, and until the log says that there is no answer.
const (
	badAfter   = 3
	doubtAfter = 5
)

// setOpen says which nodes have keys for messages of this one. What is known of others is forgotten.
func (w *ways) setOpen(nodes map[string]bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open = nodes
	maps.DeleteFunc(w.good, func(name string, _ time.Time) bool { return !nodes[name] })
	maps.DeleteFunc(w.tried, func(name string, _ trial) bool { return !nodes[name] })
}

// forward gives an IKE datagram, as the cluster writes it, to another node. It reports false if it is to go another way.
func (w *ways) forward(node string, datagram []byte) bool {
	good, try := w.look(node, time.Now())
	if try {
		w.send(node, named(sayTry, w.self))
	}
	return good && w.send(node, append([]byte{byte(sayForwarded)}, datagram...))
}

// tell gives a message of the cluster's to another node, whether the way is good or not: it is told again if there is no answer.
func (w *ways) tell(node string, message []byte) bool {
	return w.knows(node) && w.send(node, append([]byte{byte(sayTold)}, message...))
}

// answer gives what has come back of a probe to the node that has sent it, if that is one of those that have keys for it.
func (w *ways) answer(of func(node string) bool, packet []byte) {
	w.mu.Lock()
	var to string
	for name := range w.open {
		if of(name) {
			to = name
		}
	}
	w.mu.Unlock()
	if to != "" {
		w.send(to, append([]byte{byte(sayAnswer)}, packet...))
	}
}

// speak gives a packet to the node that speaks for a tunnel, if it has keys for it.
func (w *ways) speak(node, tunnel string, packet []byte, passed byte) bool {
	return w.knows(node) && w.send(node, append(append([]byte{byte(saySpoken), passed, byte(len(tunnel))}, tunnel...), packet...))
}

// look says whether the way to a node is to be taken, and whether it is to be tried.
func (w *ways) look(node string, now time.Time) (good, try bool) {
	alone := w.alone()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.open[node] {
		return false, false
	}
	since, t := now.Sub(w.good[node]), w.tried[node]
	if try = since > tryAfter && now.Sub(t.last) > tryAgain; try {
		t = trial{now, t.times + 1}
		w.tried[node] = t
		if t.times == doubtAfter {
			w.log.Warn("another node does not answer in ESP: is protocol 50 let through between the nodes' addresses, in both directions? IKE datagrams for it go by the hub", "node", node, "asked", t.times)
		}
	}
	return since < goodTime && t.times <= badAfter || alone, try
}

// hear takes a message.
func (w *ways) hear(message []byte) {
	switch text := message[1:]; messageKind(message[0]) {
	case sayForwarded:
		w.take(text)
	case sayTold:
		w.told(text)
	case sayAnswer:
		w.probe(text)
	case saySpoken:
		if name, ok := nameIn(text[min(1, len(text)):]); ok {
			w.spoken(name, text[2+len(name):], text[0])
		}
	case sayTry:
		if name, ok := nameIn(text); ok && w.knows(name) {
			w.send(name, named(sayGood, w.self))
		}
	case sayGood:
		if name, ok := nameIn(text); ok {
			w.mu.Lock()
			if w.open[name] {
				w.good[name], w.tried[name] = time.Now(), trial{}
			}
			w.mu.Unlock()
		}
	}
}

func (w *ways) knows(node string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.open[node]
}

// named is a message that has a name.
func named(kind messageKind, name string) []byte {
	b := append([]byte{byte(kind), byte(len(name))}, name...)
	return append(b, make([]byte, max(0, shortest-len(b)))...)
}

func nameIn(text []byte) (string, bool) {
	if len(text) < 1 || len(text)-1 < int(text[0]) {
		return "", false
	}
	return string(text[1:][:text[0]]), true
}

// openWays prepares what followPeers and the cluster need.
func (n *Node) openWays() {
	n.ways = &ways{self: n.Config().Node.Name, good: map[string]time.Time{}, tried: map[string]trial{}, log: n.log,
		send:  func(node string, message []byte) bool { return n.nodes.Send(peerTunnel(node), message) },
		alone: func() bool { return !n.cluster.Linked() },
		take:  n.cluster.TakeDirect, told: n.cluster.TakeTold, probe: func(answer []byte) { n.prober.Answer(answer) }, spoken: n.takeSpoken}
}

// hearWait bounds how long hearNodes takes to notice that it shall end, in milliseconds.
const hearWait = 100

// hearNodes takes messages of other nodes until ctx is done.
func (n *Node) hearNodes(ctx context.Context) {
	for ctx.Err() == nil {
		n.nodes.Wait(hearWait)
		n.nodes.Drain(n.ways.hear)
	}
}
