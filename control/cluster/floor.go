package cluster

import (
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// Each node has a replay window of its own for a child, so a packet that somebody has captured could pass once at each of the others, at
// any time. So nodes tell each other the highest number that they have received, and refuse what is more than a window below the highest
// of all as it was floorAge ago (DESIGN 4.3): packets that take different ways to different nodes are not so late, and captured ones are
// soon too old. Who starts asks for the floors first.

const (
	floorAge  = 2 * time.Second
	floorTime = 500 * time.Millisecond // between two tellings
	floorAges = int(floorAge/floorTime) + 1
)

const (
	subjectFloors   = "causeway.floors"
	subjectFloorAsk = "causeway.floors.ask"
)

// floors are those of all children.
type floors struct {
	mu      sync.Mutex // guards all, and what is pointed to
	by      map[uint32]*floor
	moving  map[uint32]*floor // of them those that will rise by themselves
	at      time.Time         // when this node has told the last time
	telling int               // how often it has
}

// of is what is known of a child. It is called with the lock held.
func (f *floors) of(spi uint32) *floor {
	if f.by == nil {
		f.by, f.moving = map[uint32]*floor{}, map[uint32]*floor{}
	}
	if f.by[spi] == nil {
		f.by[spi] = &floor{there: f.telling}
	}
	return f.by[spi]
}

// received notes a number that a node has received. It is called with the lock held.
func (f *floors) received(spi uint32, highest uint64) *floor {
	x := f.of(spi)
	if x.highest[0] = max(x.highest[0], highest); x.rises() {
		f.moving[spi] = x
	}
	return x
}

// raise makes the present the past, and returns the floors that have risen. It is called with the lock held.
func (f *floors) raise() map[uint32]uint64 {
	raised := map[uint32]uint64{}
	for spi, x := range f.moving {
		if before := x.set; x.advance() > before {
			raised[spi] = x.set
		}
		if !x.rises() {
			delete(f.moving, spi)
		}
	}
	return raised
}

// forget forgets children that this node has not had for long. It is called with the lock held.
func (f *floors) forget() {
	for spi, x := range f.by {
		if f.telling-x.there > floorKept {
			delete(f.by, spi)
			delete(f.moving, spi)
		}
	}
}

// A floor is what is known of a child's numbers.
type floor struct {
	highest [floorAges]uint64 // of all nodes, now and at the tellings before
	set     uint64            // the floor
	told    uint64            // by this node
	there   int               // the telling at which this node had the child the last time
}

// floorKept is for how many tellings at least floors of children are kept that this node does not have: they may come. Each floorsLooked
// tellings all are looked at.
const (
	floorKept    = 240
	floorsLooked = 60
)

// rises reports whether the floor will rise although no packet comes any more.
func (f *floor) rises() bool { return f.set < f.highest[0] }

// advance makes the present the past, and returns the floor.
func (f *floor) advance() uint64 {
	f.set = max(f.set, f.highest[floorAges-1])
	copy(f.highest[1:], f.highest[:floorAges-1])
	return f.set
}

// turnFloors tells what this node has received since it has told the last time, and raises the floors.
func (c *Cluster) turnFloors(now time.Time) {
	c.floors.mu.Lock()
	if now.Sub(c.floors.at) < floorTime {
		c.floors.mu.Unlock()
		return
	}
	c.floors.at = now
	c.floors.telling++
	c.floors.mu.Unlock()
	c.tellFloors()
	c.raiseFloors()
}

// tellFloors tells what is new.
func (c *Cluster) tellFloors() {
	var b []byte
	c.plane.Received(func(spi uint32, highest uint64) {
		c.floors.mu.Lock()
		defer c.floors.mu.Unlock()
		f := c.floors.received(spi, highest)
		f.there = c.floors.telling
		if highest > f.told {
			f.told = highest
			b = appendFloor(b, spi, highest, f.set)
		}
	})
	if len(b) > 0 {
		c.sayFloors(subjectFloors, subjectFloors, b) // if it is lost, the next telling has it
	}
}

// sayFloors says floors to a subject, sealed for a place, in as many messages as it takes.
func (c *Cluster) sayFloors(subject, at string, b []byte) {
	for {
		n := min(len(b), maxFloors*floorLen)
		_ = c.say(subject, at, b[:n])
		if b = b[n:]; len(b) == 0 {
			return
		}
	}
}

// raiseFloors has the dataplane refuse what has become too old, and forgets children that have not been there for long.
func (c *Cluster) raiseFloors() {
	c.floors.mu.Lock()
	raised := c.floors.raise()
	if c.floors.telling%floorsLooked == 0 {
		c.floors.forget()
	}
	c.floors.mu.Unlock()
	for spi, to := range raised {
		c.plane.SetFloor(spi, to)
	}
}

// A floor as it is told: SPI, the highest number that the teller has received, and its floor, big endian.
const (
	floorLen  = 4 + 8 + 8
	maxFloors = 8192 // in one message
)

func appendFloor(b []byte, spi uint32, highest, set uint64) []byte {
	b = binary.BigEndian.AppendUint32(b, spi)
	b = binary.BigEndian.AppendUint64(b, highest)
	return binary.BigEndian.AppendUint64(b, set)
}

// takeFloors takes what another node tells, or this one has told.
func (c *Cluster) takeFloors(text []byte) error {
	_, err := c.learnFloors(text)
	return err
}

// learnFloors takes floors, and returns how many they are.
func (c *Cluster) learnFloors(b []byte) (int, error) {
	if len(b)%floorLen != 0 {
		return 0, errors.New("floors that are told are none")
	}
	n := len(b) / floorLen
	raised := map[uint32]uint64{}
	c.floors.mu.Lock()
	for ; len(b) > 0; b = b[floorLen:] {
		f := c.floors.received(binary.BigEndian.Uint32(b), binary.BigEndian.Uint64(b[4:]))
		if to := binary.BigEndian.Uint64(b[12:]); to > f.set { // who comes late has the floor at once
			f.set = to
			raised[binary.BigEndian.Uint32(b)] = to
		}
	}
	c.floors.mu.Unlock()
	for spi, to := range raised {
		c.plane.SetFloor(spi, to)
	}
	return n, nil
}

// floorAsked tells a node that has just joined all floors, and then none: that is the end.
func (c *Cluster) floorAsked(m *nats.Msg) {
	if string(m.Data) == c.opts.Member.Name {
		return // by itself
	}
	var b []byte
	c.floors.mu.Lock()
	for spi, f := range c.floors.by {
		b = appendFloor(b, spi, f.highest[0], f.set)
	}
	c.floors.mu.Unlock()
	if len(b) > 0 {
		c.sayFloors(m.Reply, subjectFloorAsk, b)
	}
	c.sayFloors(m.Reply, subjectFloorAsk, nil)
}

// askTimeFloors is how long floors are waited for.
const askTimeFloors = 500 * time.Millisecond

// askFloors asks the other nodes for their floors, before any packet is received: those of one are enough.
func (c *Cluster) askFloors() {
	inbox := nats.NewInbox()
	answers, err := c.engine.Conn.SubscribeSync(inbox)
	if err == nil {
		defer answers.Unsubscribe()
		err = c.engine.Conn.PublishRequest(subjectFloorAsk, inbox, []byte(c.opts.Member.Name))
	}
	for end := time.Now().Add(askTimeFloors); err == nil; {
		var m *nats.Msg
		if m, err = answers.NextMsg(time.Until(end)); err != nil {
			break
		}
		if len(m.Data) == 0 { // the engine says that nobody listens
			return
		}
		text, wrong := c.keys.Open(subjectFloorAsk, m.Data)
		if wrong != nil {
			continue
		}
		if n, wrong := c.learnFloors(text); wrong == nil && n == 0 {
			return
		}
	}
	c.log.Info("cluster: no node has told which packets are too old", "error", err)
}

// highestOf is the highest number of a child that any node has received, as far as is known.
func (c *Cluster) highestOf(spi uint32) uint64 {
	c.floors.mu.Lock()
	defer c.floors.mu.Unlock()
	if f := c.floors.by[spi]; f != nil {
		return f.highest[0]
	}
	return 0
}

// floorOf is the floor of a child that is being installed.
func (c *Cluster) floorOf(spi uint32) uint64 {
	c.floors.mu.Lock()
	defer c.floors.mu.Unlock()
	if f := c.floors.by[spi]; f != nil {
		return f.set
	}
	return 0
}
