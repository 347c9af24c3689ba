package main

import "encoding/binary"

// The probe is the first 18 bytes of a generated payload, as much as the smallest Ethernet frame leaves for UDP over
// IPv4. The sink counts loss, duplicates, order and delay by it.
//
//	0      4                10                       18
//	| magic | sequence (48)  | time sent (64)         |   all big-endian
//
// Time is CLOCK_MONOTONIC in nanoseconds: a delay means something only when both ends share a kernel.
const (
	probeMagic = 0x43576367
	probeSeq   = 4
	probeTime  = 10
	probeLen   = 18
	maxSeq     = 1<<48 - 1
)

// readProbe returns the fields of a probe; ok is false when b does not begin with one.
func readProbe(b []byte) (seq, sentAt uint64, ok bool) {
	if len(b) < probeLen || binary.BigEndian.Uint32(b) != probeMagic {
		return 0, 0, false
	}
	seq = uint64(binary.BigEndian.Uint16(b[probeSeq:]))<<32 | uint64(binary.BigEndian.Uint32(b[probeSeq+2:]))
	return seq, binary.BigEndian.Uint64(b[probeTime:]), true
}

func putProbe(b []byte, seq, now uint64) {
	binary.BigEndian.PutUint16(b[probeSeq:], uint16(seq>>32))
	binary.BigEndian.PutUint32(b[probeSeq+2:], uint32(seq))
	binary.BigEndian.PutUint64(b[probeTime:], now)
}

// probeSum is the ones-complement partial sum of what putProbe writes.
func probeSum(seq, now uint64) uint32 {
	return uint32(seq>>32&0xffff) + sum32(uint32(seq)) + sum32(uint32(now>>32)) + sum32(uint32(now))
}

// sum32 is the partial sum of the two 16-bit words of v.
func sum32(v uint32) uint32 { return v>>16 + v&0xffff }

// sumBytes adds the big-endian 16-bit words of b to sum; an odd last byte is the high half of a word (RFC 1071).
// The result is exact for less than 128 KiB.
func sumBytes(b []byte, sum uint32) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	return sum
}

// finish folds a partial sum and inverts it: the value of a checksum field.
func finish(sum uint32) uint16 {
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	return ^uint16(sum)
}
