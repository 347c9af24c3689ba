package ike

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// How often it is looked what the dataplane has counted, and how often while a new pair waits for its first packet.
const (
	lookTime      = 2 * time.Second
	lookGrid      = 100 * time.Millisecond
	quickTime     = 20 * time.Millisecond
	keepaliveTime = 20 * time.Second // RFC 3948, section 4
)

// jittered is when something with a lifetime is replaced: after 80 to 90 % of it.
func jittered(life time.Duration) time.Duration {
	return life*8/10 + rand.N(life/10+1)
}

// jitteredCount is the same of a number; 0 stays.
func jitteredCount(n uint64) uint64 {
	return n/10*8 + rand.N(n/10+1)
}

// together moves what need not be exact to where that of other SAs is too: workers are woken for many at once.
func together(t time.Time) time.Time {
	return t.Add(lookGrid - time.Duration(t.UnixNano())%lookGrid)
}

// schedule sets the clock to what comes next.
func (s *ikeSA) schedule() {
	next := time.Now().Add(time.Hour)
	soonest := func(t time.Time) {
		if !t.IsZero() && t.Before(next) {
			next = t
		}
	}
	soonest(s.expire)
	soonest(s.kept.again)
	if s.pending != nil && !s.pending.held {
		soonest(s.pending.next)
	}
	for _, g := range s.Graves {
		soonest(g.At)
	}
	for _, f := range s.followups {
		soonest(f.expire)
	}
	if s.phase == established {
		s.scheduleLife(soonest)
	}
	if earliest := time.Now().Add(time.Millisecond); next.Before(earliest) {
		next = earliest
	}
	s.d.clock.set(s, next)
}

// scheduleLife is schedule for what an established SA does. What is under way is not waited for here: it would be due all the time.
func (s *ikeSA) scheduleLife(soonest func(time.Time)) {
	if s.pending == nil {
		soonest(s.Rekey)
	}
	soonest(s.Expire)
	soonest(s.keepalive)
	if len(s.Children) > 0 || s.tunnel.DPD > 0 {
		soonest(together(s.looked.Add(lookTime)))
	}
	if s.missesChild() {
		at := s.retryChild
		if at.IsZero() {
			at = time.Now()
		}
		soonest(at)
	}
	for _, c := range s.Children {
		if !c.deleting {
			soonest(c.Expire)
		}
		if c.mayBeRekeyed() {
			soonest(c.Rekey)
		}
		if !c.Switch.IsZero() {
			soonest(time.Now().Add(quickTime))
		}
	}
}

// tick does what time has brought.
func (s *ikeSA) tick() {
	now := time.Now()
	if !s.kept.again.IsZero() && now.After(s.kept.again) {
		s.kept.again = time.Time{}
		s.store()
	}
	if s.kept.taking {
		return
	}
	if !s.expire.IsZero() && now.After(s.expire) {
		s.end(s.expired())
		return
	}
	if p := s.pending; p != nil && !p.held && now.After(p.next) {
		if p.tries >= maxTries {
			s.unanswered()
			return
		}
		s.transmitRequest(now)
	}
	for len(s.Graves) > 0 && now.After(s.Graves[0].At) {
		s.d.plane.Remove(s.Tunnel, s.Graves[0].SPIIn)
		s.Graves = s.Graves[1:]
	}
	for len(s.followups) > 0 && now.After(s.followups[0].expire) {
		s.followups[0].wipe(s.d)
		s.followups = s.followups[1:]
	}
	if s.phase != established {
		return
	}
	s.keepAlive(now)
	s.tickChildren(now)
	switch {
	case now.After(s.Expire):
		s.deleteSelf("its lifetime is over")
	case now.After(s.Rekey) && s.mustBeginAnew(): // also while something is asked that waits for the store
		s.Rekey = now.Add(jittered(4 * busyTime)) // if it fails
		s.beginAnew()
	case now.After(s.Rekey) && s.pending == nil:
		s.Rekey = now.Add(jittered(4 * busyTime)) // if it fails
		s.rekeySelf(nil)
	}
}

func (s *ikeSA) expired() string {
	switch {
	case s.phase == replaced:
		return "replaced, and not deleted by the peer"
	case s.why != "":
		return s.why
	case s.initiator && s.pending != nil:
		return fmt.Sprintf("%v does not answer to %v", s.Remote, s.pending.exchange)
	}
	return "not established in time"
}

// unanswered ends an SA whose peer is silent.
func (s *ikeSA) unanswered() {
	p := s.pending
	why := fmt.Sprintf("%v has not answered a request that was sent %d times, and was last heard %v ago", s.Remote, p.tries, time.Since(s.heard).Round(time.Second))
	if s.phase < established {
		why = fmt.Sprintf("%v does not answer to %v", s.Remote, p.exchange)
		if s.why != "" {
			why += "; " + s.why
		}
	} else {
		s.d.failed(s.Tunnel, why)
		s.warn("peer does not answer", "tries", p.tries)
	}
	s.end(why)
}

// keepAlive keeps the mapping of a NAT before us.
func (s *ikeSA) keepAlive(now time.Time) {
	if !s.NATHere {
		return
	}
	if now.After(s.keepalive) {
		if !s.keepalive.IsZero() {
			_ = s.d.opts.Transport.Send(s.Local, s.Remote, []byte{0xff})
		}
		s.keepalive = now.Add(keepaliveTime)
	}
}

// tickChildren looks at the pairs: whether the peer uses new ones, whether they have to be replaced, whether anything comes.
func (s *ikeSA) tickChildren(now time.Time) {
	look := now.Sub(s.looked) >= lookTime
	if look {
		s.looked = now
	}
	for _, c := range append([]*ChildState(nil), s.Children...) {
		if look || !c.Switch.IsZero() {
			s.lookAt(c, now)
		}
		switch {
		case c.deleting:
		case now.After(c.Expire):
			s.deleteChild(c)
		case now.After(c.Rekey) && !c.Replaced && s.mustBeginAnew(): // also of one that was asked for, and waits for the store
			c.Rekey = now.Add(jittered(4 * busyTime)) // if it fails
			s.beginAnew()
		case now.After(c.Rekey) && c.mayBeRekeyed():
			c.Rekey = now.Add(jittered(4 * busyTime)) // if it fails
			s.createChild(c, nil)
		}
	}
	if s.missesChild() && !now.Before(s.retryChild) {
		s.retryChild = now.Add(jittered(2 * busyTime)) // if it fails
		s.createChild(nil, nil)
	}
	if s.tunnel.DPD > 0 && look && now.Sub(s.heard) > s.tunnel.DPD && s.pending == nil {
		s.probe()
	}
}

// mayBeRekeyed reports whether a pair can be replaced by us. One that waits for its first packet the peer may not have yet, when the
// response with it was lost: it would answer CHILD_SA_NOT_FOUND, and get it afterwards.
func (c *ChildState) mayBeRekeyed() bool {
	return !c.rekeying && !c.Replaced && !c.deleting && c.Switch.IsZero()
}

// lookAt takes over what the dataplane has seen of a pair.
func (s *ikeSA) lookAt(c *ChildState, now time.Time) {
	u, ok := s.d.plane.Usage(s.Tunnel, c.SPIIn)
	if !ok {
		return
	}
	if !c.Switch.IsZero() && !c.Replaced && (u.PacketsIn > 0 || now.After(c.Switch)) {
		s.use(c)
	}
	if u.PacketsIn != c.packetsIn {
		c.packetsIn, s.heard = u.PacketsIn, now
	}
	if u.Source.IsValid() && u.Source != s.Remote && s.NATThere {
		s.heardFrom(s.Local, u.Source)
	}
	if (u.SoftExpired || u.HardExpired) && !c.Replaced && now.Before(c.Rekey) {
		c.Rekey = now
	}
	if u.HardExpired {
		c.Expire = now.Add(busyTime)
	}
}
