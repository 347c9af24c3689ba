package config

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// HealthType is what a probe of a tunnel is.
type HealthType uint8

// HealthReply is an ICMP echo reply to ourselves, which the router routes back; HealthRequest an echo request to the target.
const (
	HealthReply HealthType = iota
	HealthRequest
)

var healthTypes = []string{"reply", "request"}

// String returns the word that the configuration file uses.
func (t HealthType) String() string { return healthTypes[t] }

// HealthDirection is how the answers to a tunnel's probes come.
type HealthDirection uint8

// Bidirectional probes are answered through a tunnel, unidirectional ones by the Internet.
const (
	HealthBidirectional HealthDirection = iota
	HealthUnidirectional
)

var healthDirections = []string{"bidirectional", "unidirectional"}

// String returns the word that the configuration file uses.
func (d HealthDirection) String() string { return healthDirections[d] }

// HealthCheck is how it is found out whether a tunnel carries packets. Its fields are named after the file's.
type HealthCheck struct {
	Type      HealthType
	Direction HealthDirection
	Source    netip.Addr    // our interface address, of the family that is probed; unidirectional: the endpoint
	Target    netip.Addr    // where requests go; of replies it may be the zero Addr
	Interval  time.Duration // between probes of a node
	Retry     int           // at once, after one that failed

	// Degraded: a share Loss of the probes of the last Over failed, and at least Failures.
	Loss     float64
	Over     time.Duration
	Failures int

	// Down: so many in a row failed, sent Within a time.
	Samples int
	Within  time.Duration

	// Down no more: Successes in a row were answered. Healthy again: Clean in a row, and Hold has passed.
	Successes, Clean int
	Hold             time.Duration
}

// MaxHealthSamples bounds HealthCheck.Samples. Package health has the same figure, and control/node compares the two.
const MaxHealthSamples = 16

// healthRates are the intervals of the words of rate.
var healthRates = []time.Duration{10 * time.Second, 5 * time.Second, time.Second}

var (
	healthSchema = schema{
		fields:  []string{"enabled", "type", "direction", "family", "rate", "interval", "target", "retry", "degraded", "down", "recovery"},
		refused: map[string]string{"bgp": noBGP},
	}
	degradedSchema = schema{fields: []string{"loss", "over", "failures"}}
	downSchema     = schema{fields: []string{"samples", "within"}}
	recoverySchema = schema{fields: []string{"successes", "clean", "hold"}}
)

// Bounds of times, with their reasons.
var (
	intervalBounds = durationBounds{100 * time.Millisecond, 10 * time.Minute,
		"the customer's router answers from its slow path", "a tunnel that is down would be noticed too late; write enabled: false if that is meant"}
	overBounds = durationBounds{10 * time.Second, time.Hour,
		"a few probes say nothing of a small loss", "a loss that is long over would count still"}
	withinBounds = durationBounds{100 * time.Millisecond, time.Minute,
		"answers take their time", "what is long over would count still"}
	holdBounds = durationBounds{time.Second, time.Hour,
		"routes would go to and fro", "nobody waits for so long"}
)

// healthCheck decodes how a tunnel is probed, after its addresses. A section that is not there, or not enabled, is nil.
func (d *decoder) healthCheck(f fields, t *Tunnel) {
	v, ok := f.get("health_check")
	if !ok {
		return
	}
	if _, ok := v.node.(ast.MapNode); !ok {
		v.fail("must be a mapping: write health_check: {type: request}")
		return
	}
	m, ok := v.mapping(healthSchema)
	if !ok {
		return
	}
	h := &HealthCheck{Type: HealthReply, Interval: healthRates[1], Retry: 2, Loss: 0.001, Over: 5 * time.Minute, Failures: 2,
		Samples: 3, Within: time.Second, Successes: 3, Clean: 30, Hold: 5 * time.Minute}
	enabled := true
	if v, ok := m.get("enabled"); ok {
		v.boolean(&enabled)
	}
	if v, ok := m.get("type"); ok {
		i, _ := v.word(healthTypes...)
		h.Type = HealthType(i)
	}
	if v, ok := m.get("direction"); ok {
		i, _ := v.word(healthDirections...)
		h.Direction = HealthDirection(i)
	}
	if h.Direction == HealthUnidirectional {
		h.addressesOutside(m, t)
	} else {
		h.addresses(m, t)
	}
	h.rate(m)
	h.thresholds(m)
	if enabled {
		t.HealthCheck = h
	}
}

// errReplyTarget is said of a target that would not be probed.
const errReplyTarget = "%s is for type: request; a reply goes to our own address: remove the field, or write type: request"

// addressesOutside decodes where unidirectional probes go: out of the tunnel, and the answers to the endpoint.
func (h *HealthCheck) addressesOutside(m fields, t *Tunnel) {
	if v, ok := m.get("family"); ok {
		v.fail("is for direction: bidirectional; a unidirectional probe is of the endpoint's family: remove the field")
	}
	if h.Source, h.Target = t.Endpoint, t.CustomerEndpoint; !h.Source.IsValid() {
		return // that is a mistake of its own
	}
	v, ok := m.get("target")
	if !ok {
		if h.Type == HealthRequest && !h.Target.IsValid() {
			m.fail("has no target: the tunnel has no customer_endpoint, to which unidirectional requests go otherwise; write target: an address of the customer's that answers pings of %s", h.Source)
		}
		return
	}
	target, ok := v.unicast()
	switch {
	case !ok:
	case h.Type == HealthReply:
		v.fail(errReplyTarget, target)
	case target.Is4() != h.Source.Is4():
		v.fail("%s is not of the family of the endpoint, %s, from which it is asked: write one that is", target, h.Source)
	case target == h.Source:
		v.fail("%s is our own endpoint: write an address of the customer's", target)
	default:
		h.Target = target
	}
}

// addresses decodes family and target.
func (h *HealthCheck) addresses(m fields, t *Tunnel) {
	from, ok := m.insideFamily(t)
	if !ok {
		return // that is a mistake of its own
	}
	h.Source, h.Target = from.Addr(), otherHost(from)
	v, ok := m.get("target")
	if !ok {
		return
	}
	target, ok := v.unicast()
	switch {
	case !ok:
	case h.Type == HealthReply:
		v.fail(errReplyTarget, target)
	case target.Is4() != h.Source.Is4():
		v.fail("%s is not of the family that is probed: write family: %s", target, map[bool]string{true: "ipv4", false: "ipv6"}[target.Is4()])
	case target == h.Source:
		v.fail("%s is our own interface address: write an address of the customer's", target)
	case !from.Contains(target) && !slices.ContainsFunc(t.Prefixes, func(p netip.Prefix) bool { return p.Contains(target) }):
		v.fail("%s is not in the tunnel's prefixes, nor in the subnet of its interface address: its answers would be dropped as inner_source", target)
	default:
		h.Target = target
	}
}

// rate decodes rate, interval and retry.
func (h *HealthCheck) rate(m fields) {
	if v, ok := m.get("rate"); ok {
		i, _ := v.word("low", "mid", "high")
		h.Interval = healthRates[i]
	}
	if v, ok := m.get("interval"); ok {
		if m.given["rate"] {
			v.fail("stands beside rate: there is one of the two; remove it, or rate")
		} else if d, ok := v.duration(intervalBounds, ""); ok {
			h.Interval = d
		}
	}
	if v, ok := m.get("retry"); ok {
		if i, ok := v.integer(0, 10); ok {
			h.Retry = int(i)
		}
	}
}

// thresholds decodes what makes a state.
func (h *HealthCheck) thresholds(m fields) {
	if v, ok := m.get("degraded"); ok {
		if f, ok := v.mapping(degradedSchema); ok {
			if v, ok := f.get("loss"); ok {
				v.percent(&h.Loss)
			}
			f.time("over", overBounds, &h.Over)
			f.number("failures", 1, 1000, &h.Failures)
		}
	}
	if v, ok := m.get("down"); ok {
		if f, ok := v.mapping(downSchema); ok {
			f.number("samples", 1, MaxHealthSamples, &h.Samples)
			f.time("within", withinBounds, &h.Within)
		}
	}
	if need := h.leastTime(); need > h.Within {
		m.fail("would never find the tunnel down: down.samples of %d, with a retry of %d and one probe each %s, take %s to be sent, and down.within is %s; write a longer down.within, more retries, or a shorter interval",
			h.Samples, h.Retry, spell(h.Interval), spell(need), spell(h.Within))
	}
	if most := int(h.Over / h.Interval); most < h.Failures {
		m.fail("would never find the tunnel degraded: in degraded.over of %s there are %d probes, one each %s, and degraded.failures is %d; write fewer, a longer degraded.over, or a shorter interval",
			spell(h.Over), most, spell(h.Interval), h.Failures)
	}
	if v, ok := m.get("recovery"); ok {
		if f, ok := v.mapping(recoverySchema); ok {
			f.number("successes", 1, 1000, &h.Successes)
			f.number("clean", 1, 10000, &h.Clean)
			f.time("hold", holdBounds, &h.Hold)
		}
	}
}

// mostPatience is how long an answer is waited for at most. Package health has the same figure.
const mostPatience = 900 * time.Millisecond

// leastTime is how long it takes to send as many probes as make a tunnel down: one each interval, or the first, and others when that was waited
// for in vain.
func (h *HealthCheck) leastTime() time.Duration {
	regular := time.Duration(h.Samples-1) * h.Interval
	if h.Retry == 0 || h.Samples == 1 {
		return regular
	}
	return min(regular, mostPatience+time.Duration(max(0, h.Samples-1-h.Retry))*h.Interval)
}

// time decodes a field that is a duration, if it is there.
func (f fields) time(name string, b durationBounds, to *time.Duration) {
	if v, ok := f.get(name); ok {
		if d, ok := v.duration(b, ""); ok {
			*to = d
		}
	}
}

// number decodes a field that is a whole number, if it is there.
func (f fields) number(name string, low, high int64, to *int) {
	if v, ok := f.get(name); ok {
		if i, ok := v.integer(low, high); ok {
			*to = int(i)
		}
	}
}

// percent decodes a share such as 0.1%.
func (v value) percent(to *float64) {
	s, _ := v.node.(*ast.StringNode)
	if s != nil {
		number, ok := strings.CutSuffix(s.Value, "%")
		if x, err := strconv.ParseFloat(number, 64); ok && err == nil && x > 0 && x <= 100 {
			*to = x / 100
			return
		}
	}
	v.fail("must be a share of more than 0%% and up to 100%%, such as 0.1%%, got %s", v)
}

func sameHealthCheck(a, b *HealthCheck) bool { return a == b || a != nil && b != nil && *a == *b }
