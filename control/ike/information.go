package ike

import (
	"fmt"
	"time"

	"causeway/control/ike/message"
)

// asksNothing reports whether a request is empty: it asks whether we live.
func asksNothing(h message.Header, c *message.Contents) bool {
	return h.Exchange == message.Informational && len(c.Notifies) == 0 && len(c.Deletes) == 0 && !c.HasCP
}

// handleInformational answers INFORMATIONAL: deletions, or nothing at all, which asks whether we live (RFC 7296, section 1.4).
func (s *ikeSA) handleInformational(c *message.Contents) (*message.Contents, func()) {
	answer := &message.Contents{}
	for _, n := range c.Notifies {
		if n.Type.Error() {
			s.warn("the peer tells of an error", "notify", n.Type)
			if n.Type == message.NotifyAuthenticationFailed {
				return answer, func() { s.end("the peer does not believe our proof") }
			}
		}
	}
	for _, d := range c.Deletes {
		switch d.Protocol {
		case message.ProtocolIKE:
			return answer, func() { s.end("the peer deleted it") }
		case message.ProtocolESP:
			if spis := s.deleted(d.SPIs); len(spis) > 0 {
				answer.Deletes = append(answer.Deletes, message.Delete{Protocol: message.ProtocolESP, SPIs: spis})
			}
		}
	}
	if len(answer.Deletes) > 0 {
		s.retryChild = time.Now().Add(missTime)
	}
	return answer, nil
}

// deleted buries the pairs that the peer has deleted, and returns our SPIs of them. Where both delete one at the same time, the
// response does not name it (RFC 7296, section 1.4.1).
func (s *ikeSA) deleted(spis []uint32) (ours []uint32) {
	for _, spi := range spis {
		c := s.peerChild(spi)
		if c == nil {
			continue
		}
		if !c.deleting {
			ours = append(ours, c.SPIIn)
		}
		s.bury(c)
	}
	return ours
}

// missesChild reports whether we, who begin this tunnel, have to ask for a pair because none is left.
func (s *ikeSA) missesChild() bool {
	return s.tunnel.Initiate && len(s.Children) == 0 && s.pending == nil
}

// missTime is how long a peer that has deleted the last pair has to make another one itself.
const missTime = 500 * time.Millisecond

// terminate ends the SA and what has taken its place.
func (s *ikeSA) terminate(why string) {
	if h := s.heir; h != nil {
		s.d.post(h, func() { h.terminate(why) })
	}
	s.deleteSelf(why)
}

// deleteSelf tells the peer that the SA is no more, and ends it when the peer has answered, or soon.
func (s *ikeSA) deleteSelf(why string) {
	switch s.phase {
	case established, replaced:
	case deleting, dead:
		return
	default:
		s.end(why)
		return
	}
	s.phase, s.expire = deleting, time.Now().Add(failedTime)
	s.dropQueue(why)
	s.ask(&request{exchange: message.Informational,
		contents: func() *message.Contents {
			return &message.Contents{Deletes: []message.Delete{{Protocol: message.ProtocolIKE}}}
		},
		remember: func(*Outstanding) {}, // the phase says it
		done:     func(*message.Contents) { s.end(why) }})
}

// deleteSelfNow tells the responder that its proof was wrong (RFC 7296, section 2.21.2).
func (s *ikeSA) deleteSelfNow(t message.NotifyType, why string) {
	s.d.failed(s.Tunnel, why)
	s.warn("negotiation failed", "why", why)
	s.phase, s.expire, s.why = deleting, time.Now().Add(failedTime), why
	s.ask(&request{exchange: message.Informational,
		contents: func() *message.Contents { return refuse(t) },
		done:     func(*message.Contents) { s.end(why) }})
	s.tell(errorOf(why))
}

// probe asks whether the peer lives.
func (s *ikeSA) probe() {
	s.ask(&request{exchange: message.Informational,
		contents: func() *message.Contents { return &message.Contents{} },
		done:     func(*message.Contents) {}})
}

// tell tells those who wait for the SA that it is established, or why not.
func (s *ikeSA) tell(err error) {
	for _, w := range s.waiters {
		w <- err
	}
	s.waiters = nil
}

func spiText(spi uint64) string { return fmt.Sprintf("%016x", spi) }
