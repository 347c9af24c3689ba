package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"strings"

	"causeway/control/api"
)

// The fields of `causeway replay -o json` are a contract like those of package api, and explained in the same place:
// docs/operations.md, JSON.

// replayOutcome is what became of a frame.
type replayOutcome string

// The outcomes. Frames of the last two are not given to the workers.
const (
	replayForwarded replayOutcome = "forwarded"
	replayDelivered replayOutcome = "delivered"
	replayPunted    replayOutcome = "punted"
	replayDropped   replayOutcome = "dropped"
	replayHeld      replayOutcome = "held"
	replayCut       replayOutcome = "cut"
	replayTooLarge  replayOutcome = "too_large"
)

// replayHead says what is replayed.
type replayHead struct {
	Config    string `json:"config"`
	Input     string `json:"input"`
	Interface string `json:"interface"`         // that the frames come in by
	Default   string `json:"default_interface"` // of the made-up next hop
}

// replayFrame is one frame of the capture.
type replayFrame struct {
	Frame      int           `json:"frame"`    // its number in the capture, from 1
	Time       string        `json:"time"`     // when it was captured
	Length     int           `json:"length"`   // bytes that it had on the wire
	Captured   int           `json:"captured"` // bytes of it that the capture has
	Outcome    replayOutcome `json:"outcome"`
	FromTunnel string        `json:"from_tunnel,omitempty"`
	IntoTunnel string        `json:"into_tunnel,omitempty"`
	Fragments  int           `json:"fragments,omitempty"`  // of the datagram that it completed
	Originated int           `json:"originated,omitempty"` // packets that the node made about it: an answer, an ICMP error
	Drops      []api.Drop    `json:"drops,omitempty"`
	Sent       []replaySent  `json:"sent,omitempty"`
}

// replaySent is a frame that left.
type replaySent struct {
	Number    int    `json:"number"` // in OUT, from 1
	Interface string `json:"interface"`
	Length    int    `json:"length"`
}

// replaySummary is what stands behind the frames.
type replaySummary struct {
	Cut      int        `json:"cut"`
	TooLarge int        `json:"too_large"`
	Drops    []api.Drop `json:"drops"`
	Total    api.Frames `json:"total"`
	Error    string     `json:"error,omitempty"` // why the capture was not read to its end
}

// replayReport prints while frames are replayed: a capture may have millions.
type replayReport interface {
	frame(*replayFrame)
	end(*replaySummary)
}

func newReplayReport(w *bufio.Writer, format string, h replayHead) replayReport {
	if format == "json" {
		return newReplayJSON(w, h)
	}
	fmt.Fprintf(w, `%s, %s: as if it came in by %s. There is no kernel here: what no route of the file covers, and the
outer packets of tunnels, go to a made-up next hop on %s; of the host's addresses only the endpoints are known.

 FRAME   BYTES  OUTCOME    WHAT
`, h.Config, h.Input, h.Interface, h.Default)
	return &replayText{w}
}

// replayText is for people.
type replayText struct{ w *bufio.Writer }

func (t *replayText) frame(f *replayFrame) {
	fmt.Fprintf(t.w, "%6d  %6d  %-9s  %s\n", f.Frame, f.Length, f.Outcome, strings.Join(f.words(), "; "))
}

// words says what happened, in the order in which it did.
func (f *replayFrame) words() (w []string) {
	switch f.Outcome {
	case replayCut:
		return []string{fmt.Sprintf("not fed: the capture has %d bytes of it", f.Captured)}
	case replayTooLarge:
		return []string{"not fed: longer than a frame of the workers"}
	case replayHeld:
		w = append(w, "waits for the other fragments of its datagram")
	case replayPunted:
		w = append(w, "goes to the host")
	}
	if f.Fragments > 0 {
		w = append(w, fmt.Sprintf("completes a datagram of %d fragments", f.Fragments))
	}
	if f.FromTunnel != "" {
		w = append(w, "from "+f.FromTunnel)
	}
	if f.IntoTunnel != "" {
		w = append(w, "into "+f.IntoTunnel)
	}
	for _, d := range f.Drops {
		w = append(w, dropWords(&d))
	}
	if f.Originated > 0 {
		w = append(w, "answered")
	}
	for _, s := range f.Sent {
		w = append(w, fmt.Sprintf("by %s #%d (%d bytes)", s.Interface, s.Number, s.Length))
	}
	return w
}

func dropWords(d *api.Drop) string {
	where := d.Stage
	if d.RFC != "" {
		where += ", " + d.RFC
	}
	s := fmt.Sprintf("%s: %s (%s)", d.Reason, d.Sentence, where)
	if d.Packets > 1 {
		s += fmt.Sprintf(", %d frames", d.Packets)
	}
	return s
}

func (t *replayText) end(s *replaySummary) {
	fmt.Fprintln(t.w)
	dropTable(t.w, s.Drops)
	accountLines(t.w, s.Total)
	fmt.Fprintf(t.w, "not fed:    %d = cut by the capture %d + too large %d\n", s.Cut+s.TooLarge, s.Cut, s.TooLarge)
}

// replayJSON writes one object, whose list of frames grows while they are replayed.
type replayJSON struct {
	w     *bufio.Writer
	comma string // before the next frame
}

func newReplayJSON(w *bufio.Writer, h replayHead) *replayJSON {
	fmt.Fprintf(w, "{%s,\n\"frames\": [", members(h))
	return &replayJSON{w: w}
}

func (j *replayJSON) frame(f *replayFrame) {
	fmt.Fprintf(j.w, "%s\n{%s}", j.comma, members(f))
	j.comma = ","
}

func (j *replayJSON) end(s *replaySummary) {
	fmt.Fprintf(j.w, "\n],\n%s}\n", members(s))
}

// members is an object without its braces. Strings, numbers and lists of them can always be encoded.
func members(v any) []byte {
	b, _ := json.Marshal(v)
	return b[1 : len(b)-1]
}
