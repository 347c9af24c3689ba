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

// A Tunnel is what there is to know of a tunnel. Of one that sends with several associations there are several, with one ID.
type Tunnel struct {
	ID               int
	Name             string
	Endpoint         netip.Addr
	CustomerEndpoint netip.Addr
	HasKey           bool
	Key              uint32
	Checksum         bool
	Sequence         bool
	SPI              uint32 // of ESP that it sends; 0: GRE
	UDP              bool   // ESP in UDP
	Port             uint16 // of the customer, with UDP; 0: 4500, like ours
	MTU              int    // configured, inner, in bytes
	Overhead         int    // bytes that an outer packet has more than the inner one, at the most
	Believe          bool

	// Fits is the largest inner packet whose outer one has at most so many bytes; nil: those less Overhead.
	Fits func(outer int) int
}

func (t *Tunnel) fits(outer int) int {
	if t.Fits != nil {
		return t.Fits(outer)
	}
	return outer - t.Overhead
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
	NotGRE      Verdict = "not_gre"      // nor ESP; or a later fragment, in which no header of theirs can be seen
	NoTunnel    Verdict = "no_tunnel"    // no tunnel has these outer addresses
	WrongHeader Verdict = "wrong_header" // the quoted GRE or ESP header is not what the tunnel sends
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
	set   func(id, mtu int)
	log   *slog.Logger
	share func(Path) // nil: nobody is told

	mu      sync.Mutex
	tunnels map[pair][]*tunnel
	byID    map[int][]*tunnel
	counts  map[Verdict]uint64
}

type tunnel struct {
	Tunnel
	path    int // largest outer packet that was learned
	learned int // inner MTU that follows from it; 0: nothing
	expires time.Time
	own     bool // an error that came to this node says so
}

// New makes a Learner that tells set what the largest inner packet of a tunnel is; 0 means that nothing is known.
func New(set func(id, mtu int), log *slog.Logger) *Learner {
	return &Learner{set: set, log: log, tunnels: map[pair][]*tunnel{}, byID: map[int][]*tunnel{}, counts: map[Verdict]uint64{}}
}

// SetTunnels replaces the tunnels. What was learned of a tunnel that stays, with the same ends, is kept; a number that had
// another tunnel before loses what an ICMP error left under it meanwhile.
func (l *Learner) SetTunnels(tunnels []Tunnel) {
	l.mu.Lock()
	defer l.mu.Unlock()
	known := l.byID
	l.tunnels, l.byID = make(map[pair][]*tunnel, len(tunnels)), make(map[int][]*tunnel, len(tunnels))
	for _, t := range tunnels {
		l.add(t, known[t.ID])
	}
	for id := range l.byID {
		l.tell(id)
	}
}

// SetTunnel replaces what is known of one tunnel, as SetTunnels does of all. Each of list has this ID.
func (l *Learner) SetTunnel(id int, list []Tunnel) {
	l.mu.Lock()
	defer l.mu.Unlock()
	known := l.byID[id]
	for _, t := range known {
		k := pair{t.Endpoint, t.CustomerEndpoint}
		if left := slices.DeleteFunc(l.tunnels[k], func(o *tunnel) bool { return o.ID == id }); len(left) > 0 {
			l.tunnels[k] = left
		} else {
			delete(l.tunnels, k)
		}
	}
	delete(l.byID, id)
	for _, t := range list {
		l.add(t, known)
	}
	l.tell(id)
}

// add takes up a tunnel, with what was learned of it under the same number.
func (l *Learner) add(t Tunnel, known []*tunnel) {
	if t.Port == 0 {
		t.Port = wire.PortIKENAT
	}
	n := &tunnel{Tunnel: t}
	for _, o := range known {
		mtu := t.fits(o.path) // the path is as it was, the headers may not be
		if o.learned != 0 && o.Name == t.Name && t.Believe && o.Endpoint == t.Endpoint && o.CustomerEndpoint == t.CustomerEndpoint && mtu < t.MTU {
			n.path, n.learned, n.expires, n.own = o.path, mtu, o.expires, o.own
		}
	}
	k := pair{t.Endpoint, t.CustomerEndpoint}
	l.tunnels[k] = append(l.tunnels[k], n)
	l.byID[t.ID] = append(l.byID[t.ID], n)
}

// tell says what tunnel id carries, which is as much as each of its associations does.
func (l *Learner) tell(id int) {
	least := 0
	for _, t := range l.byID[id] {
		if t.learned != 0 && (least == 0 || t.learned < least) {
			least = t.learned
		}
	}
	l.set(id, least)
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
	if r.FragOff != 0 || !ofTunnels(r.Proto, r.Payload) {
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
			v = l.lower(t, int(max(r.MTU, least)), now, lifetime)
			if t.learned != 0 && t.path == int(max(r.MTU, least)) {
				t.own = true
				if l.share != nil {
					l.share(t.shared(now))
				}
			}
		}
		if slices.Index(interest, v) < slices.Index(interest, verdict) {
			verdict = v
		}
	}
	l.counts[verdict]++
	return verdict
}

// ofTunnels reports whether what an outer IP header carries may be a tunnel's packet, of which enough must be quoted: up to
// the flags of GRE, the SPI of ESP, the UDP header. Other UDP packets are the host's own.
func ofTunnels(proto uint8, quoted []byte) bool {
	switch proto {
	case wire.ProtoGRE:
		return len(quoted) >= wire.GREMinLen
	case wire.ProtoESP:
		return len(quoted) >= spiLen
	case wire.ProtoUDP:
		return len(quoted) >= wire.UDPLen && binary.BigEndian.Uint16(quoted) == wire.PortIKENAT // RFC 3948 2.1
	}
	return false
}

const spiLen = 4 // RFC 4303 2.1

// interest orders the verdicts about several tunnels with the same ends: the first one is that of the error.
var interest = []Verdict{Lowered, Confirmed, NotBelieved, Implausible, WrongHeader, NoTunnel}

// judge returns Lowered if the tunnel sends what r quotes.
func (t *tunnel) judge(r *wire.ICMPReport) Verdict {
	if !t.sends(r.Proto, r.Payload) {
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

// sends compares what is quoted behind the outer IP header, which may end early, with what the tunnel puts there.
func (t *tunnel) sends(proto uint8, quoted []byte) bool {
	switch {
	case t.SPI == 0:
		return proto == wire.ProtoGRE && t.sendsGRE(quoted)
	case t.UDP:
		return proto == wire.ProtoUDP && binary.BigEndian.Uint16(quoted[2:]) == t.Port && t.sendsESP(quoted[wire.UDPLen:])
	}
	return proto == wire.ProtoESP && t.sendsESP(quoted)
}

func (t *tunnel) sendsESP(esp []byte) bool {
	return len(esp) < spiLen || binary.BigEndian.Uint32(esp) == t.SPI
}

func (t *tunnel) sendsGRE(gre []byte) bool {
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

// lower takes over, for a while, that outer packets of t may have so many bytes. It is called with the lock held.
func (l *Learner) lower(t *tunnel, outer int, now time.Time, span time.Duration) Verdict {
	mtu := t.fits(outer)
	if mtu >= t.MTU {
		return Confirmed
	}
	if t.learned != 0 && mtu > t.learned {
		// A larger size than was learned: an old error that was on its way, or another path. It is tried again when
		// what is known expires, not sooner (RFC 1191 6.3).
		return Confirmed
	}
	if expires := now.Add(span); t.learned != mtu || expires.After(t.expires) {
		t.expires = expires
	}
	if mtu == t.learned {
		return Confirmed
	}
	t.path, t.learned = outer, mtu
	l.tell(t.ID)
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
				t.learned, t.own = 0, false
				l.tell(t.ID)
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
