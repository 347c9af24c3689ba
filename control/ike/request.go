package ike

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"time"

	"causeway/control/ike/message"
)

// A request is one of ours. There is one at a time, the others wait (RFC 7296, section 2.3: a window of one is what every
// peer has).
type request struct {
	exchange message.ExchangeType
	ofChild  bool // it makes, replaces or deletes a pair
	// contents is called when it is its turn; nil: it is no more needed.
	contents func() *message.Contents
	// done gets the response; nil if there will be none.
	done func(c *message.Contents)

	// remember notes in what is stored how to go on with the request elsewhere; nil: its response changes nothing.
	remember func(o *Outstanding)

	held      bool // it has not left: the state with it is being stored
	id        uint32
	datagrams [][]byte
	tries     int
	wait      time.Duration
	next      time.Time
}

// Retransmission: after half a second, then after half as long again each time, up to 8 s: given up after a minute.
const (
	firstWait = 500 * time.Millisecond
	longWait  = 8 * time.Second
	maxTries  = 12
)

// ask queues a request.
func (s *ikeSA) ask(r *request) {
	s.queue = append(s.queue, r)
	s.nextRequest()
}

// nextRequest sends the next request if none is under way.
func (s *ikeSA) nextRequest() {
	for s.pending == nil && len(s.queue) > 0 && s.phase != dead {
		r := s.queue[0]
		s.queue = s.queue[1:]
		c := r.contents()
		if c == nil {
			continue
		}
		var err error
		r.id = s.NextRequest
		if r.datagrams == nil { // of IKE_SA_INIT they are there
			r.datagrams, err = s.seal(r.exchange, r.id, false, c)
		}
		if err != nil {
			s.warn("request not sent", "exchange", r.exchange, "error", err)
			s.why = err.Error()
			r.done(nil)
			continue
		}
		s.pending = r
		s.Pending = &Outstanding{Exchange: r.exchange, ID: r.id, Datagrams: r.datagrams}
		if r.remember != nil {
			r.remember(s.Pending)
		}
		s.dispatch(r)
	}
}

// dispatch has a request sent as soon as it may be.
func (s *ikeSA) dispatch(r *request) {
	r.held = true
	s.commit(func() {
		if s.pending == r {
			r.held = false
			s.transmitRequest(time.Now())
		}
	})
}

// transmitRequest sends the request that is under way, for the first time or again.
func (s *ikeSA) transmitRequest(now time.Time) {
	r := s.pending
	if r.tries++; r.tries == 1 {
		r.wait = firstWait
	} else {
		s.d.counts.retransmissions.Add(1)
		r.wait = min(r.wait*3/2, longWait)
	}
	r.next = now.Add(r.wait + rand.N(r.wait/8))
	s.send(r.datagrams)
}

// receiveResponse finds the request of a response.
func (s *ikeSA) receiveResponse(local, remote netip.AddrPort, h message.Header, b []byte) {
	r := s.pending
	if r == nil || r.held || h.ID != r.id || h.Exchange != r.exchange {
		return // to a request that was answered, or was never sent
	}
	if r.exchange == message.IKESAInit {
		s.receiveInitResponse(local, remote, h, b)
		return
	}
	first, text, complete, err := s.open(h, b)
	if err != nil {
		s.unauthentic(err)
		return
	}
	if !complete {
		return
	}
	s.heardFrom(local, remote)
	c, err := message.Parse(first, text)
	if err != nil { // authentic, and not understood: going on would be guessing (RFC 7296, section 2.21.3)
		s.warn("response not understood", "exchange", h.Exchange, "error", err)
		s.deleteSelf("a response was not understood: " + err.Error())
		return
	}
	s.finish(c)
}

// finish gives the response to whoever asked, and goes on with the next request.
func (s *ikeSA) finish(c *message.Contents) {
	r := s.pending
	s.pending, s.Pending = nil, nil
	s.NextRequest++
	r.done(c)
	if s.phase == dead {
		return
	}
	s.nextRequest()
	if s.pending == nil && r.remember != nil {
		s.commit(nil)
	}
}

// unauthentic counts a datagram that the peer did not send, or that was damaged.
func (s *ikeSA) unauthentic(err error) {
	s.d.counts.unauthentic.Add(1)
	s.d.log.Debug("ike: datagram dropped", s.about([]any{"error", err})...)
}

func errorOf(why string) error {
	if why == "" {
		return nil
	}
	return errors.New(why)
}
