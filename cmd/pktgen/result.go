package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// A sendResult is what pktgen send reports. Bytes are of frames without FCS.
type sendResult struct {
	Name        string      `json:"name"`
	Engine      string      `json:"engine"`
	Interface   string      `json:"interface"`
	Packets     uint64      `json:"packets"`   // taken by the driver
	Attempted   uint64      `json:"attempted"` // given to it; the sequence numbers used are 0 to attempted-1
	Bytes       uint64      `json:"bytes"`     // of attempted
	Seconds     float64     `json:"seconds"`   // from the first packet to the last
	PPS         float64     `json:"pps"`
	BPS         float64     `json:"bits_per_second"`
	Rate        uint64      `json:"rate"`         // asked for, 0 = no limit
	LinkDropped uint64      `json:"link_dropped"` // what the interface's own counter of transmit drops grew by
	Flows       int         `json:"flows"`
	Sizes       []sizeCount `json:"sizes,omitempty"`
	Probe       bool        `json:"probe"`
	StoppedBy   string      `json:"stopped_by"` // count, duration, signal or error
	Error       string      `json:"error,omitempty"`
}

// A sizeCount says how many frames of one length (without FCS) were attempted.
type sizeCount struct {
	Frame   int    `json:"frame"`
	Packets uint64 `json:"packets"`
}

// fill adds what follows from the command line and the counters.
func (r *sendResult) fill(j *job, err error) {
	r.Engine, r.Interface, r.Rate = j.engine, j.link.Attrs().Name, j.rate
	r.Flows, r.Probe = j.plan.spec.Flows, j.plan.probeOff != 0
	if r.Seconds > 0 && r.Attempted > 0 {
		r.PPS = float64(r.Packets) / r.Seconds
		r.BPS = 8 * float64(r.Bytes) * float64(r.Packets) / float64(r.Attempted) / r.Seconds
	}
	if err != nil {
		r.Error = err.Error()
	}
}

func (r *sendResult) print(w io.Writer, asJSON bool) error {
	if asJSON {
		return printJSON(w, r)
	}
	_, err := fmt.Fprintf(w, "%s: %d packets sent out of %s in %.3f s: %s packets/s, %sbit/s (engine %s, stopped by %s)\n",
		r.Name, r.Packets, r.Interface, r.Seconds, human(r.PPS), human(r.BPS), r.Engine, r.StoppedBy)
	if refused := r.Attempted - min(r.Attempted, r.Packets); refused > 0 || r.LinkDropped > 0 {
		fmt.Fprintf(w, "not taken by the driver: %d; dropped by the interface: %d\n", refused, r.LinkDropped)
	}
	return err
}

// A sinkResult is what pktgen sink reports. Bytes are of frames without FCS.
type sinkResult struct {
	Name      string        `json:"name"`
	Engine    string        `json:"engine"`
	Interface string        `json:"interface"`
	Packets   uint64        `json:"packets"`
	Bytes     uint64        `json:"bytes"`
	Seconds   float64       `json:"seconds"` // from the first packet to the last
	PPS       float64       `json:"pps"`
	BPS       float64       `json:"bits_per_second"`
	RingLost  uint64        `json:"ring_lost"` // arrived at the interface, but the socket's rings had no room
	Probes    *probeResult  `json:"probes,omitempty"`
	Delay     *delayResult  `json:"delay_ns,omitempty"`
	Checksums *verifyResult `json:"checksums,omitempty"`
	StoppedBy string        `json:"stopped_by"` // expect, idle, duration, signal or error
	Error     string        `json:"error,omitempty"`
}

// A probeResult is what the sequence numbers tell.
type probeResult struct {
	Received   uint64  `json:"received"` // duplicates included
	First      uint64  `json:"first"`    // lowest sequence number
	Last       uint64  `json:"last"`     // highest
	Lost       uint64  `json:"lost"`     // between the two
	LossRatio  float64 `json:"loss_ratio"`
	Duplicates uint64  `json:"duplicates"`
	Reordered  uint64  `json:"reordered"`   // came after a higher number
	MaxReorder uint64  `json:"max_reorder"` // the furthest that one came too late, in sequence numbers
	TooLate    uint64  `json:"too_late"`    // further behind than can be told new from duplicate; counted as new
}

// A delayResult is the distribution of the time from the sender's stamp to the sink's poll, in ns; the percentiles
// are upper bounds and exact to 1/16.
type delayResult struct {
	Min  uint64 `json:"min"`
	Mean uint64 `json:"mean"`
	P50  uint64 `json:"p50"`
	P90  uint64 `json:"p90"`
	P99  uint64 `json:"p99"`
	Max  uint64 `json:"max"`
}

// A verifyResult counts packets whose checksums were looked at.
type verifyResult struct {
	Checked uint64 `json:"checked"`
	Bad     uint64 `json:"bad"`
}

func (r *sinkResult) print(w io.Writer, asJSON bool) error {
	if asJSON {
		return printJSON(w, r)
	}
	_, err := fmt.Fprintf(w, "%s: %d packets received on %s in %.3f s: %s packets/s, %sbit/s (engine %s, stopped by %s)\n",
		r.Name, r.Packets, r.Interface, r.Seconds, human(r.PPS), human(r.BPS), r.Engine, r.StoppedBy)
	if r.RingLost > 0 {
		fmt.Fprintf(w, "lost at the sink's own rings: %d\n", r.RingLost)
	}
	if p := r.Probes; p != nil && p.Received > 0 {
		fmt.Fprintf(w, "probes %d (%d to %d): lost %d, duplicates %d, reordered %d (by at most %d)\n",
			p.Received, p.First, p.Last, p.Lost, p.Duplicates, p.Reordered, p.MaxReorder)
	}
	if d := r.Delay; d != nil {
		fmt.Fprintf(w, "delay in us: min %.1f, median %.1f, 99 %% %.1f, max %.1f\n",
			float64(d.Min)/1e3, float64(d.P50)/1e3, float64(d.P99)/1e3, float64(d.Max)/1e3)
	}
	if v := r.Checksums; v != nil {
		fmt.Fprintf(w, "checksums: %d packets checked, %d bad\n", v.Checked, v.Bad)
	}
	return err
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// human shortens a rate with k, M or G.
func human(v float64) string {
	unit := ""
	for _, u := range []string{"k", "M", "G"} {
		if v < 1000 {
			break
		}
		v, unit = v/1000, u
	}
	return strings.TrimSuffix(fmt.Sprintf("%.2f", v), ".00") + " " + unit
}
