package ike

import (
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"causeway/control/ike/message"
	"causeway/control/ike/suite"
)

// A View is what is shown of an IKE SA. It has no keys.
type View struct {
	Tunnel             string
	SPIi, SPIr         uint64
	Initiator          bool
	Phase              string
	Suite              string
	Local, Remote      netip.AddrPort
	LocalID, RemoteID  string
	NATHere, NATThere  bool
	Established, Rekey time.Time
	Children           []ChildView
}

// A ChildView is what is shown of a pair of child SAs.
type ChildView struct {
	SPIIn, SPIOut uint32
	Suite         string
	Local, Remote string
	Made, Rekey   time.Time
	Phase         string
}

// Show lists the IKE SAs of a tunnel, oldest first, behind the established ones that which we begin just now; and what went wrong since
// a pair was made the last time, and when.
func (d *Daemon) Show(tunnel string) (views []View, why string, at time.Time) {
	for _, s := range d.allOf(tunnel) {
		s.mu.Lock()
		if s.phase != dead {
			views = append(views, s.view())
		}
		s.mu.Unlock()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.failures[tunnel]
	return views, f.why, f.at
}

// allOf lists the SAs of a tunnel, also one that we begin.
func (d *Daemon) allOf(tunnel string) []*ikeSA {
	list := d.of(tunnel)
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.opening[tunnel]; s != nil {
		list = append(list, s)
	}
	return list
}

func (s *ikeSA) view() View {
	v := View{Tunnel: s.Tunnel, SPIi: s.SPIi, SPIr: s.SPIr, Initiator: s.initiator, Phase: s.phase.String(),
		Local: s.Local, Remote: s.Remote, LocalID: s.LocalID.String(), RemoteID: s.RemoteID.String(), NATHere: s.NATHere, NATThere: s.NATThere,
		Established: s.Established, Rekey: s.Rekey}
	if s.Keys != nil {
		v.Suite = s.Suite.String()
	}
	for _, c := range s.Children {
		v.Children = append(v.Children, ChildView{SPIIn: c.SPIIn, SPIOut: c.SPIOut, Suite: c.Suite.String(),
			Local: textOf(c.Local), Remote: textOf(c.Remote), Made: c.Made, Rekey: c.Rekey, Phase: c.phase()})
	}
	return v
}

func (p Phase) String() string {
	return [...]string{"opening", "proving", "established", "replaced", "deleting", "failed", "dead"}[p]
}

func (c *ChildState) phase() string {
	switch {
	case c.deleting:
		return "deleting"
	case c.Replaced:
		return "replaced"
	case !c.Switch.IsZero():
		return "new"
	case c.rekeying:
		return "rekeying"
	}
	return "installed"
}

// wordsOf writes proposals in strongSwan's words.
func wordsOf(list []message.Proposal) string {
	words := make([]string, len(list))
	for i, p := range list {
		words[i] = suite.Words(p)
	}
	return strings.Join(words, ", ")
}

// shortLen is how much of what a peer says stands in a line, in bytes.
const shortLen = 400

// short cuts a text that a peer can make long.
func short(text string) string {
	if len(text) <= shortLen {
		return text
	}
	return text[:shortLen] + "..."
}

// offered are proposals for the log: they are written in words if the line is.
type offered []message.Proposal

// LogValue writes the proposals in words.
func (o offered) LogValue() slog.Value { return slog.StringValue(short(wordsOf(o))) }

// textOf writes selectors.
func textOf(list []message.Selector) string {
	if len(list) == 0 {
		return "none"
	}
	var out []string
	for _, s := range list {
		text := fmt.Sprintf("%v-%v", s.From, s.To)
		if p, ok := prefixesOf([]message.Selector{s}); ok && len(p) == 1 {
			text = p[0].String()
		}
		if s.Protocol != 0 || s.FromPort != 0 || s.ToPort != 65535 {
			text += fmt.Sprintf("[%d/%d-%d]", s.Protocol, s.FromPort, s.ToPort)
		}
		out = append(out, text)
	}
	return strings.Join(out, " ")
}
