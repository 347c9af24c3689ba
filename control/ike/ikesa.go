package ike

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"causeway/control/ike/message"
	"causeway/control/ike/suite"
)

// A Phase is how far an SA has come.
type Phase uint8

const (
	opening     Phase = iota // IKE_SA_INIT
	proving                  // IKE_INTERMEDIATE, IKE_AUTH
	established              //
	replaced                 // by a new IKE SA, which has its children
	deleting                 // the peer was told
	failed                   // kept for a while to answer again
	dead
)

// An ikeSA is an IKE SA as it lives here. All but the first fields are guarded by mu.
type ikeSA struct {
	d         *Daemon
	initiator bool // we began it
	waiting   atomic.Int32
	proved    atomic.Bool   // it has been established: its datagrams come before those of strangers
	gone      chan struct{} // closed when it is dead
	initKey   *initKey      // guarded by d.mu
	due       time.Time     // when there is something to be done; guarded by d.clock.mu, like the next
	dueSlot   int           // in the clock's heap, from 1 on; 0: nothing is to be done

	mu sync.Mutex
	State
	phase   Phase
	tunnel  *Tunnel // nil until the peer has said who it is
	in, out *suite.Cipher

	hs *handshake // until it is established

	kept kept // what the fleet's store has of it

	pending      *request
	queue        []*request
	incoming     [2]reassembly     // of requests and of responses
	incomingHash [32]byte          // of the request that is being received: of its first datagram
	unsent       *message.Contents // the response to NextResponse, if it could not be sealed: all else is done

	rekeyed    *rekeyIKE             // our rekeying of this SA that is under way
	heir       *ikeSA                // the SA that has taken its place
	followups  []*followup           // exchanges that the peer is to go on with
	collision  map[uint32]*collision // by the SPI of the child that both rekey
	heard      time.Time             // the last authentic message or ESP packet
	keepalive  time.Time             // the next NAT keepalive
	expire     time.Time             // of what is not established
	inPlaceOf  uint64                // SPI of an SA that is to end when this one is stored
	retryChild time.Time             // when a first pair may be asked for again
	looked     time.Time             // at the children, the last time
	waiters    []chan<- error
	why        string // it ends
	lines      throttle
}

// graveTime is how late packets of a deleted child are still taken.
const graveTime = 3 * time.Second

func (d *Daemon) newSA(initiator bool) *ikeSA {
	return &ikeSA{d: d, initiator: initiator, gone: make(chan struct{}), State: State{Version: StateVersion, Initiator: initiator},
		collision: map[uint32]*collision{}}
}

// do calls f with the lock held, unless the SA is dead, and then looks when there is something to be done.
func (s *ikeSA) do(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase == dead {
		return
	}
	defer s.contain()
	f()
	if s.phase != dead {
		s.schedule()
	}
}

// contain ends an SA that has shown a defect of ours: the same process has the packets of all other tunnels. It is deferred.
func (s *ikeSA) contain() {
	v := recover()
	if v == nil {
		return
	}
	s.d.defect(v, s.about(nil)...)
	defer s.d.contain()
	s.end("a defect of causeway, see the log")
}

// receive takes a datagram of the SA.
func (s *ikeSA) receive(local, remote netip.AddrPort, h message.Header, b []byte) {
	if s.kept.taking {
		if len(s.kept.backlog) < maxBacklog {
			s.kept.backlog = append(s.kept.backlog, func() { s.receive(local, remote, h, b) })
		}
		return
	}
	if h.Response {
		s.receiveResponse(local, remote, h, b)
		return
	}
	s.receiveRequest(local, remote, h, b)
}

// heardFrom notes an authentic message and where it came from. Until the SA is established the peer may move to the port of
// NAT traversal; later only a peer behind a NAT moves (RFC 7296, section 2.23).
func (s *ikeSA) heardFrom(local, remote netip.AddrPort) {
	s.heard = time.Now()
	if s.Local == local && s.Remote == remote {
		return
	}
	moved := s.phase >= established
	if moved && !s.NATThere {
		return
	}
	was := s.Remote
	s.Local, s.Remote = local, remote
	if !moved {
		return
	}
	s.note("peer moved", "from", was)
	for _, c := range s.Children {
		s.d.plane.Move(s.Tunnel, c.SPIIn, s.peerESP())
	}
	s.commit(nil)
}

// peerESP is where ESP packets go: in UDP to where the peer's IKE is.
func (s *ikeSA) peerESP() netip.AddrPort { return s.Remote }

// send sends the datagrams of one message.
func (s *ikeSA) send(datagrams [][]byte) {
	for _, b := range datagrams {
		s.d.transmit(s.Local, s.Remote, b)
	}
}

// establish makes the SA one that lives, after authentication or in place of one that is rekeyed.
func (s *ikeSA) establish() {
	s.phase = established
	s.proved.Store(true)
	now := time.Now()
	s.heard, s.Established = now, now
	s.Rekey, s.Expire = now.Add(jittered(s.tunnel.IKELife)), now.Add(s.tunnel.IKELife)
	s.expire = time.Time{}
	s.logKeys()
	surplus, stale := s.d.establish(s)
	for _, o := range surplus { // each once, and its answer is not waited for: a peer that makes new ones does not make them pile up
		s.d.post(o, func() {
			o.deleteSelf("the tunnel has newer IKE SAs")
			o.end("the tunnel has newer IKE SAs")
		})
	}
	if stale {
		s.d.post(s, func() { s.deleteSelf("the tunnel's configuration changed") })
	}
	others := s.d.Elsewhere(s.Tunnel)
	s.d.endElsewhere(others[:max(0, len(others)+len(s.d.of(s.Tunnel))-perTunnel)])
}

// end forgets the SA, with its children, and wipes its keys. The peer is not told.
func (s *ikeSA) end(why string) {
	if s.phase == dead {
		return
	}
	if r := s.rekeyed; r != nil && r.theirs != nil {
		// A peer that has not got our request deletes what both sides replace (RFC 7296, section 2.25.2): it has its own in its place.
		n := r.theirs.sa
		r.theirs = nil
		s.giveWayTo(n)
	}
	was := s.phase
	s.phase, s.why, s.kept.ended = dead, why, true
	s.d.clock.drop(s)
	s.d.forget(s)
	if s.kept.revision > 0 {
		s.d.fleet.Erase(s.spi(), s.kept.revision) // if it is being written, that is done afterwards
	}
	var spis []uint32
	for _, c := range s.Children {
		spis = append(spis, c.SPIIn)
	}
	for _, g := range s.Graves {
		spis = append(spis, g.SPIIn)
	}
	if len(spis) > 0 {
		s.d.plane.Remove(s.Tunnel, spis...)
	}
	s.Children, s.Graves = nil, nil
	s.abandon(why)
	if s.hs != nil {
		s.hs.wipe(s.d)
	}
	s.wipe()
	for _, f := range s.followups {
		f.wipe(s.d)
	}
	close(s.gone)
	if was == established || was == deleting {
		s.note("IKE SA is gone", "why", why)
		s.d.lost(s.Tunnel)
	} else if was == replaced {
		s.d.lost(s.Tunnel) // what took its place may be gone already
	} else if was <= proving && s.initiator && s.tunnel != nil {
		s.d.failed(s.Tunnel, why)
		s.d.counts.failed.Add(1)
		s.warn("negotiation failed", "why", why)
		s.d.lost(s.Tunnel)
	}
	for _, w := range s.waiters {
		w <- errorOf(why)
	}
}

// abandon ends all requests that were not answered.
func (s *ikeSA) abandon(why string) {
	if s.pending != nil {
		s.queue = append([]*request{s.pending}, s.queue...)
		s.pending = nil
	}
	s.dropQueue(why)
}

// dropQueue ends all requests that were not sent.
func (s *ikeSA) dropQueue(why string) {
	s.why = why
	dropped := s.queue
	s.queue = nil
	for _, r := range dropped {
		r.done(nil)
	}
}

// setKeys makes the ciphers of both directions. The keys are the SA's from now on; those before are wiped.
func (s *ikeSA) setKeys(k *suite.Keys) error {
	i, err := s.Suite.NewCipher(k.Ei, k.Ai)
	if err != nil {
		return err
	}
	r, err := s.Suite.NewCipher(k.Er, k.Ar)
	if err != nil {
		return err
	}
	if s.Keys != nil {
		s.Keys.Wipe()
	}
	s.Keys = k
	if s.initiator {
		s.out, s.in = i, r
	} else {
		s.out, s.in = r, i
	}
	return nil
}

// ownP and peerP are the keys that prove who is who.
func (s *ikeSA) ownP() []byte {
	if s.initiator {
		return s.Keys.Pi
	}
	return s.Keys.Pr
}

func (s *ikeSA) peerP() []byte {
	if s.initiator {
		return s.Keys.Pr
	}
	return s.Keys.Pi
}

// note and warn write one line about the SA.
func (s *ikeSA) note(what string, args ...any) { s.line(slog.LevelInfo, what, args) }
func (s *ikeSA) warn(what string, args ...any) { s.line(slog.LevelWarn, what, args) }

// Lines that the peer of one IKE SA can cause: enough for all its pairs to be made and deleted, and not as many as it likes.
const (
	peerLogBurst = 3 * maxChildren
	peerLogRate  = 10
)

func (s *ikeSA) line(level slog.Level, what string, args []any) {
	if !s.lines.allow(time.Now(), peerLogBurst, peerLogRate) {
		s.d.counts.unlogged.Add(1)
		return
	}
	s.d.log.Log(context.Background(), level, "ike: "+what, s.about(args)...)
}

func (s *ikeSA) about(args []any) []any {
	return append([]any{"tunnel", s.Tunnel, "ike_spi", spiText(s.spi()), "remote", s.Remote}, args...)
}
