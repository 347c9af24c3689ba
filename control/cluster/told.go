package cluster

import (
	"time"

	"github.com/nats-io/nats.go"
)

// Beside what the store has, nodes tell each other what is soon old. It is sealed too, for a place, so that what was told of one thing is
// not taken for another; and it may be lost.

// listen hears what other nodes tell, until what it returns is called. It does so also while the store is away: hubs that choose who leads
// pass on what they are given, and a node that is asked whether it is there is.
func (c *Cluster) listen() (stop func(), err error) {
	self := c.opts.Member.Name
	var all []*nats.Subscription
	stop = func() {
		for _, s := range all {
			_ = s.Unsubscribe() // fails if the connection is lost, and all subscriptions with it
		}
	}
	for _, s := range []struct {
		subject string
		hear    nats.MsgHandler
	}{
		{subjectSAs + "*", c.heard},
		{subjectIKE + self, c.opened(forwardPlace(self), c.takeForwarded)},
		{subjectAsk + self, c.answerAsked},
		{subjectInquiry + self, c.inquired},
		{subjectBeats, c.heardBeat},
		{subjectGone, c.opened(subjectGone, c.takeGone)},
		{subjectFloors, c.opened(subjectFloors, c.takeFloors)},
		{subjectFloorAsk, c.floorAsked},
		{subjectUsage, c.opened(subjectUsage, c.takeUsage)},
		{subjectSources, c.opened(subjectSources, c.takeSources)},
		{subjectPaths, c.opened(subjectPaths, c.takePath)},
		{subjectHealth, c.heardHealth},
		{c.healthHere(), c.heardHealth},
		{c.acks.inbox + "*", c.acknowledged},
	} {
		sub, err := c.engine.Conn.Subscribe(s.subject, s.hear)
		if err != nil {
			stop()
			return nil, err
		}
		all = append(all, sub)
	}
	return stop, nil
}

// opened hears what is sealed for a place.
func (c *Cluster) opened(at string, take func(text []byte) error) nats.MsgHandler {
	return func(m *nats.Msg) {
		text, err := c.keys.Open(at, m.Data)
		if err == nil {
			err = take(text)
		}
		if err != nil {
			c.complain(err)
		}
	}
}

// due reports whether what is told at intervals is to be told again, and notes that it is.
func due(last *time.Time, every time.Duration, now time.Time) bool {
	if now.Sub(*last) < every {
		return false
	}
	*last = now
	return true
}

// say says something to a subject, sealed for a place.
func (c *Cluster) say(subject, at string, text []byte) error {
	sealed, err := c.keys.Seal(at, text)
	if err != nil {
		return err
	}
	return c.engine.Conn.Publish(subject, sealed)
}
