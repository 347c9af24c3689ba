package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"runtime"

	"causeway/pipeline"
	"causeway/xsk"
)

// What an attack on one association costs the others: every second frame belongs to customer 0, and those between are genuine
// packets of customer 1 in one pass, and an attack on that one's association in the next. All of the attack must be dropped
// for its reason, and all of customer 0 must come out.

type espAttack struct {
	kind   string
	reason pipeline.Reason
	size   int
}

func espAttacks() []espAttack {
	var as []espAttack
	for _, size := range []int{64, 1400} {
		as = append(as,
			espAttack{"forged", pipeline.ESPForged, size},       // the tag is wrong: as much work as a genuine packet
			espAttack{"replayed", pipeline.ESPReplayed, size},   // came before: no decryption
			espAttack{"unknown-spi", pipeline.ESPNoSA, size},    // nobody's
			espAttack{"wrong-source", pipeline.ESPSource, size}) // of another host
	}
	return as
}

func (a espAttack) name() string {
	return fmt.Sprintf("esp/attack/%s/aes128gcm16/%dB", a.kind, a.size)
}

// arm turns every second frame of a filled stage into the attack. came is the last frame of customer 1 that was received.
func (a espAttack) arm(q *stage, came []byte) {
	for i := 1; i < len(q.descs); i += 2 {
		f := q.frame(i)[xsk.Headroom:][:q.descs[i].Len]
		switch a.reason {
		case pipeline.ESPForged:
			f[len(f)-1] ^= 1
		case pipeline.ESPReplayed:
			copy(f, came)
		case pipeline.ESPNoSA:
			binary.BigEndian.PutUint32(f[34:], 0xdead)
		case pipeline.ESPSource:
			copy(f[26:30], []byte{192, 0, 2, 66})
			f[24], f[25] = 0, 0
			binary.BigEndian.PutUint16(f[24:], checksum(f[14:34]))
		}
	}
}

func measureAttack(a espAttack, quick bool) (Result, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	u, err := xsk.NewUMEM(xsk.UMEMConfig{Parts: 1, FramesPerPart: espFrames, HugePages: true})
	if err != nil {
		return Result{}, err
	}
	defer u.Close()
	q := newStage(u, 0, espFrames)
	c := espCase{kind: "decap", size: a.size, sas: 2}
	w, err := newESPWorld(c, u, q)
	if err != nil {
		return Result{}, err
	}
	w.packets(c)
	w.chosen = []int{0, 1}
	if err := w.fill(c); err != nil {
		return Result{}, err
	}
	last := q.frame(espFrames - 1)[xsk.Headroom:][:q.descs[espFrames-1].Len]
	came := bytes.Clone(last)
	w.drive()
	n, passes := 15, 200
	if quick {
		n, passes = 1, 2
	}
	var failed error
	contender := func(arm bool, out int) func() float64 {
		return leastOf(passes, &failed, func() (float64, error) {
			if err := w.fill(c); err != nil {
				return 0, err
			}
			if arm {
				a.arm(q, came)
			} else {
				copy(came, last)
			}
			ns := w.time()
			if len(q.sent) != out {
				return 0, fmt.Errorf("%d of %d frames came out: %+v", len(q.sent), out, dropped(w.engine))
			}
			return ns, nil
		})
	}
	total := w.engine.Total()
	before := total.Dropped[a.reason]
	m := rounds(n, contender(true, espFrames/2), contender(false, espFrames))
	total = w.engine.Total()
	if got, want := total.Dropped[a.reason]-before, uint64(n*passes*espFrames/2); failed == nil && got != want {
		failed = fmt.Errorf("%d frames were dropped for %v, not %d", got, a.reason, want)
	}
	if failed != nil {
		return Result{}, failed
	}
	if err := w.fill(c); err != nil {
		return Result{}, err
	}
	a.arm(q, came)
	allocs := allocations(func() { w.drive() })
	if err := w.vault.Close(); err != nil {
		return Result{}, err
	}
	cost, best := 2*m.a-m.b, 2*m.bestA-m.bestB
	return Result{Name: a.name(), PPS: 1e9 / cost, NS: cost, BestNS: best, Spread: m.spread, Against: "a genuine packet", AgainstNS: m.b,
		Ratio: cost / m.b, GoalNS: m.b, Allocs: allocs}, nil
}
