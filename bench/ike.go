package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// The suites of the ike scenario. charon 5.9 has no ML-KEM: the hybrids are compared with what it would do in their place.
var ikeSuites = []struct{ name, words, against string }{
	{"ecp384", "aes256gcm16-prfsha384-ecp384", "ecp384"},
	{"x25519", "aes256gcm16-prfsha384-x25519", "x25519"},
	{"ecp384-ke1_mlkem768", "aes256gcm16-prfsha384-ecp384-ke1_mlkem768", "ecp384"},
	{"x25519-ke1_mlkem768", "aes256gcm16-prfsha384-x25519-ke1_mlkem768", "ecp384"},
}

const (
	ikeESP      = "aes256gcm16-noesn"
	ikeInFlight = 24 // handshakes at once
	ikeGoal     = 2  // times charon's rate
)

// An ikeLane is one responder with one suite.
type ikeLane struct {
	charon bool
	suite  string
}

// An ikeSample is one round of a lane: ns of the responder, and of the clock, for a handshake; others is which share of the
// time somebody else had the responder's core.
type ikeSample struct{ core, clock, others float64 }

type ikeBench struct {
	lab             *ikeLab
	near, ours      *ikeEnd
	charon          *charon
	missing         string // why there is no charon
	samples         map[ikeLane][]ikeSample
	handshakes, num int // in a round, and rounds
}

func ikeScenario(o options, report func(Result)) error {
	lab, err := newIKELab()
	if err != nil {
		return err
	}
	if err = ikeHandshakes(lab, o, report); err == nil {
		err = ikeTunnels(lab, o, report)
	}
	return errors.Join(err, lab.close())
}

func ikeHandshakes(lab *ikeLab, o options, report func(Result)) (err error) {
	wanted := slices.Clone(ikeSuites)
	wanted = slices.DeleteFunc(wanted, func(s struct{ name, words, against string }) bool {
		return !strings.Contains("ike/"+s.name, o.only)
	})
	if len(wanted) == 0 {
		return nil
	}
	b := &ikeBench{lab: lab, samples: map[ikeLane][]ikeSample{}, handshakes: 500, num: 9}
	if o.quick {
		b.handshakes, b.num = 40, 1
	}
	defer func() { err = errors.Join(err, b.stop()) }()
	if err := b.start(); err != nil {
		return err
	}
	var lanes []ikeLane
	for _, s := range wanted {
		lanes = append(lanes, ikeLane{false, s.name})
		if rival := (ikeLane{true, s.against}); b.charon != nil && !slices.Contains(lanes, rival) {
			lanes = append(lanes, rival)
		}
	}
	for round := range b.num + 1 {
		for _, l := range lanes {
			s, err := b.round(l)
			if err != nil {
				return fmt.Errorf("%+v: %w", l, err)
			}
			if round > 0 || o.quick { // the first one grows heaps and tables
				b.samples[l] = append(b.samples[l], s)
			}
		}
	}
	for _, s := range wanted {
		report(b.result(s.name, s.against))
	}
	return nil
}

func ikeWords(name string) string {
	for _, s := range ikeSuites {
		if s.name == name {
			return s.words
		}
	}
	panic("bench: no suite " + name)
}

func (b *ikeBench) start() (err error) {
	if b.near, err = startIKEEnd(b.lab.near, b.lab.cores[0], ikeNearOurs, ikeNearRival); err != nil {
		return err
	}
	if b.ours, err = startIKEEnd(b.lab.ours, b.lab.cores[1], ikeOurs); err != nil {
		return err
	}
	var all, known []string
	for _, s := range ikeSuites {
		all = append(all, s.words)
		if s.name == s.against {
			known = append(known, s.words)
		}
	}
	if _, err := b.ours.carryOut(order{Do: "tunnels", Count: b.handshakes,
		Tunnels: tunnelOrder{Gateway: true, Endpoint: ikeOurs, Customer: ikeNearOurs, IKE: all, ESP: ikeESP}}); err != nil {
		return err
	}
	b.charon, b.missing, err = startCharon(b.lab, known, ikeESP)
	return err
}

func (b *ikeBench) stop() error {
	var errs []error
	for _, e := range []*ikeEnd{b.near, b.ours} {
		if e != nil {
			errs = append(errs, e.stop())
		}
	}
	if b.charon != nil {
		errs = append(errs, b.charon.stop())
	}
	return errors.Join(errs...)
}

// round negotiates all tunnels with a responder, and then deletes them, which is not counted.
func (b *ikeBench) round(l ikeLane) (s ikeSample, err error) {
	endpoint, customer, cmd := ikeNearOurs, ikeOurs, b.ours.cmd
	if l.charon {
		endpoint, customer, cmd = ikeNearRival, ikeRival, b.charon.cmd
	}
	if err := b.tunnels(endpoint, customer, ikeWords(l.suite)); err != nil {
		return s, err
	}
	before, busyBefore, err := b.times(cmd)
	if err != nil {
		return s, err
	}
	a, err := b.near.carryOut(order{Do: "initiate", Count: b.handshakes, InFlight: ikeInFlight})
	if err != nil {
		return s, err
	}
	after, busy, err := b.times(cmd)
	if err != nil {
		return s, err
	}
	n, ran := float64(b.handshakes), after-before
	s = ikeSample{core: float64(ran) / n, clock: 1e9 * a.Seconds / n, others: max(0, (busy-busyBefore-ran).Seconds()/a.Seconds)}
	_, err = b.near.carryOut(order{Do: "terminate", Count: b.handshakes, InFlight: ikeInFlight})
	return s, err
}

func (b *ikeBench) tunnels(endpoint, customer netip.Addr, words string) error {
	_, err := b.near.carryOut(order{Do: "tunnels", Count: b.handshakes,
		Tunnels: tunnelOrder{Endpoint: endpoint, Customer: customer, IKE: []string{words}, ESP: ikeESP}})
	return err
}

// times are what a responder has had of its core so far, and all together.
func (b *ikeBench) times(cmd *exec.Cmd) (process, all time.Duration, err error) {
	if process, err = processorTime(cmd.Process); err != nil {
		return 0, 0, err
	}
	all, err = coreBusy(b.lab.cores[1])
	return process, all, err
}

func (b *ikeBench) result(name, against string) Result {
	use := b.samples[ikeLane{false, name}]
	ns, spread, best := of(use, func(s ikeSample) float64 { return s.core })
	clock, _, _ := of(use, func(s ikeSample) float64 { return s.clock })
	r := Result{Name: "ike/" + name, Unit: "handshake", NS: ns, PPS: 1e9 / ns, Spread: spread, BestNS: best}
	r.Note = fmt.Sprintf("%.0f/s by the clock, its core %.0f %% busy", 1e9/clock, 100*ns/clock)
	others, _, _ := of(use, func(s ikeSample) float64 { return s.others })
	if b.charon == nil {
		r.Note += "; " + b.missing
		return r
	}
	rival := b.samples[ikeLane{true, against}]
	rivalNS, rivalSpread, rivalBest := of(rival, func(s ikeSample) float64 { return s.core })
	rivalClock, _, _ := of(rival, func(s ikeSample) float64 { return s.clock })
	r.Against, r.AgainstNS, r.Ratio, r.GoalNS = "charon "+against, rivalNS, ns/rivalNS, rivalNS/ikeGoal
	r.Note += fmt.Sprintf("; %.2f times charon's rate (fastest rounds %.2f; goal %d), which has %.0f/s, spread %.0f %%, by the clock %.0f/s, busy %.0f %%",
		rivalNS/ns, rivalBest/best, ikeGoal, 1e9/rivalNS, 100*rivalSpread, 1e9/rivalClock, 100*rivalNS/rivalClock)
	if others > mostWait {
		r.Note += fmt.Sprintf("; BUSY MACHINE: others had %.0f %% of the core", 100*others)
	}
	return r
}

// of is the median of a figure, its spread, and the least.
func of(samples []ikeSample, figure func(ikeSample) float64) (median, spread, least float64) {
	var list []float64
	for _, s := range samples {
		list = append(list, figure(s))
	}
	slices.Sort(list)
	median = list[len(list)/2]
	return median, (list[len(list)-1] - list[0]) / median, list[0]
}
