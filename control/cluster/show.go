package cluster

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"causeway/control/ike"
)

// Status is how this node stands.
type Status struct {
	Trouble      string        // why the store is not reached; "": it is
	ClockAhead   time.Duration // by how much this node's clock is ahead of the store's; 0: they agree
	Local        bool          // it negotiates for its data center meanwhile
	NotTold      int           // records that other nodes of that have not acknowledged
	Writer       Writer
	Numbered     bool
	Epoch        uint32 // under which is sealed; 0: no key yet
	Nodes        int    // that live, with this one
	SAs          int
	Digest       string
	Stock        int           // SPIs that are reserved ahead
	NotStored    int           // our records that the store has not
	NotInstalled int           // records that the dataplane did not take
	NotOpened    int           // records of epochs without a key
	IKESAs       int           // of the whole cluster
	IKEHere      int           // of them, that this node has
	IKEVacant    int           // whose nodes are gone
	OwnedHere    int           // tunnels with replay protection that this node encrypts for
	OwnedThere   int           // that other nodes do
	Ownerless    int           // that nobody does
	Replicas     []Replica     // of the store, if it has several, by name
	Compared     time.Duration // ago: when it was looked whether the store has told all that it has; 0: not yet
	LateAcks     uint64        // acknowledgements that did not come in time
	Refused      uint64        // values that were not believed or not taken
	Document     uint64        // serial of the fleet's configuration; 0: there is none
	Runs         uint64        // serial of the one that this node works with
}

// Status returns it.
func (c *Cluster) Status() Status {
	nodes := len(c.others()) + 1
	c.mu.Lock()
	defer c.mu.Unlock()
	s := Status{Trouble: c.trouble, Writer: c.writer, Numbered: c.numbered, Epoch: c.keys.Current(), Nodes: nodes, SAs: c.children, Digest: digestText(c.digest),
		Stock: len(c.stock), NotStored: len(c.index.unstored), NotOpened: len(c.unopened), LateAcks: c.counts.late.Load(), Refused: c.counts.refusedRecords.Load()}
	s.Local, s.ClockAhead = c.local(), c.clock.ahead()
	for _, t := range c.tellings {
		if s.Local && len(c.acks.left(t.ackWait)) > 0 {
			s.NotTold++
		}
	}
	for key := range c.ownable {
		switch e := c.owners[key]; {
		case e == nil || c.ownerless(e):
			s.Ownerless++
		case e.by == c.own():
			s.OwnedHere++
		default:
			s.OwnedThere++
		}
	}
	s.Replicas = c.replicas
	s.Document, s.Runs = c.document.Serial, c.runs.Serial
	if !c.compared.IsZero() {
		s.Compared = time.Since(c.compared)
	}
	s.NotStored += len(c.erasing)
	s.NotOpened += len(c.unopenedIKEs)
	s.IKESAs = len(c.ikes)
	for by, set := range c.ikesBy {
		switch c.where(by) {
		case ike.Here:
			s.IKEHere += len(set)
		case ike.Vacant:
			s.IKEVacant += len(set)
		}
	}
	for _, h := range c.held {
		if h.failed != nil {
			s.NotInstalled++
		}
	}
	return s
}

// NotReady says why this node cannot do its part yet.
func (c *Cluster) NotReady() []string {
	c.mu.Lock()
	usurper := c.usurper
	numbered, trouble, complete, unopened := c.numbered, c.trouble, c.complete, len(c.unopened)+len(c.unopenedIKEs)
	configured := c.document.Serial != 0
	c.mu.Unlock()
	switch {
	case usurper != nil:
		return []string{usurper.usurps()}
	case !numbered:
		return []string{"the cluster has not given this node its number yet, without which it encrypts nothing: " + trouble}
	case c.keys.Current() == 0:
		return []string{"no other node has given this one the key of the epoch: is it in their rosters?"}
	case !complete && unopened > 0:
		return []string{fmt.Sprintf("%d values of other nodes are sealed under keys that this one does not have: they seal them anew", unopened)}
	case !configured && !c.documentKnown.Load():
		return []string{"the fleet's configuration is being read"}
	case !complete:
		return []string{"the security associations of the other nodes are being read"}
	}
	return nil
}

// A State is what this node thinks of another.
type State string

// The states.
const (
	Self    State = "self"
	Live    State = "live"
	Silent  State = "silent"  // its lease is over
	Refused State = "refused" // not admitted, or not itself
)

// A NodeView is a node as this one sees it.
type NodeView struct {
	Member
	State  State
	Why    string        // it is refused
	Heard  time.Duration // ago
	Agrees bool          // it has the same child SAs as this one

	Configuration Runs // of the fleet, that it works with
}

// Nodes lists all nodes, by name.
func (c *Cluster) Nodes() []NodeView {
	var notReady []string
	if c.opts.NotReady != nil {
		notReady = c.opts.NotReady()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now, digest := c.now(), digestText(c.digest)
	self := NodeView{Member: c.opts.Member, State: Self, Agrees: true}
	self.Writer, self.Epoch, self.SAs = c.writer.ID, c.keys.Newest(), c.children
	self.NotReady, self.Configuration = notReady, c.runs
	list := []NodeView{self}
	for _, l := range c.members {
		s := l.sign.Load()
		v := NodeView{Member: *l.member, State: Silent, Heard: now.Sub(s.heard), Agrees: s.digest == digest, Configuration: c.openRuns(l.member)}
		v.Beat, v.SAs, v.Digest = s.number, s.sas, s.digest
		if l.live(now) {
			v.State = Live
		}
		list = append(list, v)
	}
	for name, why := range c.refused {
		list = append(list, NodeView{Member: Member{Name: name}, State: Refused, Why: why})
	}
	slices.SortFunc(list, func(a, b NodeView) int { return strings.Compare(a.Name, b.Name) })
	return list
}
