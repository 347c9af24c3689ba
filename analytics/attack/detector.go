package attack

import (
	"cmp"
	"hash/maphash"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"causeway/analytics/flow"
	"causeway/analytics/sketch"
	"causeway/analytics/store"
)

const (
	// candidates are counters for addresses that are not hosts yet. One that has more than 1/4096 of the samples of a window becomes a
	// host, if it is not quieter than all hosts.
	candidates = 4096
	// enough are the samples in a window that make a candidate a host.
	enough = 3
	// cooling is what is left after a tick of how warm a host is: half in 35 s.
	cooling = 0.98
	// cold is how warm a host is that nothing was seen of for ten minutes, about. It is given up.
	cold = 1e-5
)

// A Detector finds attacks. It is for one goroutine. Its memory is bounded by Config.Hosts and Config.Attacks, whatever the packets
// are.
type Detector struct {
	config     Config
	tell       func(Event)
	seed       uint64
	accounts   maphash.Seed
	hosts      map[hostKey]*host
	list       []*host // the same, in an order that does not change by itself
	candidates *sketch.SpaceSaving[hostKey]

	last    time.Time // tick
	ticks   int
	slot    int // that is counted into
	seconds [slots]float64
	dropped [slots][2]float64 // packets by exact count: GRE, ESP
	sampled [2]float64        // packets a second that samples made of the same at the last tick

	spare  []*evidence
	made   int // evidence
	active int
	missed uint64
}

// New makes a detector that tells of attacks by a function, which Tick calls. A seed of 0 is drawn; another makes what it finds the
// same each time.
func New(c Config, seed uint64, tell func(Event)) *Detector {
	if seed == 0 {
		seed = rand.Uint64()
	}
	d := &Detector{config: c, tell: tell, seed: seed, accounts: maphash.MakeSeed(), hosts: make(map[hostKey]*host, c.Hosts)}
	d.candidates = sketch.NewSpaceSaving(candidates, func(k hostKey) uint64 {
		return sketch.HashAddr(seed^maphash.String(d.accounts, k.account), k.addr)
	})
	for i := range d.seconds {
		d.seconds[i] = 1
	}
	for v := range d.config.Thresholds {
		if d.config.Thresholds[v] == 0 {
			d.config.Thresholds[v] = math.Inf(1)
		}
	}
	return d
}

// Active is how many attacks go on.
func (d *Detector) Active() int { return d.active }

// Hosts is how many addresses are looked at.
func (d *Detector) Hosts() int { return len(d.list) }

// Missed counts the ticks at which what looks like an attack was let go, because there were Config.Attacks.
func (d *Detector) Missed() uint64 { return d.missed }

// Observe takes in a sample, for the account that it names; one of health checks is left out. Nothing of it is kept. In the steady
// state it does not allocate.
func (d *Detector) Observe(s *store.Sample) {
	p := &s.Packet
	if p.Version == 0 || s.Probe || s.Every == 0 {
		return
	}
	if h := d.host(s.Account, p.Dst); h != nil {
		c := received(s)
		var flowHash uint64
		if c == inACKFresh || c == inUDPFresh {
			flowHash = sketch.Hash(sketch.HashAddr(d.seed, p.Src), uint64(p.SrcPort)<<16|uint64(p.DstPort))
		}
		h.witness(s, h.receive(d.slot, c, s.Every, flowHash), p.Src)
	}
	// Who only sends is of interest if it scans; who receives becomes a host by that.
	c, probe := sent(p)
	h := d.hosts[hostKey{s.Account, p.Src}]
	if h == nil && probe {
		h = d.host(s.Account, p.Src)
	}
	if h == nil {
		return
	}
	// What was dropped had no effect: it explains nothing, and anybody can send it in a host's name.
	if s.Verdict != flow.Dropped {
		h.send(d.slot, c, s.Every)
	}
	if probe {
		h.witness(s, h.probe(d.slot, p, s.Every, d.seed), p.Dst)
	}
}

// greReasons are the drop reasons of GRE packets for an endpoint, in stage decap.
var greReasons = []string{"tunnel_unknown", "gre_key", "gre_checksum", "gre_protocol"}

// espReasons are those of ESP packets.
var espReasons = []string{"esp_no_sa", "esp_source", "esp_short", "esp_left_of_window", "esp_replayed", "esp_below_floor", "esp_forged",
	"esp_padding", "esp_dummy", "esp_protocol", "esp_selector", "esp_expired"}

// Count takes in exact counts of drops, each once. Without them the floods of GRE and ESP at endpoints are estimated by samples alone,
// of which the workers may have had no room for all.
func (d *Detector) Count(rows []store.Drops) {
	for i := range rows {
		switch r := &rows[i]; {
		case slices.Contains(greReasons, r.Reason):
			d.dropped[d.slot][0] += float64(r.Packets)
		case slices.Contains(espReasons, r.Reason):
			d.dropped[d.slot][1] += float64(r.Packets)
		}
	}
}

// host is the host of that address, if it is one or becomes one.
func (d *Detector) host(account string, addr netip.Addr) *host {
	key := hostKey{account, addr}
	if h := d.hosts[key]; h != nil {
		return h
	}
	d.candidates.Add(key, 1)
	if e, _ := d.candidates.Get(key); e.Count-e.Error < enough || d.crowded() {
		return nil
	}
	return d.admit(key)
}

// crowded says that there is little room for hosts. Then Tick chooses who becomes one.
func (d *Detector) crowded() bool { return len(d.list) >= d.config.Hosts*7/8 }

func (d *Detector) admit(key hostKey) *host {
	key.account = strings.Clone(key.account) // the caller's may lie in something large
	h := &host{hostKey: key}
	d.hosts[key] = h
	d.list = append(d.list, h)
	return h
}

// witness keeps a packet for the attacks that it is a sign of.
func (h *host) witness(s *store.Sample, c class, peer netip.Addr) {
	if h.watched&watchers[c] == 0 {
		return
	}
	for v := range h.tracks {
		if h.watched&watchers[c]&(1<<v) != 0 {
			h.tracks[v].evidence.add(s, peer)
		}
	}
}

// Tick judges what was observed, and tells. It is to be called once a second; calls that come earlier than that do nothing.
func (d *Detector) Tick(now time.Time) {
	elapsed := now.Sub(d.last)
	if d.last.IsZero() || elapsed < 0 { // the first call, or the clock was set back
		d.last = now
		return
	}
	if elapsed < 900*time.Millisecond {
		return
	}
	d.last = now
	d.ticks++
	d.seconds[d.slot] = elapsed.Seconds()
	d.judgeAll(now)
	d.slot = (d.slot + 1) % slots
	d.dropped[d.slot] = [2]float64{}
	d.turn()
	if d.crowded() {
		d.choose()
	}
	if d.slot == 0 {
		d.candidates.Reset()
	}
}

func (d *Detector) judgeAll(now time.Time) {
	var window float64
	var exact, sampled [2]float64
	for i := range slots {
		window += d.seconds[i]
		exact[0] += d.dropped[i][0]
		exact[1] += d.dropped[i][1]
	}
	exact[0], exact[1] = exact[0]/window, exact[1]/window
	for _, h := range d.list {
		drops := d.judge(h, window, exact, now)
		sampled[0] += drops[0]
		sampled[1] += drops[1]
	}
	d.sampled = sampled
}

// judge applies the rules to one host, and returns the rates of its drops of GRE and ESP as samples have it.
func (d *Detector) judge(h *host, window float64, exact [2]float64, now time.Time) (drops [2]float64) {
	sums := h.sums()
	h.heat = h.heat*cooling + float32(h.samples(d.slot))
	var found [Jump]reading
	var odd reading
	for v := range Jump {
		found[v] = rules[v].read(&sums, window)
		r := found[v]
		if v != Scan && r.rate > 0 {
			odd.rate, odd.variance, odd.samples = odd.rate+r.rate, odd.variance+r.variance, odd.samples+r.samples
		}
		if v == GREFlood || v == ESPFlood {
			i := v - GREFlood
			drops[i] = r.rate
			r = d.withExact(r, exact[i], d.sampled[i])
		}
		r.rate -= h.base.explained(v)
		d.follow(h, v, r, d.config.Thresholds[v], now)
	}
	// A jump is what has no other name.
	if jump := &h.tracks[Jump]; jump.active || h.watched&^(1<<Jump) == 0 {
		d.follow(h, Jump, odd, h.base.jump(&d.config), now)
	} else {
		d.release(h, Jump)
	}
	if d.ticks%baselineStep == 0 && !h.attacked() {
		h.base.learn(&found, odd.rate)
	}
	return
}

// withExact makes a reading of samples one of an exact rate, of which the host has the share that it has of the samples.
func (d *Detector) withExact(r reading, exact, sampled float64) reading {
	if exact == 0 || r.rate == 0 {
		return r
	}
	share := 1.0
	if sampled > 0 {
		share = min(1, r.rate/sampled)
	}
	scale := exact * share / r.rate
	return reading{rate: exact * share, variance: r.variance * scale * scale * (1 - share), samples: max(r.samples, uint32(d.config.MinSamples))}
}

// follow takes one track a step further: only at the second tick in a row an attack starts. One may be a burst, and evidence, which
// is gathered from the first on, is there to be told.
func (d *Detector) follow(h *host, v Vector, r reading, threshold float64, now time.Time) {
	t := &h.tracks[v]
	low := r.rate - d.config.Confidence*math.Sqrt(r.variance)
	switch {
	case t.active:
		d.goOn(h, v, r.rate, now)
	case low <= threshold || r.samples < uint32(d.config.MinSamples):
		d.release(h, v)
	case t.evidence == nil:
		d.watch(h, v, now)
	default:
		t.active, t.threshold, t.loud, t.told = true, float32(threshold), now, now
		d.active++
		d.report(h, v, Started, r.rate, time.Time{})
	}
}

// goOn is follow for an attack that has begun.
func (d *Detector) goOn(h *host, v Vector, rate float64, now time.Time) {
	t := &h.tracks[v]
	switch {
	case rate >= float64(t.threshold)/2:
		t.loud = now
	case now.Sub(t.loud) >= d.config.Quiet:
		d.active--
		d.report(h, v, Ended, rate, t.loud)
		d.release(h, v)
		return
	}
	if now.Sub(t.told) >= d.config.Update {
		t.told = now
		d.report(h, v, Changed, rate, time.Time{})
	}
}

// End tells of all attacks that go on that they have ended, as far as anybody will know.
func (d *Detector) End(now time.Time) {
	for _, h := range d.list {
		for v := range Vectors {
			if h.tracks[v].active {
				d.active--
				d.report(h, v, Ended, 0, now)
				d.release(h, v)
			}
		}
	}
}

// watch gives a track evidence, if there is any left.
func (d *Detector) watch(h *host, v Vector, now time.Time) {
	var e *evidence
	switch n := len(d.spare); {
	case n > 0:
		e, d.spare = d.spare[n-1], d.spare[:n-1]
	case d.made < d.config.Attacks:
		e = newEvidence(d.seed)
		d.made++
	default:
		d.missed++
		return
	}
	e.begin(now)
	h.tracks[v].evidence = e
	h.watched |= 1 << v
}

// release begins a track anew.
func (d *Detector) release(h *host, v Vector) {
	if e := h.tracks[v].evidence; e != nil {
		d.spare = append(d.spare, e)
		h.watched &^= 1 << v
	}
	h.tracks[v] = track{}
}

func (h *host) attacked() bool {
	for v := range h.tracks {
		if h.tracks[v].active {
			return true
		}
	}
	return false
}

// turn prepares the hosts for the next tick, and gives up those that are cold.
func (d *Detector) turn() {
	keep := d.list[:0]
	for _, h := range d.list {
		if h.heat < cold && h.watched == 0 {
			delete(d.hosts, h.hostKey)
			continue
		}
		h.counts[d.slot] = [counted]cell{}
		if d.slot == 0 {
			h.flows, h.targets = bitmap{}, bitmap{}
		}
		keep = append(keep, h)
	}
	clear(d.list[len(keep):])
	d.list = keep
}

// choose makes the warmest candidates hosts, where there is room, and in place of quieter ones.
func (d *Detector) choose() {
	slices.SortStableFunc(d.list, func(a, b *host) int { return cmp.Compare(b.heat, a.heat) })
	quietest := len(d.list) - 1
	for _, e := range d.candidates.Top(d.config.Hosts / 8) {
		warm := e.Count - e.Error
		if d.hosts[e.Key] != nil || warm < enough {
			continue
		}
		if last := len(d.list) - 1; last+1 >= d.config.Hosts {
			for quietest >= 0 && d.list[quietest].watched != 0 {
				quietest--
			}
			if quietest < 0 || d.list[quietest].heat >= float32(warm) {
				return
			}
			delete(d.hosts, d.list[quietest].hostKey)
			d.list[quietest] = d.list[last]
			d.list = d.list[:last]
			quietest--
		}
		d.admit(e.Key).heat = float32(warm)
	}
}
