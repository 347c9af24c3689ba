package main

import (
	"sync/atomic"

	"net/netip"

	"causeway/control/ike/sa"
)

// An agreeablePlane is a dataplane that keeps nothing, so that IKE alone is measured. Every pair has had a packet from its
// peer: one that replaces another is used at the next look at it, as under traffic.
type agreeablePlane struct {
	spis      atomic.Uint32
	ivs       atomic.Uint64
	installed atomic.Int64
}

func newAgreeablePlane() *agreeablePlane {
	p := &agreeablePlane{}
	p.spis.Store(0x1000)
	return p
}

func (p *agreeablePlane) ReserveSPI() (uint32, error) { return p.spis.Add(1), nil }
func (p *agreeablePlane) ReleaseSPI(uint32)           {}

func (p *agreeablePlane) Install(*sa.Child) error {
	p.installed.Add(1)
	return nil
}

func (p *agreeablePlane) Use(string, uint32) error            { return nil }
func (p *agreeablePlane) Remove(_ string, spis ...uint32)     { p.installed.Add(-int64(len(spis))) }
func (p *agreeablePlane) Move(string, uint32, netip.AddrPort) {}

func (p *agreeablePlane) Usage(string, uint32) (sa.Usage, bool) {
	return sa.Usage{PacketsIn: 1, BytesIn: 64}, true
}

func (p *agreeablePlane) IV() (uint64, error) { return p.ivs.Add(1), nil }
