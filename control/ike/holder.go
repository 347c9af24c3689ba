package ike

import (
	"net/netip"
	"time"

	"causeway/control/ike/message"
)

// Whether we live is a question about the endpoint, not about a node: any node that holds the state of an SA can answer it, without
// having the SA. It does so while the store is away: then nobody knows whether the node that has the SA lives, nobody may take the SA over,
// and a peer without an answer gives its tunnel up. Nothing is noted of it: whoever has the SA takes a message ID ahead of its own (awaits).

// aliveBytes is what a request that asks nothing has at most, with the padding of a block cipher.
const aliveBytes = 160

// How many such requests are looked at in a second, and at once. The others go to whoever has the SA, as far as that can be reached.
const (
	answersRate  = 2000
	answersBurst = 500
)

// mayAskNothing reports whether a message can be a request that asks whether we live.
func mayAskNothing(h message.Header) bool {
	return h.Exchange == message.Informational && !h.Response && h.Length <= aliveBytes
}

// answerFor answers a request that asks nothing in place of the node that has its SA. It reports whether that node need not have the
// datagram: it was answered, or was not the peer's.
func (d *Daemon) answerFor(local, remote netip.AddrPort, spi uint64, datagram []byte) bool {
	if !d.answers.allow(time.Now(), answersBurst, answersRate) { // whoever has seen an SPI can ask
		return false
	}
	f, err := d.fleet.Load(spi)
	if err != nil {
		return false
	}
	st, err := parseState(f.State)
	clear(f.State)
	if err != nil {
		return false
	}
	defer st.wipe()
	st.atTimes(d.fleet.Own)
	s := d.newSA(st.Initiator) // which no table has: it is over when this returns
	s.State, s.phase = *st, st.Phase
	s.Keys = nil // setKeys wipes those before
	if s.setKeys(st.Keys) != nil || s.phase == deleting || !time.Now().Before(s.Expire) || d.index.Load().byName[s.Tunnel] == nil {
		return false
	}
	b := datagram
	if local.Port() == NATPort {
		b = b[4:]
	}
	h, err := message.ParseHeader(b)
	if err != nil || h.Initiator == s.initiator || h.ID < s.NextResponse {
		return false
	}
	first, text, complete, err := s.open(h, b)
	if err != nil {
		s.unauthentic(err)
		return true
	}
	if c, err := message.Parse(first, text); !complete || err != nil || !asksNothing(h, c) {
		return false
	}
	answer, err := s.seal(h.Exchange, h.ID, true, &message.Contents{})
	if err != nil {
		return false
	}
	if !s.NATThere { // as where whoever has the SA sends its answers: only a peer behind a NAT moves
		local, remote = s.Local, s.Remote
	}
	d.counts.answeredFor.Add(1)
	for _, b := range answer {
		d.transmit(local, remote, b)
	}
	return true
}
