package pipeline

import (
	"fmt"
	"sync"

	"causeway/crypto/esp"
	"causeway/xsk"
)

// The control sides of nodes have messages for each other that must arrive while the cluster's store is away: IKE datagrams that came
// to another node than the one with their SA. They travel as packets for an owner do (owner.go), in ESP from node address to node
// address, with a tag that no tunnel has.

// messageTag is in front of a message.
const messageTag = 0

// MaxMessage is how long a message may be, in bytes: with an association's headers and trailer it fits into the frame of who gets it,
// also when it is put together from fragments.
const MaxMessage = xsk.MaxPacket - 128

// minMessage is how long what nodes give each other is at least.
const minMessage = ip4Len

// A NodeQueue carries messages between the workers and the control side.
type NodeQueue struct {
	sending sync.Mutex // the ring to worker 0 has one producer
	copyQueue
}

// NewNodeQueue makes the queue for that many workers; depth messages may wait for each, and for the workers (a power of two).
func NewNodeQueue(workers, depth int) (*NodeQueue, error) {
	q := new(NodeQueue)
	if err := q.open(workers, depth); err != nil {
		return nil, fmt.Errorf("queue of messages between nodes: %w", err)
	}
	return q, nil
}

// Send gives a message for the node that a tunnel with TunnelSpec.Node leads to, to the workers. It reports false if it is none, or
// there is no room. As with any datagram, what it reports says nothing of the arrival.
func (q *NodeQueue) Send(tunnel string, message []byte) bool {
	if len(message) < minMessage || len(message) > MaxMessage {
		return false
	}
	q.sending.Lock()
	defer q.sending.Unlock()
	return q.put(message, TunnelTag(tunnel))
}

// takeMessages sends the messages that wait, at most a batch.
func (w *worker) takeMessages(t *Tables) (n int) {
	if w.told == nil || w.told.front() == nil {
		return 0
	}
	for ; n < BatchSize; n++ {
		var p packet
		s := w.fromControl(w.told, &p)
		if s == nil {
			break
		}
		p.l4, p.src = p.l3, s.node // one way for all messages to a node
		if via := t.nodes.find(s.node); via < 0 {
			w.drop(&p, OwnerAway)
		} else {
			w.sendMessage(t, &p, via)
		}
		w.told.pop()
	}
	w.sealESP(t)
	return n
}

// sendMessage sends a message to the node that tunnel via leads to.
func (w *worker) sendMessage(t *Tables, p *packet, via int) {
	by := t.towardNode(via)
	switch {
	case by == nil:
		w.refuseESP(p, via, OwnerAway)
	case int(by.tx.owner) != w.id:
		w.handInto(t, handMessage, p, via, int(by.tx.owner))
	default:
		w.sealTagged(t, p, via, by, 0, messageTag)
	}
}

// errorStart leaves the room that sealTagged needs.
var _ [errorStart - frameRoom - esp.MaxBefore - tagLen]struct{}

// takeMessage gives a message of another node to the control side.
func (w *worker) takeMessage(p *packet, message []byte) {
	switch {
	case w.heard == nil:
		w.drop(p, PuntNoDevice)
		return
	case len(message) > MaxMessage:
		w.drop(p, ESPProtocol)
		return
	}
	c := &w.tunnels[p.tunnel]
	c.rxPackets.add(1)
	c.rxBytes.add(uint64(len(message)))
	w.giveCopy(w.heard, &w.engine.nodes.copyQueue, p, message)
}
