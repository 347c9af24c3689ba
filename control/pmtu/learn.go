// Package pmtu learns from ICMP errors how large the outer packets of a tunnel may be. A router on the way to a customer
// that cannot forward one of them says so to the endpoint, that is, to whichever node of the fleet the anycast route
// leads the error to; it gets to the kernel, and from there to a raw socket here.
//
// Nobody signs an ICMP error. It is believed only as far as RFC 5927 section 4 says: the packet that it quotes must be
// one that a tunnel of ours sends, and the size that it asks for must be smaller than that packet and no smaller than
// what every path carries. What is learned is forgotten after ten minutes (RFC 1191 6.3, RFC 8201 4).
//
//	listen.go   raw sockets -> bytes
//	learn.go    error -> tunnel -> inner MTU, or the reason why not
package pmtu

import (
	"encoding/binary"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"causeway/pipeline/wire"
)

const (
	// lifetime of what was learned (RFC 1191 6.3).
	lifetime = 10 * time.Minute

	// The smallest outer sizes that are believed. Every IPv6 link carries 1280 (RFC 8200 5), and smaller reports are
	// discarded (RFC 8201 4). IPv4 links may carry 68, but 576 is what every host takes (RFC 791 3.1): below that
	// an attacker, not a path, is at work, and the tunnel keeps 576.
	least4 = 576
	least6 = 1280
)

// A Tunnel is what there is to know of a tunnel.
type Tunnel struct {
	ID               int
	Name             string
	Endpoint         netip.Addr
	CustomerEndpoint netip.Addr
	HasKey           bool
	Key              uint32
	Checksum         bool
	Sequence         bool
	MTU              int // configured, inner, in bytes
	Overhead         int // bytes in front of an inner packet
	Believe          bool
}

// A Verdict is what became of an ICMP error. Its text is a metric label.
type Verdict string

// The verdicts.
const (
	Lowered     Verdict = "lowered"
	Confirmed   Verdict = "confirmed" // the tunnel's MTU is that low already
	Malformed   Verdict = "malformed"
	NotTooBig   Verdict = "not_too_big"
	Misdirected Verdict = "misdirected"  // sent to another address than the quoted source
	NotGRE      Verdict = "not_gre"      // or a later fragment, in which no GRE header can be seen
	NoTunnel    Verdict = "no_tunnel"    // no tunnel has these outer addresses
	WrongHeader Verdict = "wrong_header" // the quoted GRE header is not what the tunnel sends
	Implausible Verdict = "implausible"  // a size that no router would report about the quoted packet
	TooSmall    Verdict = "too_small"    // below 1280 for IPv6
	NotBelieved Verdict = "pmtu_off"     // the tunnel says `pmtu: off`

	ThroughTunnel Verdict = "through_tunnel" // a customer sent it; what is on the path of outer packets is outside
)

// Verdicts lists all of them.
var Verdicts = []Verdict{Lowered, Confirmed, Malformed, NotTooBig, Misdirected, NotGRE, NoTunnel, WrongHeader, Implausible, TooSmall, NotBelieved, ThroughTunnel}

// pair is the two ends of the path.
type pair struct{ endpoint, customer netip.Addr }

// A Learner decides about ICMP errors. Its methods may be called by any goroutine.
type Learner struct {
	set func(id, mtu int)
	log *slog.Logger

	mu      sync.Mutex
	tunnels map[pair][]*tunnel
	counts  map[Verdict]uint64
}

type tunnel struct {
	Tunnel
	learned int // inner MTU; 0: nothing
	expires time.Time
}

// New makes a Learner that tells set what the largest inner packet of a tunnel is; 0 means that nothing is known.
func New(set func(id, mtu int), log *slog.Logger) *Learner {
	return &Learner{set: set, log: log, tunnels: map[pair][]*tunnel{}, counts: map[Verdict]uint64{}}
}

// SetTunnels replaces the tunnels. What was learned of a tunnel that stays, with the same ends, is kept.
func (l *Learner) SetTunnels(tunnels []Tunnel) {
	l.mu.Lock()
	defer l.mu.Unlock()
	known := map[int]*tunnel{}
	for _, list := range l.tunnels {
		for _, t := range list {
			if t.learned != 0 {
				known[t.ID] = t
			}
		}
	}
	l.tunnels = make(map[pair][]*tunnel, len(tunnels))
	for _, t := range tunnels {
		k := pair{t.Endpoint, t.CustomerEndpoint}
		n := &tunnel{Tunnel: t}
		if o := known[t.ID]; o != nil && o.Name == t.Name {
			mtu := o.learned + o.Overhead - t.Overhead // the path is as it was, the headers may not be
			if t.Believe && o.Endpoint == t.Endpoint && o.CustomerEndpoint == t.CustomerEndpoint && mtu < t.MTU {
				n.learned, n.expires = mtu, o.expires
			}
			l.set(t.ID, n.learned)
		}
		l.tunnels[k] = append(l.tunnels[k], n)
	}
}

// Take4 decides about the payload of an ICMPv4 datagram that was sent to dst.
func (l *Learner) Take4(dst netip.Addr, icmp []byte, now time.Time) Verdict {
	r, fault := wire.ParseICMPError4(icmp)
	if fault != wire.OK {
		return l.count(Malformed)
	}
	if r.Type != wire.ICMP4Unreachable || r.Code != wire.ICMP4CodeFragNeeded {
		return l.count(NotTooBig)
	}
	if r.MTU == 0 {
		r.MTU = plateau(r.Total)
	}
	return l.take(dst, &r, least4, now)
}

// Take6 decides about an ICMPv6 message that was sent from src to dst.
func (l *Learner) Take6(src, dst netip.Addr, icmp []byte, now time.Time) Verdict {
	r, fault := wire.ParseICMPError6(pseudo6(src, dst), icmp)
	if fault != wire.OK {
		return l.count(Malformed)
	}
	if r.Type != wire.ICMP6TooBig {
		return l.count(NotTooBig)
	}
	if r.MTU < least6 {
		return l.count(TooSmall)
	}
	return l.take(dst, &r, least6, now)
}

// pseudo6 is as much of an IPv6 header as a checksum needs.
func pseudo6(src, dst netip.Addr) []byte {
	h := make([]byte, wire.IPv6Len)
	s, d := src.As16(), dst.As16()
	copy(h[wire.IPv6OffSrc:], s[:])
	copy(h[wire.IPv6OffDst:], d[:])
	return h
}

// plateau is the guess of RFC 1191 section 5 for a router so old that it does not say what fits: the next smaller of the
// sizes that links have (section 7.1).
func plateau(total int) uint32 {
	for _, size := range []int{17914, 8166, 4352, 2002, 1492, 1006, 508, 296} {
		if size < total {
			return uint32(size)
		}
	}
	return 68
}

// take looks for the tunnels that send what r quotes. Where the quote ends before the key, that may be several:
// they share the path. Less than least is not believed, and taken for least.
func (l *Learner) take(dst netip.Addr, r *wire.ICMPReport, least uint32, now time.Time) Verdict {
	if r.Src != dst {
		return l.count(Misdirected)
	}
	if r.Proto != wire.ProtoGRE || r.FragOff != 0 || len(r.Payload) < wire.GREMinLen {
		return l.count(NotGRE)
	}
	if int64(r.MTU) >= int64(r.Total) {
		return l.count(Implausible) // what was quoted would have fit
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	verdict := NoTunnel
	for _, t := range l.tunnels[pair{r.Src, r.Dst}] {
		v := t.judge(r)
		if v == Lowered {
			v = l.lower(t, int(max(r.MTU, least))-t.Overhead, now)
		}
		if slices.Index(interest, v) < slices.Index(interest, verdict) {
			verdict = v
		}
	}
	l.counts[verdict]++
	return verdict
}

// interest orders the verdicts about several tunnels with the same ends: the first one is that of the error.
var interest = []Verdict{Lowered, Confirmed, NotBelieved, Implausible, WrongHeader, NoTunnel}

// judge returns Lowered if the tunnel sends what r quotes.
func (t *tunnel) judge(r *wire.ICMPReport) Verdict {
	if !t.sends(r.Payload) {
		return WrongHeader
	}
	if r.Total > t.MTU+t.Overhead+maxExtra {
		return Implausible // longer than any packet of this tunnel
	}
	if !t.Believe {
		return NotBelieved
	}
	return Lowered
}

// maxExtra is what an outer packet may have beyond the configured size: a fragment header, and inner IPv6 packets of
// 1280 bytes that are never refused.
const maxExtra = 8 + 1280

// sends compares a quoted GRE header, which may end early, with the one that the tunnel puts before its packets.
func (t *tunnel) sends(gre []byte) bool {
	var want uint16
	key := wire.GREMinLen
	if t.Checksum {
		want |= wire.GREFlagChecksum
		key += 4
	}
	if t.HasKey {
		want |= wire.GREFlagKey
	}
	if t.Sequence {
		want |= wire.GREFlagSequence
	}
	if binary.BigEndian.Uint16(gre[wire.GREOffFlags:]) != want {
		return false
	}
	return !t.HasKey || len(gre) < key+4 || binary.BigEndian.Uint32(gre[key:]) == t.Key
}

// lower is called with the lock held.
func (l *Learner) lower(t *tunnel, mtu int, now time.Time) Verdict {
	if mtu >= t.MTU {
		return Confirmed
	}
	if t.learned != 0 && mtu > t.learned {
		// A larger size than was learned: an old error that was on its way, or another path. It is tried again when
		// what is known expires, not sooner (RFC 1191 6.3).
		return Confirmed
	}
	t.expires = now.Add(lifetime)
	if mtu == t.learned {
		return Confirmed
	}
	t.learned = mtu
	l.set(t.ID, mtu)
	l.log.Info("path MTU lowered", "tunnel", t.Name, "inner_mtu", mtu, "configured", t.MTU)
	return Lowered
}

// Expire forgets what is older than ten minutes.
func (l *Learner) Expire(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, list := range l.tunnels {
		for _, t := range list {
			if t.learned != 0 && !now.Before(t.expires) {
				t.learned = 0
				l.set(t.ID, 0)
				l.log.Info("path MTU forgotten", "tunnel", t.Name, "inner_mtu", t.MTU)
			}
		}
	}
}

func (l *Learner) count(v Verdict) Verdict {
	l.mu.Lock()
	l.counts[v]++
	l.mu.Unlock()
	return v
}

// Counts returns how often each verdict was given.
func (l *Learner) Counts() map[Verdict]uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make(map[Verdict]uint64, len(Verdicts))
	for _, v := range Verdicts {
		out[v] = l.counts[v]
	}
	return out
}
