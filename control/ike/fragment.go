package ike

import (
	"fmt"

	"causeway/control/ike/message"
)

// A reassembly collects the fragments of one message (RFC 7383, section 2.6). Only authentic ones reach it, so nobody but
// the peer can fill it, and the peer no more than maxMessage.
type reassembly struct {
	id    uint32
	total uint16
	first message.PayloadType
	parts [][]byte
	have  int
	bytes int
}

func (r *reassembly) clear() { *r = reassembly{} }

// wants reports whether a fragment is worth decrypting.
func (r *reassembly) wants(id uint32, f message.Sealed) bool {
	switch {
	case f.Fragments > maxFragments:
		return false
	case r.total == 0 || id != r.id || f.Fragments > r.total: // the sender cuts smaller than before: all begins anew
		return true
	}
	return f.Fragments == r.total && r.parts[f.Fragment-1] == nil
}

// add takes an authentic fragment that wants has let pass. The text is kept.
func (r *reassembly) add(id uint32, f message.Sealed, text []byte, most int) error {
	if r.total == 0 || id != r.id || f.Fragments > r.total {
		*r = reassembly{id: id, total: f.Fragments, parts: make([][]byte, f.Fragments)}
	}
	if r.bytes += len(text); r.bytes > most {
		r.clear()
		return fmt.Errorf("a message in fragments has more than %d bytes", most)
	}
	if f.Fragment == 1 {
		r.first = f.First
	}
	if text == nil {
		text = []byte{}
	}
	r.parts[f.Fragment-1] = text
	r.have++
	return nil
}

func (r *reassembly) complete() bool { return r.total > 0 && r.have == int(r.total) }

// take returns the whole message.
func (r *reassembly) take() (message.PayloadType, []byte) {
	text := make([]byte, 0, r.bytes)
	for _, p := range r.parts {
		text = append(text, p...)
	}
	first := r.first
	r.clear()
	return first, text
}
