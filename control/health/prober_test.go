package health

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"causeway/pipeline/wire"
)

// A router answers probes as the other end of a tunnel does.
type router struct {
	prober *Prober
	rtt    time.Duration
	lose   func(n int) bool // whether the n-th probe is lost
	full   func(n int) bool // whether there is no room for it
	sent   []time.Time
	states []State
	at     []time.Time
}

func (r *router) send(_ string, packet []byte) bool {
	if r.full != nil && r.full(len(r.sent)) {
		return false
	}
	r.take(packet)
	return true
}

func (r *router) take(packet []byte) {
	n := len(r.sent)
	r.sent = append(r.sent, time.Now())
	if r.lose != nil && r.lose(n) {
		return
	}
	answer := answerTo(packet)
	time.AfterFunc(r.rtt, func() { r.prober.Answer(answer) })
}

// answerTo is what comes back of a probe: a request is answered, a reply is routed back.
func answerTo(packet []byte) []byte {
	b := bytes.Clone(packet)
	if b[0]>>4 == 6 {
		if wire.EchoReply6(b) != wire.OK {
			b[wire.IPv6OffHopLimit]--
		}
		return b
	}
	if wire.EchoReply4(b) != wire.OK {
		wire.DecTTL4(b)
	}
	return b
}

var (
	own4, peer4 = netip.MustParseAddr("10.213.0.10"), netip.MustParseAddr("10.213.0.11")
	own6, peer6 = netip.MustParseAddr("fd00:213::a"), netip.MustParseAddr("fd00:213::b")
)

func tunnelOf(kind Kind, v6 bool, change ...func(*Tunnel)) Tunnel {
	t := Tunnel{Name: "cust-a", Kind: kind, Source: own4, Target: peer4, Interval: time.Second, Retry: 2, Thresholds: published()}
	if v6 {
		t.Source, t.Target = own6, peer6
	}
	for _, f := range change {
		f(&t)
	}
	return t
}

// onRouter probes a tunnel in time that passes by itself.
func onRouter(t *testing.T, tunnel Tunnel, f func(t *testing.T, r *router)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &router{rtt: 20 * time.Millisecond}
		r.prober = New(Options{Node: "edge-1", Send: r.send,
			OnState: func(s Report) { r.states, r.at = append(r.states, s.State), append(r.at, time.Now()) }})
		ctx, stop := context.WithCancel(t.Context())
		go r.prober.Run(ctx)
		r.prober.SetTunnels([]Tunnel{tunnel})
		f(t, r)
		stop()
		time.Sleep(time.Minute) // answers that are on their way
	})
}

// A tunnel whose probes are answered stays healthy, and is probed as often as it says, no more.
func TestProber(t *testing.T) {
	for _, kind := range []Kind{Reply, Request} {
		for _, v6 := range []bool{false, true} {
			t.Run(fmt.Sprint(kind, " IPv6 ", v6), func(t *testing.T) {
				onRouter(t, tunnelOf(kind, v6), func(t *testing.T, r *router) {
					time.Sleep(time.Hour)
					s := r.prober.Reports()[0]
					if n := len(r.sent); n < 3599 || n > 3601 || len(r.states) > 0 || s.State != Healthy || s.Answered < uint64(n)-1 || s.Lost != 0 || s.RTT != r.rtt {
						t.Errorf("%d probes in an hour, states %v: %+v", n, r.states, s)
					}
				})
			})
		}
	}
}

// When nothing comes back the tunnel is down as soon as it can be known: an interval, and twice the patience with an answer.
func TestProberNoticesSoon(t *testing.T) {
	onRouter(t, tunnelOf(Request, false, func(t *Tunnel) { t.Interval = 200 * time.Millisecond }), func(t *testing.T, r *router) {
		time.Sleep(time.Minute)
		dead, before := time.Now(), len(r.sent)
		r.lose = func(int) bool { return true }
		time.Sleep(10 * time.Second)
		if len(r.at) == 0 || r.states[len(r.states)-1] != Down || r.at[len(r.at)-1].Sub(dead) > 200*time.Millisecond+2*leastPatience+10*time.Millisecond {
			t.Fatalf("states %v, the last after %v", r.states, r.at[len(r.at)-1].Sub(dead))
		}
		if n := len(r.sent) - before; n > 50+2 {
			t.Errorf("%d probes in 10 s: a tunnel that is down is probed more often", n)
		}
		r.lose, r.states, r.at = nil, nil, nil
		back := time.Now()
		time.Sleep(10 * time.Minute)
		if !slices.Equal(r.states, []State{Degraded, Healthy}) {
			t.Fatalf("afterwards: %v", r.states)
		}
		if first, second := r.at[0].Sub(back), r.at[1].Sub(r.at[0]); first > time.Second || second < 5*time.Minute || second > 5*time.Minute+time.Second {
			t.Errorf("degraded after %v, healthy %v later", first, second)
		}
	})
}

// Those that are sent at once after the first lost one may have no room, or come too late for being sent within a second of it: the ones that
// follow are an interval apart, which is too far to say that the tunnel is down.
func TestProberNoticesWithoutRetries(t *testing.T) {
	for name, hinder := range map[string]func(r *router, dead int){
		"no room": func(r *router, dead int) {
			after := 0
			r.full = func(n int) bool {
				if n > dead { // the first is sent, and lost
					after++
				}
				return 0 < after && after < 3
			}
		},
		"late": func(*router, int) {},
	} {
		t.Run(name, func(t *testing.T) {
			onRouter(t, tunnelOf(Request, false, func(t *Tunnel) { t.Interval, t.Thresholds.Within = 200*time.Millisecond, 40*time.Millisecond }), func(t *testing.T, r *router) {
				r.rtt = 850 * time.Millisecond // as that of a machine that is busy
				time.Sleep(time.Minute)
				dead, before := time.Now(), len(r.sent)
				r.lose = func(n int) bool { return n >= before }
				hinder(r, before)
				time.Sleep(10 * time.Second)
				if n := len(r.states); n == 0 || r.states[n-1] != Down || r.at[n-1].Sub(dead) > 5*time.Second {
					t.Fatalf("states %v at %v", r.states, r.at)
				}
				if n := len(r.sent) - before; n > 50+2+3+1 {
					t.Errorf("%d probes in 10 s", n)
				}
			})
		})
	}
}

// One lost probe is made up for at once; one in twenty makes the tunnel degraded, and not down.
func TestProberLoss(t *testing.T) {
	onRouter(t, tunnelOf(Reply, false), func(t *testing.T, r *router) {
		time.Sleep(time.Minute)
		one := len(r.sent)
		r.lose = func(n int) bool { return n == one }
		time.Sleep(time.Minute)
		if len(r.states) > 0 || r.prober.Reports()[0].Lost != 1 || len(r.sent) < one+61 {
			t.Errorf("one loss: states %v, %d probes, %+v", r.states, len(r.sent)-one, r.prober.Reports()[0])
		}
		r.lose = func(n int) bool { return n%20 == 0 }
		time.Sleep(time.Hour)
		if !slices.Equal(r.states, []State{Degraded}) {
			t.Errorf("one in twenty: %v", r.states)
		}
	})
}

// A process that stood still does not take what came meanwhile for lost.
func TestProberStoodStill(t *testing.T) {
	var sent [][]byte
	p := New(Options{Node: "edge-1", Send: func(_ string, packet []byte) bool { sent = append(sent, packet); return true }, OnState: func(Report) {}})
	p.SetTunnels([]Tunnel{tunnelOf(Request, false, func(t *Tunnel) { t.Retry = 0 })})
	at := time.Now().Add(2 * time.Second)
	p.turn(at)
	if len(sent) != 1 {
		t.Fatalf("%d probes", len(sent))
	}
	at = at.Add(p.turn(at)) // the next probe, or the end of the patience: that comes first
	p.turn(at.Add(5 * time.Second))
	if lost := p.Reports()[0].Lost; lost != 0 {
		t.Errorf("%d are lost", lost)
	}
	if p.Answer(answerTo(sent[0])); p.Reports()[0].Answered != 1 {
		t.Error("the answer is not taken")
	}
	at = at.Add(5 * time.Second)
	for range 10 {
		at = at.Add(p.turn(at)) // in time
	}
	if lost := p.Reports()[0].Lost; lost == 0 {
		t.Error("nothing is lost without an answer")
	}
}

// A probe for which there was no room is not lost.
func TestProberWithoutRoom(t *testing.T) {
	onRouter(t, tunnelOf(Request, false), func(t *testing.T, r *router) {
		r.prober.opts.Send = func(string, []byte) bool { return false }
		time.Sleep(time.Minute)
		if s := r.prober.Reports()[0]; s.State != Healthy || s.Sent != 0 || s.Lost != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// A way that becomes longer is not taken for one that loses: the answers that come too late say how long it is.
func TestProberPatience(t *testing.T) {
	onRouter(t, tunnelOf(Request, true), func(t *testing.T, r *router) {
		time.Sleep(time.Minute)
		r.rtt = 400 * time.Millisecond
		time.Sleep(time.Minute)
		r.states = nil
		time.Sleep(20 * time.Minute)
		if s := r.prober.Reports()[0]; s.State != Healthy || s.RTT < 390*time.Millisecond {
			t.Errorf("%+v", s)
		}
	})
}

// What is no answer is not taken: another's, a forged one, an old one, one twice.
func TestProberIsNotDeceived(t *testing.T) {
	onRouter(t, tunnelOf(Request, false), func(t *testing.T, r *router) {
		var last []byte
		r.prober.opts.Send = func(_ string, packet []byte) bool { last = packet; return true }
		time.Sleep(1100 * time.Millisecond)
		good := answerTo(last)
		spoilt := func(at int, by byte) []byte {
			b := bytes.Clone(good)
			b[at] ^= by
			icmp := b[wire.IPv4Len:]
			binary.BigEndian.PutUint16(icmp[wire.ICMPOffChecksum:], 0)
			binary.BigEndian.PutUint16(icmp[wire.ICMPOffChecksum:], wire.Checksum(icmp))
			return b
		}
		payload := wire.IPv4Len + wire.ICMPLen
		for what, b := range map[string][]byte{
			"another node's": spoilt(payload+8, 1), "another tunnel's": spoilt(payload+16, 1), "another number": spoilt(payload+31, 1), "another code": spoilt(payload+macAt, 1),
			"another version": spoilt(payload+4, 1), "no magic": spoilt(payload, 1), "a request": last, "cut": good[:len(good)-1], "nothing": nil, "a byte": {0x45}, "IPv6": {0x60},
		} {
			if of := r.prober.Answer(b); (of != nil) != (what == "another node's") || r.prober.Reports()[0].Answered != 0 {
				t.Errorf("%s is taken for an answer, or for another node's", what)
			}
		}
		wrong := bytes.Clone(good)
		wrong[len(wrong)-1] ^= 1
		if r.prober.Answer(wrong); r.prober.Reports()[0].Answered != 0 {
			t.Error("a wrong checksum is not seen")
		}
		if r.prober.Answer(good) != nil || r.prober.Reports()[0].Answered != 1 {
			t.Error("the right one is not taken")
		}
		r.prober.Answer(good)
		if n := r.prober.Reports()[0].Answered; n != 1 {
			t.Errorf("it counts %d times", n)
		}
	})
}

// An answer that comes to another node says whose it is.
func TestAnswerOfAnotherNode(t *testing.T) {
	onRouter(t, tunnelOf(Reply, false), func(t *testing.T, r *router) {
		other := New(Options{Node: "edge-2"})
		var of []func(string) bool
		r.prober.opts.Send = func(_ string, packet []byte) bool { of = append(of, other.Answer(answerTo(packet))); return true }
		time.Sleep(2 * time.Second)
		if len(of) == 0 || of[0] == nil || !of[0]("edge-1") || of[0]("edge-2") || of[0]("") {
			t.Error("it does not know whose they are")
		}
	})
}

// Tunnels come, go and change while they are probed.
func TestProberTunnelsChange(t *testing.T) {
	onRouter(t, tunnelOf(Request, false), func(t *testing.T, r *router) {
		r.lose = func(int) bool { return true }
		time.Sleep(time.Minute)
		other := tunnelOf(Reply, true, func(t *Tunnel) { t.Name = "cust-b" })
		r.prober.SetTunnels([]Tunnel{tunnelOf(Request, false), other})
		if s := r.prober.Reports(); len(s) != 2 || s[0].State != Down || s[1].State != Healthy {
			t.Errorf("one more: %+v", s)
		}
		time.Sleep(time.Minute)
		r.prober.SetTunnels([]Tunnel{tunnelOf(Reply, false), other})
		if s := r.prober.Reports(); len(s) != 2 || s[0].State != Healthy || s[1].State != Down {
			t.Errorf("one changed: %+v", s)
		}
		r.prober.SetTunnels(nil)
		n := len(r.sent)
		time.Sleep(time.Minute)
		if len(r.sent) != n || len(r.prober.Reports()) != 0 || len(r.prober.byTag) != 0 || len(r.prober.queue) != 0 {
			t.Error("something is left")
		}
	})
}

// FuzzAnswer: nothing that comes makes more of itself than one answer.
func FuzzAnswer(f *testing.F) {
	key := []byte("k")
	for _, kind := range []Kind{Reply, Request} {
		f.Add(answerTo(probe{1, 2, 3}.packet(kind, own4, peer4, key)))
		f.Add(answerTo(probe{1, 2, 3}.packet(kind, own6, peer6, key)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, payload, ok := parseAnswer(b)
		if ok && signed(payload, key) && p != (probe{1, 2, 3}) {
			t.Errorf("%+v is signed", p)
		}
	})
}
