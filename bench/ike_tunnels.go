package main

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// ikeTunnelWords is what the tunnels of ike/tunnels agree on: children have a key exchange of their own when they are rekeyed.
const (
	ikeTunnelWords = "aes256gcm16-prfsha384-x25519"
	ikeTunnelESP   = "aes256gcm16-x25519-noesn"
)

// ikeTunnels has many tunnels between two daemons of ours and rekeys them all. The results are of the responder; what the other end
// took stands in the note.
func ikeTunnels(lab *ikeLab, o options, report func(Result)) (err error) {
	if !strings.Contains("ike/tunnels", o.only) && !strings.HasPrefix(o.only, "ike/tunnels") {
		return nil
	}
	m := &manyTunnels{count: 10000, idle: 10 * time.Second}
	if o.quick {
		m.count, m.idle = 100, 2*lookAgain
	}
	defer func() {
		for _, e := range m.ends {
			if e != nil {
				err = errors.Join(err, e.stop())
			}
		}
	}()
	if m.ends[0], err = startIKEEnd(lab.near, lab.cores[0], ikeNearOurs); err != nil {
		return err
	}
	if m.ends[1], err = startIKEEnd(lab.ours, lab.cores[1], ikeOurs); err != nil {
		return err
	}
	return m.measure(report)
}

type manyTunnels struct {
	count int
	idle  time.Duration
	ends  [2]*ikeEnd // initiator and responder
}

func (m *manyTunnels) measure(report func(Result)) error {
	sides := [2]tunnelOrder{{Endpoint: ikeNearOurs, Customer: ikeOurs}, {Gateway: true, Endpoint: ikeOurs, Customer: ikeNearOurs}}
	empty, err := m.memory()
	if err != nil {
		return err
	}
	for i, e := range m.ends {
		sides[i].IKE, sides[i].ESP = []string{ikeTunnelWords}, ikeTunnelESP
		if _, err := e.carryOut(order{Do: "tunnels", Count: m.count, Tunnels: sides[i]}); err != nil {
			return err
		}
	}
	configured, err := m.memory()
	if err != nil {
		return err
	}
	first := configured
	for _, step := range []struct{ name, do, unit string }{{"establish", "initiate", "handshake"}, {"rekey-child", "rekey", "rekey"},
		{"rekey-ike", "rekey-ike", "rekey"}} {
		r, err := m.step(step.do)
		if err != nil {
			return err
		}
		time.Sleep(2 * graveyard) // what is kept for a while has gone
		now, err := m.memory()
		if err != nil {
			return err
		}
		r.Name, r.Unit = fmt.Sprintf("ike/tunnels=%d/%s", m.count, step.name), step.unit
		r.TunnelMemory = m.each(now[1], first[1])
		r.Note += fmt.Sprintf("; %.0f bytes a tunnel (initiator %.0f), and %.0f of its configuration",
			r.TunnelMemory, m.each(now[0], first[0]), m.each(configured[1], empty[1]))
		report(r)
	}
	return m.rest(report)
}

const (
	graveyard = 3500 * time.Millisecond // somewhat longer than a daemon keeps pairs that were deleted
	lookAgain = 2 * time.Second         // so often it looks at what the dataplane has counted
)

func (m *manyTunnels) each(now, before uint64) float64 {
	return (float64(now) - float64(before)) / float64(m.count)
}

func (m *manyTunnels) memory() (heap [2]uint64, err error) {
	for i, e := range m.ends {
		a, err := e.carryOut(order{Do: "memory"})
		if err != nil {
			return heap, err
		}
		heap[i] = a.Heap
	}
	return heap, nil
}

func (m *manyTunnels) times() (t [2]time.Duration, err error) {
	for i, e := range m.ends {
		if t[i], err = processorTime(e.cmd.Process); err != nil {
			return t, err
		}
	}
	return t, nil
}

// step lets the initiator do something with each tunnel.
func (m *manyTunnels) step(do string) (r Result, err error) {
	before, err := m.times()
	if err != nil {
		return r, err
	}
	a, err := m.ends[0].carryOut(order{Do: do, Count: m.count, InFlight: ikeInFlight})
	if err != nil {
		return r, err
	}
	after, err := m.times()
	if err != nil {
		return r, err
	}
	n := float64(m.count)
	r.NS, r.InitiatorNS = float64(after[1]-before[1])/n, float64(after[0]-before[0])/n
	r.PPS = 1e9 / r.NS
	r.Note = fmt.Sprintf("the initiator %.0f µs; all in %.1f s", r.InitiatorNS/1e3, a.Seconds)
	return r, nil
}

// rest is what the tunnels cost while nothing happens.
func (m *manyTunnels) rest(report func(Result)) error {
	before, err := m.times()
	if err != nil {
		return err
	}
	time.Sleep(m.idle)
	after, err := m.times()
	if err != nil {
		return err
	}
	if _, err := m.memory(); err != nil { // one that has died rests very well
		return err
	}
	n := m.idle.Seconds() * float64(m.count)
	share := func(i int) float64 { return (after[i] - before[i]).Seconds() / m.idle.Seconds() }
	each := float64(after[1]-before[1]) / n
	report(Result{Name: fmt.Sprintf("ike/tunnels=%d/rest", m.count), Unit: "tunnel and second", NS: each, PPS: 1e9 / each,
		InitiatorNS: float64(after[0]-before[0]) / n,
		Note:        fmt.Sprintf("%.1f %% of a core, the initiator %.1f %%", 100*share(1), 100*share(0))})
	return nil
}
