package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"

	"causeway/pipeline"
	"causeway/xsk"
)

// What stands here is slow and obvious: it makes packets and says what must become of them, with no code of the
// pipeline's.

func ethernet(src, dst [6]byte, ip []byte) []byte {
	return append(append(append(append([]byte{}, dst[:]...), src[:]...), 8, 0), ip...)
}

func ipv4(src, dst netip.Addr, proto, ttl byte, df bool, id uint16, payload []byte) []byte {
	h := make([]byte, 20, 20+len(payload))
	h[0], h[8], h[9] = 0x45, ttl, proto
	binary.BigEndian.PutUint16(h[2:], uint16(20+len(payload)))
	binary.BigEndian.PutUint16(h[4:], id)
	if df {
		h[6] = 0x40
	}
	s, d := src.As4(), dst.As4()
	copy(h[12:], s[:])
	copy(h[16:], d[:])
	binary.BigEndian.PutUint16(h[10:], checksum(h))
	return append(h, payload...)
}

func checksum(b []byte) uint16 {
	var s uint32
	for i := 0; i < len(b); i += 2 {
		s += uint32(b[i])<<8 | uint32(b[i+1])
	}
	for s > 0xffff {
		s = s&0xffff + s>>16
	}
	return ^uint16(s)
}

// udpPacket is an IPv4 packet of size bytes in all.
func udpPacket(src, dst netip.Addr, size int) []byte {
	p := make([]byte, size-20)
	binary.BigEndian.PutUint16(p, 1111)
	binary.BigEndian.PutUint16(p[2:], 2222)
	binary.BigEndian.PutUint16(p[4:], uint16(len(p)))
	for i := 8; i < len(p); i++ {
		p[i] = byte(i)
	}
	return ipv4(src, dst, 17, 64, false, 99, p)
}

func grePacket(src, dst netip.Addr, inner []byte) []byte {
	return ipv4(src, dst, 47, 64, true, 0, append([]byte{0, 0, 8, 0}, inner...))
}

// expect says which frame must leave for a frame that came.
func (w *world) expect(frame []byte, c pipelineCase) []byte {
	ip := frame[14:]
	if c.kind == "decap" || c.kind == "lateral" {
		ip = ip[24:]
	}
	next := bytes.Clone(ip)
	next[8]--
	next[10], next[11] = 0, 0
	binary.BigEndian.PutUint16(next[10:], checksum(next[:20]))
	if c.kind == "encap" || c.kind == "lateral" {
		dst, _ := netip.AddrFromSlice(next[16:20])
		for i := range w.spec.Tunnels {
			if inside(i).Contains(dst) {
				return ethernet(ownMAC, hopMAC, grePacket(endpoint, customer(i), next))
			}
		}
		return nil
	}
	return ethernet(ownMAC, hopMAC, next)
}

// verify sends the rotation once more and compares every frame that leaves with the oracle's.
func verify(w *world, q *rotation, u *xsk.UMEM, packets [][]byte, c pipelineCase) error {
	want := map[string]int{}
	for _, p := range packets {
		want[string(w.expect(p, c))]++
	}
	q.record = true
	defer func() { q.record = false }()
	seen := 0
	for seen < frames {
		q.last = q.last[:0]
		n := w.engine.Poll(0)
		if n == 0 {
			return fmt.Errorf("only %d of %d frames came back", seen, frames)
		}
		if len(q.last) != n {
			return fmt.Errorf("%d frames went in and %d came out: %+v", n, len(q.last), dropped(w.engine))
		}
		for _, d := range q.last {
			got := string(u.Bytes()[d.Addr : d.Addr+uint64(d.Len)])
			if want[got] == 0 {
				return fmt.Errorf("a frame left that the oracle does not know: %x", got)
			}
			want[got]--
			seen++
		}
	}
	return nil
}

func dropped(e *pipeline.Engine) map[string]uint64 {
	m := map[string]uint64{}
	t := e.Total()
	for r, n := range t.Dropped {
		if n > 0 {
			m[pipeline.Reason(r).String()] = n
		}
	}
	return m
}
