package main

import (
	"time"

	"golang.org/x/sys/unix"
)

// A pacer says when frames are due. Times are nanoseconds of CLOCK_MONOTONIC outside and 2^-16 ns inside, so that the
// interval between frames is exact enough at any rate: the error is below 10^-5 up to 100 million packets/s.
//
// What a pause held up is made up for at no more than twice the rate, since a burst at full speed would overrun the
// rings of whatever is tested; of a pause longer than maxLag only that much. bpf/live.bpf.c does the same.
type pacer struct {
	interval uint64 // 0 = always due
	epoch    uint64
	due      uint64 // when the next frame should go
	free     uint64 // when it may go at the earliest
}

const (
	fraction = 16
	maxLag   = 500 * time.Millisecond // longer than the pause between two test runs of the live engine
	maxRate  = 100_000_000            // packets/s
)

// newPacer makes a pacer that starts at now; rate is in packets/s, 0 = no limit.
func newPacer(rate, now uint64) *pacer {
	return &pacer{interval: paceInterval(rate), epoch: now}
}

func paceInterval(rate uint64) uint64 {
	if rate == 0 {
		return 0
	}
	return (1e9<<fraction + rate/2) / rate
}

// take says how many of want frames are due at now, and takes them off the schedule.
func (p *pacer) take(now uint64, want int) int {
	if p.interval == 0 {
		return want
	}
	t := (now - p.epoch) << fraction
	if t < p.due || t < p.free {
		return 0
	}
	if lag := uint64(maxLag) << fraction; t-p.due > lag {
		p.due = t - lag
	}
	n := min(uint64(want), (t-p.due)/p.interval+1, (t-p.free)/(p.interval/2)+1)
	p.due += n * p.interval
	p.free = t + p.interval/2
	return int(n)
}

// wait sleeps while the next frame is far and returns at once when it is near: the caller spins the rest.
func (p *pacer) wait(now uint64) {
	const near = 200 * time.Microsecond // a sleep overshoots by up to this much
	t, next := (now-p.epoch)<<fraction, max(p.due, p.free)
	if d := time.Duration((next - min(t, next)) >> fraction); d > near {
		time.Sleep(min(d-near, 50*time.Millisecond))
	}
}

// monotonic is CLOCK_MONOTONIC in nanoseconds, the clock of bpf_ktime_get_ns.
func monotonic() uint64 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) != nil {
		return 0
	}
	return uint64(ts.Nano())
}
